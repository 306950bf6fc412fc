"""The life of a credential: renewed, updated, restricted, suspended, resumed, revoked (P5, P9)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
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
    SECOND,
    World,
    digests,
    issue,
    new_request_id,
)

from trien_server.core import errors
from trien_server.core.algorithms import KeyType
from trien_server.core.records import (
    Activator,
    AuditEntry,
    AuthenticatorKind,
    CredentialClient,
    CredentialState,
    IssuedCertificate,
    IssuedCertificateState,
    ItemKind,
    KeyState,
    Operator,
    Organization,
    ProposalState,
    RevocationPolicy,
    RevocationReason,
    Signer,
    SignerKind,
    State,
)
from trien_server.services.credential_changes import CredentialTerms, Renewal
from trien_server.services.credential_holders import Entitlement, entitlement_of
from trien_server.services.credentials import CredentialView, NewCredential
from trien_server.services.paging import Page
from trien_server.services.transactions import next_version

OFFICE_HOURS = ("mon-fri 07:00-17:30",)


@pytest.fixture
def world() -> World:
    return World().populate()


def shown(world: World, name: str) -> CredentialView:
    return world.use.get_credential(OPERATOR, name)


def terms(world: World, of: str, **changes: Any) -> CredentialTerms:
    """Returns what a credential has, with changes."""
    view = shown(world, of)
    credential = view.credential
    present = CredentialTerms(
        name=of,
        display_name=credential.display_name,
        activators=tuple(entitlement_of(row) for row in view.activators),
        clients=tuple(view.clients),
        max_items=credential.max_items,
        client_collected_otp=credential.client_collected_otp,
        authenticator_kinds=tuple(AuthenticatorKind(kind) for kind in credential.authenticator_kinds),
        hours=credential.hours,
        revocation_policy=credential.revocation_policy,
    )
    return replace(present, **changes)


def update(world: World, name: str, **changes: Any) -> CredentialView:
    proposal = world.use.update_credential(OPERATOR, terms(world, name, **changes), deadline=world.deadline())
    world.agree(proposal)
    return shown(world, name)


def restrict(world: World, name: str, **changes: Any) -> CredentialView:
    return world.use.restrict_credential(OPERATOR, terms(world, name, **changes), deadline=world.deadline())


def suspend(world: World, name: str) -> CredentialView:
    return world.use.suspend_credential(OPERATOR, name, deadline=world.deadline())


def revoke(world: World, name: str, reason: RevocationReason = RevocationReason.KEY_COMPROMISE) -> CredentialView:
    return world.use.revoke_credential(OPERATOR, name, reason=reason, deadline=world.deadline())


def new_chain(world: World, key: str, signer: str = CHAIR) -> tuple[bytes, ...]:
    request = world.use.generate_signing_request(OPERATOR, key=key, signer=signer, deadline=world.deadline())
    return (issue(request, world.clock),)


def renew(world: World, name: str, *, key: str = "", **changes: Any) -> tuple[bytes, ...]:
    chain = new_chain(world, key or shown(world, name).credential.key)
    renewal = replace(Renewal(name=name, key=key, certificate_chain=chain), **changes)
    world.agree(world.use.renew_credential(OPERATOR, renewal, deadline=world.deadline()))
    return chain


def entries(world: World, kind: str) -> list[AuditEntry]:
    return [row.record for row in world.store.rows(AuditEntry) if row.record.kind == kind]


def nothing_changes(world: World, kind: type[errors.Refusal], call: Callable[[], object]) -> errors.Refusal:
    before = shown(world, P256)
    count = len(world.store.rows(AuditEntry))
    with pytest.raises(kind) as caught:
        call()
    assert shown(world, P256) == before
    assert len(world.store.rows(AuditEntry)) == count
    return caught.value


# Certificates


def test_a_request_for_a_certificate_names_the_signer_in_vietnamese_and_asks_to_commit(world: World) -> None:
    key = world.key(P256).name
    encoded = world.use.generate_signing_request(OPERATOR, key=key, signer=CHAIR, deadline=world.deadline())
    request = x509.load_der_x509_csr(encoded)
    assert request.is_signature_valid
    assert [(attribute.oid, attribute.value) for attribute in request.subject] == [
        (NameOID.ORGANIZATION_NAME, "Ủy ban nhân dân xã Phú Lâm"),
        (NameOID.COMMON_NAME, "Hoàng Trịnh Đôn"),
    ]
    (extension,) = request.extensions
    assert extension.critical
    usage = extension.value
    assert isinstance(usage, x509.KeyUsage)
    assert usage.content_commitment
    assert not usage.digital_signature
    assert not usage.key_cert_sign
    assert len(entries(world, "signing_request_granted")) == 6


@pytest.mark.parametrize(
    ("name", "position", "said"),
    [
        ("Đ" * 65, "", "the signer's display_name has 65 characters"),
        ("Hoàng Trịnh Đôn", "P" * 70, "the signer's position has 70 characters"),
        ("Đ" * 64, "Ộ" * 64, None),
    ],
    ids=["a name of 65", "a position of 70", "both of 64"],
)
@pytest.mark.filterwarnings("ignore:Attribute's length must be")
def test_a_name_is_never_cut_in_a_certificate(world: World, name: str, position: str, said: str | None) -> None:
    world.use.create_signer(
        OPERATOR,
        name="signers/long",
        display_name=name,
        kind=SignerKind.PERSON,
        organization="organizations/commune",
        position=position,
        deadline=world.deadline(),
    )
    world._add_key("keys/long", KeyType.EC_P256)
    ask = lambda: world.use.generate_signing_request(  # noqa: E731
        OPERATOR, key="keys/long", signer="signers/long", deadline=world.deadline()
    )
    if said is None:
        subject = x509.load_der_x509_csr(ask()).subject
        assert [attribute.value for attribute in subject][1:] == [position, name]
        return
    refusal = nothing_changes(world, errors.InvalidArgument, ask)
    assert said in refusal.message
    assert refusal.metadata["field"] == "signer"


def test_a_key_in_use_is_asked_for_again_only_for_its_own_signer(world: World) -> None:
    key = world.key(P256).name
    refusal = nothing_changes(
        world,
        errors.InvalidArgument,
        lambda: world.use.generate_signing_request(OPERATOR, key=key, signer=CLERK, deadline=world.deadline()),
    )
    assert refusal.metadata["field"] == "signer"


@pytest.mark.promise("P3", "P5")
def test_a_renewal_with_the_same_key_keeps_name_policy_and_what_waits(world: World) -> None:
    before = update(world, P256, max_items=7, hours=("mon-sun 00:00-24:00",))
    waiting, approved = world.authorize(digests(1)), world.authorize(digests(2, of="approved"))
    world.approve(approved)
    chain = renew(world, P256)
    after = shown(world, P256)
    assert after.credential == replace(
        before.credential, version=before.credential.version + 1, certificate_chain=chain
    )
    assert (after.activators, after.clients, after.key) == (before.activators, before.clients, before.key)
    world.next_step()
    world.approve(waiting)
    for authorization, wanted in ((waiting, digests(1)), (approved, digests(2, of="approved"))):
        done = world.sign(wanted, activated=(authorization.name, world.activation_data(authorization)))
        assert len(done.signatures) == len(wanted)
    world.next_step()
    assert world.sign(digests(1, of="at once")).signatures


@pytest.mark.promise("P3")
def test_attributes_that_name_the_old_certificate_are_refused_after_a_renewal(world: World) -> None:
    document = digests(1)[0]
    old = world.attributes(document)
    authorization = world.authorize([document], item_kind=ItemKind.SIGNED_ATTRIBUTES)
    world.approve(authorization)
    renew(world, P256)
    activated = (authorization.name, world.activation_data(authorization))
    with pytest.raises(errors.InvalidSignedAttributes):
        world.sign([old], activated=activated)
    # What was approved is the document: attributes for the new certificate may be signed.
    assert len(world.sign([world.attributes(document)], activated=activated).signatures) == 1


@pytest.mark.promise("P3", "P7")
def test_a_renewal_with_another_key_ends_every_authorization_of_the_old(world: World) -> None:
    waiting, approved = world.authorize(digests(1)), world.authorize(digests(1, of="approved"))
    world.approve(approved)
    data = world.activation_data(approved)
    world.next_step()
    request = new_request_id()
    world.sign(digests(1, of="granted"), request_id=request)
    old = world.key(P256).name
    world._add_key("keys/next", KeyType.EC_P256)
    chain = renew(world, P256, key="keys/next")
    after = shown(world, P256)
    assert (after.credential.key, after.credential.certificate_chain) == ("keys/next", chain)
    assert world.use.get_key(OPERATOR, old).state is KeyState.DISABLED
    signatures = world.hsm.signatures
    world.next_step()
    attempts: list[Callable[[], object]] = [
        lambda: world.approve(waiting),
        lambda: world.sign(digests(1, of="approved"), activated=(approved.name, data)),
        # A retry, too: the recorded signature is by a key that the certificate no longer has.
        lambda: world.sign(digests(1, of="granted"), request_id=request),
    ]
    for attempt in attempts:
        with pytest.raises(errors.AuthorizationExpired, match="renewed with another key"):
            attempt()
    assert world.hsm.signatures == signatures
    assert not [event for event in world.events if event.name == "signature_does_not_verify"]
    # The refusals consumed nothing: the same code signs at once, with the new key.
    assert len(world.sign(digests(1)).signatures) == 1


def test_a_renewal_is_refused_by_its_first_fault(world: World) -> None:
    name, own = P256, world.key(P256).name
    world._add_key("keys/free", KeyType.EC_P256)
    chain, free = new_chain(world, own), new_chain(world, "keys/free")
    other = world.key(SEAL).name
    cases: list[tuple[Renewal, type[errors.Refusal], str]] = [
        (Renewal(name="credentials/none", key="", certificate_chain=chain), errors.PermissionDenied, ""),
        (Renewal(name=name, key="keys/none", certificate_chain=chain), errors.InvalidArgument, "key"),
        (Renewal(name=name, key=other, certificate_chain=chain), errors.InvalidArgument, "key"),
        (Renewal(name=name, key="", certificate_chain=free), errors.InvalidArgument, "certificate_chain[0]"),
        (Renewal(name=name, key="keys/free", certificate_chain=chain), errors.InvalidArgument, "certificate_chain[0]"),
        (Renewal(name=name, key="", certificate_chain=()), errors.InvalidArgument, "certificate_chain"),
        (
            Renewal(name=name, key="", certificate_chain=(world.certificate(name),)),
            errors.InvalidArgument,
            "certificate_chain",
        ),
    ]
    for renewal, kind, field in cases:
        refusal = nothing_changes(
            world,
            kind,
            lambda renewal=renewal: world.use.renew_credential(OPERATOR, renewal, deadline=world.deadline()),
        )
        assert refusal.metadata.get("field", "") == field
    world.clock.advance(timedelta(days=40))
    renewal = Renewal(name=name, key="", certificate_chain=chain)
    with pytest.raises(errors.CertificateNotValid):
        world.use.renew_credential(OPERATOR, renewal, deadline=world.deadline())


@pytest.mark.promise("P9")
def test_a_renewal_that_another_overtook_is_not_carried_out(world: World) -> None:
    key = world.key(P256).name
    first, second = new_chain(world, key), new_chain(world, key)
    proposals = [
        world.use.renew_credential(
            OPERATOR, Renewal(name=P256, key="", certificate_chain=chain), deadline=world.deadline()
        )
        for chain in (first, second)
    ]
    world.agree(proposals[1])
    assert world.approve_proposal(proposals[0]).state is ProposalState.OUTDATED
    assert shown(world, P256).credential.certificate_chain == second


# Policy, activators and clients


@pytest.mark.promise("P9")
def test_an_update_changes_what_it_says_and_rows_come_and_go(world: World) -> None:
    world.add_client("clients/third")
    start = world.clock.now() + timedelta(days=1)
    changes = {
        "display_name": "Con dấu",
        "activators": (Entitlement(signer=CHAIR, start_time=start),),
        "clients": (PORTAL.name, "clients/third"),
        "max_items": 12,
        "client_collected_otp": False,
        "authenticator_kinds": (AuthenticatorKind.TOTP, AuthenticatorKind.OCRA),
        "hours": OFFICE_HOURS,
        "revocation_policy": RevocationPolicy.REFUSE_REVOKED,
    }
    after = update(world, SEAL, **changes)
    assert {name: value for name, value in vars(terms(world, SEAL)).items() if name != "name"} == changes | {
        "authenticator_kinds": (AuthenticatorKind.OCRA, AuthenticatorKind.TOTP)
    }
    assert after.credential.version == 2
    rows = {row.record.name: row.record for row in world.store.rows(Activator)}
    assert rows[f"{SEAL}/{CLERK}"].state is State.DISABLED
    # Who comes back gets the same row, and the next version of it.
    update(world, SEAL, activators=(Entitlement(signer=CLERK),), clients=(OFFICE.name,))
    rows = {row.record.name: row.record for row in world.store.rows(Activator)}
    assert rows[f"{SEAL}/{CLERK}"] == Activator(
        name=f"{SEAL}/{CLERK}", version=3, credential=SEAL, signer=CLERK, state=State.ENABLED
    )
    assert rows[f"{SEAL}/{CHAIR}"].state is State.DISABLED
    clients = {
        row.record.client: row.record.state
        for row in world.store.rows(CredentialClient)
        if row.record.credential == SEAL
    }
    assert clients == {OFFICE.name: State.ENABLED, PORTAL.name: State.DISABLED, "clients/third": State.DISABLED}


def test_an_update_is_refused_by_its_first_fault(world: World) -> None:
    now = world.clock.now()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": "credentials/none"}, ""),
        ({}, "credential"),
        ({"display_name": ""}, "credential.display_name"),
        ({"max_items": 1001}, "credential.max_items"),
        ({"hours": ("mon 07:00-06:00",)}, "credential.hours[0]"),
        ({"activators": (Entitlement(signer=CLERK),)}, "credential.activators"),
        (
            {"activators": (Entitlement(signer=CHAIR, start_time=now, end_time=now),)},
            "credential.activators[0].end_time",
        ),
        ({"clients": ("clients/none",)}, "credential.clients[0]"),
        ({"clients": (OFFICE.name, OFFICE.name)}, "credential.clients"),
        ({"clients": tuple(f"clients/{number}" for number in range(101))}, "credential.clients"),
    ]
    for changes, field in cases:
        kind = errors.InvalidArgument if field else errors.PermissionDenied
        wanted = terms(world, P256, **changes)
        refusal = nothing_changes(
            world, kind, lambda wanted=wanted: world.use.update_credential(OPERATOR, wanted, deadline=world.deadline())
        )
        assert refusal.metadata.get("field", "") == field


@pytest.mark.promise("P9")
def test_an_update_that_another_change_overtook_is_not_carried_out(world: World) -> None:
    """It was read as one change and would be another: it would give back what was taken away meanwhile."""
    wanted = terms(world, P256, max_items=500)
    proposal = world.use.update_credential(OPERATOR, wanted, deadline=world.deadline())
    restrict(world, P256, clients=(OFFICE.name,))
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert shown(world, P256).clients == [OFFICE.name]


@pytest.mark.promise("P9")
def test_one_operator_alone_makes_a_policy_stricter_at_once(world: World) -> None:
    end = world.clock.now() + timedelta(days=30)
    steps: list[dict[str, Any]] = [
        {"max_items": 20},
        {"clients": (OFFICE.name,)},
        {"authenticator_kinds": (AuthenticatorKind.OCRA, AuthenticatorKind.TOTP)},
        {"authenticator_kinds": (AuthenticatorKind.OCRA,)},
        {"hours": ("mon-sat 07:00-17:30",)},
        {"hours": ("mon-fri 07:00-11:30", "mon-fri 13:00-17:30")},
        {"client_collected_otp": False},
        {"revocation_policy": RevocationPolicy.REQUIRE_GOOD},
        {"activators": (Entitlement(signer=CHAIR, end_time=end),)},
        {"activators": (Entitlement(signer=CHAIR, start_time=world.clock.now(), end_time=end),)},
        {"clients": ()},
    ]
    for changes in steps:
        wanted = terms(world, P256, **changes)
        after = restrict(world, P256, **changes)
        assert after == shown(world, P256)
        for name, value in changes.items():
            assert getattr(terms(world, P256), name) == value
        # An answer that was lost is asked for again: nothing is written.
        count = len(world.store.rows(AuditEntry))
        assert world.use.restrict_credential(OPERATOR, wanted, deadline=world.deadline()) == after
        assert len(world.store.rows(AuditEntry)) == count
    assert len(entries(world, "credential_restricted")) == len(steps)


@pytest.mark.promise("P9")
def test_what_is_not_provably_stricter_needs_a_second_operator(world: World) -> None:
    end = world.clock.now() + timedelta(days=30)
    policy = {
        "max_items": 10,
        "clients": (OFFICE.name,),
        "authenticator_kinds": (AuthenticatorKind.TOTP,),
        "hours": OFFICE_HOURS,
        "client_collected_otp": False,
        "revocation_policy": RevocationPolicy.REFUSE_REVOKED,
        "activators": (Entitlement(signer=CHAIR, end_time=end),),
    }
    restrict(world, P256, **policy)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"display_name": "another"}, "display_name"),
        ({"max_items": 11}, "max_items"),
        ({"clients": (PORTAL.name,)}, "clients: clients/portal"),
        ({"clients": (OFFICE.name, FOREIGN.name)}, "clients: clients/foreign"),
        ({"authenticator_kinds": ()}, "authenticator_kinds"),
        ({"authenticator_kinds": (AuthenticatorKind.HOTP,)}, "authenticator_kinds"),
        ({"hours": ()}, "hours"),
        ({"hours": ("mon-fri 06:59-17:30",)}, "hours"),
        ({"client_collected_otp": True}, "client_collected_otp_allowed"),
        ({"revocation_policy": RevocationPolicy.IGNORE}, "revocation_policy"),
        ({"activators": (Entitlement(signer=CHAIR),)}, "activators: signers/chair would have more time"),
        ({"activators": ()}, "activators: signers/chair would have more time"),
        # Something stricter beside it makes it no better.
        ({"max_items": 1, "hours": ()}, "hours"),
    ]
    for changes, finding in cases:
        wanted = terms(world, P256, **changes)
        refusal = nothing_changes(
            world,
            errors.NotStricter,
            lambda wanted=wanted: world.use.restrict_credential(OPERATOR, wanted, deadline=world.deadline()),
        )
        assert finding in refusal.metadata["notStricter"]
        assert finding in refusal.message
    loose = {"hours": (), "clients": (OFFICE.name, PORTAL.name), "max_items": 0}
    assert update(world, P256, **loose).credential.max_items == 1000


def test_a_seal_can_be_left_to_fewer_persons_and_to_nobody(world: World) -> None:
    update(world, SEAL, activators=(Entitlement(signer=CLERK), Entitlement(signer=CHAIR)))
    assert [row.signer for row in restrict(world, SEAL, activators=(Entitlement(signer=CHAIR),)).activators] == [CHAIR]
    with pytest.raises(errors.NotStricter, match="signers/clerk may not activate now"):
        restrict(world, SEAL, activators=(Entitlement(signer=CHAIR), Entitlement(signer=CLERK)))
    assert restrict(world, SEAL, activators=()).activators == []
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), credential=SEAL, signer=CHAIR)


# States


@pytest.mark.promise("P9")
def test_a_suspension_stops_signing_at_once_and_two_end_it(world: World) -> None:
    authorization = world.authorize(digests(1))
    world.approve(authorization)
    data = world.activation_data(authorization)
    world.next_step()
    assert suspend(world, P256).credential.state is CredentialState.SUSPENDED
    count = len(world.store.rows(AuditEntry))
    assert suspend(world, P256).credential.state is CredentialState.SUSPENDED
    assert len(world.store.rows(AuditEntry)) == count
    before = world.hsm.calls.copy()
    attempts: list[Callable[[], object]] = [
        lambda: world.sign(digests(1)),
        lambda: world.sign(digests(1), activated=(authorization.name, data)),
        lambda: world.authorize(digests(1)),
    ]
    for attempt in attempts:
        with pytest.raises(errors.CredentialDisabled):
            attempt()
    assert (world.hsm.calls["sign"], world.hsm.calls["decrypt"]) == (before["sign"], before["decrypt"])
    proposal = world.use.resume_credential(OPERATOR, P256, deadline=world.deadline())
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1))
    world.agree(proposal)
    assert len(world.sign(digests(1)).signatures) == 1  # the code was not consumed
    assert len(world.sign(digests(1), activated=(authorization.name, data)).signatures) == 1


def test_only_a_suspended_credential_is_resumed(world: World) -> None:
    resume = lambda: world.use.resume_credential(OPERATOR, P256, deadline=world.deadline())  # noqa: E731
    assert "enabled, not suspended" in nothing_changes(world, errors.StateConflict, resume).message
    suspend(world, P256)
    proposals = [resume(), resume()]
    world.agree(proposals[0])
    assert world.approve_proposal(proposals[1]).state is ProposalState.OUTDATED


@pytest.mark.promise("P9")
def test_a_revocation_is_for_ever_and_overtakes_every_proposal(world: World) -> None:
    suspend(world, P256)
    resume = world.use.resume_credential(OPERATOR, P256, deadline=world.deadline())
    change = world.use.update_credential(OPERATOR, terms(world, P256, max_items=5), deadline=world.deadline())
    chain = new_chain(world, world.key(P256).name)
    renewal = Renewal(name=P256, key="", certificate_chain=chain)
    renewed = world.use.renew_credential(OPERATOR, renewal, deadline=world.deadline())
    assert revoke(world, P256).credential.state is CredentialState.REVOKED
    for proposal in (resume, change, renewed):
        assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    calls: list[Callable[[], object]] = [
        lambda: world.use.resume_credential(OPERATOR, P256, deadline=world.deadline()),
        lambda: world.use.renew_credential(OPERATOR, renewal, deadline=world.deadline()),
        lambda: world.use.update_credential(OPERATOR, terms(world, P256, max_items=5), deadline=world.deadline()),
        lambda: restrict(world, P256, max_items=5),
        lambda: suspend(world, P256),
    ]
    for call in calls:
        nothing_changes(world, errors.StateConflict, call)
    count = len(world.store.rows(AuditEntry))
    revoke(world, P256, RevocationReason.SUPERSEDED)
    assert len(world.store.rows(AuditEntry)) == count
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1))
    (entry,) = entries(world, "credential_revoked")
    assert '"reason":"KEY_COMPROMISE"' in entry.details.replace(" ", "")


def test_what_the_own_ca_issued_for_the_key_is_revoked_with_the_credential(world: World) -> None:
    key = world.key(P256).name
    issued = [
        IssuedCertificate(
            name=f"certificateAuthorities/own/certificates/{number:x}",
            authority="certificateAuthorities/own",
            key=key if number < 2 else world.key(SEAL).name,
            signer=CHAIR,
            to_be_signed=b"x",
            certificate=b"y",
            state=IssuedCertificateState.ISSUED,
            expire_time=world.clock.now() + timedelta(days=9),
            create_time=world.clock.now(),
        )
        for number in range(3)
    ]
    put(world, *issued)
    revoke(world, P256, RevocationReason.CESSATION_OF_OPERATION)
    found = {row.record.name[-1]: row.record for row in world.store.rows(IssuedCertificate)}
    assert [found[number].state for number in "012"] == ["REVOKED", "REVOKED", "ISSUED"]
    assert found["0"].revoke_reason is RevocationReason.CESSATION_OF_OPERATION
    assert found["0"].revoke_time is not None


# Who


def put(world: World, *records: Any) -> None:
    """Puts records in force, as a use case would."""
    from trien_server.services.changes import Change

    world.use.changes.make("test", lambda _: Change(kind="test", slow=list(records)), deadline=world.deadline())


def limit(world: World, name: str, *organizations: str) -> None:
    operator = world.use.transactions.read(lambda view: view.require(Operator, name))
    put(world, next_version(operator, organizations=organizations))


@pytest.mark.requirement("ASVS 5.0.0-8.4.1")
def test_an_officer_who_is_limited_to_an_organization_sees_and_changes_its_credentials_alone(world: World) -> None:
    put(
        world,
        Organization(name="organizations/other", display_name="Khác", create_time=world.clock.now()),
        Signer(
            name="signers/other",
            display_name="Người khác",
            kind=SignerKind.PERSON,
            organization="organizations/other",
            create_time=world.clock.now(),
        ),
    )
    world.add_credential("credentials/other", KeyType.EC_P256, "signers/other", "signers/other")
    wanted, key = terms(world, P256, max_items=3), world.key(P256).name
    chain = new_chain(world, key)
    renewal = Renewal(name=P256, key="", certificate_chain=chain)
    new = NewCredential(
        name="credentials/new",
        key="keys/free",
        signer=AGENCY,
        display_name="x",
        certificate_chain=chain,
        activators=(),
        clients=(),
        max_items=0,
        client_collected_otp=True,
    )
    limit(world, OPERATOR.name, "organizations/other")
    use, deadline = world.use, world.deadline()
    calls: list[Callable[[], object]] = [
        lambda: use.get_credential(OPERATOR, P256),
        lambda: use.create_credential(OPERATOR, new, deadline),
        lambda: use.renew_credential(OPERATOR, renewal, deadline=deadline),
        lambda: use.update_credential(OPERATOR, wanted, deadline=deadline),
        lambda: use.restrict_credential(OPERATOR, wanted, deadline=deadline),
        lambda: use.suspend_credential(OPERATOR, P256, deadline=deadline),
        lambda: use.resume_credential(OPERATOR, P256, deadline=deadline),
        lambda: use.revoke_credential(OPERATOR, P256, reason=RevocationReason.UNSPECIFIED, deadline=deadline),
        lambda: use.generate_signing_request(OPERATOR, key=key, signer=CHAIR, deadline=deadline),
    ]
    for call in calls:
        with pytest.raises(errors.PermissionDenied):
            call()
    assert use.get_credential(OPERATOR, "credentials/other").credential.signer == "signers/other"
    listed, _ = use.list_credentials(OPERATOR, page=Page.parse(0, ""))
    assert [view.credential.name for view in listed] == ["credentials/other"]
    assert len(use.list_credentials(SECOND, page=Page.parse(0, ""))[0]) == 6
