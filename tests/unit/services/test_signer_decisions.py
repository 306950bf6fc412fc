"""What a person does alone by a one-time password: freeze, see every use, be told of each signature."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.fakes.delivery import RecordedDelivery
from tests.support.world import (
    AGENCY,
    CHAIR,
    CLERK,
    FOREIGN,
    OFFICE,
    OPERATOR,
    P256,
    PORTAL,
    SEAL,
    World,
    digests,
    populated,
)

from trien_server.core import errors
from trien_server.core.records import AuditEntry, AuthenticatorKind, Operator, SignatureUse, Signer, SignerState
from trien_server.core.secret import Secret
from trien_server.core.signature_uses import list_fingerprint
from trien_server.services.changes import Change
from trien_server.services.notices import PLACES
from trien_server.services.transactions import next_version

MAIL = "chair@phulam.example"
EMAIL = AuthenticatorKind.EMAIL


@pytest.fixture
def world() -> World:
    return populated()


def change(world: World, kind: type[Any], name: str, **fields: Any) -> None:
    def prepare(view: Any) -> Change:
        return Change(kind="changed", slow=[next_version(view.require(kind, name), **fields)])

    world.use.changes.make("test", prepare, deadline=world.deadline())


def freeze(world: World, name: str = CHAIR, *, by: Any = OFFICE, code: str | None = None) -> Signer:
    given = Secret((code if code is not None else world.code(name)).encode())
    return world.use.freeze_signer(by, name, password=given, deadline=world.deadline())


def notices(world: World, wanted: bool = True, *, code: str | None = None, name: str = CHAIR) -> Signer:
    given = Secret((code if code is not None else world.code(name)).encode())
    return world.use.set_signature_notices(OFFICE, name, password=given, wanted=wanted, deadline=world.deadline())


def uses(
    world: World, name: str = CHAIR, *, by: Any = OFFICE, code: str | None = None, token: str = "", size: int = 0
) -> tuple[list[SignatureUse], str]:
    given = None if code is None else Secret(code.encode())
    return world.use.list_signature_uses(by, name, password=given, size=size, token=token, deadline=world.deadline())


def told(world: World) -> list[tuple[str, str]]:
    world.use.notices.work_off()
    taken = [(one.address, one.text.body.reveal().decode()) for one in world.deliveries[EMAIL].taken]
    world.deliveries[EMAIL].taken.clear()
    return taken


def sign(world: World, count: int = 1, **options: Any) -> Any:
    signed = world.sign(digests(count), **options)
    world.next_step()
    return signed


def refused(kind: type[errors.Refusal], act: Callable[[], object]) -> errors.Refusal:
    with pytest.raises(kind) as caught:
        act()
    return caught.value


@pytest.mark.requirement("ASVS 5.0.0-6.5.6", "NIST 800-63B-4 3.2.1", "NIST 800-63B-4 4.3")
@pytest.mark.promise("P2", "P9")
def test_freezing_stops_signatures_approvals_and_what_was_approved(world: World) -> None:
    pending, approved = world.authorize(digests(1)), world.authorize(digests(2))
    world.approve(approved)
    secret, _ = world.use.fetch_activation_data(OFFICE, approved.name)
    world.next_step()
    code = world.code()
    assert freeze(world, code=code).state is SignerState.FROZEN
    refused(errors.OneTimePasswordRejected, lambda: freeze(world, code=code))
    world.next_step()
    refused(errors.CredentialDisabled, lambda: world.sign(digests(1)))
    with pytest.raises(errors.Refusal) as caught:
        world.approve(pending)
    assert caught.value.reason in {"CREDENTIAL_DISABLED", "PERMISSION_DENIED"}
    refused(errors.CredentialDisabled, lambda: world.sign(digests(2), activated=(approved.name, secret)))
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "signer_frozen"]
    assert len(entries) == 1
    assert '"acceptedValue"' in entries[0].details


@pytest.mark.promise("P2")
def test_a_person_who_activates_a_seal_stops_that_too(world: World) -> None:
    freeze(world, CLERK)
    world.next_step()
    refused(errors.PermissionDenied, lambda: world.sign(digests(1), credential=SEAL))


@pytest.mark.promise("P2")
def test_wrong_codes_to_freeze_count_as_all_others(world: World) -> None:
    remaining = [
        refused(errors.OneTimePasswordRejected, lambda: freeze(world, code=world.wrong_code())).metadata[
            "remainingAttempts"
        ]
        for _ in range(3)
    ]
    assert remaining == ["2", "1", "0"]
    refused(errors.SignerLocked, lambda: freeze(world))
    refused(errors.SignerLocked, lambda: world.sign(digests(1)))
    assert freeze(world, by=PORTAL).state is SignerState.FROZEN, "another application is not shut out"


@pytest.mark.requirement("ASVS 5.0.0-8.2.2")
@pytest.mark.promise("P11")
def test_an_application_acts_for_its_own_people_alone(world: World) -> None:
    for act in (
        lambda: freeze(world, by=FOREIGN),
        lambda: freeze(world, "signers/nobody", code="123456"),
        lambda: freeze(world, AGENCY, code="123456"),
        lambda: freeze(world, by=OPERATOR),
        lambda: uses(world, by=FOREIGN, code=world.code()),
        lambda: uses(world, "signers/nobody", code="123456"),
        lambda: uses(world, AGENCY, code="123456"),
    ):
        refused(errors.PermissionDenied, act)
    assert freeze(world).state is SignerState.FROZEN, "no code was looked at"


@pytest.mark.promise("P2")
def test_a_frozen_person_freezes_again_and_a_disabled_one_does_not(world: World) -> None:
    freeze(world)
    world.next_step()
    assert freeze(world).state is SignerState.FROZEN
    change(world, Signer, CLERK, state=SignerState.DISABLED)
    refused(errors.StateConflict, lambda: freeze(world, CLERK))


@pytest.mark.promise("P1")
def test_every_use_is_listed_newest_first(world: World) -> None:
    for count in (1, 2, 3):
        sign(world, count)
    sign(world, 4, credential=SEAL)
    found, token = uses(world, code=world.code())
    assert [use.items for use in found] == [3, 2, 1]
    assert token == ""
    newest = found[0]
    assert (newest.credential, newest.client, newest.approver) == (P256, OFFICE.name, CHAIR)
    assert newest.fingerprint == list_fingerprint(digests(3))
    granted = {row.record.name for row in world.store.rows(AuditEntry) if row.record.kind == "signing_granted"}
    assert {use.audit_entry for use in found} < granted
    seal, _ = uses(world, AGENCY, by=OPERATOR)
    assert [use.items for use in seal] == [4]


@pytest.mark.promise("P2", "P11")
def test_pages_follow_without_another_code_for_this_person_and_client_and_a_while(world: World) -> None:
    for _ in range(5):
        sign(world)
    code = world.code()
    first, token = uses(world, code=code, size=2)
    refused(errors.OneTimePasswordRejected, lambda: uses(world, code=code, size=2))
    second, another = uses(world, token=token, size=2)
    third, last = uses(world, token=another, size=2)
    names = [use.name for use in (*first, *second, *third)]
    assert (len(names), names, last) == (5, sorted(names), "")
    for act in (
        lambda: uses(world, token=token, by=PORTAL),
        lambda: uses(world, CLERK, token=token),
        lambda: uses(world, token=token[:-4] + "AAA="),
        lambda: uses(world, token="AAAA"),
        lambda: uses(world, token="ä"),
    ):
        refused(errors.InvalidArgument, act)
    world.clock.advance(timedelta(minutes=10))
    refused(errors.InvalidArgument, lambda: uses(world, token=token))
    refused(errors.InvalidArgument, lambda: uses(world))


@pytest.mark.promise("P9")
def test_officers_see_uses_within_their_organizations(world: World) -> None:
    for _ in range(3):
        sign(world)
    first, token = uses(world, by=OPERATOR, size=2)
    rest, _ = uses(world, by=OPERATOR, size=2, token=token)
    assert len(first) + len(rest) == 3
    change(world, Operator, OPERATOR.name, roles=("REGISTRATION_OFFICER",))
    refused(errors.PermissionDenied, lambda: uses(world, by=OPERATOR))
    change(world, Operator, OPERATOR.name, roles=("AUDITOR",))
    assert len(uses(world, by=OPERATOR)[0]) == 3
    change(world, Operator, OPERATOR.name, organizations=("organizations/none",))
    refused(errors.PermissionDenied, lambda: uses(world, by=OPERATOR))


@pytest.mark.promise("P5")
def test_a_use_that_was_invented_or_edited_is_not_shown(world: World) -> None:
    sign(world)
    [row] = world.store.rows(SignatureUse)
    world.store.overwrite(replace(row, record=replace(row.record, items=7)))
    refused(errors.RecordNotTrusted, lambda: uses(world, code=world.code()))


def test_a_person_who_wishes_it_is_told_of_each_signature(world: World) -> None:
    refusal = refused(errors.InvalidArgument, lambda: notices(world))
    assert refusal.metadata["field"] == "signature_notices"
    change(world, Signer, CHAIR, email=MAIL)
    assert notices(world).signature_notices
    world.next_step()
    [(address, text)] = told(world)
    assert (address, "told of each signature" in text) == (MAIL, True)
    sign(world, 3)
    [(address, text)] = told(world)
    assert address == MAIL
    fingerprint = list_fingerprint(digests(3))
    shown = " ".join(fingerprint[begin : begin + 4] for begin in range(0, 16, 4))
    for part in ("chair-p256", "office", "3 document", shown, "+07:00"):
        assert part in text
    assert "//" not in text
    notices(world, False)
    world.next_step()
    assert "no longer" in told(world)[0][1]
    sign(world)
    assert told(world) == []


def test_who_activates_a_seal_is_told_too(world: World) -> None:
    change(world, Signer, CLERK, email="hoa@phulam.example", signature_notices=True)
    sign(world, credential=SEAL)
    assert [address for address, _ in told(world)] == ["hoa@phulam.example"]


def test_nothing_waits_for_those_who_do_not_wish_to_be_told(world: World) -> None:
    for credential in (P256, SEAL):
        sign(world, credential=credential)
    assert world.use.notices._jobs.empty()


@pytest.mark.promise("P8")
def test_notices_never_fail_a_signature_and_what_is_dropped_is_reported(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL, signature_notices=True)
    world.deliveries[EMAIL].fails = True
    sign(world)
    world.use.notices.work_off()
    assert [event.fields["because"] for event in world.events if event.name == "notice_not_delivered"] == [
        "DELIVERY_FAILED"
    ]
    world.deliveries[EMAIL].fails = False
    assert told(world) == [], "at most once"
    sign(world)
    sign(world)
    world.use.notices.stop()
    assert [dict(event.fields)["count"] for event in world.events if event.name == "notices_dropped"] == ["2"]


@pytest.mark.promise("P9")
def test_an_application_that_signs_and_signs_drops_no_warning(world: World) -> None:
    change(world, Signer, CHAIR, email=MAIL, signature_notices=True)
    world.use = world.new_process()
    queued = world.use.notices._jobs
    while queued.qsize() < PLACES // 2:
        world.use.notices._put(lambda: None)
    for _ in range(3):
        sign(world)
    assert [event.name for event in world.events] == ["notices_dropped"] * 3
    before = len(told(world))
    world.use.disable_authenticator(OPERATOR, f"{CHAIR}/authenticators/phone", deadline=world.deadline())
    world.use.notices.work_off()
    assert len(told(world)) == before + 1


@pytest.mark.promise("P8")
def test_a_carrier_that_hangs_delays_no_signature(world: World) -> None:
    """Also when a thousand notices wait: what comes beyond them is dropped."""
    change(world, Signer, CHAIR, email=MAIL, signature_notices=True)
    release = threading.Event()

    class Hanging(RecordedDelivery):
        def deliver(self, **text: Any) -> None:
            release.wait(60)
            super().deliver(**text)

    world.deliveries[EMAIL] = Hanging()
    world.use = world.new_process()
    world.use.notices.start()
    try:
        for _ in range(5):
            sign(world)
        queued = world.use.notices._jobs
        while not queued.full():
            world.use.notices._put(lambda: None)
        sign(world)
        assert [event for event in world.events if event.name == "notices_dropped"]
    finally:
        release.set()
        world.use.notices.stop()
