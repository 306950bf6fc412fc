"""A small pool of reading connections."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trien_server.core.errors import StoreUnavailable
from trien_server.store.sqlite.connections import open_reader
from trien_server.store.sqlite.schema_guard import GuardedConnection


class Readers:
    """Lends each caller a connection of its own; opens at most `size`, the last used first.

    Raises `StoreUnavailable` when none comes free within `patience` seconds.
    """

    def __init__(self, path: Path, size: int, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._places = threading.BoundedSemaphore(size)
        self._mutex = threading.Lock()
        self._free: list[GuardedConnection] = []
        self._closed = False

    @contextmanager
    def connection(self, check: Callable[[], None]) -> Iterator[sqlite3.Connection]:
        """Lends a connection; `check` raises when none may be used any more."""
        check()
        if not self._places.acquire(timeout=self._patience):
            raise StoreUnavailable("No connection to the database came free in time.")
        try:
            with self._mutex:
                connection = self._free.pop() if self._free else None
            if connection is None:
                connection = open_reader(self._path)
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._places.release()

    def _give_back(self, connection: GuardedConnection) -> None:
        with self._mutex:
            if not self._closed and not connection.in_transaction and not connection.distrusted:
                self._free.append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Closes the free connections; those in use are closed when they come back."""
        with self._mutex:
            self._closed = True
            free, self._free = self._free, []
        for connection in free:
            connection.close()
