"""Shared commits: requests that wait at the same time are committed together.

One thread owns the writing connection. It runs each request's `work` behind a savepoint of its own,
commits once for all that came meanwhile, and only then answers them: also the ones whose work raised,
for what they saw may have been another one's write that was not durable yet.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic
from typing import Any, TypeVar, cast

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Transaction
from trien_server.store.sqlite.connections import is_disk_failure, primary_code
from trien_server.store.sqlite.lock import WriterLock
from trien_server.store.sqlite.schema_guard import require_known_schema
from trien_server.store.sqlite.snapshot import SqliteTransaction

T = TypeVar("T")

_CHECKPOINT_COMMITS = 200
_LARGE_LOG_FRAMES = 16_384
"""64 MiB of write-ahead log: then new readers and writers wait once, until the log starts anew."""


class _State(Enum):
    QUEUED = 1
    RUNNING = 2
    FINISHED = 3


class _Request:
    """One caller's work. `finished` is a lock that its caller waits on and the writer releases."""

    __slots__ = ("deadline", "error", "finished", "result", "state", "work")

    def __init__(self, work: Callable[[Transaction], Any], deadline: float) -> None:
        self.work = work
        self.deadline = deadline
        self.state = _State.QUEUED
        self.result: Any = None
        self.error: BaseException | None = None
        self.finished = threading.Lock()
        self.finished.acquire()


@dataclass(frozen=True)
class CommitCounts:
    """How many commits there were, and how many requests they carried."""

    commits: int
    works: int


class Committer:
    """The writer thread. `connect` opens its connection, now and again after an outage."""

    def __init__(
        self,
        *,
        connect: Callable[[], sqlite3.Connection],
        lock: WriterLock,
        on_fatal: Callable[[str], None],
        max_shared: int = 128,
    ) -> None:
        self._connect = connect
        self._lock = lock
        self._on_fatal = on_fatal
        self._max_shared = max_shared
        self._connection: sqlite3.Connection | None = connect()
        self._mutex = threading.Lock()
        self._arrived = threading.Condition(self._mutex)
        self._queue: deque[_Request] = deque()
        self._refusal: str | None = None
        self._fatal: str | None = None
        self._commits = 0
        self._works = 0
        self._commits_since_checkpoint = 0
        self._large_log = _LARGE_LOG_FRAMES
        self._thread = threading.Thread(target=self._run, name="trien-store-writer", daemon=True)
        self._thread.start()

    @property
    def counts(self) -> CommitCounts:
        return CommitCounts(self._commits, self._works)

    def refuse_if_over(self) -> None:
        """Raises `StoreUnavailable` after a fatal error or `close`."""
        if self._refusal is not None:
            raise StoreUnavailable(self._refusal)

    def submit(self, work: Callable[[Transaction], T], timeout: float) -> T:
        """Runs `work` in a shared commit; see `core.ports.Store.transact`."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("a work may not wait for another transaction")
        request = _Request(work, monotonic() + timeout)
        with self._mutex:
            self.refuse_if_over()
            self._queue.append(request)
            self._arrived.notify()
        if not request.finished.acquire(timeout=min(max(timeout, 0), threading.TIMEOUT_MAX)):
            self._withdraw(request)
        error, request.error = request.error, None
        if error is None:
            return cast(T, request.result)
        try:
            raise error
        finally:
            # The traceback holds this frame, and the writer's that holds the request: they would keep each other alive.
            del error, request

    def close(self, patience: float = 30.0) -> None:
        """Finishes what is queued and ends the thread; waits at most `patience` seconds for it."""
        with self._mutex:
            self._refusal = self._refusal or "The database is closed."
            self._arrived.notify()
        self._thread.join(patience)

    def _withdraw(self, request: _Request) -> None:
        with self._mutex:
            if request.state is _State.QUEUED:
                self._queue.remove(request)
                raise StoreUnavailable("The database did not begin in time; nothing was written.")
            if request.state is _State.RUNNING:
                raise StoreUnavailable("The database did not answer in time; whether it committed is not known.")

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - without this thread nothing is written: the process must know
            self._end(f"The database's writer failed: {type(error).__name__}: {error}.")
        if self._fatal is None:
            self._disconnect()
            return
        # The connection stays open: closing it would write and flush once more.
        self._answer(self._refuse_queued(self._fatal))
        self._on_fatal(self._fatal)

    def _serve(self) -> None:
        while self._wait_for_requests():
            finished: list[_Request] = []
            taken = False
            try:
                with self._lock:
                    taken = True
                    finished = self._share_commit()
            except OSError as error:
                if taken:
                    # What was committed is answered all the same. The kernel takes the lock when the process ends.
                    self._end(f"The writers' lock cannot be given back: {error.strerror}.")
                else:
                    finished = self._refuse_queued(f"The writers' lock cannot be taken: {error.strerror}.")
            self._answer(finished)
            del finished
            if self._fatal is None and self._commits_since_checkpoint >= _CHECKPOINT_COMMITS:
                self._checkpoint()

    def _wait_for_requests(self) -> bool:
        with self._mutex:
            while not self._queue:
                if self._refusal is not None:
                    return False
                self._arrived.wait()
            return self._fatal is None

    def _take(self) -> _Request | None:
        """Takes the next request that has time left; from then on its caller cannot withdraw it."""
        with self._mutex:
            while self._queue:
                request = self._queue.popleft()
                if request.deadline > monotonic():
                    request.state = _State.RUNNING
                    return request
                request.error = StoreUnavailable("The database did not begin in time; nothing was written.")
                request.state = _State.FINISHED
                request.finished.release()
        return None

    def _share_commit(self) -> list[_Request]:
        """Runs and commits what is queued; returns the requests that have their result."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            connection.execute("BEGIN IMMEDIATE")
            try:
                require_known_schema(connection)
            except StoreUnavailable:
                connection.execute("ROLLBACK")
                self._disconnect()
                raise
        except StoreUnavailable as error:
            return self._refuse_queued(error.message)
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_BUSY:
                return []  # Still queued: each is withdrawn when its own time is over.
            self._judge(error)
            self._disconnect()
            return self._refuse_queued(_unavailable("The database cannot be used now", error).message)
        requests: list[_Request] = []
        while len(requests) < self._max_shared and (request := self._take()) is not None:
            requests.append(request)
            if not self._run_one(connection, request):
                break
        self._commit(connection, requests)
        return requests

    def _run_one(self, connection: sqlite3.Connection, request: _Request) -> bool:
        """Runs one work behind a savepoint. Returns False when the whole transaction was lost."""
        transaction = SqliteTransaction(connection)
        try:
            connection.execute("SAVEPOINT work")
            try:
                request.result = request.work(transaction)
            except BaseException as error:  # noqa: BLE001 - raised where the caller waits
                request.error = error
            transaction.end()
            if transaction.outage is not None:
                raise transaction.outage
            if request.error is not None:
                connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
        except sqlite3.Error as error:
            # Also when `work` caught it: what it wrote before is incomplete.
            request.error = _unavailable("The database cannot be used now", error)
            self._judge(error)
            return self._undo_one(connection)
        return True

    def _undo_one(self, connection: sqlite3.Connection) -> bool:
        """Takes back a work that met an outage. Returns False when that took the whole transaction along."""
        if self._fatal is not None or not connection.in_transaction:
            return False
        try:
            connection.execute("ROLLBACK TO work")
            connection.execute("RELEASE work")
        except sqlite3.Error as error:
            self._judge(error)
            connection.execute("ROLLBACK")
            return False
        return True

    def _commit(self, connection: sqlite3.Connection, requests: list[_Request]) -> None:
        try:
            if self._fatal is not None:
                raise sqlite3.OperationalError(self._fatal)
            if not connection.in_transaction:
                raise sqlite3.OperationalError("the transaction was rolled back")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # Nobody knows what is durable now: nobody acts on it, whatever their work returned or raised.
            self._judge(error)
            for request in requests:
                request.result = None
                request.error = _unavailable("The database did not commit", error)
            self._roll_back(connection)
            return
        if requests:
            self._commits += 1
            self._works += len(requests)
            self._commits_since_checkpoint += 1

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if self._fatal is not None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._judge(error)
            self._disconnect()

    def _judge(self, error: sqlite3.Error) -> None:
        """Notes an error after which nothing in memory can be believed: a write, a read or a flush that failed.

        After a failed fsync the kernel may have dropped the pages and say yes the next time: only a new
        process that reads the disk again knows what is there.
        """
        if is_disk_failure(error):
            self._end(f"The database's disk failed: {getattr(error, 'sqlite_errorname', error)}.")

    def _end(self, reason: str) -> None:
        with self._mutex:
            self._fatal = self._refusal = reason

    def _checkpoint(self) -> None:
        """Copies the write-ahead log into the database, behind the answers; SQLite's own way hides errors."""
        self._commits_since_checkpoint = 0
        try:
            if self._connection is None:
                return
            frames = self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
            if frames > self._large_log:
                with self._lock:
                    (kept, *_) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                # A reader that stays, such as a backup, keeps the log: ask again only when it grew as much again.
                self._large_log = frames + _LARGE_LOG_FRAMES if kept else _LARGE_LOG_FRAMES
        except sqlite3.Error as error:
            self._judge(error)
        except OSError:
            return  # The lock: the next commit reports it.

    def _refuse_queued(self, message: str) -> list[_Request]:
        with self._mutex:
            refused = list(self._queue)
            self._queue.clear()
        for request in refused:
            request.error = StoreUnavailable(message)
        return refused

    def _answer(self, requests: list[_Request]) -> None:
        with self._mutex:
            for request in requests:
                request.state = _State.FINISHED
        for request in requests:
            request.finished.release()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                self._judge(error)


def _unavailable(message: str, error: sqlite3.Error) -> StoreUnavailable:
    unavailable = StoreUnavailable(f"{message}: {error}.")
    unavailable.__cause__ = error
    return unavailable
