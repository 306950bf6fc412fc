"""How long `fsck` takes over a log of a million entries, whether what it says at the start is right, and its memory."""

import dataclasses
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.sealed_log import SealedLog
from tests.support.world import World

from trien_server.cli.pace import Pace
from trien_server.core.audit import make_entry
from trien_server.core.merkle import Frontier, grow_tiles, hash_leaf
from trien_server.core.ports import Transaction
from trien_server.core.records import LogHead, LogTile
from trien_server.services.signed_log import tile_name
from trien_server.store.schema import migrate
from trien_server.store.sqlite.store import SqliteStore

pytestmark = [pytest.mark.soak, pytest.mark.promise("P8", "P10")]
ENTRIES = 1_000_000
_PART = 5_000
_MOST_MEMORY = 64 << 20


def test_a_million_entries_are_looked_at_in_bounded_memory_and_the_estimate_holds(
    tmp_path: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate(f"sqlite:///{tmp_path / 'trien.db'}")
    store = SqliteStore(tmp_path / "trien.db", on_fatal=lambda _: None)
    try:
        world = World(store=store).populate()
        log = SealedLog(world)
        world.hsm.add_key(bytes([1]) * 16, log.key.private)
        log.enter_key()
        log.seal()
        _grow(world, log)
        check = world.new_process().check_integrity
        pace = Pace(check.total(), monotonic=time.monotonic, quiet=False)
        begun, used, before = time.monotonic(), time.process_time(), _memory()
        largest = before

        def looked(table: str, rows: int) -> None:
            nonlocal largest
            pace(table, rows)
            largest = max(largest, _memory())

        findings = list(check(looked=looked))
        pace.end()
        taken, used = time.monotonic() - begun, time.process_time() - used
    finally:
        store.close()
    said = re.search(r"about (\d+) (s|min)\.", capsys.readouterr().err)
    assert said is not None
    estimate = int(said[1]) * (60 if said[2] == "min" else 1)
    record_property(
        "count",
        f"entries looked at {check.counts['audit_entries']:,} in {taken:.0f} s ({used:.0f} s of one core); "
        f"estimated at the start {estimate} s; memory grew by {(largest - before) >> 20} MiB to {largest >> 20} MiB",
    )
    assert findings == []
    assert check.counts["audit_entries"] == ENTRIES
    assert largest - before < _MOST_MEMORY
    assert estimate / 2 < taken < estimate * 2


def _memory() -> int:
    """Returns the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _grow(world: World, log: SealedLog) -> None:
    """Adds entries to the sealed log until it has a million, in parts of one transaction each, and has it signed."""
    at = world.clock.now()
    seals = world.use.seals
    seals.prepare(at)
    head: LogHead = world.store.read(lambda snapshot: snapshot.get(LogHead, "log")).record
    frontier, size = Frontier(head.size, head.frontier), head.size
    tiles: dict[str, LogTile] = {}

    def read_tile(level: int, index: int) -> bytes:
        name = tile_name(level, index)
        if name in tiles:
            return tiles[name].hashes
        row = world.store.read(lambda snapshot: snapshot.get(LogTile, name))
        return b"" if row is None else bytes(row.record.hashes)

    while size < ENTRIES:
        entries = [
            make_entry(
                name=f"auditEntries/{os.urandom(16).hex()}",
                time=at,
                kind="refused",
                details={"client": "clients/office", "reason": "ONE_TIME_PASSWORD_REJECTED", "digest": "00" * 32},
                head_salt=os.urandom(16),
                salt=os.urandom(32),
            )
            for _ in range(min(_PART, ENTRIES - size))
        ]
        rows = [seals.seal_hot(entry, at=at) for entry in entries]
        hashes = [hash_leaf(entry.leaf) for entry in entries]
        for tile, content in grow_tiles(read_tile, size, hashes).items():
            name = tile_name(tile.level, tile.index)
            tiles[name] = LogTile(name=name, hashes=content, time=at)
        frontier = frontier.extend(hashes)

        def add(transaction: Transaction, rows: list[Any] = rows, first: int = size) -> None:
            for number, row in enumerate(rows):
                transaction.put_back(row, position=first + number)

        world.store.transact(add, timeout=120.0)
        size += len(entries)

    def finish(transaction: Transaction) -> None:
        for name, tile in tiles.items():
            old = transaction.get(LogTile, name)
            if old is None:
                transaction.insert(seals.seal_hot(tile, at=at))
            else:
                transaction.replace(seals.seal_hot(dataclasses.replace(tile, version=old.record.version + 1), at=at))
        grown = dataclasses.replace(
            head, version=head.version + 1, size=size, root=frontier.root(), frontier=frontier.hashes, time=at
        )
        transaction.replace(seals.seal_hot(grown, at=at))

    world.store.transact(finish, timeout=300.0)
    log.sign()
