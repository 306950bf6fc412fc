"""What a receipt costs in a log of a million entries (P10).

The tiles, the checkpoint and the positions are those of a log of a million entries; of these entries only those of the
people and of the calls that get receipts have rows.
"""

import hashlib
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.sealed_log import SealedLog
from tests.support.world import OFFICE, World, digests

from trien_server.core.merkle import Frontier, grow_tiles, hash_leaf
from trien_server.core.ports import Transaction
from trien_server.core.receipts import format_receipt
from trien_server.core.records import AuditEntry, LogTile
from trien_server.services.log_history import tile_name
from trien_server.store.schema import migrate
from trien_server.store.sqlite.store import SqliteStore

pytestmark = [pytest.mark.soak, pytest.mark.promise("P10")]
ENTRIES = 1_000_000
RECEIPTS = 200
MOST_SECONDS = 0.005
"""Of the processor's time: how long it takes beside other work is another question."""


def test_a_receipt_of_a_million_entries_is_short_and_quick(tmp_path: Path, record_property: Any) -> None:
    migrate(f"sqlite:///{tmp_path / 'trien.db'}")
    store = SqliteStore(tmp_path / "trien.db", on_fatal=lambda _: None)
    try:
        world = World(store=store).populate()
        world.use.get_receipt.stop()
        log = SealedLog(world)
        log.enter_key()
        single, many = world.sign(digests(1)), (world.next_step(), world.sign(digests(1000)))[1]
        _grow(world, log, {ENTRIES - 1: single.audit_entry, ENTRIES * 7 // 9: many.audit_entry})
        taken, largest = [], 0
        for number in range(RECEIPTS):
            signed, item = ((single, 0), (many, number * 5), (many, None))[number % 3]
            begun = time.thread_time()
            found = world.use.get_receipt(OFFICE, signed.audit_entry, item=item, deadline=world.deadline())
            taken.append(time.thread_time() - begun)
            assert found.size == ENTRIES
            largest = max(largest, len(format_receipt(found.receipt).encode()))
    finally:
        store.close()
    alone, of_thousand, whole = (statistics.median(taken[kind::3]) * 1000 for kind in range(3))
    record_property(
        "count",
        f"receipts in a log of {ENTRIES:,} entries {len(taken)}: medians of processor time "
        f"{alone:.1f} ms (call of one digest), "
        f"{of_thousand:.1f} ms (one of 1,000 digests), {whole:.1f} ms (the entry of that call alone); "
        f"the largest of {largest} bytes",
    )
    assert largest < 2048
    assert statistics.median(taken) < MOST_SECONDS


def _grow(world: World, log: SealedLog, entries: dict[int, str]) -> None:
    """Makes the tiles and the checkpoint of a log in which the entries have these positions."""
    rows = {name: store_row(world, name) for name in entries.values()}
    hashes = [hashlib.sha256(str(position).encode()).digest() for position in range(ENTRIES)]
    for position, name in entries.items():
        hashes[position] = hash_leaf(rows[name].leaf)
    at = world.clock.now()
    world.use.seals.prepare(at)
    tiles = grow_tiles(lambda *_: b"", 0, hashes)

    def work(transaction: Transaction) -> None:
        for position, name in entries.items():
            transaction.assign_positions(position, [name])
        for tile, content in tiles.items():
            record = LogTile(name=tile_name(tile.level, tile.index), version=1, hashes=content, time=at)
            transaction.insert(world.use.seals.seal_hot(record, at=at))

    world.store.transact(work, timeout=120.0)
    log.put_checkpoint(ENTRIES, Frontier().extend(hashes).root())


def store_row(world: World, name: str) -> AuditEntry:
    row = world.store.read(lambda snapshot: snapshot.get(AuditEntry, name))
    found: AuditEntry = row.record
    return found
