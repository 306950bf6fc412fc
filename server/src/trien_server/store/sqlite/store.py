"""`core.ports.Store` on SQLite."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Snapshot, Transaction
from trien_server.store.schema import HEAD, SchemaState, require_current, state_of
from trien_server.store.sqlite import connections
from trien_server.store.sqlite.committer import CommitCounts, Committer
from trien_server.store.sqlite.lock import WriterLock
from trien_server.store.sqlite.readers import Readers
from trien_server.store.sqlite.schema_guard import require_known_schema
from trien_server.store.sqlite.snapshot import SqliteSnapshot

T = TypeVar("T")


class SqliteStore:
    """The embedded database of one machine; several processes may have it open.

    `on_fatal` is called once, from the writer's thread, when the disk failed under a write: from then
    on everything is refused, and the process is expected to end. Whatever was not acknowledged may be
    there afterwards or not.

    Raises `SchemaMismatch` when the database needs a migration, `StoreUnavailable` when it cannot be
    used or its settings cannot keep promise P1.
    """

    def __init__(
        self,
        path: Path,
        *,
        on_fatal: Callable[[str], None],
        max_readers: int = 16,
        max_shared: int = 128,
        read_patience: float = 5.0,
    ) -> None:
        if not path.exists():
            require_current(SchemaState(None, HEAD))
        connection = connections.open_writer(path)
        try:
            with connections.translated_errors():
                require_current(state_of(connection))
            self._lock = _writer_lock(path)
        except BaseException:
            connection.close()
            raise
        first = [connection]
        self._readers = Readers(path, max_readers, read_patience)
        self._committer = Committer(
            connect=lambda: first.pop() if first else connections.open_writer(path),
            lock=self._lock,
            on_fatal=on_fatal,
            max_shared=max_shared,
        )
        self._closing = threading.Lock()
        self._closed = False

    @property
    def counts(self) -> CommitCounts:
        """How many commits this store made, and how many requests they carried."""
        return self._committer.counts

    def read(self, work: Callable[[Snapshot], T]) -> T:
        with self._readers.connection(self._committer.refuse_if_over) as connection:
            with connections.translated_errors():
                connection.execute("BEGIN")
            snapshot = SqliteSnapshot(connection)
            try:
                with connections.translated_errors():
                    require_known_schema(connection)
                return work(snapshot)
            finally:
                snapshot.end()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def transact(self, work: Callable[[Transaction], T], *, timeout: float) -> T:
        return self._committer.submit(work, timeout)

    def now(self) -> datetime:
        with self._readers.connection(self._committer.refuse_if_over) as connection, connections.translated_errors():
            (text,) = connection.execute("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')").fetchone()
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    def close(self) -> None:
        with self._closing:
            if self._closed:
                return
            self._closed = True
            # The writer goes last: the last connection to leave copies the write-ahead log, and readers cannot.
            self._readers.close()
            self._committer.close()
            self._lock.close()


def _writer_lock(path: Path) -> WriterLock:
    try:
        return WriterLock(path)
    except OSError as error:
        raise StoreUnavailable(f"The writers' lock beside {path} cannot be opened: {error.strerror}.") from error
