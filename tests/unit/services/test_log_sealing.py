"""Entries get their positions once, in one history, and only what was read back is signed (P10)."""

import dataclasses
from datetime import timedelta

import pytest
from tests.promises.evidence import read_evidence
from tests.promises.log import check_log
from tests.promises.violations import Broken
from tests.support.world import OPERATOR, World, digests, populated

from trien_server.core.checkpoints import NoteNotValid, follow_keys, format_log_keys, open_checkpoint
from trien_server.core.errors import Busy, HsmUnavailable, LogNotSealed, LogNotTrusted, StoreUnavailable
from trien_server.core.merkle import EMPTY_ROOT, Frontier, hash_leaf
from trien_server.core.ports import VersionConflict
from trien_server.core.records import (
    AuditEntry,
    InstallationKeyPurpose,
    InstallationKeyState,
    LogCheckpoint,
    LogHead,
)
from trien_server.services.installation import NotThisInstallation
from trien_server.services.log_keys import log_key_of, read_log_keys
from trien_server.services.log_witnesses import LABEL

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


@pytest.mark.parametrize("persisted", [False, True])
def test_a_pass_that_fails_at_any_transaction_is_made_good_by_the_next_one(persisted: bool) -> None:
    rounds = 0
    for step in (1, 2):
        world = populated()
        world.use.log_keys.look()
        world.store.fail_transact(step, persisted=persisted)
        with pytest.raises(StoreUnavailable):
            world.use.log_sealing.work_off()
        other = world.new_process()
        world.clock.advance(timedelta(seconds=11))  # the lease of the one that failed
        other.log_sealing.work_off()
        assert assert_sealed(world) > 20
        rounds += 1
    assert rounds == 2


def test_while_the_token_is_away_entries_get_positions_and_the_checkpoint_follows(world: World) -> None:
    world.use.log_sealing.work_off()
    before = head_of(world).size
    world.sign(digests(1))
    world.hsm.unavailable = True
    with pytest.raises(HsmUnavailable):
        world.use.log_sealing.work_off()
    assert head_of(world).size > before
    checkpoint = checkpoint_of(world)
    assert checkpoint is not None
    assert checkpoint.size == before
    world.hsm.unavailable = False
    world.use.log_sealing.work_off()
    assert assert_sealed(world) > before


def test_a_sealer_that_wakes_after_another_took_over_writes_nothing(world: World) -> None:
    """It is paused between what it read and its transaction, and between that and the signature."""
    paused = world.use.log_sealing
    other = world.new_process().log_sealing
    prepared = world.store.read(paused._prepare)
    assert prepared is not None
    assert other.work_off() > 20
    world.sign(digests(1))
    with pytest.raises(VersionConflict):
        world.use.transactions.run(lambda ledger: paused._write(ledger, prepared), timeout=5.0)
    world.clock.advance(timedelta(seconds=11))  # the lease lapsed too
    with pytest.raises(VersionConflict):
        world.use.transactions.run(lambda ledger: paused._write(ledger, prepared), timeout=5.0)
    assert paused.work_off() > 0
    assert assert_sealed(world) > len(prepared.entries)


def test_an_entry_whose_seal_does_not_verify_is_left_out_reported_once_and_in_nobodys_way(world: World) -> None:
    forged = world.store.rows(AuditEntry)[0]
    world.store.overwrite(dataclasses.replace(forged, seal=bytes(32)))
    count = len(world.store.rows(AuditEntry))
    assert world.use.log_sealing.work_off() == count - 1
    world.use.log_sealing.work_off()
    assert [row.record.name for row in world.store.read(lambda s: s.unsealed(limit=10))] == [forged.record.name]
    assert [event.fields["name"] for event in world.events if event.name == "log_entry_refused"] == [forged.record.name]
    world.use.log_guard.start()
    world.clock.advance(timedelta(minutes=5))
    world.use.log_guard.check()
    world.sign(digests(1))


@pytest.mark.promise("P8")
def test_a_log_that_was_not_sealed_for_a_minute_refuses_before_anything_is_consumed_and_recovers(world: World) -> None:
    world.use.log_guard.start()
    world.use.log_guard.check()
    world.clock.advance(timedelta(seconds=61))
    with pytest.raises(LogNotSealed):
        world.use.log_guard.check()
    code = world.code()
    entries = len(world.store.rows(AuditEntry))
    with pytest.raises(LogNotSealed):
        world.sign(digests(1), password=code)
    assert len(world.store.rows(AuditEntry)) == entries
    world.use.log_sealing.work_off()
    world.use.log_guard.check()
    world.sign(digests(1), password=code)


@pytest.mark.promise("P8")
def test_positions_without_a_checkpoint_for_a_minute_refuse_too(world: World) -> None:
    world.use.log_guard.start()
    world.use.log_sealing.seal()
    world.clock.advance(timedelta(seconds=61))
    with pytest.raises(LogNotSealed):
        world.use.log_guard.check()
    world.use.log_sealing.sign()
    world.use.log_guard.check()


def test_a_server_whose_database_is_set_back_stops_until_it_is_the_right_one_again(world: World) -> None:
    use = world.use
    use.log_guard.start()
    use.log_sealing.work_off()
    yesterday = world.store._tables
    world.sign(digests(1))
    use.log_sealing.work_off()
    use.log_guard.check()
    today, world.store._tables = world.store._tables, yesterday
    with pytest.raises(LogNotTrusted):
        use.log_guard.check()
    with pytest.raises(LogNotTrusted):
        world.sign(digests(1), password=world.code(step=1))
    with pytest.raises(LogNotTrusted):
        use.log_sealing.work_off()
    assert head_of(world) == yesterday[LogHead.table]["log"].record, "it got no entry more"
    world.store._tables = today
    use.log_guard.check()
    world.sign(digests(1), password=world.code(step=1))


def test_a_database_from_before_the_tokens_checkpoint_is_refused_at_start(world: World) -> None:
    use = world.use
    use.log_sealing.work_off()
    yesterday = world.store._tables
    world.sign(digests(1))
    use.log_sealing.work_off()
    use.log_witnesses.keep_newest()
    world.new_process().check_start()
    world.store._tables = yesterday
    with pytest.raises(NotThisInstallation, match="trien-server restore"):
        world.new_process().check_start()


@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"no checkpoint\n", None])
def test_a_witness_that_is_garbled_is_reported_and_one_that_is_missing_says_nothing(
    world: World, value: bytes | None
) -> None:
    world.use.log_sealing.work_off()
    world.hsm._data.clear()
    if value is not None:
        world.hsm.write_data(LABEL, value)
    world.new_process().check_start()
    assert ("log_witness_garbled" in [event.name for event in world.events]) is (value is not None)


def test_a_checkpoint_of_this_log_by_a_key_that_the_database_does_not_know_is_refused(world: World) -> None:
    world.use.log_sealing.work_off()
    before = world.store._tables
    world.agree(world.use.rotate_installation_key(OPERATOR, InstallationKeyPurpose.LOG, deadline=world.deadline()))
    world.use.key_rotation.look()
    world.use.log_sealing.work_off()
    world.use.log_witnesses.keep_newest()
    world.new_process().check_start()
    world.store._tables = before
    with pytest.raises(NotThisInstallation, match="not signed by a key that the database knows"):
        world.new_process().check_start()


def test_after_a_rotation_the_old_key_names_the_new_one_and_old_checkpoints_verify(world: World) -> None:
    world.use.log_sealing.work_off()
    old = checkpoint_of(world)
    assert old is not None
    world.agree(world.use.rotate_installation_key(OPERATOR, InstallationKeyPurpose.LOG, deadline=world.deadline()))
    world.use.key_rotation.look()
    world.use.log_sealing.work_off()
    assert assert_sealed(world) > old.size
    first, second = world.use.transactions.read(read_log_keys)
    assert (first.state, second.state) == (InstallationKeyState.RETIRED, InstallationKeyState.ACTIVE)
    keys = follow_keys(format_log_keys(log_key_of(first), [second.succession or ""]))
    assert keys == [log_key_of(first), log_key_of(second)]
    assert open_checkpoint(old.note, keys).size == old.size
    new = checkpoint_of(world)
    assert new is not None
    with pytest.raises(NoteNotValid):
        open_checkpoint(new.note, keys[:1])
    assert [one.text for one in world.new_process().check_integrity() if "token" in one.table] == []


def test_a_log_key_that_a_crash_left_on_the_token_is_made_anew_and_nothing_of_it_stays() -> None:
    world = populated()
    steps = 0
    pairs = len(world.hsm.key_pairs())
    while True:
        world.store.fail_transact(steps + 1, persisted=False)
        steps += 1
        try:
            made = world.new_process().log_keys.look()
        except (StoreUnavailable, Busy):
            world.clock.advance(timedelta(minutes=2))
            continue
        if made:
            break
    assert steps >= 4
    (key,) = world.use.transactions.read(read_log_keys)
    assert key.state is InstallationKeyState.ACTIVE
    assert len(world.hsm.key_pairs()) == pairs + 1


def test_the_checker_of_promises_sees_an_entry_that_lost_its_place_and_a_head_of_another_history(world: World) -> None:
    world.use.log_sealing.work_off()
    evidence = read_evidence(world.store)
    assert list(check_log(evidence)) == []
    assert evidence.log is not None
    assert [one.broken for one in check_log(dataclasses.replace(evidence, log=evidence.log[:-1]))] == [Broken.LOG]
    swapped = [(0, evidence.log[1][1]), (1, evidence.log[0][1]), *evidence.log[2:]]
    found = list(check_log(dataclasses.replace(evidence, log=tuple(swapped))))
    assert [one.broken for one in found] == [Broken.LOG, Broken.LOG], "head and checkpoint"
