"""The installation's own keys get new generations: what verifies when, what a crash leaves, what an insider gains."""

import dataclasses
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest
from tests.fakes.hsm import MemoryHsm
from tests.fakes.store import MemoryStore
from tests.support.world import CHAIR, OFFICE, OPERATOR, PORTAL, SECOND, World, digests
from tests.unit.core.test_sealing import AT, example

from trien_server.core import errors, sealing
from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.ports import KeyMismatch, Sealed
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    AuditEntry,
    AuthenticatorKind,
    AuthenticatorState,
    Client,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    Key,
    ProposalState,
    ProtectionLevel,
    Record,
    Signer,
)
from trien_server.core.sealing import HANDOVER
from trien_server.services.access import reference_of
from trien_server.services.challenge_preparation import ChallengeCommand
from trien_server.services.installation import NotThisInstallation
from trien_server.services.paging import Page
from trien_server.services.resealing import UNDATED
from trien_server.services.trusted import Stale
from trien_server.wiring import UseCases

SEALING, WRAPPING = InstallationKeyPurpose.SEALING, InstallationKeyPurpose.WRAPPING
ACTIVE, RETIRING, RETIRED = InstallationKeyState.ACTIVE, InstallationKeyState.RETIRING, InstallationKeyState.RETIRED
PENDING = InstallationKeyState.PENDING_GENERATION


@pytest.fixture
def world() -> World:
    return World().populate()


def request_rotation(world: World, purpose: InstallationKeyPurpose) -> None:
    world.agree(world.use.rotate_installation_key(OPERATOR, purpose, deadline=world.deadline()))


def states(world: World, purpose: InstallationKeyPurpose, use: UseCases | None = None) -> list[InstallationKeyState]:
    keys, _ = (use or world.use).list_installation_keys(OPERATOR, page=Page(size=100, after=""))
    of_purpose = sorted((key.generation, key.state) for key in keys if key.purpose is purpose)
    assert [generation for generation, _ in of_purpose] == list(range(1, len(of_purpose) + 1))
    return [state for _, state in of_purpose]


def rotate(world: World, purpose: InstallationKeyPurpose, use: UseCases | None = None) -> None:
    """Rotates to the end."""
    request_rotation(world, purpose)
    finish(world, use or world.use)


def finish(world: World, use: UseCases) -> None:
    for _ in range(3):
        use.key_rotation.look()
        world.clock.advance(HANDOVER)
    use.key_rotation.look()


def sealed_by(world: World, *kinds: type[Record]) -> Counter[int | None]:
    """Counts the rows by the generation that sealed them."""
    rows: Counter[int | None] = Counter()
    for kind in kinds:
        found: list[Sealed[Record]] = world.store.read(lambda snapshot, kind=kind: snapshot.find(kind, limit=10_000))
        rows.update(sealing.generation_of(row.seal_key, hot=kind.hot) for row in found)
    return rows


def row_of(world: World, kind: type[Record], name: str) -> Sealed[Record]:
    row: Sealed[Record] | None = world.store.read(lambda snapshot: snapshot.get(kind, name))
    assert row is not None
    return row


def forged(world: World, record: Record, seal_key: str, generation: int) -> Sealed[Record]:
    """Seals a row as whoever could use that generation of the token's sealing key, or made seals in stock."""
    encoded = sealing.encode_row(record, seal_key)
    if record.hot:
        key = world.hsm.authenticate(sealing.day_key_message(seal_key), generation=generation)
        seal = hmac.digest(key, encoded, hashlib.sha256)
    else:
        seal = world.hsm.authenticate(encoded, generation=generation)
    return Sealed(record=record, seal_key=seal_key, seal=seal)


@pytest.mark.requirement("ASVS 5.0.0-11.2.2")
@pytest.mark.promise("P5")
def test_after_a_rotation_every_slow_row_is_sealed_by_the_new_key_and_everything_goes_on(world: World) -> None:
    world.sign(digests(1))
    before = sealed_by(world, *SLOW_RECORDS)
    assert set(before) == {1}
    rotate(world, SEALING)
    assert states(world, SEALING) == [RETIRED, ACTIVE]
    after = sealed_by(world, *SLOW_RECORDS)
    assert set(after) == {2}
    assert after[2] == before[1] + 2  # the new generation's record, and the proposal's
    assert set(sealed_by(world, *UNDATED)) == {2}
    for _ in range(3):
        world.next_step()
        assert len(world.sign(digests(2)).signatures) == 2
    world.use.check_start()
    world.new_process().check_start()
    assert not [event for event in world.events if event.name == "record_not_trusted"]


@pytest.mark.promise("P5")
def test_a_second_rotation_follows_a_first_one(world: World) -> None:
    rotate(world, SEALING)
    rotate(world, SEALING)
    assert states(world, SEALING) == [RETIRED, RETIRED, ACTIVE]
    assert set(sealed_by(world, *SLOW_RECORDS)) == {3}
    world.next_step()
    assert len(world.sign(digests(1), use=world.new_process()).signatures) == 1


@pytest.mark.promise("P9")
def test_one_officer_alone_rotates_nothing_and_two_rotations_do_not_run_at_once(world: World) -> None:
    for purpose in (WRAPPING, SEALING):
        proposal = world.use.rotate_installation_key(OPERATOR, purpose, deadline=world.deadline())
        with pytest.raises(errors.OwnProposal):
            world.approve_proposal(proposal, by=OPERATOR)
        assert states(world, purpose) == [ACTIVE]
        other = world.use.rotate_installation_key(SECOND, purpose, deadline=world.deadline())
        world.agree(proposal)
        assert world.approve_proposal(other, by=OPERATOR).state is ProposalState.OUTDATED
        assert states(world, purpose) == [ACTIVE, PENDING]
        with pytest.raises(errors.StateConflict):
            world.use.rotate_installation_key(OPERATOR, purpose, deadline=world.deadline())
        world.use.key_rotation.look()
        if purpose is SEALING:
            assert states(world, purpose) == [RETIRING, ACTIVE]
            with pytest.raises(errors.StateConflict):
                world.use.rotate_installation_key(OPERATOR, purpose, deadline=world.deadline())
    with pytest.raises(errors.PermissionDenied):
        world.use.rotate_installation_key(OFFICE, SEALING, deadline=world.deadline())
    with pytest.raises(errors.PermissionDenied):
        world.use.list_installation_keys(OFFICE, page=Page(size=10, after=""))


@pytest.mark.promise("P5")
def test_three_processes_with_caches_follow_without_a_restart(world: World) -> None:
    processes = [world.new_process() for _ in range(3)]
    signed = 0
    for use in processes:
        world.next_step()
        signed += len(world.sign(digests(1), use=use).signatures)
    request_rotation(world, SEALING)
    for round_ in range(12):
        processes[round_ % 3].key_rotation.look()
        world.clock.advance(timedelta(seconds=31))
        signed += len(world.sign(digests(1), use=processes[(round_ + 1) % 3]).signatures)
    assert signed == 15
    for use in processes:
        assert states(world, SEALING, use) == [RETIRED, ACTIVE]
        assert use.seals.generations.active == 2
    assert not [event for event in world.events if event.name == "record_not_trusted"]


@pytest.mark.promise("P5")
def test_what_a_retired_key_seals_now_is_refused(world: World) -> None:
    """Whoever could make the old key seal, by the PIN or by seals in stock, has nothing of it after the rotation."""
    world.sign(digests(1))
    rotate(world, SEALING)
    refused = 0
    for kind, name in ((Client, PORTAL.name), (Signer, CHAIR), (AuthenticatorState, f"{CHAIR}/authenticators/phone")):
        right = row_of(world, kind, name)
        key = sealing.day_seal_key(world.clock.now(), 1) if kind.hot else "1"
        world.store.overwrite(forged(world, right.record, key, 1))
        use = world.new_process()
        with pytest.raises(errors.RecordNotTrusted):
            use.transactions.read(lambda view, kind=kind, name=name: view.get(kind, name))  # type: ignore[misc]
        refused += 1
        world.store.overwrite(right)
    entry = AuditEntry(
        name="auditEntries/forged",
        time=world.clock.now(),
        kind="k",
        subject=None,
        subject_version=None,
        leaf=b"",
        head_salt=b"",
        salt=b"",
        details="",
    )
    world.store.overwrite(forged(world, entry, sealing.day_seal_key(world.clock.now(), 1), 1))
    with pytest.raises(errors.RecordNotTrusted):
        world.use.transactions.read(lambda view: view.get(AuditEntry, entry.name))
    assert refused == 3


@pytest.mark.promise("P5")
def test_entries_and_hot_rows_from_before_still_verify(world: World) -> None:
    authorization = world.authorize(digests(1))
    world.approve(authorization)
    before: list[Sealed[AuditEntry]] = world.store.read(lambda snapshot: snapshot.find(AuditEntry, limit=10_000))
    rotate(world, SEALING)
    use = world.new_process()
    for row in before:
        use.seals.verify(row)
    assert len(before) > 20
    assert {sealing.generation_of(row.seal_key, hot=True) for row in before} == {1}


@pytest.mark.promise("P7")
def test_what_was_approved_before_a_rotation_is_signed_after_it(world: World) -> None:
    approved = world.authorize(digests(2))
    world.approve(approved)
    data = world.activation_data(approved)
    world.next_step()
    pending = world.authorize(digests(3, of="other"))
    rotate(world, SEALING)
    assert len(world.sign(digests(2), activated=(approved.name, data)).signatures) == 2
    with pytest.raises(errors.ActivationDataRejected):
        world.sign(digests(3, of="other"), activated=(pending.name, data))
    world.approve(pending)
    assert (
        len(world.sign(digests(3, of="other"), activated=(pending.name, world.activation_data(pending))).signatures)
        == 3
    )


@pytest.mark.promise("P2")
def test_a_code_that_was_sent_before_a_rotation_is_good_after_it(world: World) -> None:
    name = world.add_delivery()
    authorization = world.authorize(digests(1))
    command = ChallengeCommand(signer=CHAIR, names=(authorization.name,), authenticator=name)
    made = world.use.send_one_time_password(OFFICE, command, world.deadline())
    request_rotation(world, SEALING)
    world.use.key_rotation.look()
    assert states(world, SEALING) == [RETIRING, ACTIVE]
    sent = world.deliveries[AuthenticatorKind.SMS].taken[-1]
    result = world.approve(authorization, password=sent.code, challenge=made.challenge.name)
    assert result.approval.signer == CHAIR


@pytest.mark.promise("P5")
def test_records_of_before_put_back_make_no_retired_key_active(world: World) -> None:
    """The log names the last version of each generation's record, and a process never goes back."""
    old = row_of(world, InstallationKey, "installationKeys/sealing-1")
    rotate(world, SEALING)
    running = world.use
    new = row_of(world, InstallationKey, "installationKeys/sealing-2")
    for tamper in (
        lambda: world.store.overwrite(old),
        lambda: world.store.delete(InstallationKey, new.record.name),
        lambda: world.store.overwrite(forged(world, old.record, "2", 2)),
    ):
        right = row_of(world, InstallationKey, old.record.name)
        tamper()
        world.clock.advance(timedelta(seconds=30))
        for use in (running, world.new_process()):
            with pytest.raises(errors.RecordNotTrusted):
                world.sign(digests(1), use=use)
        world.store.overwrite(right)
        world.store.overwrite(new)
        world.clock.advance(timedelta(seconds=30))
        assert len(world.sign(digests(1), use=running).signatures) == 1


@pytest.mark.promise("P8")
def test_a_server_does_not_start_on_a_token_with_a_planted_sealing_key(world: World) -> None:
    def planted(method: str) -> None:
        if method == "has_installation_key":
            raise KeyMismatch("'trien sealing key 2' has not the attributes of its purpose: LOCAL")

    world.hsm.before = planted
    with pytest.raises(NotThisInstallation, match="did not make itself: 'trien sealing key 2'"):
        world.new_process().check_start()


@pytest.mark.promise("P5")
def test_a_seal_by_a_generation_that_no_record_names_is_refused_before_and_after_a_rotation(world: World) -> None:
    """Somebody who once had the PIN made a key of a generation far ahead, and keeps rows that it sealed in stock."""
    world.hsm.make_installation_key(SEALING, 9)
    rotate(world, SEALING)
    for table, name in ((Client, OFFICE.name), (InstallationKey, "installationKeys/sealing-2")):
        right = row_of(world, table, name)
        world.store.overwrite(forged(world, right.record, "9", 9))
        world.clock.advance(timedelta(seconds=30))
        for use in (world.use, world.new_process()):
            with pytest.raises(errors.RecordNotTrusted):
                world.sign(digests(1), use=use)
        world.store.overwrite(right)
        world.clock.advance(timedelta(seconds=30))
    assert {event.fields["finding"] for event in world.events if event.name == "record_not_trusted"} == {
        "its seal is by a key that no record names"
    }
    assert len(world.sign(digests(1)).signatures) == 1


@pytest.mark.promise("P5", "P9")
def test_a_sealing_key_that_somebody_made_beforehand_is_not_taken_into_use(world: World) -> None:
    proposal = world.use.rotate_installation_key(OPERATOR, SEALING, deadline=world.deadline())
    world.hsm.make_installation_key(SEALING, 2)
    with pytest.raises(errors.StateConflict, match="sealing key 2 that no record names"):
        world.use.rotate_installation_key(OPERATOR, SEALING, deadline=world.deadline())
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert row_of(world, InstallationKey, "installationKeys/sealing-1").record.state is ACTIVE


@pytest.mark.promise("P8")
def test_a_database_from_before_a_rotation_is_reported_at_start(world: World) -> None:
    before = world.store.reopened()
    world.use.check_start()
    rotate(world, SEALING)
    world.new_process().check_start()
    assert not [event for event in world.events if event.name == "database_set_back"]
    world.new_process(store=before).check_start()
    assert [event.fields for event in world.events if event.name == "database_set_back"] == [
        {"token_holds": "sealing key 2"}
    ]


@pytest.mark.promise("P5")
def test_a_process_that_slept_through_a_rotation_puts_no_row_in_force_by_the_old_key(world: World) -> None:
    sleeper = world.new_process()
    sleeper.get_key(OPERATOR, "keys/chair-p256")
    client = sleeper.transactions.read(lambda view: view.require(Client, PORTAL.name))
    stale = sleeper.seals.seal(dataclasses.replace(client, version=client.version + 2, display_name="stale"))
    assert stale.seal_key == "1"
    rotate(world, SEALING)
    with pytest.raises(Stale):
        sleeper.transactions.run(lambda ledger: ledger.put(stale, kind="k", details={}), timeout=5.0)
    sleeper.disable_client(OPERATOR, PORTAL.name, deadline=world.deadline())
    assert row_of(world, Client, PORTAL.name).seal_key == "2"


def copy_of(world: World) -> World:
    """Returns another world over a copy of the store and of the token's keys."""
    copied = World(clock=world.clock, store=MemoryStore(clock=world.clock.now), hsm=MemoryHsm())
    copied.store._tables = world.store._tables
    copied.hsm.__dict__.update({name: value for name, value in world.hsm.__dict__.items() if name.endswith("_key")})
    for name in ("_keys", "_sealing_keys", "_wrapping_keys"):
        copied.hsm.__dict__[name] = dict(world.hsm.__dict__[name])
    copied.otp = world.otp
    return copied


@pytest.mark.promise("P8")
@pytest.mark.parametrize("purpose", [SEALING, WRAPPING])
def test_a_rotation_that_is_killed_at_any_of_its_transactions_goes_on_in_another_process(
    world: World,
    purpose: InstallationKeyPurpose,
    record_property: Callable[[str, object], None],
) -> None:
    add_wrapped_keys(world, 3)
    request_rotation(world, purpose)
    killed = 0
    while True:
        copied = copy_of(world)
        copied.store.fail_transact(killed // 2 + 1, persisted=killed % 2 == 1)
        for later in range(2, 1000):
            copied.store.fail_transact(killed // 2 + later, persisted=False)  # the dead do nothing more
        victim = copied.new_process()
        try:
            victim.key_rotation.look()
        except errors.StoreUnavailable:
            killed += 1
        else:
            break
        copied.store = copied.store.reopened()
        copied.clock.advance(timedelta(seconds=61))  # the lease of the killed one lapses
        heir = copied.use = copied.new_process()
        finish(copied, heir)
        assert states(copied, purpose, heir) == [RETIRED, ACTIVE]
        if purpose is SEALING:
            assert set(sealed_by(copied, *SLOW_RECORDS, *UNDATED)) == {2}
        else:
            assert {key.wrapping_generation for key in wrapped_keys(copied)} == {2}
        assert not [event for event in copied.events if event.name == "record_not_trusted"]
    record_property("count", f"rotation of the {purpose.lower()} key: kill points {killed}")
    assert killed >= 14


def add_wrapped_keys(world: World, count: int) -> list[str]:
    names = [f"keys/wrapped-{number}" for number in range(count)]
    for name in names:
        world.use.create_key(
            OPERATOR,
            name=name,
            key_type=KeyType.EC_P256,
            protection_level=ProtectionLevel.WRAPPED,
            deadline=world.deadline(),
        )
        world.use.key_generation.generate(name)
    return names


def wrapped_keys(world: World) -> list[Key]:
    keys = world.use.transactions.read(lambda view: view.find(Key))
    return [key for key in keys if key.wrapped_key is not None]


@pytest.mark.requirement("ASVS 5.0.0-11.2.2")
@pytest.mark.promise("P4")
def test_keys_are_wrapped_anew_and_sign_on_and_new_keys_use_the_new_generation(world: World) -> None:
    add_wrapped_keys(world, 3)
    before = wrapped_keys(world)
    assert {key.wrapping_generation for key in before} == {1}
    rotate(world, WRAPPING)
    assert states(world, WRAPPING) == [RETIRED, ACTIVE]
    after = wrapped_keys(world)
    assert {key.wrapping_generation for key in after} == {2}
    assert [key.public_key for key in after] == [key.public_key for key in before]
    assert not {key.wrapped_key for key in after} & {key.wrapped_key for key in before}
    for key in (*before, *after):
        signed = world.hsm.sign(
            reference_of(key), SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), pss_salt_length=None
        )
        assert len(signed) == 1
    world.use.create_key(
        OPERATOR,
        name="keys/new",
        key_type=KeyType.EC_P256,
        protection_level=ProtectionLevel.WRAPPED,
        deadline=world.deadline(),
    )
    world.use.key_generation.generate("keys/new")
    assert world.use.get_key(OPERATOR, "keys/new").wrapping_generation == 2


@pytest.mark.promise("P5")
def test_a_record_with_the_old_wrapping_put_back_is_refused(world: World) -> None:
    (name,) = add_wrapped_keys(world, 1)
    old = row_of(world, Key, name)
    rotate(world, WRAPPING)
    world.store.overwrite(old)
    with pytest.raises(errors.RecordNotTrusted):
        world.new_process().get_key(OPERATOR, name)


def test_a_token_that_wraps_nothing_anew_keeps_the_old_wrapping_key_in_use_and_says_so_once(world: World) -> None:
    add_wrapped_keys(world, 2)
    world.hsm.rewraps = False
    request_rotation(world, WRAPPING)
    finish(world, world.use)
    assert states(world, WRAPPING) == [RETIRING, ACTIVE]
    assert {key.wrapping_generation for key in wrapped_keys(world)} == {1}
    assert [event.name for event in world.events].count("keys_not_rewrapped") == 1
    world.hsm.rewraps = True
    finish(world, world.new_process())
    assert states(world, WRAPPING) == [RETIRED, ACTIVE]


def test_a_wrapping_key_that_the_tokens_officer_has_to_make_is_waited_for(world: World) -> None:
    world.hsm.officer_needed = True
    request_rotation(world, WRAPPING)
    finish(world, world.use)
    assert states(world, WRAPPING) == [ACTIVE, PENDING]
    asked = [event for event in world.events if event.name == "security_officer_needed"]
    assert len(asked) == 1
    assert asked[0].fields["run"] == "trien-server token add-wrapping-key"
    world.hsm.officer_needed = False
    finish(world, world.use)
    assert states(world, WRAPPING) == [RETIRED, ACTIVE]


def test_a_key_that_is_being_generated_is_left_to_its_worker(world: World) -> None:
    world.use.create_key(OPERATOR, name="keys/slow", key_type=KeyType.EC_P256, deadline=world.deadline())
    request_rotation(world, SEALING)
    finish(world, world.use)
    assert states(world, SEALING) == [RETIRING, ACTIVE]
    assert row_of(world, Key, "keys/slow").seal_key == "1"
    world.use.key_generation.generate("keys/slow")
    finish(world, world.use)
    assert states(world, SEALING) == [RETIRED, ACTIVE]
    assert row_of(world, Key, "keys/slow").seal_key == "2"


def test_every_hot_record_is_dated_or_sealed_anew() -> None:
    """A new kind of hot record has to be thought of: else it is refused after the first rotation."""
    dated = {kind for kind in HOT_RECORDS if sealing.is_from_before(example(kind), AT + timedelta(days=400))}
    assert dated | set(UNDATED) == set(HOT_RECORDS)
    assert not dated & set(UNDATED)
