"""The two-person rule, tried by those who would get around it (P9)."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from tests.support.world import OFFICE, OPERATOR, SECOND, World, operators

from trien_client.operators import sign_approval
from trien_server.core import errors
from trien_server.core.approval import approval_text, public_key_hash
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import (
    AuditEntry,
    AuthenticatorKind,
    Client,
    Operator,
    Proposal,
    ProposalState,
    Record,
    Signer,
    SignerKind,
    State,
)
from trien_server.core.roles import Role
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.services.changes import Change
from trien_server.services.clients import NewClient
from trien_server.services.enrolments import NewEnrolment, NewEnrolments
from trien_server.services.paging import Page
from trien_server.services.proposals import _PASSING, LARGEST_STATEMENT, LIFETIME, Agreement, Plan
from trien_server.services.transactions import next_version
from trien_server.services.trusted import TrustedView

pytestmark = pytest.mark.promise("P9")

LOSSES: list[dict[str, object]] = [{"state": State.DISABLED}, {"roles": (Role.MONITOR.value,)}]
BOTH = (Role.SECURITY_OFFICER, Role.REGISTRATION_OFFICER)


@cache
def _ca() -> PrivateCa:
    return PrivateCa.create("Operators' CA")


@dataclass(frozen=True)
class Person:
    """An operator with the key in their own hand."""

    name: str
    identity: Identity

    @property
    def principal(self) -> Principal:
        return Principal(kind=PrincipalKind.OPERATOR, name=self.name, authenticated_by=AuthenticatedBy.CERTIFICATE)

    def approve(self, world: World, proposal: Proposal, **changes: bytes) -> Proposal:
        given = {
            "digest": proposal.digest,
            "signature": sign_approval(self.identity.private_key, approval_text(proposal.name, proposal.digest)),
        }
        return world.use.proposals.approve(
            self.principal, proposal.name, **(given | changes), deadline=world.deadline()
        )


FIRST = Person(OPERATOR.name, operators()["first"])
SECOND_PERSON = Person(SECOND.name, operators()["second"])


@pytest.fixture
def world() -> World:
    return World().populate()


def enter(world: World, *records: Record) -> None:
    """Puts records in force, as use cases that are not looked at here do."""
    world.use.changes.make("test", lambda _: Change(kind="test", slow=records), deadline=world.deadline())


def add_operator(world: World, identifier: str, *roles: Role, identity: Identity | None = None) -> Person:
    identity = identity or _ca().issue_client(identifier)
    certificate = identity.certificate_der
    enter(
        world,
        Operator(
            name=f"operators/{identifier}",
            display_name=identifier,
            certificate=certificate,
            certificate_fingerprint=hashlib.sha256(certificate).digest(),
            public_key_hash=public_key_hash(certificate, field="certificate"),
            roles=tuple(role.value for role in roles or BOTH),
            create_time=world.clock.now(),
        ),
    )
    return Person(f"operators/{identifier}", identity)


def change_operator(world: World, name: str, **changes: object) -> None:
    operator = world.use.transactions.read(lambda view: view.require(Operator, name))
    enter(world, next_version(operator, **changes))


def new_client(name: str = "clients/new") -> NewClient:
    return NewClient(name=name, display_name=name, token_hash=bytes(32), certificate_fingerprint=None)


def propose(world: World, name: str = "clients/new", *, by: Principal = OPERATOR) -> Proposal:
    return world.use.create_client(by, new_client(name), deadline=world.deadline())


def read(world: World, proposal: Proposal) -> Proposal:
    return world.use.get_proposal(OPERATOR, proposal.name)


def is_there(world: World, name: str = "clients/new") -> bool:
    return world.use.transactions.read(lambda view: view.get(Client, name)) is not None


def refused(world: World, kind: type[errors.Refusal], call: Callable[[], object]) -> errors.Refusal:
    """Asserts that a call is refused, that nothing was done, and that nothing was recorded as done."""
    before = len(world.store.rows(AuditEntry))
    with pytest.raises(kind) as caught:
        call()
    assert not is_there(world)
    assert len(world.store.rows(AuditEntry)) == before
    return caught.value


def test_nothing_changes_until_another_operator_has_agreed(world: World) -> None:
    proposal = propose(world)
    assert not is_there(world)
    decided = SECOND_PERSON.approve(world, proposal)
    assert decided.state is ProposalState.EXECUTED
    assert decided.decider == SECOND.name
    assert is_there(world)


def test_the_statement_says_who_what_until_when_and_every_field_that_changes(world: World) -> None:
    proposal = propose(world)
    statement = json.loads(proposal.statement)
    assert proposal.digest == hashlib.sha256(proposal.statement.encode()).digest()
    assert (statement["proposal"], statement["method"], statement["proposer"]) == (
        proposal.name,
        "AccessService.CreateClient",
        OPERATOR.name,
    )
    assert statement["expireTime"] == (world.clock.now() + LIFETIME).isoformat()
    assert statement["request"]["name"] == "clients/new"
    ((change),) = statement["changes"]
    assert (change["record"], change["version"]) == ("clients/new", 1)
    assert change["fields"]["state"] == {"before": None, "after": "ENABLED"}


@pytest.mark.requirement("ASVS 5.0.0-16.2.1")
def test_the_log_says_who_proposed_and_who_approved(world: World) -> None:
    proposal = propose(world)
    before = {row.record.name for row in world.store.rows(AuditEntry)}
    SECOND_PERSON.approve(world, proposal)
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.name not in before]
    leaves = {entry.kind: entry for entry in entries}
    assert set(leaves) == {"proposal_executed", "client_created"}
    content = {kind: json.loads(entry.details) for kind, entry in leaves.items()}
    assert content["client_created"]["proposal"] == proposal.name
    assert content["client_created"]["proposer"] == OPERATOR.name
    assert content["client_created"]["actor"] == SECOND.name
    executed = content["proposal_executed"]["record"]
    assert (executed["proposer"], executed["decider"]) == (OPERATOR.name, SECOND.name)
    assert executed["approval_signature"]


@pytest.mark.requirement("ASVS 5.0.0-8.4.2")
def test_nobody_approves_or_rejects_their_own_proposal(world: World) -> None:
    proposal = propose(world)
    refused(world, errors.OwnProposal, lambda: FIRST.approve(world, proposal))
    refused(
        world,
        errors.OwnProposal,
        lambda: world.use.proposals.reject(OPERATOR, proposal.name, reason="", deadline=world.deadline()),
    )


def test_a_second_account_of_the_same_certificate_or_key_is_the_same_person(world: World) -> None:
    same_certificate = add_operator(world, "twin", identity=FIRST.identity)
    proposal = propose(world)
    refused(world, errors.OwnProposal, lambda: same_certificate.approve(world, proposal))
    # Another certificate of the same key.
    other = _reissued(FIRST.identity)
    assert other.certificate_der != FIRST.identity.certificate_der
    same_key = add_operator(world, "cousin", identity=other)
    refused(world, errors.OwnProposal, lambda: same_key.approve(world, proposal))


def test_a_key_that_the_proposer_has_had_since_is_the_proposers(world: World) -> None:
    proposal = propose(world)
    fresh = _ca().issue_client("fresh")
    change_operator(
        world,
        OPERATOR.name,
        certificate=fresh.certificate_der,
        certificate_fingerprint=hashlib.sha256(fresh.certificate_der).digest(),
        public_key_hash=public_key_hash(fresh.certificate_der, field=""),
    )
    for name, identity in (("old-key", FIRST.identity), ("new-key", fresh)):
        account = add_operator(world, name, identity=identity)
        refused(world, errors.OwnProposal, lambda account=account: account.approve(world, proposal))
    assert SECOND_PERSON.approve(world, proposal).state is ProposalState.EXECUTED


def _reissued(identity: Identity) -> Identity:
    """Returns another certificate of the same key."""
    certificate = x509.load_pem_x509_certificate(identity.certificate)
    key = load_pem_private_key(identity.private_key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    again = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
        .sign(key, SHA256())
    )
    return Identity(
        certificate=again.public_bytes(Encoding.PEM),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def test_an_approval_is_the_callers_own_signature_over_this_proposal_and_this_digest(world: World) -> None:
    proposal, other = propose(world), propose(world, "clients/other")
    text = approval_text(proposal.name, proposal.digest)
    changed = proposal.digest[:-1] + bytes([proposal.digest[-1] ^ 1])
    cases: list[dict[str, bytes]] = [
        {"signature": b""},
        {"signature": bytes(64)},
        {"signature": sign_approval(FIRST.identity.private_key, text)},
        {"signature": sign_approval(SECOND_PERSON.identity.private_key, text[:-1])},
        {"signature": sign_approval(SECOND_PERSON.identity.private_key, text.upper())},
        {"signature": sign_approval(SECOND_PERSON.identity.private_key, approval_text(other.name, other.digest))},
        {"signature": sign_approval(SECOND_PERSON.identity.private_key, approval_text(other.name, proposal.digest))},
        {
            "digest": changed,
            "signature": sign_approval(SECOND_PERSON.identity.private_key, approval_text(proposal.name, changed)),
        },
        {"digest": other.digest},
        {"digest": b""},
    ]
    for case in cases:
        refused(world, errors.ApprovalNotValid, lambda case=case: SECOND_PERSON.approve(world, proposal, **case))
    assert read(world, proposal).state is ProposalState.PENDING
    assert SECOND_PERSON.approve(world, proposal).state is ProposalState.EXECUTED


def test_an_approval_serves_once(world: World) -> None:
    proposal = propose(world)
    SECOND_PERSON.approve(world, proposal)
    world.use.disable_client(OPERATOR, "clients/new", deadline=world.deadline())
    for person in (SECOND_PERSON, add_operator(world, "third")):
        with pytest.raises(errors.ProposalNotPending):
            person.approve(world, proposal)
    client = world.use.transactions.read(lambda view: view.require(Client, "clients/new"))
    assert (client.state, client.version) == (State.DISABLED, 2)


def test_a_proposal_that_waited_too_long_cannot_be_approved_or_rejected(world: World) -> None:
    proposal = propose(world)
    world.clock.advance(LIFETIME)
    refused(world, errors.ProposalNotPending, lambda: SECOND_PERSON.approve(world, proposal))
    refused(
        world,
        errors.ProposalNotPending,
        lambda: world.use.proposals.reject(SECOND, proposal.name, reason="", deadline=world.deadline()),
    )
    in_time = propose(world)
    world.clock.advance(LIFETIME - timedelta(microseconds=1))
    assert SECOND_PERSON.approve(world, in_time).state is ProposalState.EXECUTED


def test_what_was_rejected_or_withdrawn_stays_so(world: World) -> None:
    rejected, withdrawn = propose(world), propose(world)
    ended = world.use.proposals.reject(SECOND, rejected.name, reason="not now", deadline=world.deadline())
    assert (ended.state, ended.decider) == (ProposalState.REJECTED, SECOND.name)
    ended = world.use.proposals.cancel(OPERATOR, withdrawn.name, deadline=world.deadline())
    assert ended.state is ProposalState.CANCELLED
    for proposal in (rejected, withdrawn):
        refused(world, errors.ProposalNotPending, lambda proposal=proposal: SECOND_PERSON.approve(world, proposal))
    entries = [row.record for row in world.store.rows(AuditEntry)]
    assert [json.loads(entry.details)["because"] for entry in entries if entry.kind == "proposal_rejected"] == [
        "not now"
    ]


def test_only_the_proposer_withdraws(world: World) -> None:
    proposal = propose(world)
    for who in (SECOND, OFFICE):
        refused(
            world,
            errors.PermissionDenied,
            lambda who=who: world.use.proposals.cancel(who, proposal.name, deadline=world.deadline()),
        )


@pytest.mark.parametrize(
    "roles", [(Role.REGISTRATION_OFFICER,), (Role.AUDITOR,), (Role.ADMINISTRATOR,), (Role.MONITOR,)]
)
def test_only_who_might_have_proposed_it_approves_or_rejects_it(world: World, roles: tuple[Role, ...]) -> None:
    proposal = propose(world)
    other = add_operator(world, "other", *roles)
    refused(world, errors.PermissionDenied, lambda: other.approve(world, proposal))
    refused(
        world,
        errors.PermissionDenied,
        lambda: world.use.proposals.reject(other.principal, proposal.name, reason="", deadline=world.deadline()),
    )


def test_a_proposal_that_is_not_there_looks_like_a_forbidden_one(world: World) -> None:
    missing = replace(propose(world), name="proposals/none")
    other = add_operator(world, "other", Role.AUDITOR)
    told = {
        refused(world, errors.PermissionDenied, lambda person=person: person.approve(world, missing)).message
        for person in (SECOND_PERSON, other)
    }
    assert len(told) == 1


@pytest.mark.requirement("ASVS 5.0.0-8.4.2")
@pytest.mark.parametrize(
    "change", [{"state": State.DISABLED}, {"roles": (Role.MONITOR.value,)}], ids=["disabled", "demoted"]
)
def test_an_approver_who_lost_the_power_meanwhile_approves_nothing(world: World, change: dict[str, object]) -> None:
    proposal = propose(world)
    change_operator(world, SECOND.name, **change)
    refused(world, errors.PermissionDenied, lambda: SECOND_PERSON.approve(world, proposal))
    assert (
        world.use.transactions.read(lambda view: view.require(Proposal, proposal.name)).state is ProposalState.PENDING
    )


@pytest.mark.parametrize(
    "change", [{"state": State.DISABLED}, {"roles": (Role.MONITOR.value,)}], ids=["disabled", "demoted"]
)
def test_what_somebody_proposed_who_may_no_longer_is_outdated(world: World, change: dict[str, object]) -> None:
    proposal = propose(world)
    change_operator(world, OPERATOR.name, **change)
    decided = SECOND_PERSON.approve(world, proposal)
    assert decided.state is ProposalState.OUTDATED
    assert not is_there(world)
    with pytest.raises(errors.ProposalNotPending):
        SECOND_PERSON.approve(world, proposal)


@pytest.mark.parametrize(
    "change", [{"state": State.DISABLED}, {"roles": (Role.MONITOR.value,)}], ids=["disabled", "demoted"]
)
@pytest.mark.parametrize("who", [OPERATOR, SECOND], ids=["proposer", "approver"])
def test_a_demotion_that_commits_while_an_approval_is_prepared_is_seen(
    world: World, change: dict[str, object], who: Principal
) -> None:
    """Everything was read and found right; then the demotion commits, and then the approval's transaction begins."""
    proposal = propose(world)
    transact = world.store.transact

    def late(work: Callable[..., object], *, timeout: float) -> object:
        world.store.transact = transact
        change_operator(world, who.name, **change)
        return transact(work, timeout=timeout)

    world.store.transact = late
    if who is SECOND:
        with pytest.raises(errors.PermissionDenied):
            SECOND_PERSON.approve(world, proposal)
    else:
        assert SECOND_PERSON.approve(world, proposal).state is ProposalState.OUTDATED
    assert not is_there(world)


def test_a_record_that_changed_since_makes_the_proposal_outdated(world: World) -> None:
    first, second = propose(world), propose(world)
    assert SECOND_PERSON.approve(world, first).state is ProposalState.EXECUTED
    before = world.use.transactions.read(lambda view: view.require(Client, "clients/new"))
    assert SECOND_PERSON.approve(world, second).state is ProposalState.OUTDATED
    assert world.use.transactions.read(lambda view: view.require(Client, "clients/new")) == before
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "proposal_outdated"]
    assert "ALREADY_EXISTS" in json.loads(entries[-1].details)["because"]


@dataclass(frozen=True, kw_only=True)
class Rename:
    """A command of a method of the tests' own."""

    name: str
    display_name: str


class Renaming:
    """A plan that does what a test says."""

    def __init__(self, world: World) -> None:
        self.fault: Exception | None = None
        self.suffix = ""
        self.done: list[int] = []
        self.world = world
        # Whatever the product's plan is, the tests' own takes its place here.
        world.use.proposals._plans["AccessService.UpdateClient"] = Plan(
            method="AccessService.UpdateClient",
            command=Rename,
            make=self._plan,
            done=lambda records: self.done.append(len(records)),
        )

    def _plan(self, view: TrustedView, command: Rename, _: Agreement) -> Change:
        if self.fault is not None:
            raise self.fault
        client = view.require(Client, command.name)
        changed = next_version(client, display_name=command.display_name + self.suffix)
        return Change(kind="client_updated", slow=[changed])

    def propose(self, name: str = OFFICE.name) -> Proposal:
        command = Rename(name=name, display_name="Văn phòng")
        return self.world.use.proposals.propose(
            OPERATOR, "AccessService.UpdateClient", command, deadline=self.world.deadline()
        )


@pytest.fixture
def renaming(world: World) -> Renaming:
    return Renaming(world)


def test_a_plan_that_comes_to_another_change_than_was_read_does_nothing(world: World, renaming: Renaming) -> None:
    proposal = renaming.propose()
    renaming.suffix = " khác"
    assert SECOND_PERSON.approve(world, proposal).state is ProposalState.OUTDATED
    assert renaming.done == []
    assert world.use.transactions.read(lambda view: view.require(Client, OFFICE.name)).version == 1


def test_a_change_that_was_already_made_otherwise_does_nothing(world: World, renaming: Renaming) -> None:
    proposal = renaming.propose()
    world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    assert SECOND_PERSON.approve(world, proposal).state is ProposalState.OUTDATED
    client = world.use.transactions.read(lambda view: view.require(Client, OFFICE.name))
    assert (client.version, client.state) == (2, State.DISABLED)


@pytest.mark.parametrize(
    "fault",
    [
        errors.Busy(),
        errors.ClockNotTrusted(),
        errors.DeadlineTooShort("late"),
        errors.DeliveryFailed(),
        errors.DeliveryLimitReached("often"),
        errors.HsmUnavailable(),
        errors.RateLimitReached("often"),
        errors.RecordNotTrusted("keys", "keys/x", "edited"),
        errors.StoreUnavailable(),
    ],
    ids=lambda fault: fault.reason,
)
def test_what_passes_leaves_the_proposal_pending(world: World, renaming: Renaming, fault: errors.Refusal) -> None:
    proposal = renaming.propose()
    renaming.fault = fault
    with pytest.raises(type(fault)):
        SECOND_PERSON.approve(world, proposal)
    assert read(world, proposal).state is ProposalState.PENDING
    renaming.fault = None
    assert SECOND_PERSON.approve(world, proposal).state is ProposalState.EXECUTED
    assert renaming.done == [1]


def test_every_refusal_was_thought_of_as_passing_or_as_final() -> None:
    passing = {kind.reason for kind in _PASSING}
    assert passing == {
        "BUSY",
        "CLOCK_NOT_TRUSTED",
        "DEADLINE_TOO_SHORT",
        "DELIVERY_FAILED",
        "DELIVERY_LIMIT_REACHED",
        "HSM_UNAVAILABLE",
        "RATE_LIMIT_REACHED",
        "RECORD_NOT_TRUSTED",
        "STORE_UNAVAILABLE",
    }
    # What RetryInfo goes with passes; a locked signer is a state.
    assert {kind.reason for kind in errors.ALL_REFUSALS} - passing >= {"STATE_CONFLICT", "SIGNER_LOCKED"}


def test_what_follows_an_approval_is_begun_once_and_only_after_the_commit(world: World, renaming: Renaming) -> None:
    proposal = renaming.propose()
    world.store.fail_transact(persisted=True)
    with pytest.raises(errors.StoreUnavailable):
        SECOND_PERSON.approve(world, proposal)
    # Whether it was committed is not known, so nothing was begun; the records say it, and a worker finds it there.
    assert renaming.done == []
    assert read(world, proposal).state is ProposalState.EXECUTED
    other = renaming.propose()
    world.store.fail_transact(persisted=False)
    with pytest.raises(errors.StoreUnavailable):
        SECOND_PERSON.approve(world, other)
    assert read(world, other).state is ProposalState.PENDING
    assert SECOND_PERSON.approve(world, other).state is ProposalState.EXECUTED
    assert renaming.done == [1]


def test_a_proposal_of_a_method_that_this_server_has_not_is_outdated(world: World, renaming: Renaming) -> None:
    proposal = renaming.propose()
    del world.use.proposals._plans["AccessService.UpdateClient"]
    assert SECOND_PERSON.approve(world, proposal).state is ProposalState.OUTDATED


def test_what_the_host_proposes_one_operator_approves(world: World) -> None:
    proposal = world.use.proposals.propose_from_host(
        "AccessService.CreateClient", new_client(), deadline=world.deadline()
    )
    assert proposal.proposer == "host"
    with pytest.raises(errors.PermissionDenied):
        add_operator(world, "auditor", Role.AUDITOR).approve(world, proposal)
    assert FIRST.approve(world, proposal).state is ProposalState.EXECUTED
    assert is_there(world)


def test_a_thousand_enrolments_are_one_proposal_that_fits_a_message(world: World) -> None:
    """Names are as long as they can be: the largest that the methods allow stays below the bound."""
    names = [f"signers/{'n' * 55}{number:05}" for number in range(1000)]
    enter(
        world,
        *(
            Signer(
                name=name,
                display_name="Nguyễn Thị Hoa",
                kind=SignerKind.PERSON,
                organization="organizations/commune",
                create_time=world.clock.now(),
            )
            for name in names
        ),
    )
    enrolments = tuple(
        NewEnrolment(name=f"{name}/enrolments/{'p' * 63}", kind=AuthenticatorKind.TOTP) for name in names
    )
    proposal = world.use.create_enrolments(OPERATOR, NewEnrolments(enrolments=enrolments), deadline=world.deadline())
    assert 400_000 < len(proposal.statement.encode()) <= LARGEST_STATEMENT
    assert world.agree(proposal).state is ProposalState.EXECUTED


def test_what_is_too_much_to_read_is_not_proposed(world: World, renaming: Renaming) -> None:
    command = Rename(name=OFFICE.name, display_name="x" * LARGEST_STATEMENT)
    with pytest.raises(errors.InvalidArgument) as caught:
        world.use.proposals.propose(OPERATOR, "AccessService.UpdateClient", command, deadline=world.deadline())
    assert caught.value.metadata["field"] == "statement"


def test_pages_of_large_proposals_are_short_and_leave_none_out(world: World, renaming: Renaming) -> None:
    made = set()
    for size in (LARGEST_STATEMENT // 4, LARGEST_STATEMENT // 4, LARGEST_STATEMENT // 4, 10, 10):
        command = Rename(name=OFFICE.name, display_name="x" * size)
        made.add(
            world.use.proposals.propose(OPERATOR, "AccessService.UpdateClient", command, deadline=world.deadline()).name
        )
    found: list[str] = []
    token, pages = "", 0
    while True:
        shown, token = world.use.list_proposals(OPERATOR, state=ProposalState.PENDING, page=Page.parse(100, token))
        assert shown
        assert sum(len(proposal.statement.encode()) for proposal in shown) <= LARGEST_STATEMENT
        found += [proposal.name for proposal in shown]
        pages += 1
        if not token:
            break
    assert found == sorted(made)
    assert pages >= 2
