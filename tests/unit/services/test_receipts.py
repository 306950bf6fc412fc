"""Receipts and proofs of the log (P10), and who gets them (P11)."""

import dataclasses
import itertools
import threading
import time
from typing import Any

import pytest
from tests.support.log_keys import LogKeyPair
from tests.support.sealed_log import SealedLog
from tests.support.world import CHAIR, FOREIGN, OFFICE, OPERATOR, PORTAL, World, digests, populated

from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import follow_keys
from trien_server.core.errors import (
    Busy,
    InvalidArgument,
    LogNotSealed,
    LogNotTrusted,
    OneTimePasswordRejected,
    PermissionDenied,
    RecordNotTrusted,
    StateConflict,
)
from trien_server.core.merkle import hash_leaf, verify_consistency
from trien_server.core.ports import Sealed
from trien_server.core.receipts import format_receipt, parse_receipt, verify_receipt
from trien_server.core.records import AuditEntry, LogCheckpoint, LogTile
from trien_server.services.deadline import Deadline
from trien_server.services.log_history import LOG_CHECKPOINT, tile_name
from trien_server.services.receipts import OWN_KINDS, GetReceipt
from trien_server.services.transactions import next_version

pytestmark = pytest.mark.promise("P10")


@pytest.fixture
def world() -> World:
    return populated()


@pytest.fixture
def log(world: World) -> SealedLog:
    sealed = SealedLog(world)
    sealed.enter_key()
    return sealed


def receipt(world: World, entry: str, item: int | None = None, principal: Any = OFFICE) -> Any:
    return world.use.get_receipt(principal, entry, item=item, deadline=world.deadline())


class _RealSeconds:
    """The world's time, and real seconds to wait by."""

    def __init__(self, world: World) -> None:
        self.now = world.clock.now
        self.monotonic = time.monotonic


def in_real_time(world: World, *, waiters: int = 4) -> GetReceipt:
    """Returns the use case with a clock that goes on by itself while it waits."""
    return GetReceipt(
        transactions=world.use.transactions,
        clock=_RealSeconds(world),
        report=lambda *_: None,
        waiters=waiters,
    )


def _is_busy(get: GetReceipt, entry: str, world: World) -> list[bool]:
    """Tells whether who asks too is told that too many wait; nothing when this one did not wait at all."""
    try:
        get(OFFICE, entry, item=0, deadline=Deadline(_RealSeconds(world), 0.5))
    except Busy:
        return [True]
    except LogNotSealed:
        return []
    return [False]


def entry_of(world: World, name: str) -> AuditEntry:
    row = world.store.read(lambda snapshot: snapshot.get(AuditEntry, name))
    assert row is not None
    found: AuditEntry = row.record
    return found


def test_the_receipt_of_a_signature_verifies_with_the_logs_key_alone(
    world: World, log: SealedLog, record_property: Any
) -> None:
    wanted = digests(5)
    signed = world.sign(list(wanted))
    log.seal()
    for index, digest in enumerate(wanted):
        made = receipt(world, signed.audit_entry, index)
        parsed = parse_receipt(format_receipt(made.receipt))
        covered = verify_receipt(parsed, [log.key.key])
        assert parsed.item is not None
        assert (parsed.item.digest, parsed.item.index, parsed.item.count) == (digest, index, 5)
        assert covered.size == made.size > made.receipt.position
        assert hash_leaf(parsed.leaf) == signed.leaf_hash
    record_property("count", f"receipts of digests verified {len(wanted)}")


def test_a_receipt_of_the_entry_alone_shows_no_digest(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(3))
    log.seal()
    made = receipt(world, signed.audit_entry)
    assert made.receipt.item is None
    text = format_receipt(made.receipt)
    assert not any(digest.hex() in text for digest in digests(3))
    verify_receipt(parse_receipt(text), [log.key.key])


def test_the_receipt_of_one_digest_tells_nothing_of_the_others(world: World, log: SealedLog) -> None:
    wanted = digests(4)
    signed = world.sign(list(wanted))
    log.seal()
    text = format_receipt(receipt(world, signed.audit_entry, 2).receipt)
    assert [digest.hex() in text for digest in wanted] == [False, False, True, False]


@pytest.mark.promise("P11")
def test_an_application_reads_receipts_of_its_own_requests_and_no_others(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(1))
    log.seal()
    latest = world.store.read(lambda snapshot: snapshot.latest_change(CHAIR))
    others = [signed.audit_entry, latest.record.name, "auditEntries/there-is-none"]
    refusals = []
    for name in others:
        for item in (None, 0, 99):
            with pytest.raises(PermissionDenied) as refused:
                receipt(world, name, item, PORTAL)
            refusals.append((refused.value.message, refused.value.metadata))
    assert len(refusals) == 9
    assert len(set(map(str, refusals))) == 1, "an answer tells whether there is such an entry"
    assert receipt(world, signed.audit_entry, principal=OPERATOR).receipt.entry == signed.audit_entry
    assert receipt(world, latest.record.name, principal=OPERATOR).receipt.subject == CHAIR


def test_an_application_gets_the_receipts_of_what_it_asked_for_and_was_refused(world: World, log: SealedLog) -> None:
    authorization = world.authorize(digests(1))
    world.approve(authorization)
    world.next_step()
    with pytest.raises(OneTimePasswordRejected):
        world.sign(digests(1), password=world.wrong_code())
    log.seal()
    own = [
        row.record
        for row in world.store.rows(AuditEntry)
        if row.record.kind in OWN_KINDS and OFFICE.name in row.record.details
    ]
    assert {entry.kind for entry in own} == {"authorization_created", "authorizations_approved", "refused"}
    for entry in own:
        assert receipt(world, entry.name).receipt.kind == entry.kind
        with pytest.raises(PermissionDenied):
            receipt(world, entry.name, principal=FOREIGN)


def test_an_entry_has_no_other_digests_than_its_calls(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(3))
    log.seal()
    for wrong in (-1, 3, 2**31 - 1):
        with pytest.raises(InvalidArgument) as refused:
            receipt(world, signed.audit_entry, wrong)
        assert refused.value.field == "item"
    change = world.store.read(lambda snapshot: snapshot.latest_change(CHAIR)).record.name
    with pytest.raises(InvalidArgument):
        receipt(world, change, 0, OPERATOR)


def test_an_erased_entry_keeps_its_receipt_and_says_that_its_digests_cannot_be_shown(
    world: World, log: SealedLog
) -> None:
    signed = world.sign(digests(3))
    log.seal()
    before = receipt(world, signed.audit_entry).receipt
    entry = entry_of(world, signed.audit_entry)
    erased = next_version(entry, details="", salt=b"")
    world.store.overwrite(world.use.seals.seal_hot(erased, at=entry.time))
    made = receipt(world, signed.audit_entry, principal=OPERATOR).receipt
    assert made == before
    verify_receipt(made, [log.key.key])
    with pytest.raises(StateConflict, match="erased"):
        receipt(world, signed.audit_entry, 0, OPERATOR)
    with pytest.raises(PermissionDenied):
        receipt(world, signed.audit_entry)


def test_a_receipt_waits_until_a_checkpoint_covers_the_entry(world: World, log: SealedLog) -> None:
    log.seal()
    signed = world.sign(digests(1))
    results: list[Any] = []
    get = in_real_time(world, waiters=1)
    waiting = threading.Thread(
        target=lambda: results.append(get(OFFICE, signed.audit_entry, item=0, deadline=world.deadline()))
    )
    waiting.start()
    log.assign()
    others: list[bool] = []
    while not others and waiting.is_alive():
        others += _is_busy(get, signed.audit_entry, world)
    log.sign()
    waiting.join(30)
    verify_receipt(results[0].receipt, [log.key.key])
    assert others == [True], "more callers waited than may"


def test_a_receipt_that_no_checkpoint_covers_in_time_is_refused(world: World, log: SealedLog) -> None:
    log.seal()
    signed = world.sign(digests(1))
    get = in_real_time(world)
    world.seconds = 1.0
    with pytest.raises(LogNotSealed) as refused:
        get(OFFICE, signed.audit_entry, item=None, deadline=world.deadline())
    assert refused.value.retry_after is not None
    log.assign()
    with pytest.raises(LogNotSealed):
        get(OFFICE, signed.audit_entry, item=None, deadline=world.deadline())
    log.sign()
    assert receipt(world, signed.audit_entry).receipt.entry == signed.audit_entry


def test_who_waits_is_told_to_ask_again_when_the_server_stops(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(1))
    world.use.get_receipt.stop()
    with pytest.raises(LogNotSealed):
        receipt(world, signed.audit_entry)


def test_old_receipts_verify_after_the_logs_key_was_replaced_twice(world: World, log: SealedLog) -> None:
    first = world.sign(digests(1))
    log.seal()
    old = receipt(world, first.audit_entry).receipt
    log.rotate(LogKeyPair.generate(KeyType.EC_P256))
    world.next_step()
    second = world.sign(digests(1))
    log.seal()
    log.rotate(LogKeyPair.generate())
    log.seal()
    keys = follow_keys(world.use.get_log_keys(OFFICE).text)
    assert [key.public_key for key in keys] == [pair.key.public_key for pair in log.pairs]
    new = receipt(world, second.audit_entry).receipt
    for made in (old, new, receipt(world, first.audit_entry).receipt):
        verify_receipt(made, keys)


def test_each_size_of_a_run_is_proved_to_continue_each_earlier_one(
    world: World, log: SealedLog, record_property: Any
) -> None:
    roots = {}
    for most in (1, 2, 1, 3, 4, 1, 7, 1, 1, 6, 1, 1, 1, 1):
        made = log.seal(most=most)
        roots[made.size] = made.root
    pairs = list(itertools.combinations_with_replacement(sorted(roots), 2))
    for first, second in pairs:
        proven = world.use.get_consistency_proof(OFFICE, first_size=first, second_size=second)
        verify_consistency(first, second, roots[first], roots[second], proven.hashes)
        assert proven.log.size == max(roots)
    assert world.use.get_consistency_proof(OFFICE, first_size=1, second_size=0).second_size == max(roots)
    record_property("count", f"consistency proofs between sizes of one run {len(pairs)}")
    assert len(pairs) == 105


def test_sizes_that_the_log_does_not_have_are_refused(world: World, log: SealedLog) -> None:
    size = log.seal().size
    for first, second in ((0, 0), (-1, 0), (size + 1, 0), (1, size + 1), (3, 2), (1, -1)):
        with pytest.raises(InvalidArgument):
            world.use.get_consistency_proof(OFFICE, first_size=first, second_size=second)


def test_before_the_first_checkpoint_everyone_is_told_to_ask_again(world: World) -> None:
    for ask in (
        world.use.get_checkpoint,
        world.use.get_log_keys,
        lambda who: world.use.get_consistency_proof(who, first_size=1, second_size=0),
    ):
        with pytest.raises(LogNotSealed):
            ask(OFFICE)
        with pytest.raises(LogNotSealed):
            ask(OPERATOR)


@pytest.mark.promise("P5")
@pytest.mark.parametrize("column", ["tile", "root", "size", "note", "leaf", "foreign key"])
def test_no_proof_is_given_of_a_log_that_does_not_lead_to_what_was_signed(
    world: World, log: SealedLog, column: str
) -> None:
    """Whoever can even seal rows, as a stolen process can, makes no proof with them."""
    signed = world.sign(digests(2))
    log.seal()
    seals, at = world.use.seals, world.clock.now()

    def put(record: Any) -> None:
        world.store.overwrite(seals.seal_hot(record, at=at))

    row: Sealed[Any]
    match column:
        case "tile":
            row = world.store.read(lambda snapshot: snapshot.get(LogTile, tile_name(0, 0)))
            put(dataclasses.replace(row.record, hashes=bytes(32) + row.record.hashes[32:]))
        case "root" | "size" | "note":
            row = world.store.read(lambda snapshot: snapshot.get(LogCheckpoint, LOG_CHECKPOINT))
            changed: dict[str, Any] = {
                "root": {"root": bytes(32)},
                "size": {"size": row.record.size - 1},
                "note": {"note": row.record.note.replace("trien", "other")},
            }
            put(dataclasses.replace(row.record, **changed[column]))
        case "leaf":
            entry = entry_of(world, signed.audit_entry)
            put(dataclasses.replace(entry, leaf=entry.leaf[:-1] + b"x"))
        case "foreign key":
            checkpoint = world.store.read(lambda snapshot: snapshot.get(LogCheckpoint, LOG_CHECKPOINT)).record
            put(
                dataclasses.replace(checkpoint, note=LogKeyPair.generate().checkpoint(checkpoint.size, checkpoint.root))
            )
    world.events.clear()
    with pytest.raises((LogNotTrusted, RecordNotTrusted)):
        receipt(world, signed.audit_entry)
    if column != "leaf":
        with pytest.raises(LogNotTrusted):
            world.use.get_consistency_proof(OFFICE, first_size=1, second_size=0)
    assert "log_not_trusted" in {event.name for event in world.events}


def test_a_tile_that_is_not_sealed_is_not_read(world: World, log: SealedLog) -> None:
    signed = world.sign(digests(1))
    log.seal()
    row = world.store.read(lambda snapshot: snapshot.get(LogTile, tile_name(0, 0)))
    world.store.overwrite(dataclasses.replace(row, seal=bytes(32)))
    with pytest.raises(RecordNotTrusted):
        receipt(world, signed.audit_entry)
