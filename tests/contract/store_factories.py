"""Every adapter of `core.ports.Store`, as the contract suite opens it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest
from tests.fakes.store import MemoryStore
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401

from trien_server.core.ports import Store
from trien_server.core.records import Record
from trien_server.store.postgresql.store import PostgresqlStore
from trien_server.store.schema import migrate
from trien_server.store.sqlite.store import SqliteStore
from trien_server.store.urls import postgresql_conninfo


class Counts(Protocol):
    @property
    def commits(self) -> int: ...

    @property
    def works(self) -> int: ...


class CountingStore(Store, Protocol):
    @property
    def counts(self) -> Counts: ...


class Database(Protocol):
    """One empty database; `open` may be called again, after a close or beside another store."""

    name: str
    url: str | None
    shares_commits: bool
    """Whether requests that wait at the same time are one transaction, run by a thread of the store."""
    runs_side_by_side: bool
    """Whether a transaction may run while another one is under way."""

    def open(self) -> CountingStore: ...

    def mangle(self, kind: type[Record], name: str) -> None:
        """Makes a row one that cannot be read as its record."""


class MemoryDatabase:
    name = "memory"
    url: str | None = None
    shares_commits = False
    runs_side_by_side = False

    def __init__(self) -> None:
        self._store = MemoryStore()

    def open(self) -> MemoryStore:
        self._store = self._store.reopened()
        return self._store

    def mangle(self, kind: type[Record], name: str) -> None:
        self._store.mangle(kind, name)


class SqliteDatabase:
    name = "sqlite"
    shares_commits = True
    runs_side_by_side = False

    def __init__(self, folder: Path, template: Path) -> None:
        self.path = folder / "trien.db"
        self.url: str | None = f"sqlite:///{self.path}"
        self.fatal: list[str] = []
        shutil.copy(template, self.path)

    def open(self) -> SqliteStore:
        return SqliteStore(self.path, on_fatal=self.fatal.append)

    def mangle(self, kind: type[Record], name: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(f"UPDATE {kind.table} SET seal_key = CAST(x'ff' AS TEXT) WHERE name = ?", (name,))


@pytest.fixture(name="sqlite_template", scope="session")
def sqlite_template_fixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty database to copy."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


class PostgresqlDatabase:
    """A copy of the documented database, used by the server's own role."""

    name = "postgresql"
    shares_commits = False
    runs_side_by_side = True

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.database = server.copy()
        self.url: str | None = server.url(self.database)

    def open(self) -> PostgresqlStore:
        return PostgresqlStore(postgresql_conninfo(self.server.url(self.database)))

    def mangle(self, kind: type[Record], name: str) -> None:
        assert kind.table == "audit_entries"
        self.server.admin("UPDATE audit_entries SET time = $1 WHERE name = $2", 2**62, name, database=self.database)


def made_database(name: str, request: pytest.FixtureRequest, folder: Path) -> Database:
    """Makes an adapter's empty database."""
    if name == "memory":
        return MemoryDatabase()
    if name == "sqlite":
        return SqliteDatabase(folder, request.getfixturevalue("sqlite_template"))
    return PostgresqlDatabase(request.getfixturevalue("postgres"))


@pytest.fixture(name="database", params=["memory", "sqlite", "postgresql"])
def database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Each adapter's empty database in turn."""
    return made_database(request.param, request, tmp_path)
