"""What every adapter of `core.ports.Store` must do when it removes records."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.contract.store_factories import (  # noqa: F401
    Database,
    database_fixture,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.contract.store_records import TIME, entry, example, sealed

from trien_server.core.ports import Sealed, Snapshot, Store, Transaction, VersionConflict
from trien_server.core.records import AuditEntry, DeliveryCount, GrantedRequest, Outcome, Record
from trien_server.core.retention import REMOVED


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


def count(name: str, sent: int = 0, version: int = 1) -> Sealed[DeliveryCount]:
    return sealed(example(DeliveryCount, name, sent=sent, version=version))


def remove(store: Store, kind: type[Record], name: str, version: int = 1) -> None:
    store.transact(lambda transaction: transaction.remove(kind, name, version=version), timeout=10)


def get(store: Store, kind: type[Record], name: str) -> Sealed[Any] | None:
    return store.read(lambda snapshot: snapshot.get(kind, name))


@pytest.mark.promise("P1")
def test_a_removed_record_of_each_kind_is_gone_after_a_restart_and_its_neighbours_stay(database: Database) -> None:
    store = database.open()
    for kind in REMOVED:
        insert(store, *(sealed(example(kind, f"n{number}", seed=number)) for number in range(3)))
        remove(store, kind, "n1")
    store.close()
    store = database.open()
    for kind in REMOVED:
        assert get(store, kind, "n1") is None, kind.table
        assert get(store, kind, "n0") is not None, kind.table
        assert [row.record.name for row in store.read(lambda s, kind=kind: s.find(kind, limit=9))] == ["n0", "n2"]  # type: ignore[misc]
    store.close()
    assert len(REMOVED) == 7


@pytest.mark.promise("P7")
def test_only_the_version_that_was_read_is_removed_and_the_transaction_goes_on(store: Store) -> None:
    insert(store, count("s"), count("other"))
    store.transact(lambda transaction: transaction.replace(count("s", 1, version=2)), timeout=10)
    conflicts = 0

    def work(transaction: Transaction) -> None:
        nonlocal conflicts
        conflicts = 0
        for name, version in (("s", 0), ("s", 1), ("s", 3), ("unknown", 1)):
            with pytest.raises(VersionConflict):
                transaction.remove(DeliveryCount, name, version=version)
            conflicts += 1
        transaction.remove(DeliveryCount, "other", version=1)
        with pytest.raises(VersionConflict):
            transaction.remove(DeliveryCount, "other", version=1)

    store.transact(work, timeout=10)
    assert conflicts == 4
    assert get(store, DeliveryCount, "s") == count("s", 1, version=2)
    assert get(store, DeliveryCount, "other") is None


def test_a_request_goes_with_its_outcome_and_with_no_other(store: Store) -> None:
    insert(store, *(sealed(example(GrantedRequest, name)) for name in ("r", "R", "r/2")), count("r"))
    for name in ("r", "R", "r/2"):
        outcome = Outcome(request=name, signatures=(name.encode(),), create_time=TIME)
        store.transact(lambda transaction, outcome=outcome: transaction.record_outcome(outcome), timeout=10)  # type: ignore[misc]
    remove(store, DeliveryCount, "r")
    assert store.read(lambda snapshot: snapshot.outcome("r")) is not None
    remove(store, GrantedRequest, "r")
    kept = {name: store.read(lambda snapshot, name=name: snapshot.outcome(name)) for name in ("r", "R", "r/2")}  # type: ignore[misc]
    assert {name for name, outcome in kept.items() if outcome is None} == {"r"}


def test_a_removed_name_is_free_again(store: Store) -> None:
    first = sealed(example(GrantedRequest, "r", seed=1))
    insert(store, first)
    store.transact(
        lambda transaction: transaction.record_outcome(Outcome(request="r", signatures=(b"old",), create_time=TIME)),
        timeout=10,
    )

    def work(transaction: Transaction) -> None:
        transaction.remove(GrantedRequest, "r", version=1)
        assert transaction.get(GrantedRequest, "r") is None
        assert transaction.outcome("r") is None
        transaction.insert(sealed(example(GrantedRequest, "r", seed=2)))
        transaction.record_outcome(Outcome(request="r", signatures=(b"new",), create_time=TIME))

    store.transact(work, timeout=10)
    assert get(store, GrantedRequest, "r") == sealed(example(GrantedRequest, "r", seed=2))
    outcome = store.read(lambda snapshot: snapshot.outcome("r"))
    assert outcome is not None
    assert outcome.signatures == (b"new",)


@pytest.mark.promise("P10")
def test_an_audit_entry_is_never_removed(store: Store) -> None:
    insert(store, entry("e", subject="keys/k", subject_version=1))

    def work(transaction: Transaction) -> None:
        with pytest.raises(ValueError, match="audit entries"):
            transaction.remove(AuditEntry, "e", version=1)

    store.transact(work, timeout=10)
    assert get(store, AuditEntry, "e") is not None
    assert store.read(lambda snapshot: len(snapshot.unsealed(limit=9))) == 1


def test_what_a_given_up_work_removed_is_still_there(store: Store) -> None:
    insert(store, sealed(example(GrantedRequest, "r")))
    outcome = Outcome(request="r", signatures=(b"s",), create_time=TIME)
    store.transact(lambda transaction: transaction.record_outcome(outcome), timeout=10)

    def work(transaction: Transaction) -> None:
        transaction.remove(GrantedRequest, "r", version=1)
        raise KeyError("given up")

    with pytest.raises(KeyError):
        store.transact(work, timeout=10)
    assert get(store, GrantedRequest, "r") is not None
    assert store.read(lambda snapshot: snapshot.outcome("r")) == outcome


def test_a_snapshot_removes_nothing(store: Store) -> None:
    insert(store, count("s"))
    with pytest.raises(AttributeError):
        store.read(lambda snapshot: snapshot.remove(DeliveryCount, "s", version=1))  # type: ignore[attr-defined]
    assert get(store, DeliveryCount, "s") is not None


@pytest.mark.promise("P1")
def test_removal_and_change_of_the_same_row_do_not_both_win(store: Store, record_property: Any) -> None:
    """One version is read; of what removes it and what replaces it one is refused, whichever comes first."""
    rounds = 0
    for number in range(40):
        name = f"s{number}"
        insert(store, count(name))
        changed = sealed(replace(count(name, 7).record, version=2))

        def change(transaction: Transaction, changed: Sealed[DeliveryCount] = changed) -> None:
            transaction.replace(changed)

        def take(transaction: Transaction, name: str = name) -> None:
            transaction.remove(DeliveryCount, name, version=1)

        first, second = (change, take) if number % 2 else (take, change)
        store.transact(first, timeout=10)
        with pytest.raises(VersionConflict):
            store.transact(second, timeout=10)
        assert (get(store, DeliveryCount, name) is None) is (number % 2 == 0)
        rounds += 1
    record_property("count", f"removals against changes {rounds}")
    assert rounds == 40


def _names(snapshot: Snapshot) -> list[str]:
    return [row.record.name for row in snapshot.find(DeliveryCount, limit=1000)]


def test_a_page_goes_on_behind_rows_that_were_removed(store: Store) -> None:
    insert(store, *(count(f"s{number:03d}") for number in range(50)))
    found: list[str] = []
    after = ""
    while page := store.read(lambda snapshot, after=after: snapshot.find(DeliveryCount, limit=7, after=after)):  # type: ignore[misc]
        for row in page:
            found.append(row.record.name)
            remove(store, DeliveryCount, row.record.name)
        after = found[-1]
    assert found == [f"s{number:03d}" for number in range(50)]
    assert store.read(_names) == []


def test_rows_are_counted_by_kind(store: Store) -> None:
    assert store.read(lambda snapshot: snapshot.count(DeliveryCount)) == 0
    insert(store, *(count(f"s{number}") for number in range(7)), entry("e"))
    remove(store, DeliveryCount, "s3")
    assert store.read(lambda snapshot: snapshot.count(DeliveryCount)) == 6
    assert store.read(lambda snapshot: snapshot.count(AuditEntry)) == 1
    assert store.transact(lambda transaction: transaction.count(GrantedRequest), timeout=10) == 0
