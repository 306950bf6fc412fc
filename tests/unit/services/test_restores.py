"""Restores over fakes: what comes back, what does not, and who has to agree."""

import copy
import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.fakes.hsm import MemoryHsm
from tests.support.restoring import Restoring, approval, backup, exported, known, seal_log
from tests.support.world import CHAIR, OFFICE, OPERATOR, P256, SECOND, World, digests, populated

from trien_server.core.algorithms import KeyType
from trien_server.core.audit_lines import json_line
from trien_server.core.backups import NotABackup
from trien_server.core.checkpoints import Checkpoint, open_checkpoint
from trien_server.core.errors import (
    AuthorizationExpired,
    OneTimePasswordRejected,
    Refusal,
    StoreUnavailable,
    Unauthenticated,
)
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    AuditEntry,
    AuthenticatorKind,
    AuthenticatorState,
    Authorization,
    Client,
    Enrolment,
    EnrolmentState,
    Installation,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    Key,
    KeyState,
    LogHead,
    LogTile,
    Proposal,
    ProposalState,
    ProtectionLevel,
    RevocationReason,
    Signer,
    SignerState,
    State,
)
from trien_server.core.restores import NotRestorable, parse_lost_entry
from trien_server.core.secret import Secret
from trien_server.services.clients import NewClient
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.services.installation import NotThisInstallation
from trien_server.services.log_history import require_extends
from trien_server.services.restored_state import WHAT_HAPPENS
from trien_server.services.restores import LEFT_OUT
from trien_server.services.signed_log import read_published_keys

pytestmark = pytest.mark.promise("P2", "P5", "P10")


def a_world() -> World:
    world = populated()
    world.hsm._keys = dict(world.hsm._keys)  # else the tests of one process would find each other's keys on the token
    return world


def own_token(world: World) -> MemoryHsm:
    """Returns a copy of the token, which gets its own keys and its own checkpoint from then on."""
    token: MemoryHsm = world.hsm.copied()
    return token


def restored_row(restoring: Restoring, kind: type[Any], name: str) -> Any:
    row = restoring.store.read(lambda snapshot: snapshot.get(kind, name))
    assert row is not None, name
    return row.record


def findings(world: World) -> list[str]:
    use = world.new_process()
    use.check_start()
    return [f"{one.fault} {one.table} {one.name}: {one.text}" for one in use.check_integrity()]


def test_every_row_comes_back_with_its_seal_but_what_the_table_says() -> None:
    world = a_world()
    world.sign(digests(2))
    note = seal_log(world)
    world.sign(digests(1), password=world.code(step=1))
    restoring = Restoring(backup(world), world, known=[known(note)])
    done = restoring.run()
    assert done.left == []
    changed = {AuthenticatorState, InstallationKey, LogHead, LogTile}
    same = 0
    for kind in (*SLOW_RECORDS, *HOT_RECORDS):
        before = {row.record.name: row for row in world.store.rows(kind)}
        after = {row.record.name: row for row in restoring.store.rows(kind)}
        if kind in LEFT_OUT:
            assert not set(map(repr, before.values())) & set(map(repr, after.values()))
        elif kind is AuditEntry:
            added = [after[name].record.kind for name in set(after) - set(before)]
            assert sorted(added) == [
                *("installation_key_activated", "installation_key_activated"),
                *("installation_key_begun", "installation_key_requested", "log_continued"),
            ]
            assert {name: after[name] for name in before} == before
        elif kind not in changed:
            assert after == before
            same += len(after)
    assert same > 40
    assert restoring.store.outcomes() == world.store.outcomes() != []
    size = known(note).size
    assert restoring.store.read(lambda s: s.log(0, limit=size)) == world.store.read(lambda s: s.log(0, limit=size))
    assert set(WHAT_HAPPENS) == {kind.table for kind in (*SLOW_RECORDS, *HOT_RECORDS)} | {"outcomes"}
    assert findings(restoring.restored) == []


def test_the_log_goes_on_under_a_name_that_no_log_had_and_says_what_it_goes_on_from() -> None:
    world = a_world()
    note = seal_log(world)
    content = backup(world)
    origins = {known(note).origin}
    for _ in range(2):
        restoring = Restoring(content, world, known=[known(note)])
        done = restoring.run()
        head = restored_row(restoring, LogHead, "log")
        assert head.size > known(note).size
        before = Checkpoint(head.origin, known(note).size, known(note).root)
        seals = restoring.restored.use.seals
        restoring.store.read(lambda s: require_extends(s, seals, head, before, where="the backup"))  # noqa: B023
        assert head.origin == done.origin
        origins.add(head.origin)
        entry = restored_row(restoring, AuditEntry, done.continued)
        assert entry.kind == "log_continued"
        for said in (known(note).origin, head.origin, note.splitlines()[2]):
            assert said in entry.details
    assert len(origins) == 3  # two restores of one backup are no second history of each other either
    again = Restoring(backup(restoring.restored), restoring.restored)
    assert "/3-" in again.run().origin


def test_no_code_that_was_or_could_be_shown_up_to_now_opens_anything_after_a_restore() -> None:
    world = a_world()
    content = backup(world)
    used = world.code()
    world.sign(digests(1), password=used)
    restoring = Restoring(content, world)
    restoring.run()
    restored = restoring.restored
    for step in (0, 1):
        with pytest.raises(OneTimePasswordRejected):
            restored.sign(digests(1), password=world.code(step=step))
    restored.clock.advance(timedelta(hours=1))
    restored.use = restored.new_process()
    assert restored.sign(digests(1)).signatures


def test_a_counter_is_believed_by_two_codes_in_a_row() -> None:
    world = a_world()
    world.add_authenticator(CHAIR, name="token", kind=AuthenticatorKind.HOTP)
    shown = world.otp[f"{CHAIR}/token"]
    content = backup(world)
    # Used since: in the restored database they would be good again.
    for counter in (1, 2):
        world.sign(digests(1), password=shown.at(counter))
    restoring = Restoring(content, world)
    restoring.run()
    restored = restoring.restored
    with pytest.raises(OneTimePasswordRejected):
        restored.sign(digests(1), password=shown.at(2))
    with pytest.raises(OneTimePasswordRejected):
        restored.sign(digests(1), password=shown.at(5))
    assert restored.sign(digests(1), password=shown.at(6)).signatures
    assert restored.sign(digests(1), password=shown.at(7)).signatures


def test_what_was_under_way_ends() -> None:
    world = a_world()
    open_ = world.authorize(digests(1))
    approved = world.authorize(digests(2))
    world.approve(approved)
    new = NewEnrolments(enrolments=(NewEnrolment(name=f"{CHAIR}/enrolments/second", kind=AuthenticatorKind.TOTP),))
    world.agree(world.use.create_enrolments(OPERATOR, new, deadline=world.deadline()))
    pending = world.use.create_client(
        OPERATOR,
        NewClient(name="clients/later", display_name="later", token_hash=b"h" * 32, certificate_fingerprint=None),
        deadline=world.deadline(),
    )
    restoring = Restoring(backup(world), world)
    done = restoring.run()
    now = world.clock.now()
    for authorization in (open_, approved):
        assert restored_row(restoring, Authorization, authorization.name).expire_time <= now
    with pytest.raises(AuthorizationExpired):
        restoring.restored.use.fetch_activation_data(OFFICE, approved.name)
    assert restored_row(restoring, Enrolment, f"{CHAIR}/enrolments/second").state is EnrolmentState.CANCELLED
    assert restored_row(restoring, Proposal, pending.name).state is ProposalState.CANCELLED
    assert done.counts["authorizations expired"] == 2
    assert findings(restoring.restored) == []


def test_a_scheduled_destruction_is_cancelled() -> None:
    world = a_world()
    world.use.create_key(
        OPERATOR,
        name="keys/spare",
        key_type=KeyType.EC_P256,
        protection_level=ProtectionLevel.TOKEN,
        deadline=world.deadline(),
    )
    world.use.key_generation.generate("keys/spare")
    world.use.disable_key(OPERATOR, "keys/spare", deadline=world.deadline())
    world.agree(world.use.destroy_key(OPERATOR, "keys/spare", delay_days=7, deadline=world.deadline()))
    assert world.use.get_key(OPERATOR, "keys/spare").state is KeyState.DESTROY_SCHEDULED
    restoring = Restoring(backup(world), world)
    restoring.run()
    assert restored_row(restoring, Key, "keys/spare").state is KeyState.DISABLED


@pytest.mark.parametrize("persisted", [False, True])
def test_a_failure_at_any_step_leaves_what_no_server_starts_on_and_the_same_restore_completes(persisted: bool) -> None:
    world = a_world()
    world.authorize(digests(1))
    note = seal_log(world)
    content = backup(world)
    whole = Restoring(content, world, known=[known(note)], hsm=own_token(world))
    whole.run()
    steps = whole.store.transacts
    assert steps >= 4
    failures = 0
    for step in range(1, steps + 1):
        restoring = Restoring(content, world, known=[known(note)], hsm=own_token(world))
        restoring.store.fail_transact(step, persisted=persisted)
        failed = False
        try:
            restoring.run()
        except StoreUnavailable:
            failed = True
        failures += failed
        # What fails as the log is sealed is done again by the server that starts.
        assert failed or restoring.store.rows(Installation)
        if not restoring.store.rows(Installation):
            with pytest.raises(NotThisInstallation):
                restoring.restored.new_process().check_start()
        world.clock.advance(timedelta(minutes=2))  # what was killed holds no lease any more
        again = restoring.run()
        assert again.continued
        assert findings(restoring.restored) == []
        assert restoring.store.rows(LogHead)[0].record.origin != known(note).origin
        for kind in (Signer, Client, Proposal, Authorization, AuthenticatorState):
            found = [row.record.name for row in restoring.store.rows(kind)]
            assert found == [row.record.name for row in whole.store.rows(kind)]
        assert all(row.record.expire_time <= world.clock.now() for row in restoring.store.rows(Authorization))

    assert failures >= steps // 2


def test_a_restore_into_what_is_not_empty_is_refused() -> None:
    world = a_world()
    content = backup(world)
    with pytest.raises(NotRestorable, match="not empty"):
        Restoring(content, world, store=world.store).run()
    begun = Restoring(content, world)
    begun.store.fail_transact(2, persisted=False)
    with pytest.raises(StoreUnavailable):
        begun.run()
    world.sign(digests(1))
    other = Restoring(backup(world), world, store=begun.store)
    with pytest.raises(NotRestorable, match="not empty"):
        other.run()


def test_a_backup_that_lacks_entries_or_has_other_ones_than_its_log_is_none() -> None:
    world = a_world()
    seal_log(world)
    content = backup(world)
    lines = content.splitlines(keepends=True)
    entries = [number for number, line in enumerate(lines) if line.startswith(b'["audit_entries"')]
    assert len(entries) > 20

    def forged(kept: list[bytes]) -> bytes:
        manifest = json.loads(lines[0])
        manifest["digest"] = hashlib.sha256(b"".join(kept)).hexdigest()
        manifest["tables"]["audit_entries"] = sum(line.startswith(b'["audit_entries"') for line in kept)
        first = json.dumps(manifest, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
        return first + b"\n" + b"".join(kept)

    # Whoever knows a recipient can make a file that opens; but not one with other entries below the sealed head.
    dropped = [line for number, line in enumerate(lines[1:], 1) if number != entries[-1]]
    swapped = list(lines[1:])
    swapped[entries[0] - 1] = swapped[entries[0] - 1].replace(b",0]\n", b",1]\n")
    for kept in (dropped, swapped):
        with pytest.raises(NotABackup):
            Restoring(forged(kept), world).run()


class TestAgreement:
    """Who has to agree, and to what."""

    def test_a_backup_that_is_not_older_than_the_last_known_checkpoint_needs_nobody(self) -> None:
        world = a_world()
        first = seal_log(world)
        world.sign(digests(1))
        last = seal_log(world)
        restoring = Restoring(backup(world), world, known=[known(first), known(last)])
        use = restoring.use()
        examined = restoring.examine(use)
        assert not examined.older
        assert use(restoring.source, examined, [], progress=lambda _, __: None).origin

    def test_an_older_one_or_one_of_which_nothing_is_known_needs_two_officers_with_two_keys(self) -> None:
        world = a_world()
        seal_log(world)
        content = backup(world)
        world.sign(digests(1))
        last = seal_log(world)
        for what in ([], [known(last)], [replace(known(last), origin="elsewhere/trien/1")]):
            restoring = Restoring(content, world, known=what)
            use = restoring.use()
            examined = restoring.examine(use)
            assert examined.older
            given = [approval(examined, "first"), approval(examined, "second")]
            for few in ([], given[:1], [given[0], given[0]], [given[0], replace(given[1], signature=b"x")]):
                with pytest.raises(NotRestorable):
                    use(restoring.source, examined, few, progress=lambda _, __: None)
            assert restoring.store.transacts == 0
            assert use.officers(examined, given) == ["operators/first", "operators/second"]

    def test_an_approval_of_another_statement_or_by_another_person_is_none(self) -> None:
        world = a_world()
        seal_log(world)
        content = backup(world)
        world.sign(digests(1))
        older = known(seal_log(world))
        world.next_step()
        world.sign(digests(1))
        newer = known(seal_log(world))
        use = (restoring := Restoring(content, world, known=[older])).use()
        examined = restoring.examine(use)
        other_use = (other := Restoring(content, world, known=[newer])).use()
        of_other = other.examine(other_use)
        assert of_other.statement != examined.statement
        with pytest.raises(NotRestorable, match="not a signature"):
            use.officers(examined, [approval(examined, "first"), approval(of_other, "second")])

    def test_the_same_statement_is_made_again_whenever_it_is_asked_for(self) -> None:
        world = a_world()
        seal_log(world)
        restoring = Restoring(backup(world), world)
        statement = restoring.examine(restoring.use()).statement
        world.clock.advance(timedelta(days=3))
        assert restoring.examine(restoring.use()).statement == statement

    def test_an_officer_who_was_disabled_since_does_not_count(self) -> None:
        world = a_world()
        size = known(seal_log(world)).size
        content = backup(world)
        world.use.disable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
        last = seal_log(world)
        restoring = Restoring(content, world, known=[known(last)], lost=exported(world, size))
        with pytest.raises(NotRestorable, match="operators/second was disabled"):
            restoring.run()

    def test_a_log_that_is_not_the_published_one_is_refused(self) -> None:
        world = a_world()
        note = seal_log(world)
        content = backup(world)
        forked = replace(known(note), root=b"\x00" * 32)
        with pytest.raises(NotRestorable, match="differ"):
            Restoring(content, world, known=[forked]).run()


class TestLostEntries:
    """What the lost part of the log takes away stays away."""

    def test_what_was_disabled_frozen_suspended_or_revoked_since_is_so_again(self) -> None:
        world = a_world()
        size = known(seal_log(world)).size
        content = backup(world)
        deadline = world.deadline
        world.use.disable_client(OPERATOR, "clients/portal", deadline=deadline())
        world.use.suspend_credential(OPERATOR, "credentials/seal", deadline=deadline())
        world.use.revoke_credential(
            OPERATOR, "credentials/chair-rsa", reason=RevocationReason.SUPERSEDED, deadline=deadline()
        )
        world.use.disable_signer(OPERATOR, "signers/clerk", deadline=deadline())
        world.add_client("clients/new")
        note = seal_log(world)
        restoring = Restoring(content, world, known=[known(note)], lost=exported(world, size))
        examined = restoring.examine(restoring.use())
        done = restoring.run()
        assert set(done.applied) == {
            "clients/portal: DISABLED",
            "credentials/seal: SUSPENDED",
            "credentials/chair-rsa: REVOKED",
            "signers/clerk: DISABLED",
        }
        assert restored_row(restoring, Client, "clients/portal").state is State.DISABLED
        assert restored_row(restoring, Signer, "signers/clerk").state is SignerState.DISABLED
        with pytest.raises(Unauthenticated):
            restoring.restored.new_process().authenticate.by_token(Secret(world.tokens["clients/portal"].encode()))
        assert '"resource":"clients/new"' in examined.statement
        assert '"unknown":0' in examined.statement
        assert findings(restoring.restored) == []

    def test_an_entry_that_is_not_in_the_published_log_is_refused(self) -> None:
        world = a_world()
        size = known(seal_log(world)).size
        content = backup(world)
        world.use.disable_client(OPERATOR, "clients/portal", deadline=world.deadline())
        world.use.disable_signer(OPERATOR, "signers/clerk", deadline=world.deadline())
        note = known(seal_log(world))
        lost = exported(world, size)
        assert len(lost) >= 2
        leaves = {one.position: one.entry.leaf for one in lost}
        # One alone is believed when the leaves of all others are there, and not without them.
        one = Restoring(content, world, known=[note], lost=lost[1:], leaves=leaves.get)
        assert len(one.run().applied) == 1
        with pytest.raises(NotRestorable, match="neither published nor"):
            Restoring(content, world, known=[note], lost=lost[1:]).run()
        with pytest.raises(NotRestorable, match="cannot be believed"):
            Restoring(content, world, lost=lost).run()
        moved = [replace(lost[0], entry=lost[1].entry), replace(lost[1], entry=lost[0].entry), *lost[2:]]
        with pytest.raises(NotRestorable, match="do not come to"):
            Restoring(content, world, known=[note], lost=moved).run()
        with pytest.raises(NotRestorable, match="not the one that was published"):
            Restoring(
                content, world, known=[note], lost=[replace(lost[0], entry=lost[1].entry)], leaves=leaves.get
            ).run()
        line = json_line(lost[0].position, lost[0].entry)
        assert parse_lost_entry(line) == lost[0]
        changed = line.replace(lost[0].entry.kind.encode(), b"client_enabled")
        assert changed != line
        with pytest.raises(NotRestorable, match="not what its leaf commits to"):
            parse_lost_entry(changed)
        with pytest.raises(NotRestorable, match="is no entry"):
            parse_lost_entry(b"{}")


class TestToken:
    """Which keys the token has to hold."""

    def test_a_token_with_other_keys_is_refused_and_the_text_says_which(self) -> None:
        world = a_world()
        content = backup(world)
        with pytest.raises(NotRestorable, match="one-time password key"):
            Restoring(content, world, hsm=MemoryHsm()).run()

    def test_a_key_pair_that_is_missing_is_told_and_wrapped_keys_work_without(self) -> None:
        world = a_world()
        world.add_credential(
            "credentials/wrapped", KeyType.EC_P256, CHAIR, CHAIR, protection_level=ProtectionLevel.WRAPPED
        )
        content = backup(world)
        other = copy.copy(world.hsm)
        other._keys = {}
        restoring = Restoring(content, world, hsm=other)
        examined = restoring.examine(restoring.use())
        assert {key.name for key in examined.token.missing} >= {"keys/chair-p256", "keys/seal"}
        restoring.run()
        world.clock.advance(timedelta(minutes=2))
        restored = restoring.restored
        assert restored.sign(digests(1), credential="credentials/wrapped").signatures
        world.next_step()
        with pytest.raises(Refusal):
            restored.sign(digests(1), credential=P256)

    def test_the_log_of_a_token_without_its_key_begins_with_a_key_that_nobody_signed_in(self) -> None:
        world = a_world()
        old = known(seal_log(world))
        without, with_it = Restoring(backup(world), world), Restoring(backup(world), world)
        without.restored.hsm = copy.copy(world.hsm)
        without.restored.hsm._keys = {}
        with_it.restored.hsm._keys = dict(world.hsm._keys)
        for restoring, keys in ((with_it, 2), (without, 1)):
            restoring.hsm = restoring.restored.hsm
            restoring.run()
            restoring.restored.use = restoring.restored.new_process()
            note = seal_log(restoring.restored)
            assert known(note).size > old.size
            published = restoring.restored.use.transactions.read(read_published_keys)
            assert published is not None
            assert len(published.keys) == keys
            assert open_checkpoint(note, published.keys).origin == published.present.origin != old.origin

    def test_a_sealing_key_of_the_lost_time_is_retired_unused_and_a_new_one_seals(self) -> None:
        world = a_world()
        content = backup(world)
        sealing = InstallationKeyPurpose.SEALING
        world.hsm.make_installation_key(sealing, 2)
        restoring = Restoring(content, world)
        restoring.run()
        keys = {
            row.record.generation: row.record
            for row in restoring.store.rows(InstallationKey)
            if row.record.purpose is sealing
        }
        assert [keys[n].state for n in (1, 2, 3)] == [
            InstallationKeyState.RETIRING,
            InstallationKeyState.RETIRED,
            InstallationKeyState.ACTIVE,
        ]
        assert keys[2].state_time == keys[1].create_time
        world.clock.advance(timedelta(minutes=5))
        restored = restoring.restored
        restored.use = restored.new_process()
        restored.use.check_start()
        restored.use.key_rotation.look()
        assert restored.sign(digests(1)).signatures
        assert findings(restored) == []
