"""What every adapter of `core.ports.Store` must do, one call at a time."""

from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from tests.contract.store_factories import (  # noqa: F401
    Database,
    database_fixture,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.contract.store_records import ALL_RECORDS, TIME, attempts, client, entry, example, sealed

from trien_server.core.errors import RecordNotTrusted, StoreUnavailable
from trien_server.core.ports import NameTaken, Sealed, Snapshot, Store, Transaction, VersionConflict
from trien_server.core.records import (
    AuditEntry,
    Authorization,
    AuthorizationState,
    Client,
    Outcome,
    Record,
    SignerAttempts,
    State,
)


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    opened = database.open()
    yield opened
    opened.close()


def insert(store: Store, *rows: Sealed[Any]) -> None:
    def work(transaction: Transaction) -> None:
        for row in rows:
            transaction.insert(row)

    store.transact(work, timeout=10)


def record_outcome(store: Store, outcome: Outcome) -> None:
    store.transact(lambda transaction: transaction.record_outcome(outcome), timeout=10)


def get(store: Store, kind: type[Record], name: str) -> Sealed[Any] | None:
    return store.read(lambda snapshot: snapshot.get(kind, name))


@pytest.mark.promise("P1")
def test_records_of_every_class_come_back_the_same_after_a_restart(database: Database) -> None:
    rows = [sealed(example(kind, f"{kind.table}/{seed}", seed=seed)) for kind in ALL_RECORDS for seed in range(20)]
    outcomes = [Outcome(request=f"r{n}", signatures=(b"", b"\xff" * n), create_time=TIME) for n in range(20)]
    store = database.open()
    unique = {row.record.token_hash: row for row in rows if isinstance(row.record, Client)}
    rows = [row for row in rows if not isinstance(row.record, Client) or row is unique[row.record.token_hash]]
    insert(store, *rows)
    for outcome in outcomes:
        record_outcome(store, outcome)
    store.close()

    store = database.open()
    found = [get(store, type(row.record), row.record.name) for row in rows]
    kept = [store.read(lambda snapshot, name=o.request: snapshot.outcome(name)) for o in outcomes]  # type: ignore[misc]
    store.close()

    assert found == rows
    assert kept == outcomes
    assert {type(row.record) for row in rows} == set(ALL_RECORDS)
    assert len(rows) > 300


def test_a_time_comes_back_in_utc_to_the_microsecond(store: Store) -> None:
    hanoi = datetime(2026, 11, 24, 14, 30, 0, 123457, tzinfo=timezone(timedelta(hours=7)))
    insert(store, sealed(example(SignerAttempts, "s", failures=1, locked_until=hanoi)))
    row = get(store, SignerAttempts, "s")
    assert row is not None
    assert row.record.locked_until == hanoi
    assert row.record.locked_until.tzinfo is UTC


def test_a_value_of_another_type_is_refused_and_the_transaction_goes_on(store: Store) -> None:
    refused = 0

    def work(transaction: Transaction) -> None:
        nonlocal refused
        for kind in ALL_RECORDS:
            record = example(kind, "wrong")
            for field in fields(kind):
                if field.name == "version":
                    continue
                wrong: Any = {field.name: [getattr(record, field.name)]}
                with pytest.raises(TypeError):
                    transaction.insert(sealed(replace(record, **wrong)))
                refused += 1
        transaction.insert(attempts("right"))

    store.transact(work, timeout=10)
    assert refused == sum(len(fields(kind)) - 1 for kind in ALL_RECORDS)
    assert get(store, SignerAttempts, "right") is not None
    assert all(get(store, kind, "wrong") is None for kind in ALL_RECORDS)


def test_a_taken_name_is_refused_and_the_transaction_goes_on(store: Store) -> None:
    insert(store, attempts("taken", 5))

    def work(transaction: Transaction) -> None:
        transaction.insert(attempts("before"))
        with pytest.raises(NameTaken):
            transaction.insert(attempts("taken", 9))
        with pytest.raises(NameTaken):
            transaction.insert(attempts("before", 9))
        transaction.insert(attempts("after"))

    store.transact(work, timeout=10)
    rows = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=9))
    assert [(row.record.name, row.record.failures) for row in rows] == [("after", 0), ("before", 0), ("taken", 5)]


def test_a_new_record_has_version_1(store: Store) -> None:
    with pytest.raises(ValueError, match="version 1"):
        insert(store, attempts("s", version=2))
    assert get(store, SignerAttempts, "s") is None


def test_only_the_next_version_replaces_a_record_and_the_transaction_goes_on(store: Store) -> None:
    insert(store, attempts("s"))
    conflicts = 0

    def work(transaction: Transaction) -> None:
        nonlocal conflicts
        transaction.replace(attempts("s", 1, version=2))
        for version in (0, 1, 2, 4, 5):
            with pytest.raises(VersionConflict):
                transaction.replace(attempts("s", 9, version=version))
            conflicts += 1
        with pytest.raises(VersionConflict):
            transaction.replace(attempts("unknown", 9, version=2))
        transaction.replace(attempts("s", 2, version=3))

    store.transact(work, timeout=10)
    assert conflicts == 5
    assert get(store, SignerAttempts, "s") == attempts("s", 2, version=3)
    assert get(store, SignerAttempts, "unknown") is None


def test_a_replaced_row_takes_over_fields_and_seal(store: Store) -> None:
    for kind in ALL_RECORDS:
        old = example(kind, "n", seed=1)
        new = sealed(replace(example(kind, "n", seed=2), version=2), seal=b"new", seal_key="2")
        insert(store, sealed(old))
        store.transact(lambda transaction, new=new: transaction.replace(new), timeout=10)  # type: ignore[misc]
        assert get(store, kind, "n") == new


def test_what_work_raises_is_raised_unchanged_and_nothing_stays(store: Store) -> None:
    class Unusual(BaseException):
        pass

    for error in (Unusual("the message", 7), ValueError("v"), NameTaken("n")):

        def work(transaction: Transaction, error: BaseException = error) -> None:
            transaction.insert(attempts("s"))
            transaction.record_outcome(Outcome(request="r", signatures=(), create_time=TIME))
            raise error

        with pytest.raises(type(error)) as raised:
            store.transact(work, timeout=10)
        assert raised.value is error
        assert get(store, SignerAttempts, "s") is None
        assert store.read(lambda snapshot: snapshot.outcome("r")) is None


def test_a_transaction_reads_its_own_writes(store: Store) -> None:
    def work(transaction: Transaction) -> str:
        assert transaction.latest_time() is None
        transaction.insert(entry("e1", subject="keys/k", subject_version=1, time=TIME))
        transaction.insert(entry("e2", subject="keys/k", subject_version=2, time=TIME - timedelta(seconds=1)))
        transaction.insert(attempts("s"))
        transaction.replace(attempts("s", 1, version=2))
        transaction.record_outcome(Outcome(request="r", signatures=(b"s",), create_time=TIME))
        assert transaction.get(SignerAttempts, "s") == attempts("s", 1, version=2)
        assert [row.record.name for row in transaction.find(AuditEntry, limit=5, subject="keys/k")] == ["e1", "e2"]
        change = transaction.latest_change("keys/k")
        assert change is not None
        assert transaction.latest_time() == TIME
        assert transaction.outcome("r") is not None
        return change.record.name

    assert store.transact(work, timeout=10) == "e2"


def test_the_first_outcome_of_a_request_stays(store: Store) -> None:
    first = Outcome(request="r", signatures=(b"1", b""), create_time=TIME)
    later = Outcome(request="r", signatures=(b"2",), create_time=TIME + timedelta(days=1))
    for outcome in (first, later, later):
        record_outcome(store, outcome)
    assert store.read(lambda snapshot: snapshot.outcome("r")) == first
    assert store.read(lambda snapshot: snapshot.outcome("R")) is None


def test_pages_follow_each_other_by_name_in_byte_order(store: Store) -> None:
    names = sorted(
        {f"{letter}{number}" for letter in ("a", "B", "ä", "Đ", "🖋", "\uffff", "a/", "a-") for number in range(23)},
        key=str.encode,
    )
    insert(store, *(attempts(name, number % 3) for number, name in enumerate(names)))

    for wanted in (None, 0, 2):
        equal: dict[str, object] = {} if wanted is None else {"failures": wanted}
        found: list[str] = []
        pages = 0
        while True:
            page = store.read(
                lambda snapshot, after=found[-1] if found else "", equal=equal: snapshot.find(  # type: ignore[misc]
                    SignerAttempts, limit=10, after=after, **equal
                )
            )
            if not page:
                break
            pages += 1
            assert len(page) <= 10
            found += [row.record.name for row in page]
        expected = [name for number, name in enumerate(names) if wanted is None or number % 3 == wanted]
        assert found == expected
        assert pages == -(-len(expected) // 10)
    assert len(names) == 184


def test_find_compares_fields_of_every_type(store: Store) -> None:
    compared = 0
    for kind in ALL_RECORDS:
        rows = [sealed(example(kind, f"n{number}", seed=number)) for number in range(2 if kind is Client else 12)]
        rows = [row for row in rows if not isinstance(row.record, Client) or row.record.name != "n1"]
        insert(store, *rows)
        for field in fields(kind):
            value = getattr(rows[0].record, field.name)
            found = store.read(
                lambda snapshot, kind=kind, name=field.name, value=value: snapshot.find(  # type: ignore[misc]
                    kind, limit=99, **{name: value}
                )
            )
            expected = [row for row in rows if getattr(row.record, field.name) == value]
            assert found == sorted(expected, key=lambda row: row.record.name)
            compared += 1
    assert compared == sum(len(fields(kind)) for kind in ALL_RECORDS)


def test_find_by_several_fields_and_by_none(store: Store) -> None:
    rows = [
        sealed(example(Authorization, f"a{n}", client=f"c{n % 2}", state=state, approval=None if n % 3 else "p"))
        for n, state in enumerate([*AuthorizationState] * 6)
    ]
    insert(store, *rows)
    found = store.read(
        lambda snapshot: snapshot.find(
            Authorization, limit=99, client="c0", state=AuthorizationState.PENDING, approval=None
        )
    )
    assert [row.record.name for row in found] == ["a16", "a20", "a4", "a8"]
    assert store.read(lambda s: s.find(Authorization, limit=99, client="c0", approver="nobody' OR 1=1 --")) == []


def test_find_refuses_an_unknown_field_a_wrong_type_and_no_limit(store: Store) -> None:
    refusals: list[tuple[type[Exception], dict[str, Any]]] = [
        (TypeError, {"limit": 1, "no_such_field": "x"}),
        (TypeError, {"limit": 1, 'name" = "name': "x"}),
        (TypeError, {"limit": 1, "failures": "1"}),
        (ValueError, {"limit": 0}),
        (ValueError, {"limit": -1}),
    ]
    for error, arguments in refusals:
        with pytest.raises(error):
            store.read(lambda snapshot, arguments=arguments: snapshot.find(SignerAttempts, **arguments))  # type: ignore[misc]


@pytest.mark.promise("P5")
def test_the_latest_change_is_the_highest_version_that_names_the_subject(store: Store) -> None:
    insert(
        store,
        *(entry(f"e{n}", subject="keys/k", subject_version=n) for n in (2, 9, 10, 3)),
        entry("e99", subject="keys/k", subject_version=None),
        entry("f", subject="keys/k2", subject_version=77),
        entry("g", subject=None, subject_version=88),
    )
    latest = store.read(lambda snapshot: snapshot.latest_change("keys/k"))
    assert latest is not None
    assert latest.record.name == "e10"
    assert store.read(lambda snapshot: snapshot.latest_change("keys/")) is None
    assert store.read(lambda snapshot: snapshot.latest_change("keys/K")) is None


@pytest.mark.promise("P8")
def test_the_latest_time_is_the_highest_of_all_entries(store: Store) -> None:
    assert store.read(lambda snapshot: snapshot.latest_time()) is None
    times = [TIME + timedelta(microseconds=n) for n in (-5, 3, 0)]
    insert(store, *(entry(f"e{n}", time=time) for n, time in enumerate(times)))
    assert store.read(lambda snapshot: snapshot.latest_time()) == TIME + timedelta(microseconds=3)


def test_a_token_belongs_to_one_client(store: Store) -> None:
    insert(store, client("a", token_hash=b"t"), client("b"), client("c"), client("d", token_hash=b"u"))

    def work(transaction: Transaction) -> None:
        with pytest.raises(NameTaken):
            transaction.insert(client("e", token_hash=b"t"))
        with pytest.raises(NameTaken):
            transaction.replace(sealed(replace(client("d", token_hash=b"t").record, version=2)))
        transaction.replace(sealed(replace(client("a", token_hash=b"t").record, version=2, state=State.DISABLED)))

    store.transact(work, timeout=10)
    rows = store.read(lambda snapshot: snapshot.find(Client, limit=9))
    assert [(row.record.name, row.record.version) for row in rows] == [("a", 2), ("b", 1), ("c", 1), ("d", 1)]


@pytest.mark.promise("P5")
def test_a_row_that_is_no_record_is_refused_by_its_table_and_name(store: Store, database: Database) -> None:
    insert(store, entry("bad", subject="keys/k", subject_version=2), entry("good", subject="keys/l", subject_version=1))
    database.mangle(AuditEntry, "bad")
    reads = [
        lambda snapshot: snapshot.get(AuditEntry, "bad"),
        lambda snapshot: snapshot.find(AuditEntry, limit=9),
        lambda snapshot: snapshot.find(AuditEntry, limit=9, subject="keys/k"),
        lambda snapshot: snapshot.latest_change("keys/k"),
    ]
    for read in reads:
        with pytest.raises(RecordNotTrusted) as refused:
            store.read(read)
        assert (refused.value.table, refused.value.name) == ("audit_entries", "bad")
        with pytest.raises(RecordNotTrusted):
            store.transact(read, timeout=10)
    assert get(store, AuditEntry, "good") is not None
    assert store.read(lambda snapshot: snapshot.latest_change("keys/l")) is not None
    assert len(reads) == 4


def test_a_snapshot_cannot_write(store: Store) -> None:
    for method in ("insert", "replace", "record_outcome"):
        with pytest.raises(AttributeError):
            store.read(lambda snapshot, method=method: getattr(snapshot, method)(attempts("s")))  # type: ignore[misc]


def test_a_view_is_dead_after_its_work(store: Store) -> None:
    views: list[Snapshot] = [store.transact(lambda transaction: transaction, timeout=10), store.read(lambda view: view)]
    for view in views:
        with pytest.raises(RuntimeError):
            view.get(SignerAttempts, "s")
    with pytest.raises(RuntimeError):
        views[0].insert(attempts("s"))  # type: ignore[attr-defined]
    assert get(store, SignerAttempts, "s") is None


def test_a_work_may_not_wait_for_another_transaction(store: Store) -> None:
    def work(transaction: Transaction) -> None:
        store.transact(lambda inner: inner.insert(attempts("inner")), timeout=10)

    with pytest.raises(RuntimeError):
        store.transact(work, timeout=10)
    assert get(store, SignerAttempts, "inner") is None


def test_the_databases_clock_tells_the_time_in_utc_with_parts_of_a_second(store: Store) -> None:
    told = [(datetime.now(UTC), store.now(), datetime.now(UTC)) for _ in range(50)]
    millisecond = timedelta(milliseconds=1)
    assert all(before - millisecond <= now <= after + millisecond for before, now, after in told)
    assert all(now.tzinfo is UTC for _, now, _ in told)
    assert any(now.microsecond for _, now, _ in told)
    assert len(told) == 50


@pytest.mark.promise("P8")
def test_a_closed_store_refuses_everything(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailable):
        store.transact(lambda transaction: transaction.insert(attempts("s")), timeout=10)
    with pytest.raises(StoreUnavailable):
        get(store, SignerAttempts, "s")
    with pytest.raises(StoreUnavailable):
        store.now()


def test_no_time_left_means_that_nothing_runs(store: Store) -> None:
    ran: list[int] = []
    for timeout in (0.0, -1.0, -0.001):
        with pytest.raises(StoreUnavailable):
            store.transact(lambda _: ran.append(1), timeout=timeout)
    assert ran == []
