"""`core.ports.Store` on PostgreSQL."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import inf
from time import monotonic
from typing import TypeVar

import psycopg

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Snapshot, Transaction
from trien_server.store.postgresql.committer import CommitCounts, Committer
from trien_server.store.postgresql.connections import Connection, connect, detailed, look_at, unavailable
from trien_server.store.postgresql.lineage import Lineage
from trien_server.store.postgresql.pool import Pool
from trien_server.store.postgresql.snapshot import PostgresqlSnapshot, refusal_of
from trien_server.store.schema import SchemaState, postgresql_state_of, require_current

T = TypeVar("T")

_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NOW = b"SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPEN_SECONDS = 10.0


class PostgresqlStore:
    """A database that several nodes share.

    Nothing that goes wrong is fatal: a database that is away or slow is waited for within each caller's time, and
    used again when it is back. A server that may lack acknowledged commits is refused until the process is started
    anew (`lineage`).

    Raises `SchemaMismatch` when the database needs a migration, `StoreUnavailable` when it cannot be used, or its
    settings cannot keep promise P1.
    """

    def __init__(
        self, conninfo: str, *, max_connections: int = 16, read_patience: float = 5.0, look_every: float = 30.0
    ) -> None:
        self._conninfo = conninfo
        self._read_patience = read_patience
        self._look_every = look_every
        self._lineage = Lineage()
        self._pool = Pool(self._open, max_connections, self._usable)
        self._committer = Committer(pool=self._pool, lineage=self._lineage)
        try:
            connection = self._open()
        except StoreUnavailable as refusal:
            raise detailed(refusal) from refusal.__cause__
        try:
            require_current(self._schema_state(connection))
        except BaseException:
            connection.close()
            raise
        self._pool.add(connection)

    @property
    def counts(self) -> CommitCounts:
        """How many commits this store made, how many requests they carried, and how often others were in the way."""
        return self._committer.counts

    def read(self, work: Callable[[Snapshot], T]) -> T:
        deadline = monotonic() + self._read_patience
        while True:
            with self._pool.connection(deadline) as connection:
                try:
                    return self._read(connection, work)
                except _LostBefore:
                    continue

    def _read(self, connection: Connection, work: Callable[[Snapshot], T]) -> T:
        snapshot = PostgresqlSnapshot(connection, _BEGIN_READ)
        try:
            result = work(snapshot)
        except BaseException:
            self._raise_outage(connection, snapshot)
            raise
        finally:
            snapshot.end()
            if snapshot.begun and not connection.closed:
                self._end_read(connection)
        self._raise_outage(connection, snapshot)
        return result

    def _end_read(self, connection: Connection) -> None:
        try:
            connection.command("COMMIT")
        except psycopg.Error:
            connection.close()

    def _raise_outage(self, connection: Connection, snapshot: PostgresqlSnapshot) -> None:
        """Raises when the database failed under the work, also when the work caught it."""
        if snapshot.outage is None:
            return
        if connection.closed:
            self._pool.discard_free()
            if not snapshot.answered:
                raise _LostBefore
        raise refusal_of(snapshot) or unavailable(snapshot.outage)

    def transact(self, work: Callable[[Transaction], T], *, timeout: float) -> T:
        return self._committer.submit(work, timeout)

    def now(self) -> datetime:
        deadline = monotonic() + self._read_patience
        while True:
            with self._pool.connection(deadline) as connection:
                try:
                    row = connection.execute(_NOW).fetchone()
                except psycopg.Error as error:
                    if not connection.closed:
                        raise unavailable(error) from error
                    self._pool.discard_free()
                    continue
                assert row is not None  # noqa: S101
                return _EPOCH + timedelta(microseconds=row[0])

    def _schema_state(self, connection: Connection) -> SchemaState:
        try:
            return postgresql_state_of(connection)
        except psycopg.Error as error:
            raise unavailable(error) from error

    def close(self) -> None:
        self._pool.close()

    def _open(self) -> Connection:
        connection, look = connect(self._conninfo, deadline=monotonic() + _OPEN_SECONDS)
        try:
            self._lineage.join(connection, look)
        except BaseException:
            connection.close()
            raise
        connection.deadline = inf
        return connection

    def _usable(self, connection: Connection) -> bool:
        """Tells whether a connection may be lent again; looks again at the settings from time to time."""
        self._lineage.refuse_if_over()
        if monotonic() - connection.looked_at > self._look_every and not connection.closed:
            self._lineage.join(connection, look_at(connection))
        return not connection.closed and connection.generation == self._lineage.generation


class _LostBefore(Exception):  # noqa: N818
    """The connection was dead already when it was lent."""
