"""What a writer of the database does to the list of waiting entries opens no way past the guard (P8, P10)."""

import dataclasses
from datetime import timedelta

import pytest
from tests.support.world import World, digests, populated

from trien_server.core.errors import LogNotSealed, LogNotTrusted
from trien_server.core.ports import Sealed
from trien_server.core.records import AuditEntry
from trien_server.services import unsealed_entries

pytestmark = [pytest.mark.promise("P8"), pytest.mark.promise("P10")]


@pytest.fixture
def world() -> World:
    made = populated()
    made.use.log_keys.look()
    made.use.log_sealing.work_off()
    made.use.log_guard.start()
    return made


def put_in_front(world: World, number: int) -> None:
    """Puts rows in the list of waiting entries, before all others by name."""
    entry = world.store.rows(AuditEntry)[0]
    for at in range(number):
        forged = dataclasses.replace(entry.record, name=f"auditEntries/-{at:05}")
        row: Sealed[AuditEntry] = dataclasses.replace(entry, record=forged)
        world.store.transact(lambda transaction, row=row: transaction.put_back(row), timeout=5.0)  # type: ignore[misc]


def test_more_rows_than_the_sealer_passes_over_do_not_let_requests_through_unsealed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unsealed_entries, "_PAGE", 4)
    monkeypatch.setattr(unsealed_entries, "_MOST_PAGES", 5)
    put_in_front(world, 21)
    world.sign(digests(1))
    assert world.use.log_sealing.work_off() == 0
    world.clock.advance(timedelta(minutes=2))
    with pytest.raises(LogNotSealed):
        world.use.log_guard.check()


def test_a_row_whose_name_cannot_be_told_does_not_let_requests_through_unsealed(world: World) -> None:
    put_in_front(world, 1)
    world.store.mangle(AuditEntry, "auditEntries/-00000", called="")
    world.sign(digests(1))
    world.use.log_sealing.work_off()
    world.clock.advance(timedelta(minutes=2))
    with pytest.raises(LogNotSealed):
        world.use.log_guard.check()


def test_an_entry_with_a_position_that_is_listed_again_keeps_nobody_waiting(world: World) -> None:
    entry = world.store.rows(AuditEntry)[0]
    world.store.list_again(entry.record.name)
    world.use.log_sealing.work_off()
    world.clock.advance(timedelta(minutes=2))
    world.use.log_guard.check()
    world.sign(digests(1))


@pytest.mark.parametrize("what", ["deleted", "dated later", "given back"])
def test_the_first_entry_without_a_checkpoint_delays_no_refusal_by_what_somebody_makes_of_it(
    world: World, what: str
) -> None:
    """While the head is not signed, the age of that entry says for how long."""
    world.sign(digests(1))
    size = world.store.read(lambda snapshot: len(snapshot.log(0, limit=10_000)))
    assert world.use.log_sealing.seal() > 0
    ((_, row),) = world.store.read(lambda snapshot: snapshot.log(size, limit=1))
    world.clock.advance(timedelta(minutes=2))
    if what == "deleted":
        world.store.delete(AuditEntry, row.record.name)
    elif what == "dated later":
        later = dataclasses.replace(row.record, time=world.clock.now())
        world.store.overwrite(dataclasses.replace(row, record=later))
    with pytest.raises(LogNotSealed if what == "given back" else LogNotTrusted):
        world.use.log_guard.check()
