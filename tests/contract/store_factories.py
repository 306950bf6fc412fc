"""Every adapter of `core.ports.Store`, as the contract suite opens it."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest
from tests.fakes.store import MemoryStore

from trien_server.core.ports import Store
from trien_server.core.records import Record
from trien_server.store.schema import migrate
from trien_server.store.sqlite.store import SqliteStore


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

    def open(self) -> CountingStore: ...

    def mangle(self, kind: type[Record], name: str) -> None:
        """Makes a row one that cannot be read as its record."""


class MemoryDatabase:
    name = "memory"
    url: str | None = None
    shares_commits = False

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


@pytest.fixture(name="database", params=["memory", "sqlite"])
def database_fixture(request: pytest.FixtureRequest, tmp_path: Path, sqlite_template: Path) -> Database:
    """Each adapter's empty database in turn."""
    return MemoryDatabase() if request.param == "memory" else SqliteDatabase(tmp_path, sqlite_template)
