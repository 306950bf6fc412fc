"""Which schema a database has, and the one way to change it.

The server never changes the schema when it starts: it refuses one that is behind or newer than itself
(`SchemaMismatch`). `migrate` is an operator's act.
"""

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trien_server.store.sqlite import connections
from trien_server.store.urls import is_postgresql, postgresql_conninfo, sqlite_path

if TYPE_CHECKING:
    import psycopg
    from alembic.config import Config
    from sqlalchemy import Connection

REVISIONS = ("0001",)
"""Every revision in order. A test compares them with `migrations/versions`; starting needs no Alembic."""

HEAD = REVISIONS[-1]

_MIGRATION_LOCK = 0x747269656E
"""The key of PostgreSQL's advisory lock for those who migrate: "trien" in ASCII."""


class SchemaVerdict(Enum):
    """How a database's schema compares with what this server needs."""

    CURRENT = "CURRENT"
    EMPTY = "EMPTY"
    BEHIND = "BEHIND"
    NEWER = "NEWER"


@dataclass(frozen=True)
class SchemaState:
    """The database's revision (None: no schema, or no database) and the one that this server needs."""

    current: str | None
    head: str

    @property
    def verdict(self) -> SchemaVerdict:
        if self.current is None:
            return SchemaVerdict.EMPTY
        if self.current == self.head:
            return SchemaVerdict.CURRENT
        return SchemaVerdict.BEHIND if self.current in REVISIONS else SchemaVerdict.NEWER


class SchemaMismatch(Exception):  # noqa: N818
    """The database's schema is not the one that this server works with; the message says what to do."""

    def __init__(self, state: SchemaState) -> None:
        super().__init__(
            {
                SchemaVerdict.EMPTY: "The database has no schema. Run `trien-server migrate` (`init` at first).",
                SchemaVerdict.BEHIND: f"The database's schema {state.current} is behind this server's {state.head}. "
                "Make a backup, then run `trien-server migrate`.",
                SchemaVerdict.NEWER: f"The database's schema {state.current} is newer than this server's {state.head}. "
                "Run the server version that migrated it, or a later one.",
                SchemaVerdict.CURRENT: f"The database's schema is {state.current}.",
            }[state.verdict]
        )
        self.state = state


def require_current(state: SchemaState) -> None:
    """Raises `SchemaMismatch` unless the schema is the one that this server works with."""
    if state.verdict is not SchemaVerdict.CURRENT:
        raise SchemaMismatch(state)


def schema_state(url: str) -> SchemaState:
    """Reads the database's revision, without making or changing anything.

    Raises `StoreUnavailable` when the database cannot be read, `ValueError` for a URL of no known database.
    """
    if is_postgresql(url):
        return _postgresql_state(url)
    path = sqlite_path(url)
    if not path.exists():
        return SchemaState(None, HEAD)
    with closing(connections.open_any(path)) as connection, connections.translated_errors():
        return state_of(connection)


def state_of(connection: sqlite3.Connection) -> SchemaState:
    """Returns the schema's state as an open SQLite connection sees it."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchall()
    rows = connection.execute("SELECT version_num FROM alembic_version").fetchall() if found else []
    return SchemaState(str(rows[0][0]) if rows else None, HEAD)


def migrate(url: str) -> SchemaState:
    """Brings the database to this server's schema. A SQLite database is made where there is none, readable by its
    owner alone; a PostgreSQL database must be there, and the URL's role must own it.

    All revisions are one transaction, and several callers wait for each other. Does nothing to a current
    schema. Returns what was there before. Raises `SchemaMismatch` for a newer schema, `StoreUnavailable`
    when the database cannot be used.
    """
    if is_postgresql(url):
        return _migrate_postgresql(url)
    path = sqlite_path(url)
    with connections.translated_errors():
        connections.create_database(path)
        with closing(connections.open_writer(path)) as raw, _begun(raw) as connection:
            before = state_of(raw)
            _upgrade(before, connection)
    return before


def _upgrade(before: SchemaState, connection: "Connection") -> None:
    from alembic import command

    if before.verdict is SchemaVerdict.NEWER:
        raise SchemaMismatch(before)
    if before.verdict is not SchemaVerdict.CURRENT:
        configuration = _configuration(Path(__file__).parent / "migrations")
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, HEAD)


def _postgresql_state(url: str) -> SchemaState:
    import psycopg

    from trien_server.store.postgresql.connections import connect_any, unavailable

    with closing(connect_any(postgresql_conninfo(url))) as connection:
        try:
            return postgresql_state_of(connection)
        except psycopg.Error as error:
            raise unavailable(error) from error


def postgresql_state_of(connection: "psycopg.Connection[tuple[Any, ...]]") -> SchemaState:
    """Returns the schema's state as an open PostgreSQL connection sees it. Raises psycopg's errors."""
    found = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if found and found[0] else None
    return SchemaState(str(row[0]) if row else None, HEAD)


def _migrate_postgresql(url: str) -> SchemaState:
    import psycopg
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    from trien_server.store.postgresql.connections import connect_any, unavailable

    with closing(connect_any(postgresql_conninfo(url))) as raw:
        raw.autocommit = False
        raw.prepare_threshold = None
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: raw, poolclass=StaticPool)
        try:
            with engine.begin() as connection:
                # A change of the schema waits for the servers' transactions, and they for it: not for long.
                connection.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
                before = postgresql_state_of(raw)
                _upgrade(before, connection)
        except psycopg.Error as error:
            raise unavailable(error) from error
        except sqlalchemy.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise unavailable(error.orig) from error
            raise
    return before


@contextmanager
def _begun(raw: sqlite3.Connection) -> "Iterator[Connection]":
    """Begins one transaction for a whole migration; a crash or an error inside leaves the schema as it was."""
    import sqlalchemy
    from sqlalchemy.pool import StaticPool

    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
    # Of its own accord `sqlite3` begins no transaction before DDL.
    sqlalchemy.event.listen(engine, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        yield connection


def migration_sql(dialect: str) -> str:
    """Returns all migrations as SQL text for `sqlite` or `postgresql`, for whoever wants to read or run them."""
    from alembic import command

    buffer = io.StringIO()
    configuration = _configuration(Path(__file__).parent / "migrations", buffer)
    configuration.attributes["dialect"] = dialect
    command.upgrade(configuration, HEAD, sql=True)
    return buffer.getvalue()


def _configuration(migrations: Path, buffer: io.StringIO | None = None) -> "Config":
    """Returns Alembic's configuration without a file on the disk."""
    from alembic.config import Config

    configuration = Config(output_buffer=buffer)
    configuration.set_main_option("script_location", str(migrations).replace("%", "%%"))
    configuration.set_main_option("path_separator", "newline")
    return configuration
