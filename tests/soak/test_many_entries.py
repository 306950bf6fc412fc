"""A log of 100,000 entries: reading, exporting and handing it over take bounded memory, and how long."""

import json
import time
import tracemalloc
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.positions import assign_all
from tests.support.world import OPERATOR, World
from trien.v1 import audit_service_pb2

from trien_client.cli.audit_export import Format, _write
from trien_server.core.audit_selection import Selection
from trien_server.core.ports import Transaction
from trien_server.core.records import AuditEntry
from trien_server.host.randomness import SystemRandomness
from trien_server.rpc.audit_entries import page_out, query_in
from trien_server.services.audit_entries import MOST_SCANNED, ListQuery
from trien_server.services.audit_export import NamedSink
from trien_server.services.transactions import Ledger
from trien_server.store.schema import migrate
from trien_server.store.sqlite.store import SqliteStore

pytestmark = [pytest.mark.soak, pytest.mark.promise("P10")]

ENTRIES = 100_000
MOST_MEMORY = 64 * 1024 * 1024


class Counting:
    """A sink that counts, and keeps nothing."""

    def __init__(self) -> None:
        self.next = 0

    def write(self, entries: Sequence[tuple[int, AuditEntry]]) -> None:
        assert [position for position, _ in entries] == list(range(self.next, self.next + len(entries)))
        self.next += len(entries)

    def close(self) -> None: ...


class Direct:
    """What a command calls through, without a network."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.client = self
        self.audit = self
        self.ListAuditEntries = None

    def call(self, _: Any, request: audit_service_pb2.ListAuditEntriesRequest) -> Any:
        return page_out(self._world.use.list_audit_entries(OPERATOR, query_in(request)))


def within_memory(work: Callable[[], Any]) -> tuple[Any, int]:
    """Returns what the work returns, and the most memory that Python had in use for it."""
    tracemalloc.start()
    try:
        made = work()
        return made, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_hundred_thousand_entries_are_read_in_bounded_memory(tmp_path: Path, record_property: Any) -> None:
    path = tmp_path / "trien.db"
    migrate(f"sqlite:///{path}")
    fatal: list[str] = []
    world = World(store=SqliteStore(path, on_fatal=fatal.append))
    # The store's own clock is the machine's.
    world.clock.advance(world.store.now() - world.clock.now())
    world.populate()
    seals = world.use.seals
    details = {"action": "SignDigests", "signer": "signers/chair", "digests": ["ab" * 32], "request": "r" * 60}
    for _ in range(ENTRIES // 2000):
        at = world.clock.now()
        seals.prepare(at)

        def some(transaction: Transaction, at: datetime = at) -> None:
            ledger = Ledger(transaction, seals=seals, randomness=SystemRandomness(), at=at)
            for _ in range(2000):
                ledger.record("signing_granted", details)

        world.store.transact(some, timeout=120.0)
    assign_all(world)
    size = assign_all(world)
    assert size > ENTRIES

    begun = time.perf_counter()
    found = world.use.list_audit_entries(OPERATOR, ListQuery(selection=Selection(kinds=frozenset({"none"}))))
    page = time.perf_counter() - begun
    assert found.next_position == MOST_SCANNED

    out = tmp_path / "log.jsonl"
    with out.open("w+b") as file:
        begun = time.perf_counter()
        (count, end), memory = within_memory(lambda: _write(Direct(world), file, Format.JSONL, 0, []))  # type: ignore[arg-type]
        exported = time.perf_counter() - begun
    assert (count, end) == (size, size)
    assert memory < MOST_MEMORY
    with out.open("rb") as file:
        assert [json.loads(line)["position"] for line in file] == list(range(size))

    sink = Counting()
    exporter = world.new_process(sinks=[NamedSink(name="count", sink=sink)]).audit_exporters[0]

    def hand_over() -> None:
        while exporter.hand_over():
            pass

    begun = time.perf_counter()
    _, handing = within_memory(hand_over)
    handed = time.perf_counter() - begun
    assert sink.next == size
    assert handing < MOST_MEMORY
    record_property(
        "count",
        f"entries {size}: a page that looks at {MOST_SCANNED} takes {1000 * page:.0f} ms; export {exported:.0f} s, "
        f"{memory // 1024} KiB at most; handing over {handed:.0f} s, {handing // 1024} KiB (traced, which slows it)",
    )
    assert not fatal
    world.store.close()
