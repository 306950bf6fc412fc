"""Connections that threads lend."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic

from psycopg.pq import TransactionStatus

from trien_server.core.errors import StoreUnavailable
from trien_server.store.postgresql.connections import Connection, Opener


class Pool:
    """Lends each caller a connection of its own, in the order they came; opens at most `size`.

    New ones are opened in threads of the pool, so that no caller waits longer than it wants. When that fails, all
    who waited already as it began are refused at once. `usable` is asked before a connection is lent again.
    """

    def __init__(self, open_one: Opener, size: int, usable: Callable[[Connection], bool]) -> None:
        self._open_one = open_one
        self._size = size
        self._usable = usable
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._free: list[Connection] = []
        self._waiting: deque[_Waiter] = deque()
        self._lent = 0
        self._opening = 0
        self._begun = 0
        """How many openings began so far."""
        self._closed = False

    def add(self, connection: Connection) -> None:
        """Takes a connection that was opened already."""
        with self._mutex:
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
        with self._mutex:
            free, self._free = self._free, []
        for connection in free:
            connection.close()

    def close(self, patience: float = 30.0) -> None:
        """Refuses further callers, lets those go on that have a connection, and closes all."""
        with self._mutex:
            self._closed = True
            self._refuse(StoreUnavailable("The database is closed."), self._begun + 1)
            self._idle.wait_for(lambda: self._lent == 0 and self._opening == 0, patience)
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
        with self._mutex:
            if self._closed:
                raise StoreUnavailable("The database is closed.")
            if self._free:
                self._lent += 1
                return self._free.pop()
            waiter = _Waiter(self._begun)
            self._waiting.append(waiter)
            self._open_more()
        left = min(max(deadline - monotonic(), 0), threading.TIMEOUT_MAX)
        if not waiter.served.acquire(timeout=left):
            with self._mutex:
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                    waiter.failure = StoreUnavailable(
                        "No connection to the database came free in time; nothing was written."
                    )
        if waiter.connection is not None:
            return waiter.connection
        assert waiter.failure is not None  # noqa: S101
        raise StoreUnavailable(waiter.failure.message) from waiter.failure.__cause__

    def _open_more(self) -> None:
        """Begins to open connections for those who wait, as far as there is room. The mutex is held."""
        while self._opening < len(self._waiting) and self._lent + self._opening < self._size:
            self._opening += 1
            self._begun += 1
            name = "trien-store-connect"
            threading.Thread(target=self._open, args=(self._begun,), name=name, daemon=True).start()

    def _offer(self, connection: Connection) -> None:
        """Gives a connection to who waits longest, so that nobody starves. The mutex is held."""
        if self._waiting:
            self._lent += 1
            self._waiting.popleft().serve(connection)
        else:
            self._free.append(connection)

    def _refuse(self, refusal: StoreUnavailable, begun: int) -> None:
        """Refuses who waited already when that many openings had begun. The mutex is held."""
        refused = [waiter for waiter in self._waiting if waiter.begun < begun]
        for waiter in refused:
            self._waiting.remove(waiter)
            waiter.refuse(refusal)

    def _open(self, number: int) -> None:
        connection: Connection | None = None
        failure = StoreUnavailable("The database is closed.")
        try:
            connection = self._open_one()
        except StoreUnavailable as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - whatever it is, who waits must hear of it
            failure = StoreUnavailable(f"The database cannot be used now: {type(error).__name__}.")
            failure.__cause__ = error
        with self._mutex:
            self._opening -= 1
            if connection is not None and not self._closed:
                self._offer(connection)
                return
            self._refuse(failure, number)
            self._open_more()
            self._idle.notify_all()
        if connection is not None:
            connection.close()

    def _give_back(self, connection: Connection, *, keep: bool = True) -> None:
        keep = keep and not connection.closed and connection.info.transaction_status is TransactionStatus.IDLE
        with self._mutex:
            self._lent -= 1
            keep = keep and not self._closed
            if keep:
                self._offer(connection)
            else:
                self._open_more()
            self._idle.notify_all()
        if not keep:
            connection.close()


class _Waiter:
    """Who waits for a connection; `served` is a lock that is released when there is a connection or a failure."""

    def __init__(self, begun: int) -> None:
        self.begun = begun
        self.connection: Connection | None = None
        self.failure: StoreUnavailable | None = None
        self.served = threading.Lock()
        self.served.acquire()

    def serve(self, connection: Connection) -> None:
        self.connection = connection
        self.served.release()

    def refuse(self, refusal: StoreUnavailable) -> None:
        self.failure = refusal
        self.served.release()
