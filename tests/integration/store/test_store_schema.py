"""The migrated schema, compared with the records; and which schemas a server refuses."""

import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from tests.contract.store_factories import sqlite_template_fixture  # noqa: F401

from trien_server.core.errors import StoreUnavailable
from trien_server.core.records import HOT_RECORDS, SLOW_RECORDS
from trien_server.store import schema
from trien_server.store.mapping import INDEXES, KEYS, ColumnType, tables
from trien_server.store.schema import (
    HEAD,
    REVISIONS,
    SchemaMismatch,
    SchemaVerdict,
    migrate,
    migration_sql,
    schema_state,
)
from trien_server.store.sqlite.store import SqliteStore
from trien_server.store.urls import open_store, sqlite_path


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    shutil.copy(sqlite_template, tmp_path / "trien.db")
    return tmp_path / "trien.db"


def set_revision(path: Path, revision: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))


def test_every_field_of_every_record_has_its_column_and_there_are_no_others(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        made = {
            table: {
                (name, kind, not required or None, bool(key))
                for _, name, kind, required, _, key in connection.execute(f"PRAGMA table_info({table})")
            }
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
    del made["alembic_version"]
    sqlite_types = {ColumnType.BOOLEAN: "INTEGER"}
    wanted = {
        table: {
            (
                column.name,
                sqlite_types.get(column.type, column.type.value),
                column.nullable or None,
                column.name == KEYS.get(table, "name"),
            )
            for column in columns
        }
        for table, columns in tables().items()
    }
    assert made == wanted
    assert len(made) == len(SLOW_RECORDS) + len(HOT_RECORDS) + len(KEYS) >= 36


def test_the_indexes_are_the_ones_that_are_asked_for(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        made = {
            (table, tuple(row[2] for row in connection.execute(f"PRAGMA index_info({name})")), bool(unique))
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for _, name, unique, origin, _ in connection.execute(f"PRAGMA index_list({table})").fetchall()
            if origin == "c"
        }
    assert made == {(index.table, index.columns, index.unique) for index in INDEXES}
    assert len(made) == len(INDEXES) >= 24


def test_a_value_of_another_type_cannot_stand_in_any_column(path: Path) -> None:
    wrong = {ColumnType.INTEGER: "text", ColumnType.BOOLEAN: "text", ColumnType.TEXT: b"bytes", ColumnType.BLOB: "text"}
    right = {ColumnType.INTEGER: 1, ColumnType.BOOLEAN: 1, ColumnType.TEXT: "text", ColumnType.BLOB: b"bytes"}
    refused = 0
    with closing(sqlite3.connect(path)) as connection:
        for table, columns in tables().items():
            marks = ", ".join("?" for _ in columns)
            for column in columns:
                values = [(wrong if other is column else right)[other.type] for other in columns]
                with pytest.raises(sqlite3.IntegrityError, match=r"cannot store|datatype mismatch"):
                    connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)
                refused += 1
                if not column.nullable and (table, column.name) != (
                    "log_positions",
                    "position",
                ):  # SQLite gives an integer key of its own
                    values = [None if other is column else right[other.type] for other in columns]
                    with pytest.raises(sqlite3.IntegrityError, match="NOT NULL"):
                        connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)
    assert refused == sum(map(len, tables().values())) > 150


def test_the_revisions_are_the_ones_on_the_disk() -> None:
    directory = ScriptDirectory(str(Path(schema.__file__).parent / "migrations"))
    assert tuple(script.revision for script in reversed(list(directory.walk_revisions()))) == REVISIONS
    assert directory.get_current_head() == HEAD


def test_migrating_twice_changes_nothing(tmp_path: Path) -> None:
    url = url_of(tmp_path / "new.db")
    assert schema_state(url).verdict is SchemaVerdict.EMPTY
    assert not (tmp_path / "new.db").exists(), "looking made the database"
    assert migrate(url).verdict is SchemaVerdict.EMPTY
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        before = list(connection.iterdump())
    assert migrate(url).verdict is SchemaVerdict.CURRENT
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert list(connection.iterdump()) == before
    assert schema_state(url).verdict is SchemaVerdict.CURRENT


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trien.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE outcomes (in_the_way TEXT)")  # Made by the revision last of all tables.
    with pytest.raises(Exception, match="outcomes"):
        migrate(url_of(path))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("outcomes",)]
        connection.execute("DROP TABLE outcomes")
    assert migrate(url_of(path)).verdict is SchemaVerdict.EMPTY
    assert schema_state(url_of(path)).verdict is SchemaVerdict.CURRENT


def test_two_who_migrate_at_once_wait_for_each_other(tmp_path: Path) -> None:
    url = url_of(tmp_path / "trien.db")
    before: list[SchemaVerdict] = []
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        before.append(migrate(url).verdict)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(verdict.name for verdict in before) == ["CURRENT", "EMPTY"]


@pytest.mark.parametrize(
    ("revision", "verdict", "advice"),
    [
        ("9999", SchemaVerdict.NEWER, "newer"),
        ("0000", SchemaVerdict.BEHIND, "trien-server migrate"),
        (None, SchemaVerdict.EMPTY, "trien-server migrate"),
    ],
)
def test_a_server_refuses_a_schema_that_is_not_its_own_and_changes_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, revision: str | None, verdict: SchemaVerdict, advice: str
) -> None:
    monkeypatch.setattr(schema, "REVISIONS", ("0000", *REVISIONS))
    if revision is None:
        path.unlink()
        sqlite3.connect(path).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    else:
        set_revision(path, revision)
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match=advice) as refused:
        open_store(url_of(path), on_fatal=print)
    assert refused.value.state.verdict is verdict
    assert schema_state(url_of(path)).current == revision
    assert path.read_bytes() == before
    if verdict is SchemaVerdict.NEWER:
        with pytest.raises(SchemaMismatch, match="newer"):
            migrate(url_of(path))


def test_a_server_does_not_make_a_database(tmp_path: Path) -> None:
    with pytest.raises(SchemaMismatch, match="no schema"):
        SqliteStore(tmp_path / "trien.db", on_fatal=print)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trien.db"
    path.write_bytes(b"Kinh gui Uy ban nhan dan xa " * 400)
    with pytest.raises(StoreUnavailable, match="not a database"):
        SqliteStore(path, on_fatal=print)
    with pytest.raises(StoreUnavailable, match="not a database"):
        schema_state(url_of(path))
    with pytest.raises(StoreUnavailable, match="not a database"):
        migrate(url_of(path))


def test_only_urls_of_a_file_are_taken() -> None:
    assert sqlite_path("sqlite:////var/lib/trien/a b%.db") == Path("/var/lib/trien/a b%.db")
    refused = ["", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?mode=ro", "postgresql://h/d", "/a.db"]
    for url in refused:
        with pytest.raises(ValueError, match="sqlite:"):
            sqlite_path(url)
    assert len(refused) == 7


def test_a_path_with_unusual_characters_works(tmp_path: Path) -> None:
    path = tmp_path / "ủy ban?#%41 'x'.db"
    migrate(f"sqlite:///{tmp_path}/plain.db")
    shutil.copy(tmp_path / "plain.db", path)
    store = SqliteStore(path, on_fatal=print)
    assert store.read(lambda snapshot: snapshot.latest_time()) is None
    store.close()
    assert {file.name for file in tmp_path.iterdir()} >= {path.name, f"{path.name}-turnstile"}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_migrations_can_be_read_as_sql(dialect: str) -> None:
    sql = migration_sql(dialect)
    for table in tables():
        assert f"CREATE TABLE {table} (" in sql
    assert sql.count("CREATE TABLE") == len(tables()) + 1
    assert sql.count("CREATE INDEX") + sql.count("CREATE UNIQUE INDEX") == len(INDEXES)
    assert (sql.count("STRICT") == len(tables())) is (dialect == "sqlite")
    assert ('COLLATE "C"' in sql) is (dialect == "postgresql")
