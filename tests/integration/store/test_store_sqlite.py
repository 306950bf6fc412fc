"""What is particular to SQLite: settings, files, query plans, edited rows, the write-ahead log."""

import base64
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from tests.contract.store_factories import sqlite_template_fixture  # noqa: F401
from tests.contract.store_records import ALL_RECORDS, TIME, attempts, entry, example, sealed

from trien_server.core.errors import RecordNotTrusted, StoreUnavailable
from trien_server.core.ports import Snapshot
from trien_server.core.records import (
    Activator,
    AuditEntry,
    Authenticator,
    Authorization,
    Client,
    CredentialClient,
    Operator,
    Outcome,
)
from trien_server.store.mapping import ColumnType, mapping_of
from trien_server.store.schema import migrate
from trien_server.store.sqlite import committer, connections
from trien_server.store.sqlite.snapshot import SqliteSnapshot
from trien_server.store.sqlite.store import SqliteStore


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    shutil.copy(sqlite_template, tmp_path / "trien.db")
    return tmp_path / "trien.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path, on_fatal=print)
    yield opened
    opened.close()


def edit(path: Path, sql: str, *arguments: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(sql, arguments).rowcount == 1


@pytest.mark.promise("P1")
def test_connections_are_durable(path: Path) -> None:
    opened = [connections.open_writer(path), connections.open_reader(path)]
    for connection in opened:
        with closing(connection):
            settings = {"journal_mode": "wal", "synchronous": 2, "fullfsync": 1, "busy_timeout": 1000}
            for pragma, value in settings.items():
                assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,)
    assert len(opened) == 2


@pytest.mark.promise("P1")
def test_settings_that_are_not_durable_are_refused(path: Path) -> None:
    with closing(connections.open_writer(path)) as connection:
        for weak in ("OFF", "NORMAL"):
            connection.execute(f"PRAGMA synchronous = {weak}")
            with pytest.raises(StoreUnavailable, match="synchronous"):
                connections.require_durability(connection)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    with pytest.raises(StoreUnavailable, match="journal mode"):
        connections.open_reader(path)
    # As on a network file system: no shared memory, so no write-ahead log.
    with closing(sqlite3.connect(f"file:{path}?vfs=unix-none", uri=True)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        with pytest.raises(StoreUnavailable, match="local disk"):
            connections.require_durability(connection)


def test_a_reader_cannot_write(path: Path) -> None:
    with closing(connections.open_reader(path)) as connection:
        for sql in ("DELETE FROM signers", "CREATE TABLE t (x)", "PRAGMA user_version = 7"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                connection.execute(sql)


def test_all_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        migrate(f"sqlite:///{tmp_path}/trien.db")
        store = SqliteStore(tmp_path / "trien.db", on_fatal=print)
        store.transact(lambda transaction: transaction.insert(attempts("s")), timeout=10)
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(mask)
    endings = ("", "-wal", "-shm", "-turnstile", "-writing")
    assert modes == {f"trien.db{ending}": 0o600 for ending in endings}


LOOKUPS: dict[str, Callable[[Snapshot], object]] = {
    "get": lambda s: s.get(Authorization, "a"),
    "client by token": lambda s: s.find(Client, limit=2, token_hash=b"t"),
    "client by certificate": lambda s: s.find(Client, limit=2, certificate_fingerprint=b"f"),
    "operator by certificate": lambda s: s.find(Operator, limit=2, certificate_fingerprint=b"f"),
    "authenticators": lambda s: s.find(Authenticator, limit=9, signer="s"),
    "activators": lambda s: s.find(Activator, limit=9, after="a", credential="c"),
    "credential's client": lambda s: s.find(CredentialClient, limit=2, credential="c", client="d"),
    "authorizations of a credential": lambda s: s.find(Authorization, limit=9, after="a", credential="c"),
    "authorizations of a client": lambda s: s.find(Authorization, limit=9, after="a", client="c"),
    "latest change": lambda s: s.latest_change("keys/k"),
    "latest time": lambda s: s.latest_time(),
    "outcome": lambda s: s.outcome("r"),
    "page": lambda s: s.find(Authorization, limit=9, after="a"),
}


@pytest.mark.parametrize("lookup", LOOKUPS.values(), ids=LOOKUPS.keys())
def test_a_lookup_on_the_way_of_a_request_uses_an_index(path: Path, lookup: Callable[[Snapshot], object]) -> None:
    statements: list[str] = []
    with closing(connections.open_reader(path)) as connection:
        connection.set_trace_callback(statements.append)
        lookup(SqliteSnapshot(connection))
        connection.set_trace_callback(None)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statements[0]}")]
    assert len(statements) == 1
    assert len(plan) <= 2
    assert "USING" in plan[0]
    assert "INDEX" in plan[0]
    assert lookup is LOOKUPS["latest time"] or plan[0].startswith("SEARCH")
    assert "USE TEMP B-TREE FOR ORDER BY" not in plan


@pytest.mark.promise("P5")
def test_no_edited_value_becomes_a_record_unless_it_is_one(path: Path, store: SqliteStore) -> None:
    """The wrong values that a STRICT table lets through, in every column that has such."""
    texts = ["", "no such", "{}", "[1]", '["%%%"]', "[" * 100_000, "null", b"\xff\xfe"]
    refused = 0
    for kind in ALL_RECORDS:
        hints = get_type_hints(kind)
        store.transact(lambda transaction, kind=kind: transaction.insert(sealed(example(kind, "n"))), timeout=10)  # type: ignore[misc]
        original = store.read(lambda snapshot, kind=kind: snapshot.get(kind, "n"))  # type: ignore[misc]
        for field in fields(kind):
            column = mapping_of(kind).by_name[field.name]
            hint = str(hints[field.name])
            values: list[Any] = []
            if column.type is ColumnType.BOOLEAN:
                values = [2, -1]
            elif "datetime" in hint:
                values = [2**62, -(2**62)]
            elif "tuple" in hint or (isinstance(hints[field.name], type) and issubclass(hints[field.name], StrEnum)):
                values = [text for text in texts if not (text == '["%%%"]' and "str" in hint)]
            elif column.type is ColumnType.TEXT and field.name != "name":
                values = [b"\xff"]
            for value in values:
                bound = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
                edit(path, f"UPDATE {kind.table} SET \"{field.name}\" = {bound} WHERE name = 'n'", value)
                with pytest.raises(RecordNotTrusted) as error:
                    store.read(lambda snapshot, kind=kind: snapshot.get(kind, "n"))  # type: ignore[misc]
                assert (error.value.table, error.value.name) == (kind.table, "n")
                assert "no such" not in error.value.finding
                refused += 1
            if values:
                edit(
                    path,
                    f"UPDATE {kind.table} SET \"{field.name}\" = ? WHERE name = 'n'",
                    column.encode(getattr(original.record, field.name)),
                )
        assert store.read(lambda snapshot, kind=kind: snapshot.get(kind, "n")) == original  # type: ignore[misc]
    assert refused > 240


@pytest.mark.promise("P5")
def test_an_edited_outcome_or_time_is_refused(path: Path, store: SqliteStore) -> None:
    outcome = Outcome(request="r", signatures=(b"s",), create_time=TIME)
    store.transact(lambda transaction: transaction.record_outcome(outcome), timeout=10)
    store.transact(lambda transaction: transaction.insert(entry("e")), timeout=10)
    edit(path, "UPDATE outcomes SET signatures = 'x'")
    edit(path, "UPDATE audit_entries SET time = ?", 2**62)
    with pytest.raises(RecordNotTrusted, match="failed verification"):
        store.read(lambda snapshot: snapshot.outcome("r"))
    with pytest.raises(RecordNotTrusted):
        store.read(lambda snapshot: snapshot.latest_time())


def test_columns_hold_what_a_person_can_read(path: Path, store: SqliteStore) -> None:
    record = example(Authorization, "a", digests=(b"\x00", b"\xff\xfe"), create_time=TIME)
    store.transact(lambda transaction: transaction.insert(sealed(record)), timeout=10)
    with closing(sqlite3.connect(path)) as connection:
        row = connection.execute("SELECT digests, create_time, state FROM authorizations").fetchone()
    encoded = ",".join(f'"{base64.b64encode(digest).decode()}"' for digest in record.digests)
    assert row == (f"[{encoded}]", int(TIME.timestamp()) * 1_000_000 + TIME.microsecond, record.state.value)


def test_the_write_ahead_log_does_not_grow_without_end(path: Path, store: SqliteStore) -> None:
    commits = 3000
    sizes = []
    for number in range(commits):
        store.transact(lambda transaction, n=number: transaction.insert(entry(f"e{n}")), timeout=10)  # type: ignore[misc]
        if number % 100 == 99:
            sizes.append(path.with_name("trien.db-wal").stat().st_size)
    assert len(sizes) == 30
    assert max(sizes) < 16 * 1024 * 1024
    assert sizes[-1] <= max(sizes[:10]) * 1.5
    assert store.counts.commits == store.counts.works == commits


def test_a_large_write_ahead_log_starts_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committer, "_LARGE_LOG_FRAMES", 100)
    store = SqliteStore(path, on_fatal=print)
    log = path.with_name("trien.db-wal")
    sizes = []
    for number in range(401):
        if number in (199, 399):
            sizes.append(log.stat().st_size)
        store.transact(lambda transaction, n=number: transaction.insert(entry(f"e{n}")), timeout=10)  # type: ignore[misc]
    assert min(sizes) > 100 * 4096
    assert log.stat().st_size < min(sizes) / 10
    store.close()
    assert not log.exists()


def test_a_reader_that_stays_makes_writers_wait_once_and_not_again_and_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    open_writer = connections.open_writer

    def traced(path: Path) -> connections.GuardedConnection:
        connection = open_writer(path)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(committer, "_LARGE_LOG_FRAMES", 60)
    monkeypatch.setattr(committer, "_CHECKPOINT_COMMITS", 2)
    monkeypatch.setattr(connections, "open_writer", traced)
    monkeypatch.setattr(connections, "_BUSY_MILLISECONDS", 1)
    store = SqliteStore(path, on_fatal=lambda _: None)

    def write(snapshot: Snapshot) -> int:
        snapshot.latest_time()  # from here on this reader keeps the log
        for number in range(60):
            store.transact(lambda transaction, n=number: transaction.insert(entry(f"e{n}")), timeout=30)  # type: ignore[misc]
        return sum("TRUNCATE" in statement for statement in statements)

    waited = store.read(write)
    store.close()
    looked = sum("PASSIVE" in statement for statement in statements)
    assert looked >= 25
    assert 1 <= waited <= looked // 4


def test_an_error_in_the_writer_itself_ends_the_store(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fatal: list[str] = []
    store = SqliteStore(path, on_fatal=fatal.append)
    monkeypatch.setattr(committer, "SqliteTransaction", None)
    with pytest.raises(StoreUnavailable):
        store.transact(lambda transaction: transaction.insert(attempts("s")), timeout=0.5)
    with pytest.raises(StoreUnavailable, match="writer failed"):
        store.transact(lambda transaction: transaction.insert(attempts("s")), timeout=0.5)
    with pytest.raises(StoreUnavailable, match="writer failed"):
        store.read(lambda snapshot: snapshot.latest_time())
    store.close()
    assert len(fatal) == 1


def test_more_readers_than_connections_wait_or_are_refused(path: Path) -> None:
    store = SqliteStore(path, on_fatal=print, max_readers=2, read_patience=0.05)

    def nested(depth: int) -> int:
        return store.read(lambda snapshot: 1 if depth == 1 else 1 + nested(depth - 1))

    assert nested(2) == 2
    with pytest.raises(StoreUnavailable, match="free"):
        nested(3)
    assert nested(2) == 2
    store.close()


def test_a_corrupted_database_is_an_outage_not_a_crash(path: Path) -> None:
    store = SqliteStore(path, on_fatal=print)
    for number in range(200):
        store.transact(lambda transaction, n=number: transaction.insert(entry(f"e{n}")), timeout=10)  # type: ignore[misc]
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)

    def look() -> None:
        reopened = SqliteStore(path, on_fatal=print)
        try:
            reopened.read(lambda snapshot: snapshot.find(AuditEntry, limit=999))
        finally:
            reopened.close()

    with pytest.raises(StoreUnavailable, match="malformed"):
        look()
