"""A schema that lies is refused (P5): triggers, views, generated columns, other indexes."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from trien_server.core.errors import StoreUnavailable
from trien_server.core.records import Client, Record
from trien_server.store.schema import migrate
from trien_server.store.sqlite.schema_guard import FINGERPRINT, fingerprint
from trien_server.store.sqlite.store import SqliteStore

pytestmark = pytest.mark.promise("P5")

CHANGES = {
    "a trigger that undoes a write": (
        "CREATE TRIGGER t AFTER INSERT ON audit_entries BEGIN DELETE FROM audit_entries WHERE name = NEW.name; END"
    ),
    "a view": "CREATE VIEW v AS SELECT * FROM clients",
    "a generated column": "ALTER TABLE clients ADD COLUMN extra TEXT GENERATED ALWAYS AS (name || 'x') VIRTUAL",
    "another index": "CREATE INDEX i ON audit_entries (kind)",
    "a dropped index": "DROP INDEX {index}",
    "another table": "CREATE TABLE t (a TEXT)",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "trien.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path, on_fatal=lambda reason: pytest.fail(reason))
    yield store
    store.close()


def usable(store: SqliteStore) -> int:
    """Returns in how many of the two ways the store can be used."""
    kinds: type[Record] = Client
    ways = 0
    for call in (
        lambda: store.read(lambda snapshot: snapshot.find(kinds, limit=1)),
        lambda: store.transact(lambda transaction: transaction.find(kinds, limit=1), timeout=5),
    ):
        try:
            call()
        except StoreUnavailable:
            continue
        ways += 1
    return ways


def test_the_fingerprint_is_that_of_the_migrations(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert fingerprint(connection) == FINGERPRINT


@pytest.mark.parametrize("change", CHANGES)
def test_a_running_store_refuses_a_changed_schema_at_once_and_goes_on_when_it_is_put_back(
    path: Path, store: SqliteStore, change: str
) -> None:
    assert usable(store) == 2
    with closing(sqlite3.connect(path)) as connection:
        index, sql = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql > ''"
        ).fetchone()
        connection.execute(CHANGES[change].format(index=index))
    assert usable(store) == 0
    other = SqliteStore(path, on_fatal=lambda reason: pytest.fail(reason))
    assert usable(other) == 0
    other.close()
    with closing(sqlite3.connect(path)) as connection:
        for name in ("TRIGGER t", "VIEW v", "INDEX i", "TABLE t"):
            connection.execute(f"DROP {name.split()[0]} IF EXISTS {name.split()[1]}")
        if change == "a generated column":
            connection.execute("ALTER TABLE clients DROP COLUMN extra")
        if change == "a dropped index":
            connection.execute(sql)
    assert usable(store) == 2


def test_a_relabelled_index_is_seen_by_every_new_connection(path: Path) -> None:
    """The schema's text is rewritten in place, which needs no statement that SQLite counts as a change."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        changed = connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'UNIQUE INDEX', 'INDEX') "
            "WHERE type = 'index' AND sql LIKE '%UNIQUE%'"
        ).rowcount
        assert changed > 0
    store = SqliteStore(path, on_fatal=lambda reason: pytest.fail(reason))
    assert usable(store) == 0
    with pytest.raises(StoreUnavailable, match="schema was changed"):
        store.read(lambda snapshot: snapshot.latest_time())
    store.close()


def test_a_version_that_was_set_back_is_no_proof(path: Path, store: SqliteStore) -> None:
    """After the trigger was seen once, its maker sets SQLite's schema version back to the one that was good."""
    assert usable(store) == 2
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("CREATE TRIGGER t AFTER INSERT ON audit_entries BEGIN DELETE FROM audit_entries; END")
        assert usable(store) == 0
        connection.execute(f"PRAGMA schema_version = {version}")
    assert usable(store) == 0
