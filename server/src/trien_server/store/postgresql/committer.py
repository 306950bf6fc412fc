"""Runs a work in a serializable transaction, again when others were in its way, until its commit's result is known.

Each work has a transaction and a connection of its own; PostgreSQL flushes the commits that come at the same time
together. Transactions run side by side under PostgreSQL's serializable isolation. One that lost too often to
others runs alone: it takes a lock that all the others share, so that it cannot lose again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, TypeVar

import psycopg

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Transaction
from trien_server.store.postgresql.connections import Connection, is_conflict, is_outage, unavailable
from trien_server.store.postgresql.lineage import Lineage, Witness
from trien_server.store.postgresql.pool import Pool
from trien_server.store.postgresql.snapshot import PostgresqlTransaction, refusal_of

T = TypeVar("T")

_TRIES_TOGETHER = 2
_TOGETHER, _ALONE = "ROW EXCLUSIVE", "EXCLUSIVE"
_ANSWER_SECONDS = 0.05
"""The server's own waiting ends that much before the caller's, so that the connection survives."""

_BEGIN = """
BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE; SET LOCAL lock_timeout = {milliseconds};
LOCK TABLE installations IN {mode} MODE
"""
# The lock comes before the snapshot (unlike an advisory lock's SELECT): who runs alone sees all that the others wrote.
# The table has one row that hardly ever changes, and reading it is not blocked.

_NOT_BEGUN = "The database did not begin in time; nothing was written."
_NOT_KNOWN = "The database did not answer in time; whether it committed is not known."


@dataclass(frozen=True)
class CommitCounts:
    """How many commits there were, how many requests they carried, and how often a work ran in vain."""

    commits: int
    works: int
    conflicts: int
    alone: int
    """How many commits were of works that ran alone."""
    looked_up: int
    """How many commits were found by looking, their answer having been lost."""


class _RunAgain(Exception):  # noqa: N818
    """The transaction was rolled back, or never began, for no fault of its own."""


class Committer:
    """Runs works in the threads of their callers. May be called from any thread."""

    def __init__(self, *, pool: Pool, lineage: Lineage) -> None:
        self._pool = pool
        self._lineage = lineage
        self._mutex = threading.Lock()
        self._thread = threading.local()
        self._counts = {"commits": 0, "conflicts": 0, "alone": 0, "looked_up": 0}

    @property
    def counts(self) -> CommitCounts:
        with self._mutex:
            return CommitCounts(works=self._counts["commits"], **self._counts)

    def submit(self, work: Callable[[Transaction], T], timeout: float) -> T:
        """Runs `work` and commits; see `core.ports.Store.transact`."""
        if getattr(self._thread, "inside", False):
            raise RuntimeError("a work may not wait for another transaction")
        deadline = monotonic() + timeout
        conflicts = 0
        while monotonic() < deadline:
            alone = conflicts >= _TRIES_TOGETHER
            try:
                result, pending = self._run(work, deadline, alone)
            except _RunAgain as again:
                if isinstance(again.__cause__, psycopg.Error) and is_conflict(again.__cause__):
                    conflicts += 1
                    self._count("conflicts")
                continue
            if pending is not None:
                self._look_up(pending, deadline)
            if alone:
                self._count("alone")
            self._count("commits")
            return result
        raise StoreUnavailable(_NOT_BEGUN)

    def _run(self, work: Callable[[Transaction], T], deadline: float, alone: bool) -> tuple[T, "_Pending | None"]:
        """Runs and commits once. Returns the result, and what must be looked up when the answer was lost."""
        with self._pool.connection(deadline) as connection:
            milliseconds = max(1, int((deadline - monotonic() - _ANSWER_SECONDS) * 1000))
            mode = _ALONE if alone else _TOGETHER
            transaction = PostgresqlTransaction(connection, _BEGIN.format(milliseconds=milliseconds, mode=mode))
            self._thread.inside = True
            try:
                result = work(transaction)
            except BaseException:
                self._raise_outage(connection, transaction)
                # Without writes a commit tells whether what the work saw, and raised for, was serializable.
                self._finish(connection, transaction, "ROLLBACK" if transaction.transaction_id else "COMMIT")
                raise
            finally:
                self._thread.inside = False
                transaction.end()
            self._raise_outage(connection, transaction)
            if monotonic() >= deadline or connection.generation != self._lineage.generation:
                self._finish(connection, transaction, "ROLLBACK")
                raise StoreUnavailable(_NOT_BEGUN)
            return result, self._commit(connection, transaction)

    def _raise_outage(self, connection: Connection, transaction: PostgresqlTransaction) -> None:
        """Raises when the database failed under the work, also when the work caught it."""
        error = transaction.outage
        if error is None:
            return
        lost = connection.closed
        if lost:
            self._pool.discard_free()
        else:
            _roll_back(connection)
        if is_conflict(error) or (lost and not transaction.answered):
            raise _RunAgain from error
        raise refusal_of(transaction) or error

    def _finish(self, connection: Connection, transaction: PostgresqlTransaction, statement: str) -> None:
        """Ends a transaction of which nothing stays."""
        if not transaction.begun:
            return
        if statement == "ROLLBACK":
            _roll_back(connection)
            return
        try:
            connection.command(statement)
        except psycopg.Error as error:
            if is_conflict(error):
                raise _RunAgain from error
            raise unavailable(error) from error

    def _commit(self, connection: Connection, transaction: PostgresqlTransaction) -> "_Pending | None":
        if not transaction.begun:
            return None
        generation = connection.generation
        warnings = connection.warnings
        warnings.clear()
        try:
            status = connection.command("COMMIT")
        except psycopg.Error as error:
            if is_conflict(error):
                raise _RunAgain from error
            if not connection.closed or isinstance(error, psycopg.IntegrityError):
                # The server itself said that it did not commit.
                raise (unavailable(error, "The database did not commit") if is_outage(error) else error) from error
            self._pool.discard_free()
            if transaction.transaction_id is None or transaction.witness is None:
                raise StoreUnavailable(_NOT_KNOWN) from error
            return _Pending(transaction.transaction_id, transaction.witness, generation, error)
        if status != "COMMIT":
            raise StoreUnavailable("The database did not commit.")
        if warnings:
            # "canceling wait for synchronous replication": here, but perhaps on no standby.
            raise StoreUnavailable(f"Whether the commit is durable is not known: {warnings[0]}.")
        if transaction.witness is not None:
            self._lineage.acknowledged(transaction.witness)
        return None

    def _look_up(self, pending: "_Pending", deadline: float) -> None:
        """Returns when the transaction was committed; raises `StoreUnavailable` for everything else (P1)."""
        while monotonic() < deadline:
            try:
                with self._pool.connection(deadline) as connection:
                    if connection.generation != pending.generation:
                        break
                    found = pending.found(connection)
            except StoreUnavailable:
                # Starting again, perhaps.
                sleep(min(0.1, max(0.0, deadline - monotonic())))
                continue
            if found:
                self._lineage.acknowledged(pending.witness)
                self._count("looked_up")
                return
            if found is False:
                raise StoreUnavailable("The database did not commit: the connection was lost.") from pending.error
            sleep(0.02)
        raise StoreUnavailable(_NOT_KNOWN) from pending.error

    def _count(self, what: str) -> None:
        with self._mutex:
            self._counts[what] += 1


@dataclass(frozen=True)
class _Pending:
    """A commit whose answer was lost."""

    transaction_id: str
    witness: Witness
    generation: int
    error: psycopg.Error

    def found(self, connection: Connection) -> bool | None:
        """Tells whether it was committed; None while that is not decided. Raises `StoreUnavailable`.

        The identifier alone would not do: after a crash of the server another transaction may get it anew. So a row
        that the transaction wrote must be there too, by this transaction. And where commits wait for a standby,
        the lost one was perhaps not waited for: a commit of our own behind it is.
        """
        row_there = f'SELECT xmin::text FROM "{self.witness.table}" WHERE {self.witness.condition}'  # noqa: S608
        try:
            connection.command("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            status = _first(connection, b"SELECT pg_xact_status($1::text::xid8)", self.transaction_id)
            if status == "committed":
                writer = _first(connection, row_there.encode(), *self.witness.arguments)
                _first(connection, b"SELECT pg_logical_emit_message(true, 'trien', '')")
                connection.warnings.clear()
                connection.command("COMMIT")
                by_it = writer is not None and int(writer) == int(self.transaction_id) & 0xFFFF_FFFF
                return by_it and not connection.warnings
            connection.command("ROLLBACK")
        except psycopg.Error as error:
            if not connection.closed:
                _roll_back(connection)
            raise unavailable(error) from error
        return None if status == "in progress" else False


def _first(connection: Connection, sql: bytes, *arguments: Any) -> Any:
    row = connection.execute(sql, arguments).fetchone()
    return None if row is None else row[0]


def _roll_back(connection: Connection) -> None:
    try:
        connection.command("ROLLBACK")
    except psycopg.Error:
        connection.close()
