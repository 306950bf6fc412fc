"""From which state to which a key goes, who has to agree, and what signs meanwhile (P9)."""

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.world import OFFICE, OPERATOR, P256, SECOND, World, digests

from trien_server.core import errors
from trien_server.core.algorithms import KeyType
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import (
    AuditEntry,
    CertificateAuthority,
    Credential,
    Key,
    KeyState,
    Proposal,
    ProposalState,
    ProtectionLevel,
)
from trien_server.services.changes import Change
from trien_server.services.paging import Page

KEY = "keys/chair-p256"


@pytest.fixture
def world() -> World:
    return World().populate()


def disable(world: World, name: str = KEY, principal: Principal = OPERATOR) -> Key:
    return world.use.disable_key(principal, name, deadline=world.deadline())


def enable(world: World, name: str = KEY, principal: Principal = OPERATOR) -> Proposal:
    return world.use.enable_key(principal, name, deadline=world.deadline())


def destroy(world: World, name: str = KEY, principal: Principal = OPERATOR, *, days: int = 0) -> Proposal:
    return world.use.destroy_key(principal, name, delay_days=days, deadline=world.deadline())


def cancel(world: World, name: str = KEY, principal: Principal = OPERATOR) -> Key:
    return world.use.cancel_key_destruction(principal, name, deadline=world.deadline())


def state_of(world: World, name: str = KEY) -> KeyState:
    return world.use.get_key(OPERATOR, name).state


def statement(proposal: Proposal) -> dict[str, object]:
    content: dict[str, object] = json.loads(proposal.statement)
    return content


@pytest.mark.requirement("ASVS 5.0.0-11.1.1")
def test_each_change_is_made_from_its_own_states_alone(world: World) -> None:
    world._add_key("keys/free", KeyType.EC_P256)
    calls: dict[str, tuple[Callable[[World, str], object], set[KeyState]]] = {
        "disable": (disable, {KeyState.ENABLED}),
        "enable": (enable, {KeyState.DISABLED}),
        "destroy": (destroy, {KeyState.ENABLED, KeyState.DISABLED}),
        "cancel": (cancel, {KeyState.DESTROY_SCHEDULED}),
    }
    tried = 0
    for state in KeyState:
        for call, allowed in calls.values():
            before = world.use.get_key(OPERATOR, "keys/free")
            put = dataclasses.replace(before, version=before.version + 1, state=state)
            world.use.changes.make(
                "test", lambda _, put=put: Change(kind="test", slow=[put]), deadline=world.deadline()
            )
            if state in allowed:
                call(world, "keys/free")
            else:
                with pytest.raises(errors.StateConflict):
                    call(world, "keys/free")
                assert world.use.get_key(OPERATOR, "keys/free") == put
            tried += 1
    assert tried == 28


def test_nobody_but_a_security_officer_changes_keys_and_an_unknown_key_looks_like_a_forbidden_one(world: World) -> None:
    unknown = Principal(kind=PrincipalKind.OPERATOR, name="operators/x", authenticated_by=AuthenticatedBy.CERTIFICATE)
    refused = 0
    for call in (disable, enable, destroy, cancel):
        for name, principal in ((KEY, OFFICE), (KEY, unknown), ("keys/none", OPERATOR)):
            with pytest.raises(errors.PermissionDenied):
                call(world, name, principal)
            refused += 1
    assert refused == 12
    assert state_of(world) is KeyState.ENABLED


@pytest.mark.promise("P9")
def test_a_disabled_key_signs_nothing_until_two_operators_enable_it(world: World) -> None:
    assert disable(world).state is KeyState.DISABLED
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1))
    proposal = enable(world)
    assert state_of(world) is KeyState.DISABLED, "one operator alone"
    with pytest.raises(errors.OwnProposal):
        world.approve_proposal(proposal, by=OPERATOR)
    world.agree(proposal)
    assert world.sign(digests(1), password=world.code()).signatures


@pytest.mark.promise("P9")
def test_a_key_to_destroy_signs_nothing_from_the_approval_on_and_can_be_kept(world: World) -> None:
    proposal = destroy(world, days=7)
    assert world.sign(digests(1)).signatures, "one operator alone changes nothing"
    world.clock.advance(timedelta(hours=5))
    world.agree(proposal)
    scheduled = world.use.get_key(OPERATOR, KEY)
    assert scheduled.state is KeyState.DESTROY_SCHEDULED
    assert scheduled.destroy_time == world.clock.now() + timedelta(days=7), "from the approval on"
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1), password=world.code())
    kept = cancel(world, principal=SECOND)
    assert (kept.state, kept.destroy_time) == (KeyState.DISABLED, None)
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1), password=world.code())
    world.agree(enable(world))
    world.next_step()
    assert world.sign(digests(1), password=world.code()).signatures


@pytest.mark.promise("P9")
def test_the_second_operator_reads_which_credentials_use_the_key_and_when_it_goes(world: World) -> None:
    used = {"name": P256, "signer": "signers/chair", "display_name": P256}
    for proposal, request in (
        (destroy(world), {"name": KEY, "delay_days": 30, "used_by": [used]}),
        (destroy(world, days=365), {"name": KEY, "delay_days": 365, "used_by": [used]}),
    ):
        assert statement(proposal)["request"] == request
    changes = statement(destroy(world))["changes"]
    assert changes == [
        {"record": KEY, "version": 4, "fields": {"state": {"before": "ENABLED", "after": "DESTROY_SCHEDULED"}}}
    ]
    disable(world)
    assert statement(enable(world))["request"] == {"name": KEY, "used_by": [used]}
    for days in (-1, 366):
        with pytest.raises(errors.InvalidArgument) as refusal:
            destroy(world, days=days)
        assert refusal.value.field == "delay_days"


@pytest.mark.promise("P9")
def test_a_key_that_got_a_credential_after_it_was_proposed_to_destroy_it_stays(world: World) -> None:
    world._add_key("keys/free", KeyType.EC_P256)
    proposal = destroy(world, "keys/free")
    spare = next(row.record for row in world.store.rows(Credential) if row.record.name == P256)
    stolen = dataclasses.replace(spare, name="credentials/new", key="keys/free")
    world.use.changes.make("test", lambda _: Change(kind="test", slow=[stolen]), deadline=world.deadline())
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert state_of(world, "keys/free") is KeyState.ENABLED


@pytest.mark.promise("P9")
def test_a_credential_that_begins_to_use_the_key_just_before_the_commit_is_seen(world: World) -> None:
    world._add_key("keys/free", KeyType.EC_P256)
    proposal = destroy(world, "keys/free")
    spare = next(row.record for row in world.store.rows(Credential) if row.record.name == P256)
    stolen = dataclasses.replace(spare, name="credentials/new", key="keys/free")
    transact = world.store.transact

    def raced(*arguments: object, **named: object) -> object:
        world.store.transact = transact
        world.use.changes.make("test", lambda _: Change(kind="test", slow=[stolen]), deadline=world.deadline())
        return transact(*arguments, **named)

    world.store.transact = raced
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert state_of(world, "keys/free") is KeyState.ENABLED


@pytest.mark.promise("P9")
def test_the_second_operator_reads_that_a_certificate_authority_uses_the_key(world: World) -> None:
    world._add_key("keys/free", KeyType.EC_P256)
    authority = CertificateAuthority(
        name="certificateAuthorities/own", key="keys/free", certificate_chain=(), create_time=world.clock.now()
    )
    world.use.changes.make("test", lambda _: Change(kind="test", slow=[authority]), deadline=world.deadline())
    used = {"name": authority.name, "signer": "", "display_name": ""}
    request = statement(destroy(world, "keys/free"))["request"]
    assert request == {"name": "keys/free", "delay_days": 30, "used_by": [used]}


@pytest.mark.requirement("ASVS 5.0.0-11.1.1")
def test_every_change_of_a_key_is_an_entry_with_its_version(world: World) -> None:
    disable(world)
    world.agree(enable(world))
    world.agree(destroy(world))
    cancel(world)
    entries = sorted(
        (row.record for row in world.store.rows(AuditEntry) if row.record.subject == KEY),
        key=lambda entry: entry.subject_version or 0,
    )
    assert [entry.kind for entry in entries] == [
        "key_created",
        "key_generation_begun",
        "key_generated",
        "key_disabled",
        "key_enabled",
        "key_destruction_scheduled",
        "key_destruction_cancelled",
    ]
    assert [entry.subject_version for entry in entries] == list(range(1, 8))
    actors = [json.loads(entry.details)["actor"] for entry in entries]
    assert actors == [
        "operators/first",
        "server",
        "server",
        "operators/first",
        *["operators/second"] * 2,
        OPERATOR.name,
    ]


def test_keys_are_listed_by_state(world: World) -> None:
    disable(world)
    world.agree(destroy(world, "keys/seal"))
    found = {
        state: [key.name for key in world.use.list_keys(OPERATOR, page=Page.parse(0, ""), state=state)[0]]
        for state in KeyState
    }
    assert found[KeyState.DISABLED] == [KEY]
    assert found[KeyState.DESTROY_SCHEDULED] == ["keys/seal"]
    assert len(found[KeyState.ENABLED]) == 3
    assert not any(found[state] for state in set(KeyState) - set(found) | {KeyState.DESTROYED})


def test_a_wrapped_key_is_kept_in_its_record_and_signs(world: World) -> None:
    on_token = set(world.hsm._keys)
    world.add_credential(
        "credentials/wrapped",
        KeyType.EC_P256,
        "signers/chair",
        "signers/chair",
        protection_level=ProtectionLevel.WRAPPED,
    )
    key = world.key("credentials/wrapped")
    assert key.wrapped_key
    assert (key.protection_level, key.wrapping_generation) == (ProtectionLevel.WRAPPED, 1)
    assert set(world.hsm._keys) == on_token, "nothing is left on the token"
    assert world.sign(digests(2), credential="credentials/wrapped").signatures
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.subject == key.name]
    assert len(entries) == key.version
    assert not any(key.wrapped_key.hex() in entry.details for entry in entries)


def test_what_the_token_does_not_wrap_is_refused_with_its_answer_and_leaves_nothing(world: World) -> None:
    keys = world.store.rows(Key)
    for _ in range(2):
        with pytest.raises(errors.InvalidArgument, match="does not wrap EC_ED25519 keys") as refusal:
            world.use.create_key(
                OPERATOR,
                name="keys/ed",
                key_type=KeyType.EC_ED25519,
                protection_level=ProtectionLevel.WRAPPED,
                deadline=world.deadline(),
            )
        assert refusal.value.field == "key.protection_level"
    assert world.store.rows(Key) == keys


def test_who_may_not_make_keys_costs_the_token_nothing(world: World) -> None:
    world.hsm.calls.clear()
    with pytest.raises(errors.PermissionDenied):
        world.use.create_key(
            OFFICE,
            name="keys/x",
            key_type=KeyType.EC_P256,
            protection_level=ProtectionLevel.WRAPPED,
            deadline=world.deadline(),
        )
    assert world.hsm.calls["generate_wrapped_key_pair"] == 0


def test_a_wrapped_key_that_two_processes_make_is_the_one_in_force(world: World) -> None:
    world.use.create_key(
        OPERATOR,
        name="keys/raced",
        key_type=KeyType.EC_P256,
        protection_level=ProtectionLevel.WRAPPED,
        deadline=world.deadline(),
    )
    other = world.new_process()
    generate = world.hsm.generate_wrapped_key_pair

    def raced(key_type: KeyType, **arguments: Any) -> object:
        world.hsm.generate_wrapped_key_pair = generate
        other.key_generation.generate("keys/raced")
        return generate(key_type, **arguments)

    world.hsm.generate_wrapped_key_pair = raced
    world.use.key_generation.generate("keys/raced")
    made = world.use.get_key(OPERATOR, "keys/raced")
    assert (made.version, made.state) == (2, KeyState.ENABLED)
    assert world.events == []


def test_keys_that_an_earlier_run_left_are_generated_without_being_asked_for(world: World) -> None:
    for number in range(230):
        world.use.create_key(
            OPERATOR,
            name=f"keys/left-{number:03}",
            key_type=KeyType.EC_P256,
            protection_level=ProtectionLevel.WRAPPED,
            deadline=world.deadline(),
        )
    later = world.new_process()
    later.key_generation._stopped.set()
    left: str | None = ""
    pages = 0
    while left is not None:
        left = later.key_generation._take_up(left)
        pages += 1
    assert pages == 3
    later.key_generation._stopped.clear()
    later.key_generation.ask("keys/left-000")
    later.key_generation.start()
    for _ in range(600):
        if not world.use.list_keys(OPERATOR, page=Page.parse(0, ""), state=KeyState.PENDING_GENERATION)[0]:
            break
        later.key_generation._stopped.wait(0.05)
    later.key_generation.stop()
    page = world.use.list_keys(OPERATOR, page=Page.parse(100, ""), state=KeyState.ENABLED)[0]
    assert len(page) == 100
    assert not world.use.list_keys(OPERATOR, page=Page.parse(0, ""), state=KeyState.PENDING_GENERATION)[0]
