"""Refuses a database whose schema is not exactly what the migrations made (P5).

Sealed rows do not help when the schema lies: a trigger can undo a write behind its statement, and an index over a
generated column can answer a question with another row. So the whole schema is compared, on each connection and again
whenever SQLite says that it changed.
"""

import hashlib
import sqlite3

from trien_server.core.errors import StoreUnavailable

FINGERPRINT = "7f87394acccdb60b638820922528ca1a971dca9d0cedaedb9f3cf90dac01df23"
"""Of the current revision. A test compares it with a database that the migrations make."""


class GuardedConnection(sqlite3.Connection):
    """A connection that remembers for which schema version it compared the schema.

    One that ever saw another schema is `distrusted` and closed: the version is a number that anyone can set back.
    """

    verified_version: int | None = None
    distrusted = False


def fingerprint(connection: sqlite3.Connection) -> str:
    """Returns a digest of every table, index, trigger and view, with the text that made it."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name").fetchall()
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def require_known_schema(connection: sqlite3.Connection) -> None:
    """Raises `StoreUnavailable` unless the schema is the one that the migrations make. Used inside a transaction."""
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    guarded = connection if isinstance(connection, GuardedConnection) else None
    if guarded is not None and guarded.verified_version == version and not guarded.distrusted:
        return
    if fingerprint(connection) != FINGERPRINT:
        if guarded is not None:
            guarded.distrusted = True
        raise StoreUnavailable("The database's schema was changed by something else than a migration.")
    if guarded is not None:
        guarded.verified_version = version
