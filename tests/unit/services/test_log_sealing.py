"""Entries get their positions once, in one history, and only what was read back is signed (P10)."""

import pytest
from tests.support.world import World, digests, populated

from trien_server.core.checkpoints import open_checkpoint
from trien_server.core.merkle import EMPTY_ROOT, Frontier, hash_leaf
from trien_server.core.records import AuditEntry, LogCheckpoint, LogHead
from trien_server.services.log_keys import log_key_of, read_log_keys

pytestmark = pytest.mark.promise("P10")


@pytest.fixture
def world() -> World:
    made = populated()
    made.use.log_keys.look()
    return made


def head_of(world: World) -> LogHead:
    (row,) = world.store.rows(LogHead)
    head: LogHead = row.record
    return head


def checkpoint_of(world: World) -> LogCheckpoint | None:
    rows = world.store.rows(LogCheckpoint)
    return rows[0].record if rows else None


def in_order(world: World) -> list[AuditEntry]:
    return [row.record for _, row in world.store.read(lambda snapshot: snapshot.log(0, limit=100_000))]


def assert_sealed(world: World) -> int:
    """Asserts that every entry has one position, and that head and checkpoint are those of the tree over them."""
    entries = in_order(world)
    assert len(entries) == len(world.store.rows(AuditEntry)) == len({entry.name for entry in entries})
    assert world.store.read(lambda snapshot: snapshot.unsealed(limit=1)) == []
    tree = Frontier().extend([hash_leaf(entry.leaf) for entry in entries])
    head = head_of(world)
    assert (head.size, head.root, head.frontier) == (tree.size, tree.root(), tree.hashes)
    checkpoint = checkpoint_of(world)
    assert checkpoint is not None
    keys = [log_key_of(key) for key in world.use.transactions.read(read_log_keys) if key.public_key]
    opened = open_checkpoint(checkpoint.note, keys)
    assert (opened.origin, opened.size, opened.root) == (head.origin, head.size, head.root)
    return len(entries)


def test_a_pass_seals_every_entry_and_signs_the_head(world: World) -> None:
    waiting = len(world.store.rows(AuditEntry))
    assert waiting > 20
    assert head_of(world).root == EMPTY_ROOT
    assert world.use.log_sealing.work_off() == waiting
    assert assert_sealed(world) == waiting
    world.sign(digests(1))
    assert world.use.log_sealing.work_off() > 0
    assert assert_sealed(world) > waiting


def test_a_pass_orders_entries_by_time_and_then_by_name(world: World) -> None:
    for _ in range(3):
        world.sign(digests(1))
        world.next_step()
    world.use.log_sealing.work_off()
    entries = in_order(world)
    assert [(entry.time, entry.name) for entry in entries] == sorted((entry.time, entry.name) for entry in entries)
    assert len({entry.time for entry in entries}) > 1
