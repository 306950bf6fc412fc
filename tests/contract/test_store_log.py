"""What every adapter of `core.ports.Store` does with the positions in the log."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.contract.store_factories import (  # noqa: F401
    Database,
    database_fixture,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.contract.store_records import TIME, entry

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import NameTaken, Store, VersionConflict
from trien_server.core.records import AuditEntry

pytestmark = pytest.mark.promise("P10")

NAMES = [f"auditEntries/{number}" for number in range(5)]


@pytest.fixture
def store(database: Database) -> Iterator[Store]:
    opened = database.open()
    for number, name in enumerate(NAMES):
        row = entry(name, time=TIME - timedelta(minutes=number))
        opened.transact(lambda transaction, row=row: transaction.insert(row), timeout=10)  # type: ignore[misc]
    yield opened
    opened.close()


def unsealed(store: Store, *, limit: int = 10, after: str = "") -> list[str]:
    return store.read(lambda snapshot: [row.record.name for row in snapshot.unsealed(limit=limit, after=after)])


def log(store: Store, first: int = 0, *, limit: int = 10) -> list[tuple[int, str]]:
    return store.read(lambda snapshot: [(at, row.record.name) for at, row in snapshot.log(first, limit=limit)])


def assign(store: Store, first: int, *names: str) -> None:
    store.transact(lambda transaction: transaction.assign_positions(first, names), timeout=10)


def test_entries_without_a_position_come_by_name_and_in_pages(store: Store) -> None:
    assert unsealed(store) == NAMES
    assert unsealed(store, limit=2) == NAMES[:2]
    assert unsealed(store, limit=2, after=NAMES[1]) == NAMES[2:4]
    assert unsealed(store, after=NAMES[4]) == []
    assert store.read(lambda snapshot: snapshot.oldest_unsealed()) == TIME - timedelta(minutes=4)


def test_positions_are_assigned_in_order_and_entries_come_by_them(store: Store) -> None:
    assign(store, 0, NAMES[3], NAMES[0])
    assign(store, 2, NAMES[4])
    assert log(store) == [(0, NAMES[3]), (1, NAMES[0]), (2, NAMES[4])]
    assert log(store, 1, limit=1) == [(1, NAMES[0])]
    assert store.read(lambda snapshot: [snapshot.position(name) for name in NAMES]) == [1, None, None, 0, 2]
    assert store.read(lambda snapshot: snapshot.position("auditEntries/none")) is None
    assert unsealed(store) == [NAMES[1], NAMES[2]]
    assert store.read(lambda snapshot: snapshot.oldest_unsealed()) == TIME - timedelta(minutes=2)
    assign(store, 3, NAMES[1], NAMES[2])
    assert store.read(lambda snapshot: snapshot.oldest_unsealed()) is None


@pytest.mark.parametrize("names", [(NAMES[1], NAMES[0]), (NAMES[1], "auditEntries/none"), (NAMES[1], NAMES[1])])
def test_an_entry_gets_one_position_and_what_is_given_up_leaves_nothing(store: Store, names: tuple[str, ...]) -> None:
    assign(store, 0, NAMES[0])
    with pytest.raises(VersionConflict):
        assign(store, 1, *names)
    assert log(store) == [(0, NAMES[0])]
    assert unsealed(store) == NAMES[1:]


def test_a_position_that_is_taken_is_refused(store: Store) -> None:
    assign(store, 0, NAMES[0], NAMES[1])
    with pytest.raises(NameTaken):
        assign(store, 1, NAMES[2])
    assert log(store) == [(0, NAMES[0]), (1, NAMES[1])]
    assert unsealed(store) == NAMES[2:]


def test_an_entry_of_the_log_that_is_no_record_is_refused_by_its_name_and_hides_no_other(
    store: Store, database: Database
) -> None:
    assign(store, 0, *NAMES[:4])
    database.mangle(AuditEntry, NAMES[2])
    database.mangle(AuditEntry, NAMES[4])
    for read in (lambda: log(store), lambda: log(store, 2, limit=1)):
        with pytest.raises(RecordNotTrusted) as refused:
            read()
        assert refused.value.name == NAMES[2]
    with pytest.raises(RecordNotTrusted) as refused:
        unsealed(store)
    assert refused.value.name == NAMES[4]
    assert log(store, 0, limit=2) == [(0, NAMES[0]), (1, NAMES[1])]
    assert log(store, 3) == [(3, NAMES[3])]


def test_positions_without_an_entry_show_nothing_of_what_is_behind_them(store: Store, database: Database) -> None:
    assign(store, 0, NAMES[0])
    assign(store, 4, NAMES[1])
    database.mangle(AuditEntry, NAMES[1])
    assert log(store, 0, limit=4) == [(0, NAMES[0])]
    assert log(store, 1, limit=3) == []
    with pytest.raises(RecordNotTrusted):
        log(store, 4, limit=1)
    assert log(store, 2**63 - 1, limit=10) == []
