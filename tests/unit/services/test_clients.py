"""Calling applications: what they are known by, what they may ask for, and how that ends."""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.world import CHAIR, CLERK, OFFICE, OPERATOR, P256, PORTAL, RSA, SEAL, World, digests

from trien_server.core import errors
from trien_server.core.principal import Principal
from trien_server.core.records import AuditEntry, Authorization, Client, ProposalState
from trien_server.core.roles import CLIENT_METHODS, Role
from trien_server.core.secret import Secret
from trien_server.host.private_ca import PrivateCa
from trien_server.host.randomness import SystemRandomness
from trien_server.services.approve_authorizations import ApproveAuthorizationsCommand
from trien_server.services.authenticate import hash_token, new_token
from trien_server.services.challenge_preparation import ChallengeCommand
from trien_server.services.client_changes import ClientUpdate, Restriction
from trien_server.services.operators import OperatorValues
from trien_server.services.paging import Page

COMMUNE, SCHOOL, ELSEWHERE = "organizations/commune", "organizations/school", "organizations/elsewhere"


@pytest.fixture
def world() -> World:
    world = World().populate()
    for name, parent in ((SCHOOL, COMMUNE), (ELSEWHERE, None)):
        world.use.create_organization(
            OPERATOR,
            name=name,
            display_name=name,
            parent=parent,
            start_time=None,
            end_time=None,
            deadline=world.deadline(),
        )
    return world


def update_of(client: Client, **changes: Any) -> ClientUpdate:
    """Returns an update that changes only what is said."""
    values: dict[str, Any] = {
        "name": client.name,
        "display_name": client.display_name,
        "token_hash": None,
        "certificate_fingerprint": None,
        "organizations": client.organizations,
        "methods": client.methods,
        "calls_per_minute": client.calls_per_minute,
        "concurrent_items": client.concurrent_items,
        "overlap_hours": 0,
    }
    return ClientUpdate(**(values | changes))


def update(world: World, principal: Principal = OFFICE, **changes: Any) -> Client:
    client = world.use.get_client(OPERATOR, principal.name)
    world.agree(world.use.update_client(OPERATOR, update_of(client, **changes), deadline=world.deadline()))
    return world.use.get_client(OPERATOR, principal.name)


def restrict(world: World, principal: Principal = OFFICE, by: Principal = OPERATOR, **narrower: Any) -> Client:
    return world.use.restrict_client(by, principal.name, Restriction(**narrower), deadline=world.deadline())


def token_of(world: World, principal: Principal = OFFICE) -> Secret:
    return Secret(world.tokens[principal.name].encode())


def refused(world: World, kind: type[errors.Refusal], call: Callable[[], object]) -> errors.Refusal:
    """Asserts that a call is refused and puts nothing in force."""
    before = len(world.store.rows(AuditEntry))
    with pytest.raises(kind) as caught:
        call()
    assert len(world.store.rows(AuditEntry)) == before
    return caught.value


@pytest.mark.requirement("ASVS 5.0.0-13.3.4")
def test_a_new_token_goes_beside_the_old_one_until_the_overlap_ends(world: World) -> None:
    old, new = token_of(world), new_token(SystemRandomness())
    proposal = world.use.update_client(
        OPERATOR,
        update_of(world.use.get_client(OPERATOR, OFFICE.name), token_hash=hash_token(new), overlap_hours=2),
        deadline=world.deadline(),
    )
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_token(new)
    world.clock.advance(timedelta(hours=30))  # the overlap counts from the approval
    world.agree(proposal)
    for token in (old, new):
        assert world.use.authenticate.by_token(token).name == OFFICE.name
    world.clock.advance(timedelta(hours=2) - timedelta(seconds=1))
    assert world.use.authenticate.by_token(old).name == OFFICE.name
    world.clock.advance(timedelta(seconds=1))
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_token(old)
    assert world.use.authenticate.by_token(new).name == OFFICE.name


def test_a_client_changes_from_a_token_to_a_certificate_and_to_another_one(world: World) -> None:
    ca = PrivateCa.create("Test CA of clients")
    first, second = (ca.issue_client(name).certificate_der for name in ("first", "second"))
    update(world, certificate_fingerprint=hashlib.sha256(first).digest(), overlap_hours=1)
    assert world.use.authenticate.by_token(token_of(world)).name == OFFICE.name
    update(world, certificate_fingerprint=hashlib.sha256(second).digest(), overlap_hours=1)
    for certificate in (first, second):
        assert world.use.authenticate.by_certificate(certificate).name == OFFICE.name
    with pytest.raises(errors.Unauthenticated):  # only one is kept beside the present one
        world.use.authenticate.by_token(token_of(world))


@pytest.mark.requirement("ASVS 5.0.0-8.3.2")
@pytest.mark.promise("P2")
def test_a_token_that_is_taken_away_stops_calls_that_began_with_it(world: World) -> None:
    old, new = token_of(world), new_token(SystemRandomness())
    begun = world.use.authenticate.by_token(old)
    update(world, token_hash=hash_token(new), overlap_hours=1)
    code = world.code()
    assert len(world.sign(digests(1), principal=begun, password=code).signatures) == 1
    restrict(world, end_previous=True)
    world.next_step()
    with pytest.raises(errors.PermissionDenied):
        world.sign(digests(1), principal=begun)
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_token(old)
    assert len(world.sign(digests(1), principal=world.use.authenticate.by_token(new)).signatures) == 1


def test_no_token_or_certificate_is_given_twice(world: World) -> None:
    used = hash_token(token_of(world, PORTAL))
    operator = world.use.get_operator(OPERATOR, OPERATOR.name).certificate_fingerprint
    office = world.use.get_client(OPERATOR, OFFICE.name)
    cases: list[dict[str, Any]] = [
        {"token_hash": used},
        {"token_hash": office.token_hash},
        {"certificate_fingerprint": operator},
    ]
    for changes in cases:
        refused(
            world,
            errors.AlreadyExists,
            lambda changes=changes: world.use.update_client(
                OPERATOR, update_of(office, **changes), deadline=world.deadline()
            ),
        )
    # What was a client's before stays taken while it is remembered.
    update(world, PORTAL, token_hash=b"\1" * 32, overlap_hours=1)
    refused(
        world,
        errors.AlreadyExists,
        lambda: world.use.update_client(OPERATOR, update_of(office, token_hash=used), deadline=world.deadline()),
    )


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("client.display_name", {"display_name": ""}),
        ("client.token_hash", {"token_hash": b"\1" * 32, "certificate_fingerprint": b"\1" * 32}),
        ("client.token_hash", {"token_hash": b"short"}),
        ("client.organizations[0]", {"organizations": ("organizations/nowhere",)}),
        ("client.methods[0]", {"methods": ("AccessService.CreateClient",)}),
        ("client.calls_per_minute", {"calls_per_minute": -1}),
        ("client.concurrent_items", {"concurrent_items": 1_000_001}),
        ("overlap_hours", {"overlap_hours": 721, "token_hash": b"\1" * 32}),
        ("overlap_hours", {"overlap_hours": 1}),
    ],
)
def test_what_cannot_be_a_client_is_not_proposed(world: World, field: str, changes: dict[str, Any]) -> None:
    office = world.use.get_client(OPERATOR, OFFICE.name)
    refusal = refused(
        world,
        errors.InvalidArgument,
        lambda: world.use.update_client(OPERATOR, update_of(office, **changes), deadline=world.deadline()),
    )
    assert refusal.metadata["field"] == field


@pytest.mark.promise("P9")
def test_an_update_over_a_client_that_changed_meanwhile_is_outdated(world: World) -> None:
    office = world.use.get_client(OPERATOR, OFFICE.name)
    proposal = world.use.update_client(OPERATOR, update_of(office, methods=()), deadline=world.deadline())
    restrict(world, methods=("SigningService.SignDigests",))
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert world.use.get_client(OPERATOR, OFFICE.name).methods == ("SigningService.SignDigests",)


@pytest.mark.promise("P9")
def test_one_operator_alone_narrows_a_client_and_never_widens_it(world: World) -> None:
    sign, get = "SigningService.SignDigests", "CredentialService.GetCredential"
    restricted = restrict(
        world, organizations=(COMMUNE,), methods=(sign, get), calls_per_minute=600, concurrent_items=50
    )
    assert (restricted.organizations, restricted.calls_per_minute) == ((COMMUNE,), 600)
    wider: list[dict[str, Any]] = [
        {"organizations": (ELSEWHERE,)},
        {"organizations": (SCHOOL, ELSEWHERE)},
        {"methods": ("CredentialService.ListCredentials",)},
        {"calls_per_minute": 601},
        {"concurrent_items": 51},
    ]
    for changes in wider:
        refused(world, errors.NotStricter, lambda changes=changes: restrict(world, **changes))
    refused(world, errors.InvalidArgument, lambda: restrict(world))
    refused(world, errors.InvalidArgument, lambda: restrict(world, calls_per_minute=-1))
    narrower = restrict(world, organizations=(SCHOOL,), methods=(sign,), calls_per_minute=1)
    assert narrower.organizations == (SCHOOL,)
    assert (narrower.methods, narrower.calls_per_minute, narrower.concurrent_items) == ((sign,), 1, 50)


def test_an_administrator_narrows_and_disables_but_proposes_nothing(world: World) -> None:
    identity = PrivateCa.create("Test CA of operators").issue_client("administrator")
    values = OperatorValues(
        name="operators/administrator",
        display_name="Administrator",
        certificate=identity.certificate_der,
        roles=(Role.ADMINISTRATOR,),
    )
    world.agree(world.use.create_operator(OPERATOR, values, deadline=world.deadline()))
    administrator = world.use.authenticate.by_certificate(identity.certificate_der)
    assert restrict(world, by=administrator, calls_per_minute=60).calls_per_minute == 60
    assert world.use.disable_client(administrator, PORTAL.name, deadline=world.deadline()).name == PORTAL.name
    for propose in (
        lambda: world.use.enable_client(administrator, PORTAL.name, deadline=world.deadline()),
        lambda: world.use.update_client(
            administrator,
            update_of(world.use.get_client(OPERATOR, OFFICE.name)),
            deadline=world.deadline(),
        ),
    ):
        refused(world, errors.PermissionDenied, propose)


@pytest.mark.promise("P9")
def test_a_disabled_client_comes_back_by_proposal_alone(world: World) -> None:
    refused(
        world, errors.StateConflict, lambda: world.use.enable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    )
    world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    proposal = world.use.enable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_token(token_of(world))
    world.agree(proposal)
    assert world.use.authenticate.by_token(token_of(world)).name == OFFICE.name


def test_clients_are_listed_in_pages(world: World) -> None:
    first, token = world.use.list_clients(OPERATOR, page=Page.parse(2, ""))
    rest, end = world.use.list_clients(OPERATOR, page=Page.parse(2, token))
    assert [client.name for client in (*first, *rest)] == ["clients/foreign", OFFICE.name, PORTAL.name]
    assert end == ""


def _entry_about(world: World, made: Authorization) -> str:
    return next(row.record.name for row in world.store.rows(AuditEntry) if made.name in row.record.details)


def _calls_of(world: World, principal: Principal, made: Authorization) -> dict[str, Callable[[], object]]:
    """Returns a call of every method that clients may call, with its arguments right."""
    use, deadline = world.use, world.deadline()
    names = (made.name,)
    return {
        "AccessService.ShowAccess": lambda: use.show_access(principal, ""),
        "AuditService.GetCheckpoint": lambda: use.get_checkpoint(principal),
        "AuditService.GetConsistencyProof": lambda: use.get_consistency_proof(principal, first_size=1, second_size=0),
        "AuditService.GetEvidence": lambda: use.get_evidence(principal, _entry_about(world, made)),
        "AuditService.GetLogKeys": lambda: use.get_log_keys(principal),
        "AuditService.GetReceipt": lambda: use.get_receipt(
            principal, _entry_about(world, made), item=None, deadline=deadline
        ),
        "AuthorizationService.ApproveAuthorizations": lambda: use.approve_authorizations(
            principal,
            ApproveAuthorizationsCommand(
                names=names, signer=CHAIR, password=Secret(world.code().encode()), challenge=None, request_id=None
            ),
            deadline,
        ),
        "AuthorizationService.CreateAuthorization": lambda: world.authorize(digests(1), principal=principal),
        "AuthorizationService.CreateChallenge": lambda: use.create_challenge(
            principal, ChallengeCommand(signer=CHAIR, names=names, authenticator=None), deadline
        ),
        "AuthorizationService.DenyAuthorization": lambda: use.deny_authorization(
            principal, made.name, deadline=deadline
        ),
        "AuthorizationService.FetchSignatureActivationData": lambda: use.fetch_activation_data(principal, made.name),
        "AuthorizationService.GetAuthorization": lambda: use.get_authorization(principal, made.name),
        "AuthorizationService.ListAuthorizations": lambda: use.list_authorizations(
            principal, P256, page=Page.parse(0, "")
        ),
        "AuthorizationService.SendOneTimePassword": lambda: use.send_one_time_password(
            principal, ChallengeCommand(signer=CHAIR, names=names, authenticator=None), deadline
        ),
        "AuthorizationService.WaitAuthorization": lambda: use.wait_authorization(
            principal, made.name, seconds=0.0, deadline=deadline
        ),
        "CredentialService.GetCredential": lambda: use.get_credential(principal, P256),
        "CredentialService.ListCredentials": lambda: use.list_credentials(principal, page=Page.parse(0, "")),
        "SignerService.FreezeSigner": lambda: use.freeze_signer(
            principal, CLERK, password=Secret(world.code(CLERK).encode()), deadline=deadline
        ),
        "SignerService.ListSignatureUses": lambda: use.list_signature_uses(
            principal, CHAIR, password=Secret(world.code().encode()), size=0, token="", deadline=deadline
        ),
        "SignerService.SetSignatureNotices": lambda: use.set_signature_notices(
            principal, CHAIR, password=Secret(world.code().encode()), wanted=False, deadline=deadline
        ),
        "SigningService.SignDigests": lambda: world.sign(digests(1), principal=principal),
    }


@pytest.mark.requirement("ASVS 5.0.0-8.2.1")
@pytest.mark.promise("P11")
def test_a_client_calls_the_methods_of_its_scope_and_no_other(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    world.add_ocra()
    world.add_delivery()
    world.use.get_receipt.stop()  # no checkpoint comes, and the clock stands still
    refusals = 0
    messages = set()
    for allowed in sorted(CLIENT_METHODS):
        update(world, methods=())
        calls = _calls_of(world, OFFICE, world.authorize(digests(1)))
        assert set(calls) == CLIENT_METHODS
        update(world, methods=(allowed,))
        for method, call in calls.items():
            if method == allowed:
                try:
                    call()
                except errors.Refusal as refusal:
                    assert refusal.reason != "PERMISSION_DENIED", method  # noqa: PT017 - which, not whether
            else:
                with pytest.raises(errors.PermissionDenied) as caught:
                    call()
                messages.add(caught.value.message)
                refusals += 1
        world.clock.advance(timedelta(minutes=2))
    record_property("count", f"client methods outside the scope: refusals {refusals}, of one text")
    assert refusals == len(CLIENT_METHODS) * (len(CLIENT_METHODS) - 1) == 21 * 20
    assert len(messages) == 1


@pytest.mark.requirement("ASVS 5.0.0-8.2.2")
@pytest.mark.promise("P11")
def test_a_client_of_one_organization_does_not_see_the_others_credentials(world: World) -> None:
    def seen() -> set[str]:
        found, _ = world.use.list_credentials(OFFICE, page=Page.parse(0, ""))
        return {view.credential.name for view in found}

    assert {P256, SEAL, RSA} <= seen()
    update(world, organizations=(SCHOOL,))  # below the commune, whose people sign
    assert seen() == set()
    for call in _scoped_calls(world):
        with pytest.raises(errors.PermissionDenied):
            call()
    update(world, organizations=(COMMUNE, ELSEWHERE))
    assert {P256, SEAL, RSA} <= seen()


def _scoped_calls(world: World) -> list[Callable[[], object]]:
    """Returns the calls that name a credential."""
    return [
        lambda: world.use.get_credential(OFFICE, P256),
        lambda: world.authorize(digests(1)),
        lambda: world.use.list_authorizations(OFFICE, P256, page=Page.parse(0, "")),
        lambda: world.sign(digests(1)),
    ]
