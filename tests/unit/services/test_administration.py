"""What operators may enter, and what is refused with a reason."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.world import AGENCY, CHAIR, CLERK, OFFICE, OPERATOR, P256, SEAL, World, digests, issue, operators

from trien_server.core import errors
from trien_server.core.algorithms import KeyType
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import AuditEntry, AuthenticatorKind, KeyState, SignerKind
from trien_server.core.secret import Secret
from trien_server.services.authenticators import NewAuthenticator
from trien_server.services.clients import NewClient
from trien_server.services.credential_holders import Entitlement
from trien_server.services.credentials import NewCredential
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.services.paging import Page


@pytest.fixture
def world() -> World:
    return World().populate()


def new_credential(world: World, **changes: object) -> NewCredential:
    values: dict[str, object] = {
        "name": "credentials/new",
        "key": world.key(P256).name,
        "signer": CHAIR,
        "display_name": "New",
        "certificate_chain": (world.certificate(P256),),
        "activators": (),
        "clients": (),
        "max_items": 0,
        "client_collected_otp": True,
    }
    return NewCredential(**(values | changes))  # type: ignore[arg-type]


def new_client(name: str) -> NewClient:
    return NewClient(name=name, display_name="x", token_hash=bytes(32), certificate_fingerprint=None)


def refused(world: World, kind: type[errors.Refusal], call: Callable[[], object]) -> errors.Refusal:
    """Asserts that a call is refused and puts nothing in force."""
    before = len(world.store.rows(AuditEntry))
    with pytest.raises(kind) as caught:
        call()
    assert len(world.store.rows(AuditEntry)) == before
    return caught.value


def test_a_credential_has_to_fit_its_key_and_its_signer(world: World) -> None:
    world.add_credential("credentials/spare", KeyType.EC_P256, CHAIR, CHAIR)
    world._add_key("keys/free", KeyType.EC_P256)
    free = {"key": "keys/free", "certificate_chain": (world.certificate(P256),)}
    cases: list[tuple[str, dict[str, object]]] = [
        ("credential.key", {"key": "keys/none"}),
        ("credential.key", {}),  # another credential uses it
        ("credential.certificate_chain[0]", free),
        ("credential.certificate_chain[0]", {"key": "keys/free", "certificate_chain": (b"nonsense",)}),
        ("credential.certificate_chain", {"key": "keys/free", "certificate_chain": ()}),
        ("credential.display_name", {"display_name": " "}),
        ("credential.display_name", {"display_name": "two\nlines"}),
        ("credential.max_items", {"max_items": 1001}),
    ]
    for field, changes in cases:
        refusal = refused(
            world,
            errors.InvalidArgument,
            lambda changes=changes: world.use.create_credential(
                OPERATOR, new_credential(world, **changes), world.deadline()
            ),
        )
        assert refusal.metadata["field"] == field


def test_a_certificate_for_something_else_makes_no_credential(world: World) -> None:
    world._add_key("keys/free", KeyType.EC_P256)
    request = world.use.generate_signing_request(OPERATOR, key="keys/free", signer=CHAIR, deadline=world.deadline())
    usage = x509.KeyUsage(*[False] * 2, *[True], *[False] * 6)
    wrong: list[x509.ExtensionType] = [
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.OCSP_SIGNING]),
        usage,
    ]
    for extension in wrong:
        chain = (issue(request, world.clock, extension),)
        new = new_credential(world, key="keys/free", certificate_chain=chain)
        refusal = refused(
            world,
            errors.InvalidArgument,
            lambda new=new: world.use.create_credential(OPERATOR, new, world.deadline()),
        )
        assert "key usage" in refusal.message
    good = (issue(request, world.clock, x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")])),)
    new = new_credential(world, key="keys/free", certificate_chain=good)
    world.agree(world.use.create_credential(OPERATOR, new, world.deadline()))
    assert world.use.get_credential(OPERATOR, new.name).credential.certificate_chain == good


def test_a_persons_credential_is_activated_by_that_person_alone(world: World) -> None:
    for activators in ((Entitlement(signer=CLERK),), (Entitlement(signer=CHAIR), Entitlement(signer=CLERK))):
        with pytest.raises(errors.InvalidArgument) as caught:
            world.add_credential("credentials/x", KeyType.EC_P256, CHAIR, CHAIR, activators=activators)
        assert caught.value.field == "credential.activators"
        world = World().populate()
    for activator in (AGENCY, "signers/nobody"):
        with pytest.raises(errors.InvalidArgument):
            world.add_credential("credentials/x", KeyType.EC_P256, AGENCY, activator)
        world = World().populate()


def test_an_entitlement_ends_on_time(world: World) -> None:
    now = world.clock.now()
    ends = Entitlement(signer=CLERK, start_time=now + timedelta(hours=1), end_time=now + timedelta(hours=2))
    world.add_credential("credentials/term", KeyType.EC_P256, AGENCY, CLERK, activators=(ends,))
    outcomes = []
    for _ in range(3):
        try:
            world.sign(digests(1), credential="credentials/term", signer=CLERK, password=world.code(CLERK))
            outcomes.append("OK")
        except errors.Refusal as refusal:
            outcomes.append(refusal.reason)
        world.clock.advance(timedelta(hours=1))
    assert outcomes == ["PERMISSION_DENIED", "OK", "PERMISSION_DENIED"]


def test_an_agency_has_no_authenticator(world: World) -> None:
    with pytest.raises(errors.InvalidArgument):
        world.add_authenticator(AGENCY)
    with pytest.raises(errors.InvalidArgument):
        world.add_authenticator("signers/nobody")


def test_names_are_taken_once(world: World) -> None:
    for call in (
        lambda: world.add_client(OFFICE.name),
        lambda: world.add_authenticator(CHAIR),
        lambda: world.use.create_key(
            OPERATOR, name=world.key(P256).name, key_type=KeyType.EC_P256, deadline=world.deadline()
        ),
    ):
        refused(world, errors.AlreadyExists, call)


def test_a_certificate_belongs_to_one_client_or_operator(world: World) -> None:
    fingerprint = hashlib.sha256(operators()["first"].certificate_der).digest()
    thief = replace(new_client("clients/thief"), token_hash=None, certificate_fingerprint=fingerprint)
    refused(
        world,
        errors.AlreadyExists,
        lambda: world.use.create_client(OPERATOR, thief, deadline=world.deadline()),
    )


def test_nobody_but_an_operator_administers(world: World) -> None:
    unknown = Principal(kind=PrincipalKind.OPERATOR, name="operators/x", authenticated_by=AuthenticatedBy.CERTIFICATE)
    calls = 0
    for principal in (OFFICE, unknown):
        for call in (
            lambda p=principal: world.use.create_client(p, new_client("clients/x"), deadline=world.deadline()),
            lambda p=principal: world.use.disable_client(p, OFFICE.name, deadline=world.deadline()),
            lambda p=principal: world.use.create_signer(
                p,
                name="signers/x",
                display_name="x",
                kind=SignerKind.PERSON,
                organization="organizations/commune",
                position="",
                deadline=world.deadline(),
            ),
            lambda p=principal: world.use.create_authenticator(
                p,
                NewAuthenticator(
                    name=f"{CHAIR}/authenticators/x",
                    signer=CHAIR,
                    kind=AuthenticatorKind.SMS,
                    digits=6,
                    address="+84912345678",
                ),
                deadline=world.deadline(),
            ),
            lambda p=principal: world.use.create_enrolments(
                p,
                NewEnrolments(enrolments=(NewEnrolment(name=f"{CHAIR}/enrolments/x", kind=AuthenticatorKind.TOTP),)),
                deadline=world.deadline(),
            ),
            lambda p=principal: world.use.create_key(
                p, name="keys/x", key_type=KeyType.EC_P256, deadline=world.deadline()
            ),
            lambda p=principal: world.use.create_credential(p, new_credential(world), world.deadline()),
            lambda p=principal: world.use.generate_signing_request(
                p, key="keys/x", signer=CHAIR, deadline=world.deadline()
            ),
            lambda p=principal: world.use.create_organization(
                p,
                name="organizations/x",
                display_name="x",
                parent=None,
                start_time=None,
                end_time=None,
                deadline=world.deadline(),
            ),
            lambda p=principal: world.use.get_key(p, world.key(P256).name),
            lambda p=principal: world.use.list_keys(p, page=Page.parse(0, "")),
            lambda p=principal: world.use.get_signer(p, CHAIR),
            lambda p=principal: world.use.get_client(p, OFFICE.name),
        ):
            refused(world, errors.PermissionDenied, call)
            calls += 1
    assert calls == 26


def test_an_operator_cannot_sign(world: World) -> None:
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), principal=OPERATOR)
    with pytest.raises(errors.PermissionDenied):
        world.authorize(digests(1), principal=OPERATOR)


def test_a_key_that_cannot_be_generated_says_so_and_a_lost_token_leaves_it_pending(world: World) -> None:
    world.use.create_key(OPERATOR, name="keys/late", key_type=KeyType.EC_P256, deadline=world.deadline())
    world.hsm.fail_next(method="generate_key_pair")
    with pytest.raises(errors.HsmUnavailable):
        world.use.key_generation.generate("keys/late")
    assert world.use.get_key(OPERATOR, "keys/late").state is KeyState.PENDING_GENERATION
    world.new_process().key_generation.generate("keys/late")
    assert world.use.get_key(OPERATOR, "keys/late").state is KeyState.ENABLED

    world.use.create_key(OPERATOR, name="keys/bad", key_type=KeyType.EC_P256, deadline=world.deadline())

    def refuse(*_: object) -> bytes:
        raise ValueError("mechanism")

    world.hsm.generate_key_pair = refuse
    world.use.key_generation.generate("keys/bad")
    assert world.use.get_key(OPERATOR, "keys/bad").state is KeyState.GENERATION_FAILED


def test_lists_come_in_pages(world: World) -> None:
    for number in range(7):
        world.use.create_key(OPERATOR, name=f"keys/k{number}", key_type=KeyType.EC_P256, deadline=world.deadline())
    seen: list[str] = []
    token = ""
    pages = 0
    while True:
        keys, token = world.use.list_keys(OPERATOR, page=Page.parse(5, token))
        seen += [key.name for key in keys]
        pages += 1
        if not token:
            break
    assert (len(seen), len(set(seen)), pages) == (12, 12, 3)
    mine = [view.credential.name for view in world.use.list_credentials(OFFICE, page=Page.parse(0, ""))[0]]
    assert SEAL in mine
    assert len(mine) == 5
    for size, bad in ((-1, ""), (0, "%%%"), (0, "/w==")):
        with pytest.raises(errors.InvalidArgument):
            Page.parse(size, bad)


@pytest.mark.requirement("ASVS 5.0.0-16.2.5")
@pytest.mark.promise("P12")
def test_no_audit_entry_holds_a_secret(world: World) -> None:
    world.sign(digests(1), password=world.code())
    authorization = world.authorize(digests(1))
    world.next_step()
    world.approve(authorization)
    data = world.activation_data(authorization)
    secrets = [token.encode() for token in world.tokens.values()]
    secrets += [otp.secret.encode() for otp in world.otp.values()]
    secrets += [data.reveal(), data.reveal().hex().encode()]
    entries = [row.record.details.encode() for row in world.store.rows(AuditEntry)]
    assert len(entries) > 25
    assert not any(secret in entry for secret in secrets for entry in entries)


def test_a_disabled_clients_token_opens_nothing(world: World) -> None:
    token = Secret(world.tokens[OFFICE.name].encode())
    assert world.use.authenticate.by_token(token) == OFFICE
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_token(Secret(b"trien_wrong"))
    world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_token(token)
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1))
