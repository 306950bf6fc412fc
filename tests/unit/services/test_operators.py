"""Who administers: roles, certificates, and that the last holder of a role stays."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.support.world import OFFICE, OPERATOR, SECOND, World, operators

from trien_client.operators import sign_approval
from trien_server.core import errors
from trien_server.core.approval import approval_text
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import AuditEntry, Operator, Proposal, ProposalState, State
from trien_server.core.roles import Role
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.services.clients import NewClient
from trien_server.services.operators import OperatorValues
from trien_server.services.paging import Page

RACES = 32
_CA = PrivateCa.create("Test CA of operators")


@pytest.fixture
def world() -> World:
    world = World()
    world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
    return world


def principal_of(name: str) -> Principal:
    return Principal(kind=PrincipalKind.OPERATOR, name=name, authenticated_by=AuthenticatedBy.CERTIFICATE)


def values(name: str, *roles: Role, identity: Identity | None = None, **changes: Any) -> OperatorValues:
    made = identity or _CA.issue_client(name)
    given: dict[str, Any] = {
        "name": f"operators/{name}",
        "display_name": f"Operator {name}",
        "certificate": made.certificate_der,
        "roles": roles,
    }
    return OperatorValues(**(given | changes))


def create(world: World, name: str, *roles: Role, **changes: Any) -> Operator:
    world.agree(
        world.use.create_operator(OPERATOR, values(name, *roles, **changes), deadline=world.deadline()),
    )
    return world.use.get_operator(OPERATOR, f"operators/{name}")


def refused(world: World, kind: type[errors.Refusal], call: Callable[[], object]) -> errors.Refusal:
    """Asserts that a call is refused and puts nothing in force."""
    before = len(world.store.rows(AuditEntry))
    with pytest.raises(kind) as caught:
        call()
    assert len(world.store.rows(AuditEntry)) == before
    return caught.value


def certificate_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Returns a certificate (DER) of a key that nobody can connect with by gRPC."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another key")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    start = datetime(2026, 1, 1, tzinfo=UTC)
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + timedelta(days=3650))
    function = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, function).public_bytes(Encoding.DER)


def other_certificate_of(identity: Identity) -> bytes:
    """Returns another certificate (DER) of the same key."""
    key = load_pem_private_key(identity.private_key, None)
    parsed = x509.load_pem_x509_certificate(identity.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "another name")]))
        .issuer_name(parsed.subject)
        .public_key(parsed.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(parsed.not_valid_before_utc)
        .not_valid_after(parsed.not_valid_after_utc)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)  # type: ignore[arg-type]


@pytest.mark.promise("P9")
def test_an_operator_is_in_force_only_when_a_second_one_agreed(world: World) -> None:
    third = values("third", Role.AUDITOR)
    proposal = world.use.create_operator(OPERATOR, third, deadline=world.deadline())
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_certificate(third.certificate)
    with pytest.raises(errors.OwnProposal):
        world.approve_proposal(proposal, by=OPERATOR)
    world.agree(proposal)
    assert world.use.authenticate.by_certificate(third.certificate).name == "operators/third"


def test_a_certificate_or_key_is_one_operators_alone(world: World) -> None:
    own = operators()["first"]
    fingerprint = hashes.Hash(hashes.SHA256())
    stranger = _CA.issue_client("a client")
    fingerprint.update(stranger.certificate_der)

    client = NewClient(
        name="clients/x", display_name="x", token_hash=None, certificate_fingerprint=fingerprint.finalize()
    )
    world.agree(world.use.create_client(OPERATOR, client, deadline=world.deadline()))
    cases = [own.certificate_der, other_certificate_of(own), stranger.certificate_der]
    for certificate in cases:
        for name, use in (("third", world.use.create_operator), ("second", world.use.update_operator)):
            wanted = values(name, Role.SECURITY_OFFICER, certificate=certificate)
            refused(
                world,
                errors.AlreadyExists,
                lambda wanted=wanted, use=use: use(OPERATOR, wanted, deadline=world.deadline()),
            )
    refused(
        world,
        errors.AlreadyExists,
        lambda: world.use.create_client(
            OPERATOR,
            NewClient(
                name="clients/y",
                display_name="y",
                token_hash=None,
                certificate_fingerprint=client.certificate_fingerprint,
            ),
            deadline=world.deadline(),
        ),
    )


def test_two_proposals_with_one_key_make_one_operator(world: World) -> None:
    identity = _CA.issue_client("one person")
    proposals = [
        world.use.create_operator(
            OPERATOR, values(name, Role.AUDITOR, certificate=certificate), deadline=world.deadline()
        )
        for name, certificate in (("third", identity.certificate_der), ("fourth", other_certificate_of(identity)))
    ]
    states = [world.approve_proposal(proposal).state for proposal in proposals]
    assert states == [ProposalState.EXECUTED, ProposalState.OUTDATED]


def test_an_operator_renews_the_certificate_and_only_the_new_one_is_let_in(world: World) -> None:
    old, new = operators()["first"], _CA.issue_client("first, renewed")
    both = (Role.SECURITY_OFFICER, Role.REGISTRATION_OFFICER)
    update = values("first", *both, identity=new)
    begun = world.use.authenticate.by_certificate(old.certificate_der)
    world.agree(world.use.update_operator(OPERATOR, update, deadline=world.deadline()))
    assert world.use.authenticate.by_certificate(new.certificate_der).name == OPERATOR.name
    with pytest.raises(errors.Unauthenticated):
        world.use.authenticate.by_certificate(old.certificate_der)
    # Also a call that began, with the old certificate, before the change was in force.
    with pytest.raises(errors.PermissionDenied):
        world.use.list_operators(begun, page=Page.parse(0, ""))
    same_key = values("first", *both, certificate=other_certificate_of(new))
    world.agree(world.use.update_operator(OPERATOR, same_key, deadline=world.deadline()))


@pytest.mark.parametrize(
    ("roles", "changes", "field"),
    [
        ((), {}, "operator.roles"),
        ((Role.AUDITOR, Role.MONITOR), {}, "operator.roles"),
        ((Role.SECURITY_OFFICER, Role.ADMINISTRATOR), {}, "operator.roles"),
        ((Role.MONITOR, Role.MONITOR), {}, "operator.roles"),
        ((Role.SECURITY_OFFICER,), {"organizations": ("organizations/commune",)}, "operator.organizations"),
        ((Role.MONITOR,), {"organizations": ("organizations/nowhere",)}, "operator.organizations[0]"),
        ((Role.MONITOR,), {"certificate": b"nonsense"}, "operator.certificate"),
        ((Role.MONITOR,), {"certificate": b""}, "operator.certificate"),
        ((Role.MONITOR,), {"certificate": ed25519.Ed25519PrivateKey.generate()}, "operator.certificate"),
        ((Role.MONITOR,), {"certificate": ec.generate_private_key(ec.SECP521R1())}, "operator.certificate"),
        ((Role.MONITOR,), {"display_name": ""}, "operator.display_name"),
    ],
)
def test_what_cannot_be_an_operator_is_not_proposed(
    world: World, roles: tuple[Role, ...], changes: dict[str, Any], field: str
) -> None:
    key = changes.get("certificate")
    if isinstance(key, ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
        changes = {"certificate": certificate_of(key)}
    wanted = values("third", *roles, **changes)
    refusal = refused(
        world, errors.InvalidArgument, lambda: world.use.create_operator(OPERATOR, wanted, deadline=world.deadline())
    )
    assert refusal.metadata["field"] == field


@pytest.mark.promise("P9")
def test_the_last_holder_of_a_role_can_neither_be_disabled_nor_lose_it(world: World) -> None:
    create(world, "auditor", Role.AUDITOR)
    world.use.disable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    for name in (OPERATOR.name, "operators/auditor"):
        refusal = refused(
            world,
            errors.LastOfRole,
            lambda name=name: world.use.disable_operator(OPERATOR, name, deadline=world.deadline()),
        )
        assert "Nobody else is" in refusal.message
    for lesser in (Role.SECURITY_OFFICER, Role.MONITOR):
        update = values("first", lesser, certificate=b"")
        refused(
            world,
            errors.LastOfRole,
            lambda update=update: world.use.update_operator(OPERATOR, update, deadline=world.deadline()),
        )
    # A disabled operator holds no role: others decide what it is to have.
    update = values("second", Role.MONITOR, certificate=b"")
    world.use.update_operator(OPERATOR, update, deadline=world.deadline())


@pytest.mark.promise("P9")
def test_that_one_operator_will_hold_a_role_alone_stands_in_what_the_second_approves(world: World) -> None:
    update = values("second", Role.REGISTRATION_OFFICER, certificate=b"")
    proposal = world.use.update_operator(OPERATOR, update, deadline=world.deadline())
    assert "Only operators/first is SECURITY_OFFICER then" in proposal.statement
    third = create(world, "third", Role.SECURITY_OFFICER)
    assert third.roles == ("SECURITY_OFFICER",)
    # There is a third one now: what would follow is no longer what the statement says.
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    again = world.use.update_operator(OPERATOR, update, deadline=world.deadline())
    assert "Only" not in again.statement
    world.agree(again)


@pytest.mark.promise("P9")
def test_a_holder_that_is_gone_meanwhile_outdates_what_rested_on_it(world: World) -> None:
    create(world, "third", Role.ADMINISTRATOR)
    create(world, "fourth", Role.ADMINISTRATOR)
    update = values("third", Role.MONITOR, certificate=b"")
    proposal = world.use.update_operator(OPERATOR, update, deadline=world.deadline())
    world.use.disable_operator(OPERATOR, "operators/fourth", deadline=world.deadline())
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    assert world.use.get_operator(OPERATOR, "operators/third").roles == ("ADMINISTRATOR",)


@pytest.mark.promise("P9")
def test_of_two_who_disable_each_other_at_once_exactly_one_wins(
    record_property: Callable[[str, object], None],
) -> None:
    rounds = 0
    for _ in range(RACES):
        world = World()
        world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
        pairs = ((OPERATOR, SECOND.name), (SECOND, OPERATOR.name))
        _at_once(
            [
                lambda by=by, other=other, world=world: world.new_process().disable_operator(
                    by, other, deadline=world.deadline()
                )
                for by, other in pairs
            ]
        )
        states = sorted(row.record.state for row in world.store.rows(Operator))
        assert states == [State.DISABLED, State.ENABLED]
        rounds += 1
    record_property("count", f"two operators who disable each other at once: rounds {rounds}, one is left in each")
    assert rounds == RACES


@pytest.mark.promise("P9")
def test_of_two_holders_who_lose_a_role_at_once_one_keeps_it(record_property: Callable[[str, object], None]) -> None:
    """Two administrators: one is disabled while a proposal that takes the other's role is approved."""
    rounds = outdated = 0
    for _ in range(RACES):
        world = World()
        world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
        for name in ("third", "fourth"):
            create(world, name, Role.ADMINISTRATOR)
        update = values("third", Role.MONITOR, certificate=b"")
        proposal = world.use.update_operator(OPERATOR, update, deadline=world.deadline())
        decided: list[Proposal] = []
        _at_once(
            [
                lambda world=world, proposal=proposal, decided=decided: decided.append(
                    world.approve_proposal(proposal, use=world.new_process())
                ),
                lambda world=world: world.new_process().disable_operator(
                    OPERATOR, "operators/fourth", deadline=world.deadline()
                ),
            ]
        )
        holders = [
            row.record.name
            for row in world.store.rows(Operator)
            if row.record.state is State.ENABLED and "ADMINISTRATOR" in row.record.roles
        ]
        assert len(holders) == 1, holders
        outdated += decided[0].state is ProposalState.OUTDATED
        rounds += 1
    record_property("count", f"two holders who lose a role at once: rounds {rounds}, of them outdated {outdated}")
    assert rounds == RACES


def test_a_disabled_operator_comes_back_by_proposal_alone(world: World) -> None:
    refused(
        world, errors.StateConflict, lambda: world.use.enable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    )
    create(world, "third", Role.SECURITY_OFFICER, identity=(third := _CA.issue_client("third")))
    world.use.disable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    with pytest.raises(errors.PermissionDenied):
        world.use.list_operators(SECOND, page=Page.parse(0, ""))
    proposal = world.use.enable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    decided = world.use.proposals.approve(
        principal_of("operators/third"),
        proposal.name,
        digest=proposal.digest,
        signature=sign_approval(third.private_key, approval_text(proposal.name, proposal.digest)),
        deadline=world.deadline(),
    )
    assert decided.state is ProposalState.EXECUTED
    assert [found.name for found in world.use.list_operators(SECOND, page=Page.parse(0, ""))[0]] == [
        "operators/first",
        "operators/second",
        "operators/third",
    ]


def test_operators_are_listed_in_pages(world: World) -> None:
    for name in ("third", "fourth", "fifth"):
        create(world, name, Role.MONITOR)
    names: list[str] = []
    token, pages = "", 0
    while token or not pages:
        found, token = world.use.list_operators(OPERATOR, page=Page.parse(2, token))
        names += [operator.name for operator in found]
        pages += 1
    assert names == [f"operators/{name}" for name in ("fifth", "first", "fourth", "second", "third")]
    assert pages == 3


@pytest.mark.promise("P11")
def test_an_unknown_operator_looks_like_a_forbidden_one(world: World) -> None:
    create(world, "monitor", Role.MONITOR)
    monitor = principal_of("operators/monitor")
    calls: list[Callable[[], object]] = [
        lambda: world.use.get_operator(monitor, OPERATOR.name),
        lambda: world.use.get_operator(OPERATOR, "operators/nobody"),
        lambda: world.use.get_operator(OFFICE, OPERATOR.name),
        lambda: world.use.disable_operator(monitor, OPERATOR.name, deadline=world.deadline()),
        lambda: world.use.disable_operator(OPERATOR, "operators/nobody", deadline=world.deadline()),
        lambda: world.use.enable_operator(OPERATOR, "operators/nobody", deadline=world.deadline()),
        lambda: world.use.update_operator(
            OPERATOR, values("nobody", Role.MONITOR, certificate=b""), deadline=world.deadline()
        ),
    ]
    messages = {refused(world, errors.PermissionDenied, call).message for call in calls}
    assert len(messages) == 1


def _at_once(calls: list[Callable[[], object]]) -> None:
    """Runs calls in threads that start together; their refusals are part of the race."""
    barrier = threading.Barrier(len(calls))
    others: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        barrier.wait(10)
        try:
            call()
        except errors.Refusal:
            pass
        except BaseException as fault:  # noqa: BLE001 - shown by the test
            others.append(fault)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not others, others
