"""Connections that threads lend."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic

import psycopg
from psycopg.pq import TransactionStatus

from trien_server.core.errors import StoreUnavailable
from trien_server.store.postgresql.connections import Connection, Opener


class Pool:
    """Lends each caller a connection of its own; opens at most `size`, and lends the last used first.

    New ones are opened in threads of the pool, so that no caller waits longer than it wants. When that fails, all
    who waited already as it began are refused at once. `usable` is asked before a connection is lent again.
    """

    def __init__(self, open_one: Opener, size: int, usable: Callable[[Connection], bool]) -> None:
        self._open_one = open_one
        self._size = size
        self._usable = usable
        self._changed = threading.Condition()
        self._free: list[Connection] = []
        self._opening = 0
        self._lent = 0
        self._waiting = 0
        self._begun = 0
        self._last_failed = 0
        self._failure: StoreUnavailable | None = None
        self._closed = False

    def add(self, connection: Connection) -> None:
        """Takes a connection that was opened already."""
        with self._changed:
            self._free.append(connection)

    @contextmanager
    def connection(self, deadline: float) -> Iterator[Connection]:
        """Lends a connection whose waits end at `deadline`. Raises `StoreUnavailable` when none comes free in time."""
        connection = self._take(deadline)
        try:
            connection.deadline = deadline
            yield connection
        finally:
            connection.deadline = inf
            self._give_back(connection)

    def discard_free(self) -> None:
        """Closes the free connections: when one was lost, the others of its time hardly live."""
        with self._changed:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def close(self, patience: float = 30.0) -> None:
        """Refuses further callers, lets those go on that have a connection, and closes all."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lent == 0 and self._opening == 0, patience)
        self.discard_free()

    def _take(self, deadline: float) -> Connection:
        while True:
            connection = self._wait_for_one(deadline)
            connection.deadline = deadline
            usable = False
            try:
                usable = self._usable(connection)
            except StoreUnavailable:
                # One that was lost while it was free says nothing about the next one.
                if not connection.closed:
                    raise
            finally:
                if not usable:
                    self._give_back(connection, keep=False)
            if usable:
                return connection

    def _wait_for_one(self, deadline: float) -> Connection:
        with self._changed:
            begun = self._begun
            self._waiting += 1
            try:
                while True:
                    if self._closed:
                        raise StoreUnavailable("The database is closed.")
                    if self._free:
                        self._lent += 1
                        return self._free.pop()
                    if self._last_failed > begun and self._failure is not None:
                        raise StoreUnavailable(self._failure.message) from self._failure
                    if self._opening < self._waiting and self._lent + self._opening < self._size:
                        self._opening += 1
                        self._begun += 1
                        threading.Thread(
                            target=self._open, args=(self._begun,), name="trien-store-connect", daemon=True
                        ).start()
                    left = deadline - monotonic()
                    if left <= 0 or not self._changed.wait(min(left, threading.TIMEOUT_MAX)):
                        raise StoreUnavailable("No connection to the database came free in time; nothing was written.")
            finally:
                self._waiting -= 1

    def _open(self, number: int) -> None:
        try:
            connection = self._open_one()
        except StoreUnavailable as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            failure = StoreUnavailable(f"The database cannot be used now: {type(error).__name__}.")
            failure.__cause__ = error
        else:
            with self._changed:
                self._opening -= 1
                if not self._closed:
                    self._free.append(connection)
                self._changed.notify_all()
                if not self._closed:
                    return
            connection.close()
            return
        with self._changed:
            self._opening -= 1
            self._last_failed = max(self._last_failed, number)
            self._failure = failure
            self._changed.notify_all()

    def _give_back(self, connection: Connection, *, keep: bool = True) -> None:
        keep = keep and not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
        with self._changed:
            self._lent -= 1
            keep = keep and not self._closed
            if keep:
                self._free.append(connection)
            self._changed.notify_all() if self._closed else self._changed.notify()
        if not keep:
            try:
                connection.close()
            except psycopg.Error:
                return
