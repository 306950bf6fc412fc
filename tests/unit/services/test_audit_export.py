"""Handing the log over: in order, each entry at least once, and no request waits for it (P8, P10)."""

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from tests.support.positions import assign_all, entries_by_position
from tests.support.syslog_receivers import wait_until
from tests.support.world import World, digests, populated

from trien_server.core.errors import Busy, StoreUnavailable
from trien_server.core.records import AuditEntry, AuditExport
from trien_server.services.audit_export import BATCH, AuditExporter, NamedSink
from trien_server.wiring import UseCases

pytestmark = [pytest.mark.promise("P8"), pytest.mark.promise("P10")]


class Killed(BaseException):
    """Stands for the end of the process."""


@dataclass
class RecordingSink:
    """Keeps what it took; `faults` come before a write is taken, `behind` after it."""

    taken: list[tuple[int, AuditEntry]] = field(default_factory=list)
    fault: Callable[[], None] = lambda: None
    behind: Callable[[], None] = lambda: None
    closed: int = 0

    def write(self, entries: Sequence[tuple[int, AuditEntry]]) -> None:
        self.fault()
        self.taken += entries
        self.behind()

    def close(self) -> None:
        self.closed += 1

    @property
    def positions(self) -> list[int]:
        return [position for position, _ in self.taken]


@pytest.fixture
def world() -> World:
    made = populated()
    made.sign(digests(1))
    assign_all(made)
    return made


def process(world: World, sink: Any, **ports: Any) -> UseCases:
    return world.new_process(sinks=[NamedSink(name="test", sink=sink)], **ports)


def exporter(world: World, sink: Any, **ports: Any) -> AuditExporter:
    return process(world, sink, **ports).audit_exporters[0]


def remembered(world: World) -> int:
    rows = world.store.rows(AuditExport)
    return rows[0].record.position if rows else 0


def test_all_entries_are_handed_over_in_order_and_then_what_is_new(world: World) -> None:
    sink = RecordingSink()
    feeding = exporter(world, sink)
    everything = entries_by_position(world)
    assert feeding.hand_over() == len(everything)
    assert sink.taken == list(enumerate(everything))
    assert feeding.hand_over() == 0
    for _ in range(3):
        world.next_step()
        world.sign(digests(1))
    size = assign_all(world)
    assert feeding.hand_over() == size - len(everything)
    assert sink.taken == list(enumerate(entries_by_position(world)))
    assert remembered(world) == size
    # Another process goes on where this one stopped.
    assert exporter(world, sink).hand_over() == 0


def test_an_entry_without_a_position_waits_for_it(world: World) -> None:
    sink = RecordingSink()
    feeding = exporter(world, sink)
    size = feeding.hand_over()
    world.next_step()
    world.sign(digests(1))
    assert feeding.hand_over() == 0
    assert len(sink.taken) == size


def test_a_sink_that_is_down_loses_nothing_and_is_told_of_once(world: World) -> None:
    sink = RecordingSink()
    feeding = exporter(world, sink)
    down = [5]

    def fault() -> None:
        if down[0]:
            down[0] -= 1
            raise ConnectionRefusedError(111, "Connection refused")

    sink.fault = fault
    world.events.clear()
    for _ in range(5):
        with pytest.raises(ConnectionRefusedError) as raised:
            feeding.hand_over()
        feeding._tell(raised.value)
    told = [event for event in world.events if event.name == "audit_export_delayed"]
    assert [event.fields["sink"] for event in told] == ["test"]
    assert "Connection refused" in told[0].fields["because"]
    feeding.hand_over()
    feeding._tell(None)
    assert [event.name for event in world.events][-1] == "audit_export_goes_on"
    assert sink.taken == list(enumerate(entries_by_position(world)))


def test_behind_a_broken_connection_what_went_lately_goes_again(world: World) -> None:
    """Syslog knows no answer: what the receiver lost with its connection must not be a gap."""
    sink = RecordingSink()
    feeding = exporter(world, sink)
    first = feeding.hand_over()
    lost = len(sink.taken)
    sink.taken.clear()  # the receiver crashed and lost all that was in its memory
    world.next_step()
    world.sign(digests(1))
    size = assign_all(world)
    broken = [True]

    def fault() -> None:
        if broken.pop() if broken else False:
            raise ConnectionResetError

    sink.fault = fault
    with pytest.raises(ConnectionResetError):
        feeding.hand_over()
    feeding.hand_over()
    assert lost == first
    assert sink.positions == list(range(size))


@pytest.mark.parametrize("persisted", [False, True])
def test_killed_or_failed_at_every_step_there_are_duplicates_but_no_gaps(
    world: World, persisted: bool, record_property: Any
) -> None:
    """Each transaction of a pass fails, applied or not; then a new process goes on."""
    duplicates = steps = 0
    for number in range(1, 6):
        sink = RecordingSink()
        victim = exporter(world, sink)
        for row in world.store.rows(AuditExport):
            world.store.delete(AuditExport, row.record.name)  # from the beginning
        world.clock.advance(timedelta(minutes=2))
        world.store.fail_transact(number, persisted=persisted)
        try:
            victim.hand_over()
        except (StoreUnavailable, Busy):
            steps += 1
        world.clock.advance(timedelta(minutes=2))
        exporter(world, sink).hand_over()
        exporter(world, sink).hand_over()
        everything = list(enumerate(entries_by_position(world)))
        assert set(sink.positions) == {position for position, _ in everything}
        assert sink.taken[-1] == everything[-1]
        duplicates += len(sink.taken) - len(everything)
    record_property("count", f"persisted {persisted}: steps {steps}, duplicates {duplicates}, gaps 0")
    assert steps >= 2


def test_killed_between_sent_and_remembered_sends_again(world: World, record_property: Any) -> None:
    sink = RecordingSink()
    kills = 0

    def kill() -> None:
        raise Killed

    for _ in range(10):
        world.next_step()
        world.sign(digests(1))
        assign_all(world)
        sink.behind = kill
        with pytest.raises(Killed):
            exporter(world, sink).hand_over()
        kills += 1
        world.clock.advance(timedelta(minutes=2))  # the dead one's lease
        sink.behind = lambda: None
        exporter(world, sink).hand_over()
    size = len(entries_by_position(world))
    assert set(sink.positions) == set(range(size))
    record_property("count", f"kills {kills}, duplicates {len(sink.taken) - size}, gaps 0")


def test_one_process_at_a_time_feeds_a_sink(world: World) -> None:
    inside, go_on = threading.Event(), threading.Event()
    sink = RecordingSink()

    def wait() -> None:
        inside.set()
        assert go_on.wait(60)

    sink.behind = wait
    one, other = exporter(world, sink), exporter(world, RecordingSink())
    thread = threading.Thread(target=one.hand_over)
    thread.start()
    assert inside.wait(60)
    with pytest.raises(Busy):
        other.hand_over()
    go_on.set()
    thread.join(60)
    assert sink.positions == list(range(len(entries_by_position(world))))


def test_a_holder_that_wakes_after_its_lease_moves_nothing_back(world: World) -> None:
    sink, second = RecordingSink(), RecordingSink()
    late = exporter(world, sink)

    def others_take_over() -> None:
        sink.behind = lambda: None
        world.clock.advance(timedelta(minutes=2))
        exporter(world, second).hand_over()

    sink.behind = others_take_over
    late.hand_over()
    size = len(entries_by_position(world))
    assert remembered(world) == size
    assert second.positions == list(range(size))


@pytest.mark.promise("P5")
def test_an_entry_that_cannot_be_trusted_is_stood_for(world: World) -> None:
    everything = entries_by_position(world)
    place = next(place for place, entry in enumerate(everything) if entry.kind == "signing_granted")
    row = next(row for row in world.store.rows(AuditEntry) if row.record.name == everything[place].name)
    world.store.overwrite(dataclasses.replace(row, record=dataclasses.replace(row.record, details='{"a":1}')))
    sink = RecordingSink()
    exporter(world, sink).hand_over()
    assert sink.positions == list(range(len(everything)))
    stands = sink.taken[place][1]
    assert stands.kind == "entry_not_trusted"
    assert "seal" in json.loads(stands.details)["finding"]
    assert stands.salt == b""


def test_the_thread_goes_on_after_faults_and_ends_when_it_is_told_to(world: World) -> None:
    sink = RecordingSink()
    broken = [True, True]

    def fault() -> None:
        if broken:
            broken.pop()
            raise TimeoutError("the receiver does not take messages fast enough")

    sink.fault = fault
    feeding = exporter(world, sink)
    feeding.start()
    size = len(entries_by_position(world))
    wait_until(lambda: len(sink.taken) == size)
    feeding.stop()
    assert sink.closed >= 1
    assert [event.name for event in world.events if event.name.startswith("audit_export")][:1] == [
        "audit_export_delayed"
    ]


def test_many_entries_go_in_batches(world: World) -> None:
    sizes: list[int] = []
    sink = RecordingSink()
    sink.behind = lambda: sizes.append(len(sink.taken) - sum(sizes))
    for _ in range(2 * BATCH):
        world.use.transactions.run(lambda ledger: ledger.record("test", {}), timeout=10.0)
    size = assign_all(world)
    exporter(world, sink).hand_over()
    assert sum(sizes) == size
    assert max(sizes) == BATCH
    assert len(sizes) >= 3
