"""Opens SQLite connections, with settings that make a commit durable once it returns (P1)."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trien_server.core.errors import StoreUnavailable
from trien_server.store.sqlite.schema_guard import GuardedConnection

_BUSY_MILLISECONDS = 1000
"""Waiting for whoever does not take turns by the lock: a migration, a person's `sqlite3`."""

_JOURNAL_SIZE_LIMIT = 64 * 1024 * 1024
_FULL = 2
_OLDEST = (3, 37, 0)
"""STRICT tables."""

_TRANSIENT_IO_ERRORS = {
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMMAP,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_LOCK,
    sqlite3.SQLITE_IOERR_RDLOCK,
    sqlite3.SQLITE_IOERR_NOMEM,
    sqlite3.SQLITE_IOERR_BLOCKED,
}
"""Errors about shared memory and locks, a full disk among their causes; no write or flush failed."""


def create_database(path: Path) -> None:
    """Makes an empty database, readable by its owner alone. Does nothing when the file exists.

    SQLite gives its side files (`-wal`, `-shm`) the mode of the database.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreUnavailable(f"The database {path} cannot be made: {error.strerror}.") from error
    # Without it a crash could lose the name of a file whose content is durable.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def open_writer(path: Path) -> GuardedConnection:
    """Opens an existing database for writing; transactions are begun and ended explicitly.

    Raises `StoreUnavailable` when it cannot be opened or cannot promise durability: no write-ahead log
    (a network file system, for example), or `synchronous` below FULL.
    """
    connection = _open(path, "rw")
    try:
        with translated_errors():
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_SIZE_LIMIT}").fetchall()
            # The committer checkpoints by itself: SQLite's own way would hide a failed fsync.
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        require_durability(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> GuardedConnection:
    """Opens an existing database that cannot be written through this connection. Raises `StoreUnavailable`."""
    connection = _open(path, "ro")
    try:
        with translated_errors():
            connection.execute("PRAGMA query_only = ON")
        require_durability(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def require_durability(connection: sqlite3.Connection) -> None:
    """Raises `StoreUnavailable` unless the settings that P1 rests on are really in force."""
    with translated_errors():
        (journal_mode,) = connection.execute("PRAGMA journal_mode").fetchone()
        (synchronous,) = connection.execute("PRAGMA synchronous").fetchone()
    if journal_mode != "wal":
        raise StoreUnavailable(f"The database's journal mode is {journal_mode!r}, not 'wal': put it on a local disk.")
    if synchronous != _FULL:
        raise StoreUnavailable(f"The database's synchronous setting is {synchronous}, not {_FULL} (FULL).")


def open_any(path: Path) -> sqlite3.Connection:
    """Opens an existing database for looking only, whatever its settings. Raises `StoreUnavailable`.

    A crash while the database was being made leaves a journal, which only who may write takes back: that comes first.
    """
    try:
        return _open(path, "ro")
    except StoreUnavailable as unavailable:
        cause = unavailable.__cause__
        if not isinstance(cause, sqlite3.Error) or primary_code(cause) != sqlite3.SQLITE_READONLY:
            raise
    _open(path, "rw").close()
    return _open(path, "ro")


def error_code(error: sqlite3.Error) -> int:
    """Returns SQLite's extended result code, 0 when the error is not SQLite's."""
    return getattr(error, "sqlite_errorcode", None) or 0


def primary_code(error: sqlite3.Error) -> int:
    """Returns SQLite's result code without its extension."""
    return error_code(error) & 0xFF


def is_disk_failure(error: sqlite3.Error) -> bool:
    """Tells whether reading, writing or flushing failed, so that nothing in memory can be believed."""
    return primary_code(error) == sqlite3.SQLITE_IOERR and error_code(error) not in _TRANSIENT_IO_ERRORS


def is_outage(error: sqlite3.Error) -> bool:
    """Tells whether the database failed, not the statement: only the former is answered with `StoreUnavailable`."""
    return isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raises `StoreUnavailable` in place of SQLite's errors about the database."""
    try:
        yield
    except sqlite3.Error as error:
        if not is_outage(error):
            raise
        raise StoreUnavailable(f"The database cannot be used now: {error}.") from error


def _open(path: Path, mode: str) -> GuardedConnection:
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StoreUnavailable(f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or later is needed.")
    with translated_errors():
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
            factory=GuardedConnection,
            timeout=_BUSY_MILLISECONDS / 1000,
        )
    try:
        with translated_errors():
            # fullfsync: on macOS fsync alone leaves the data in the drive's cache.
            for pragma in (
                "synchronous = FULL",
                "fullfsync = ON",
                "checkpoint_fullfsync = ON",
                "trusted_schema = OFF",
                "cell_size_check = ON",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection
