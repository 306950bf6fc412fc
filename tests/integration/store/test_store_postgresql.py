"""What is particular to PostgreSQL: settings, roles, query plans, edited rows, conflicts, connections."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from enum import StrEnum
from typing import Any, get_type_hints

import psycopg
import pytest
from tests.contract.store_factories import PostgresqlDatabase, postgres_fixture  # noqa: F401
from tests.contract.store_records import ALL_RECORDS, TIME, attempts, counted, entry, example, sealed
from tests.support.postgres import PostgresServer

from trien_server.core.errors import RecordNotTrusted, StoreUnavailable
from trien_server.core.ports import Snapshot, Transaction
from trien_server.core.records import (
    Activator,
    AuditEntry,
    Authenticator,
    Authorization,
    Client,
    CredentialClient,
    Operator,
    Outcome,
    SignerAttempts,
)
from trien_server.core.retention import REMOVED
from trien_server.store import schema
from trien_server.store.mapping import INDEXES, OUTCOMES, UNSEALED_ENTRIES, ColumnType, mapping_of, tables
from trien_server.store.postgresql.connections import connect
from trien_server.store.postgresql.snapshot import PostgresqlSnapshot
from trien_server.store.postgresql.store import PostgresqlStore
from trien_server.store.schema import REVISIONS, SchemaMismatch, SchemaVerdict, migrate, schema_state
from trien_server.store.urls import open_store, postgresql_conninfo


@pytest.fixture
def database(postgres: PostgresServer) -> PostgresqlDatabase:
    return PostgresqlDatabase(postgres)


@pytest.fixture
def store(database: PostgresqlDatabase) -> Iterator[PostgresqlStore]:
    opened = database.open()
    yield opened
    opened.close()


@pytest.fixture
def restored(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The server, whose settings are put back afterwards."""
    yield postgres
    postgres.admin("ALTER SYSTEM RESET ALL")
    postgres.reload()
    postgres.set_base()
    postgres.reload()
    postgres.wait_until("SELECT current_setting('fsync') || current_setting('full_page_writes') = 'onon'")


def insert(name: str) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.insert(attempts(name))


def change(server: PostgresServer, name: str, value: str) -> None:
    server.admin(f"ALTER SYSTEM SET {name} = '{value}'")
    server.reload()
    server.wait_until("SELECT current_setting($1) = $2", name, value)


@pytest.mark.promise("P1")
@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_flush_is_refused_at_start_and_while_running(
    restored: PostgresServer, database: PostgresqlDatabase, name: str
) -> None:
    conninfo = postgresql_conninfo(restored.url(database.database))
    store = PostgresqlStore(conninfo, look_every=0)
    store.transact(insert("before"), timeout=10)
    change(restored, name, "off")
    with pytest.raises(StoreUnavailable, match=f"{name} is 'off'"):
        store.transact(insert("meanwhile"), timeout=10)
    with pytest.raises(StoreUnavailable, match=f"{name} is 'off'"):
        database.open()
    change(restored, name, "on")
    store.transact(insert("after"), timeout=10)
    names = [row.record.name for row in store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=9))]
    store.close()
    assert names == ["after", "before"]


@pytest.mark.promise("P1")
def test_a_commit_that_waits_for_less_than_the_flush_is_refused(database: PostgresqlDatabase) -> None:
    allowed = ["on", "remote_apply"]
    refused = ["off", "local", "remote_write"]
    for value in allowed:
        store = open_store(f"{database.url}&options=-csynchronous_commit%3D{value}", on_fatal=print)
        store.transact(insert(value), timeout=10)
        store.close()
    for value in refused:
        with pytest.raises(StoreUnavailable, match=f"synchronous_commit is '{value}'"):
            open_store(f"{database.url}&options=-csynchronous_commit%3D{value}", on_fatal=print)
    assert len(allowed) + len(refused) == 5


@pytest.mark.promise("P1")
def test_what_the_role_or_the_system_sets_later_does_not_weaken_an_open_session(
    restored: PostgresServer, database: PostgresqlDatabase
) -> None:
    connection, _ = connect(postgresql_conninfo(restored.url(database.database)))
    restored.admin("ALTER SYSTEM SET synchronous_commit = 'off'")
    restored.reload()
    restored.wait_until("SELECT current_setting('synchronous_commit') = 'off'")
    row = connection.execute("SELECT current_setting('synchronous_commit')").fetchone()
    connection.close()
    assert row == ("on",)


def test_a_database_that_cannot_hold_or_take_writes_is_refused(postgres: PostgresServer) -> None:
    postgres.admin("CREATE DATABASE latin OWNER trien_owner ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    with pytest.raises(StoreUnavailable, match="encoding is LATIN1"):
        open_store(postgres.url("latin"), on_fatal=print)
    with pytest.raises(StoreUnavailable, match="read-only"):
        open_store(f"{postgres.url('trien')}&options=-cdefault_transaction_read_only%3Don", on_fatal=print)
    with pytest.raises(StoreUnavailable, match=r"cannot be reached .*no_such"):
        open_store(postgres.url("no_such"), on_fatal=print)
    with pytest.raises(StoreUnavailable, match=r"cannot be reached .*nobody"):
        schema_state(postgres.url("trien", "nobody"))


def test_the_session_is_what_the_store_relies_on(database: PostgresqlDatabase) -> None:
    connection, look = connect(postgresql_conninfo(database.server.url(database.database)))
    wanted = {
        "client_encoding": "UTF8", "TimeZone": "UTC", "statement_timeout": "30s", "lock_timeout": "30s",
        "idle_in_transaction_session_timeout": "10s", "enable_seqscan": "off", "application_name": "trien-server",
    }  # fmt: skip
    found = {}
    for name in wanted:
        row = connection.execute("SELECT current_setting($1)", (name,)).fetchone()
        assert row is not None
        found[name] = row[0]
    connection.close()
    assert found == wanted
    assert (look.timeline, look.synchronous) == (1, False)
    assert len(look.system_identifier) > 10


DDL = [
    "CREATE TABLE t (x int)",
    "CREATE TEMPORARY TABLE t (x int)",
    "CREATE SCHEMA s",
    "ALTER TABLE signers ADD COLUMN x int",
    "ALTER TABLE signers DISABLE TRIGGER ALL",
    "CREATE INDEX i ON signers (kind)",
    "DROP INDEX clients_by_token_hash",
    "DROP TABLE outcomes",
    "TRUNCATE audit_entries",
    "DELETE FROM audit_entries",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE RULE r AS ON INSERT TO audit_entries DO INSTEAD NOTHING",
    "UPDATE alembic_version SET version_num = '9'",
    "ALTER DATABASE trien SET synchronous_commit = off",
    "CREATE ROLE r",
    "SET ROLE trien_owner",
]


@pytest.mark.requirement("ASVS 5.0.0-13.2.2")
@pytest.mark.parametrize("statement", DDL)
def test_the_servers_role_cannot_change_the_schema(postgres: PostgresServer, statement: str) -> None:
    """`ALTER … DISABLE` and the like need the owner; the whole contract suite runs with the server's role."""
    with (
        psycopg.connect(postgres.url("trien"), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege) as refused,
    ):
        connection.execute(statement.encode())
    assert "permission denied" in str(refused.value) or "must be owner" in str(refused.value)


@pytest.mark.promise("P5", "P10")
@pytest.mark.requirement("ASVS 5.0.0-13.2.2")
def test_the_servers_role_deletes_only_what_is_kept_for_a_time(postgres: PostgresServer) -> None:
    """Not an audit entry, a key, a person or a count of failures, whatever a server process is made to do."""
    deletable = {*(kind.table for kind in REMOVED), OUTCOMES, UNSEALED_ENTRIES}
    refused = 0
    with psycopg.connect(postgres.url("trien"), autocommit=True) as connection:
        for table in tables():
            statement = f'DELETE FROM "{table}" WHERE false'
            if table in deletable:
                connection.execute(statement.encode())
                continue
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())
            refused += 1
    assert refused == len(tables()) - len(deletable)
    assert refused > 20


@pytest.mark.requirement("ASVS 5.0.0-13.2.2")
def test_the_servers_role_cannot_migrate(postgres: PostgresServer) -> None:
    postgres.admin("CREATE DATABASE empty OWNER trien_owner TEMPLATE template0")
    assert schema_state(postgres.url("empty")).verdict is SchemaVerdict.EMPTY
    with pytest.raises(SchemaMismatch, match="no schema"):
        open_store(postgres.url("empty"), on_fatal=print)
    with pytest.raises(StoreUnavailable, match="permission denied"):
        migrate(postgres.url("empty"))
    assert schema_state(postgres.url("empty")).verdict is SchemaVerdict.EMPTY


def test_two_who_migrate_at_once_wait_for_each_other_and_a_failure_leaves_nothing(postgres: PostgresServer) -> None:
    postgres.admin("CREATE DATABASE two OWNER trien_owner TEMPLATE template0")
    url = postgres.url("two", "trien_owner")
    postgres.admin("CREATE TABLE outcomes (in_the_way text)", database="two", role="trien_owner")
    with pytest.raises(StoreUnavailable, match="outcomes"):
        migrate(url)
    made = postgres.admin("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", database="two")
    assert made == [("outcomes",)]
    postgres.admin("DROP TABLE outcomes", database="two", role="trien_owner")

    with ThreadPoolExecutor(3) as pool:
        before = [future.result(60).verdict.name for future in [pool.submit(migrate, url) for _ in range(3)]]
    assert sorted(before) == ["CURRENT", "CURRENT", "EMPTY"]
    assert schema_state(url).verdict is SchemaVerdict.CURRENT


@pytest.mark.parametrize(
    ("revision", "verdict", "advice"),
    [("9999", SchemaVerdict.NEWER, "newer"), ("0000", SchemaVerdict.BEHIND, "trien-server migrate")],
)
def test_a_server_refuses_a_schema_that_is_not_its_own(
    database: PostgresqlDatabase, monkeypatch: pytest.MonkeyPatch, revision: str, verdict: SchemaVerdict, advice: str
) -> None:
    monkeypatch.setattr(schema, "REVISIONS", ("0000", *REVISIONS))
    database.server.admin("UPDATE alembic_version SET version_num = $1", revision, database=database.database)
    with pytest.raises(SchemaMismatch, match=advice) as refused:
        database.open()
    assert refused.value.state.verdict is verdict
    if verdict is SchemaVerdict.NEWER:
        with pytest.raises(SchemaMismatch, match="newer"):
            migrate(database.server.url(database.database, "trien_owner"))


def test_only_urls_without_a_password_are_taken() -> None:
    refused = {
        "postgresql://trien_server:geheim@db/trien": "passfile",
        "postgresql://trien_server@db/trien?password=geheim": "passfile",
        "postgresql://db/trien?no_such_option=1": "understands",
        "mysql://db/trien": "postgresql:",
    }
    for url, advice in refused.items():
        with pytest.raises(ValueError, match=advice) as error:
            postgresql_conninfo(url)
        assert "geheim" not in str(error.value)
    taken = postgresql_conninfo("postgresql://trien_server@a,b/trien?passfile=/etc/trien/pgpass&connect_timeout=9")
    assert "target_session_attrs=read-write" in taken
    assert "connect_timeout=9" in taken
    assert len(refused) == 4


def test_every_field_of_every_record_has_its_column_and_there_are_no_others(database: PostgresqlDatabase) -> None:
    rows = database.server.admin(
        "SELECT table_name, column_name, data_type, is_nullable, collation_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
        database=database.database,
    )
    types = {
        ColumnType.TEXT: "text", ColumnType.INTEGER: "bigint", ColumnType.BOOLEAN: "boolean", ColumnType.BLOB: "bytea",
    }  # fmt: skip
    wanted = {
        (
            table, column.name, types[column.type], "YES" if column.nullable else "NO",
            "C" if column.type is ColumnType.TEXT else None,
        )
        for table, columns in tables().items()
        for column in columns
    }  # fmt: skip
    assert set(rows) == wanted
    assert len(rows) > 150
    indexes = database.server.admin("SELECT indexdef FROM pg_indexes", database=database.database)
    for index in INDEXES:
        kind = "UNIQUE INDEX" if index.unique else "INDEX"
        columns = ", ".join(index.columns)
        ending = f"ON public.{index.table} USING btree ({columns})"
        assert any(kind in line and line.replace('"', "").endswith(ending) for (line,) in indexes), ending
    keys = {f"CREATE UNIQUE INDEX {table}_key" for table in tables()}
    assert sum(line.startswith(tuple(keys)) for (line,) in indexes) == len(tables()) >= 29
    assert OUTCOMES in tables()


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
def test_a_lookup_on_the_way_of_a_request_uses_an_index_also_of_an_empty_table(
    postgres: PostgresServer, lookup: Callable[[Snapshot], object]
) -> None:
    connection, _ = connect(postgresql_conninfo(postgres.url("trien")))
    plans: list[str] = []

    class Explained(PostgresqlSnapshot):
        def _execute(self, sql: str, arguments: Any) -> list[tuple[Any, ...]]:
            plans.extend(row[0] for row in super()._execute(f"EXPLAIN {sql}", arguments))
            return super()._execute(sql, arguments)

    lookup(Explained(connection, "BEGIN READ ONLY"))
    connection.close()
    assert any("Index" in line for line in plans)
    assert not any("Seq Scan" in line for line in plans)


@pytest.mark.promise("P5")
def test_no_edited_value_becomes_a_record_unless_it_is_one(
    database: PostgresqlDatabase, store: PostgresqlStore
) -> None:
    """The wrong values that the types of the columns let through, in every column that has such."""
    refused = 0
    with psycopg.connect(database.server.url(database.database, "postgres"), autocommit=True) as editor:
        for kind in ALL_RECORDS:
            original = sealed(example(kind, "n", seed=3))
            store.transact(lambda transaction, row=original: transaction.insert(row), timeout=10)  # type: ignore[misc]
            hints = get_type_hints(kind)
            for field in fields(kind):
                column = mapping_of(kind).by_name[field.name]
                hint = str(hints[field.name])
                values: list[Any] = []
                if "tuple" in hint:
                    values = ["", "no such", "{}", "[1]", "[" * 100_000, "null"]
                elif isinstance(hints[field.name], type) and issubclass(hints[field.name], StrEnum):
                    values = ["", "no such"]
                elif "datetime" in hint:
                    values = [2**62, -(2**62)]
                for value in values:
                    sql = f"UPDATE {kind.table} SET \"{field.name}\" = %s WHERE name = 'n'"
                    editor.execute(sql.encode(), (value,))
                    with pytest.raises(RecordNotTrusted) as error:
                        store.read(lambda snapshot, kind=kind: snapshot.get(kind, "n"))  # type: ignore[misc]
                    assert (error.value.table, error.value.name) == (kind.table, "n")
                    refused += 1
                if values:
                    stored = column.encode(getattr(original.record, field.name))
                    editor.execute(
                        f"UPDATE {kind.table} SET \"{field.name}\" = %s WHERE name = 'n'".encode(), (stored,)
                    )
            assert store.read(lambda snapshot, kind=kind: snapshot.get(kind, "n")) == original  # type: ignore[misc]
    assert refused > 90


def test_a_text_with_a_null_character_names_nothing_and_is_not_stored(store: PostgresqlStore) -> None:
    assert store.read(lambda s: s.get(SignerAttempts, "a\0b")) is None
    assert store.read(lambda s: s.find(Authorization, limit=9, client="a\0b")) == []
    assert store.read(lambda s: s.latest_change("a\0b")) is None
    assert store.read(lambda s: s.outcome("a\0b")) is None

    def work(transaction: Transaction) -> None:
        with pytest.raises(ValueError, match=r"U\+0000"):
            transaction.insert(attempts("a\0b"))
        transaction.insert(attempts("right"))

    store.transact(work, timeout=10)
    assert store.read(lambda s: s.get(SignerAttempts, "right")) is not None


@pytest.mark.promise("P2")
def test_a_work_that_loses_to_others_runs_again_and_at_last_alone(store: PostgresqlStore) -> None:
    """Another one changes what was read, each time before the work writes: until nobody else may run."""
    store.transact(insert("s"), timeout=10)
    tries: list[int] = []
    interlopers: list[threading.Thread] = []

    def raise_by_one(transaction: Transaction) -> int:
        row = transaction.get(SignerAttempts, "s")
        assert row is not None
        transaction.replace(counted(row))
        return row.record.failures + 1

    def work(transaction: Transaction) -> int:
        row = transaction.get(SignerAttempts, "s")
        assert row is not None
        tries.append(row.record.failures)
        interlopers.append(threading.Thread(target=store.transact, args=(raise_by_one,), kwargs={"timeout": 20}))
        interlopers[-1].start()
        interlopers[-1].join(1)  # Alone: it waits for us, not we for it.
        transaction.replace(counted(row))
        return row.record.failures + 1

    assert store.transact(work, timeout=20) == 3
    for thread in interlopers:
        thread.join(20)
    row = store.read(lambda snapshot: snapshot.get(SignerAttempts, "s"))
    assert row is not None
    assert row.record.failures == 4
    assert tries == [0, 1, 2]
    assert (store.counts.conflicts, store.counts.alone, store.counts.commits) == (2, 1, 5)


@pytest.mark.promise("P2")
def test_a_conflict_that_the_work_catches_is_still_one(store: PostgresqlStore) -> None:
    store.transact(insert("s"), timeout=10)
    tries: list[int] = []

    def work(transaction: Transaction) -> str:
        row = transaction.get(SignerAttempts, "s")
        assert row is not None
        tries.append(row.record.failures)
        if len(tries) == 1:
            other = threading.Thread(
                target=store.transact, args=(lambda t: t.replace(counted(row)),), kwargs={"timeout": 10}
            )
            other.start()
            other.join(10)
        try:
            transaction.replace(counted(row))
        except StoreUnavailable:
            return "caught"
        return "written"

    assert store.transact(work, timeout=10) == "written"
    assert tries == [0, 1]
    assert store.counts.conflicts == 1


def test_transactions_that_touch_nothing_in_common_run_side_by_side(store: PostgresqlStore) -> None:
    """Each waits for the other inside its work: one after the other, neither would end."""
    barrier = threading.Barrier(2, timeout=10)

    def work(transaction: Transaction, name: str) -> None:
        transaction.latest_time()
        transaction.insert(entry(name))
        barrier.wait()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(store.transact, lambda t, n=name: work(t, n), timeout=20) for name in ("a", "b")]  # type: ignore[misc]
        assert [future.exception(20) for future in futures] == [None, None]
    assert store.counts.conflicts == 0
    assert len(store.read(lambda s: s.find(AuditEntry, limit=9))) == 2


@pytest.mark.promise("P1", "P8")
def test_a_work_that_runs_past_its_time_is_not_committed(store: PostgresqlStore) -> None:
    def work(transaction: Transaction) -> None:
        transaction.insert(attempts("slow"))
        time.sleep(0.4)

    with pytest.raises(StoreUnavailable, match="nothing was written"):
        store.transact(work, timeout=0.2)
    store.transact(insert("next"), timeout=10)
    assert [row.record.name for row in store.read(lambda s: s.find(SignerAttempts, limit=9))] == ["next"]


def test_more_callers_than_connections_wait_or_are_refused(database: PostgresqlDatabase) -> None:
    conninfo = postgresql_conninfo(database.server.url(database.database))
    store = PostgresqlStore(conninfo, max_connections=2, read_patience=0.2)

    def nested(depth: int) -> int:
        return store.read(lambda snapshot: 1 if depth == 1 else 1 + nested(depth - 1))

    assert nested(2) == 2
    with pytest.raises(StoreUnavailable, match="free"):
        nested(3)
    assert nested(2) == 2
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1"
    assert database.server.admin(count, database.database)[0][0] == 2
    store.close()
    database.server.wait_until("SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = $1", database.database)


def test_closing_lets_a_transaction_finish(database: PostgresqlDatabase) -> None:
    store = database.open()
    inside, go_on = threading.Event(), threading.Event()

    def work(transaction: Transaction) -> None:
        transaction.insert(attempts("s"))
        inside.set()
        assert go_on.wait(10)

    with ThreadPoolExecutor(2) as pool:
        result = pool.submit(store.transact, work, timeout=20)
        assert inside.wait(10)
        closing = pool.submit(store.close)
        time.sleep(0.1)
        with pytest.raises(StoreUnavailable, match="closed"):
            store.transact(insert("too late"), timeout=10)
        assert not closing.done()
        go_on.set()
        result.result(10)
        closing.result(10)
    store = database.open()
    assert [row.record.name for row in store.read(lambda s: s.find(SignerAttempts, limit=9))] == ["s"]
    store.close()


@pytest.mark.promise("P5")
def test_an_edited_outcome_or_time_is_refused(database: PostgresqlDatabase, store: PostgresqlStore) -> None:
    outcome = Outcome(request="r", signatures=(b"s",), create_time=TIME)
    store.transact(lambda transaction: transaction.record_outcome(outcome), timeout=10)
    store.transact(lambda transaction: transaction.insert(entry("e")), timeout=10)
    database.server.admin(
        f"UPDATE outcomes SET signatures = 'x'; UPDATE audit_entries SET time = {2**62}", database=database.database
    )
    reads: list[Callable[[Snapshot], object]] = [lambda s: s.outcome("r"), lambda s: s.latest_time()]
    for read in reads:
        with pytest.raises(RecordNotTrusted):
            store.read(read)
        with pytest.raises(RecordNotTrusted):
            store.transact(read, timeout=10)
    assert len(reads) == 2


@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    ("change", "back"),
    [
        (
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
            "CREATE TRIGGER t BEFORE INSERT ON audit_entries FOR EACH ROW EXECUTE FUNCTION f()",
            "DROP TRIGGER t ON audit_entries",
        ),
        ("CREATE RULE r AS ON UPDATE TO clients DO INSTEAD NOTHING", "DROP RULE r ON clients"),
        (
            "ALTER TABLE clients ADD COLUMN extra text GENERATED ALWAYS AS (name) STORED",
            "ALTER TABLE clients DROP extra",
        ),
        ("CREATE INDEX i ON clients (lower(name))", "DROP INDEX i"),
        ("ALTER TABLE signers ENABLE ROW LEVEL SECURITY", "ALTER TABLE signers DISABLE ROW LEVEL SECURITY"),
        ("CREATE VIEW v AS SELECT * FROM clients", "DROP VIEW v"),
    ],
    ids=["trigger", "rule", "generated column", "index over an expression", "row security", "view"],
)
def test_tables_that_do_something_by_themselves_are_refused(
    database: PostgresqlDatabase, change: str, back: str
) -> None:
    url = database.server.url(database.database)
    open_store(url, on_fatal=print).close()
    database.server.admin(change, database=database.database)
    with pytest.raises(StoreUnavailable, match="schema was changed"):
        open_store(url, on_fatal=print)
    database.server.admin(back, database=database.database)
    open_store(url, on_fatal=print).close()
