"""Turns between the writers of several processes."""

import fcntl
import os
from pathlib import Path
from types import TracebackType


class WriterLock:
    """A fair lock between processes, on two files beside the database.

    SQLite's own waiting sleeps and polls, and whoever comes by at the right moment wins. Here a writer
    first waits at the turnstile; only the one behind it waits for the writing lock itself. Who has just
    written must pass the turnstile again, so the one that waited writes next. The kernel releases both
    when a process ends, however it ends. Used by one thread.
    """

    def __init__(self, database: Path) -> None:
        self._turnstile = _open(database.with_name(database.name + "-turnstile"))
        try:
            self._writing = _open(database.with_name(database.name + "-writing"))
        except BaseException:
            os.close(self._turnstile)
            raise

    def __enter__(self) -> None:
        fcntl.flock(self._turnstile, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._writing, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turnstile, fcntl.LOCK_UN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        fcntl.flock(self._writing, fcntl.LOCK_UN)

    def close(self) -> None:
        """Releases what is held."""
        os.close(self._writing)
        os.close(self._turnstile)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
