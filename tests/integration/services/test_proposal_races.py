"""Two officers decide on one proposal at once, on real databases and in two processes' use cases (P9)."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.world import OPERATOR, SECOND, World, operators

from trien_client.operators import sign_approval
from trien_server.core import errors
from trien_server.core.approval import approval_text, public_key_hash
from trien_server.core.ports import Store
from trien_server.core.principal import Principal
from trien_server.core.records import AuditEntry, Client, Operator, Proposal, ProposalState
from trien_server.core.roles import Role
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.services.changes import Change
from trien_server.services.clients import NewClient
from trien_server.services.transactions import next_version
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store
from trien_server.wiring import UseCases

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P9")

THIRD = Principal(kind=OPERATOR.kind, name="operators/third", authenticated_by=OPERATOR.authenticated_by)
Act = Callable[[UseCases, Proposal], ProposalState]


@dataclass
class Office:
    """Three officers, and two processes that serve them from one database."""

    world: World
    processes: tuple[UseCases, UseCases]
    third: Identity

    def approve(self, by: Principal) -> Act:
        identity = self.third if by is THIRD else operators()[by.name.partition("/")[2]]

        def act(use: UseCases, proposal: Proposal) -> ProposalState:
            signature = sign_approval(identity.private_key, approval_text(proposal.name, proposal.digest))
            return use.proposals.approve(
                by, proposal.name, digest=proposal.digest, signature=signature, deadline=self.world.deadline()
            ).state

        return act

    def reject(self, by: Principal) -> Act:
        return lambda use, proposal: (
            use.proposals.reject(by, proposal.name, reason="", deadline=self.world.deadline()).state
        )

    def cancel(self, use: UseCases, proposal: Proposal) -> ProposalState:
        return use.proposals.cancel(OPERATOR, proposal.name, deadline=self.world.deadline()).state

    def set_roles(self, who: Principal, *roles: Role) -> Act:
        """Returns the act of giving an operator other roles; it decides nothing about the proposal."""

        def act(use: UseCases, _: Proposal) -> ProposalState:
            def prepare(view: Any) -> Change:
                changed = next_version(view.require(Operator, who.name), roles=tuple(role.value for role in roles))
                return Change(kind="operator_updated", slow=[changed])

            use.changes.make("test", prepare, deadline=self.world.deadline())
            return ProposalState.PENDING

        return act

    def propose(self, number: int) -> Proposal:
        token_hash = hashlib.sha256(f"token {number}".encode()).digest()
        name = f"clients/n{number}"
        new = NewClient(name=name, display_name=name, token_hash=token_hash, certificate_fingerprint=None)
        return self.processes[0].create_client(OPERATOR, new, deadline=self.world.deadline())

    def at_once(self, proposal: Proposal, *acts: Act) -> list[str]:
        """Does the acts at the same time, by turns in either process; returns how each ended."""
        ends = [""] * len(acts)
        start = threading.Barrier(len(acts))

        def one(place: int) -> None:
            start.wait()
            try:
                ends[place] = acts[place](self.processes[place % 2], proposal).value
            except errors.Refusal as refusal:
                ends[place] = refusal.reason

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ends

    def state_of(self, proposal: Proposal) -> ProposalState:
        return self.processes[1].get_proposal(OPERATOR, proposal.name).state

    def client_version(self, number: int) -> int:
        """Returns 0 when the client is not there."""
        found = self.processes[1].transactions.read(lambda view: view.get(Client, f"clients/n{number}"))
        return 0 if found is None else found.version

    def entries(self, kind: str) -> int:
        found = self.processes[0].transactions.read(lambda view: view.find(AuditEntry, limit=1_000_000))
        return sum(entry.kind == kind for entry in found)


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
    else:
        url = f"sqlite:///{tmp_path / 'trien.db'}"
        migrate(url)
    stores: list[Store] = []
    world = World(store=_open(url, stores))
    world.store.now = world.clock.now
    world.populate()
    other = _open(url, stores)
    other.now = world.clock.now  # type: ignore[method-assign]
    third = PrivateCa.create("CA").issue_client("third")
    encoded = third.certificate_der
    record = Operator(
        name=THIRD.name,
        display_name="third",
        certificate=encoded,
        certificate_fingerprint=hashlib.sha256(encoded).digest(),
        public_key_hash=public_key_hash(encoded, field=""),
        roles=(Role.SECURITY_OFFICER.value,),
        create_time=world.clock.now(),
    )
    world.use.changes.make("test", lambda _: Change(kind="test", slow=[record]), deadline=world.deadline())
    yield Office(world, (world.use, world.new_process(store=other)), third)
    for store in stores:
        store.close()


def _open(url: str, stores: list[Store]) -> Any:
    store = open_store(url, on_fatal=lambda reason: pytest.fail(reason))
    stores.append(store)
    return store


@pytest.mark.parametrize("rounds", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_of_two_officers_who_approve_at_once_exactly_one_carries_it_out(
    office: Office, rounds: int, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    winners: Counter[str] = Counter()
    before = office.entries("proposal_executed")
    for number in range(rounds):
        proposal = office.propose(number)
        ends = office.at_once(proposal, office.approve(SECOND), office.approve(THIRD))
        assert sorted(ends) == ["EXECUTED", "PROPOSAL_NOT_PENDING"], ends
        assert office.state_of(proposal) is ProposalState.EXECUTED
        assert office.client_version(number) == 1
        winners["second" if ends[0] == "EXECUTED" else "third"] += 1
    assert office.entries("proposal_executed") == before + rounds
    record_property("count", f"{request.node.callspec.params['office']}: rounds {rounds}, winners {dict(winners)}")
    assert winners.total() == rounds


def test_of_all_decisions_at_once_exactly_one_stands(
    office: Office, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    stood: Counter[str] = Counter()
    for number in range(20):
        proposal = office.propose(number)
        ends = office.at_once(
            proposal, office.approve(SECOND), office.reject(THIRD), office.cancel, office.approve(THIRD)
        )
        decisions = [end for end in ends if end != "PROPOSAL_NOT_PENDING"]
        assert len(decisions) == 1, ends
        assert office.state_of(proposal).value == decisions[0]
        assert office.client_version(number) == (1 if decisions[0] == "EXECUTED" else 0)
        stood[decisions[0]] += 1
    record_property("count", f"{request.node.callspec.params['office']}: rounds 20, stood {dict(stood)}")
    assert stood.total() == 20


@pytest.mark.requirement("ASVS 5.0.0-8.3.2")
@pytest.mark.parametrize("who", [SECOND, OPERATOR], ids=["approver", "proposer"])
def test_a_demotion_at_the_same_time_comes_before_or_after_and_never_between(
    office: Office,
    who: Principal,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    refused = {"PERMISSION_DENIED"} if who is SECOND else {"OUTDATED"}
    ended: Counter[str] = Counter()
    for number in range(15):
        proposal = office.propose(number)
        approved, _ = office.at_once(proposal, office.approve(SECOND), office.set_roles(who, Role.MONITOR))
        assert approved in {"EXECUTED"} | refused
        assert office.client_version(number) == (1 if approved == "EXECUTED" else 0)
        # Afterwards nothing goes through in that name.
        ended[approved] += 1
        office.set_roles(who, Role.SECURITY_OFFICER, Role.REGISTRATION_OFFICER)(office.processes[0], proposal)
        expected = {"EXECUTED": ProposalState.EXECUTED, "OUTDATED": ProposalState.OUTDATED}
        assert office.state_of(proposal) is expected.get(approved, ProposalState.PENDING)
    record_property("count", f"{request.node.callspec.params['office']}: rounds 15, ended {dict(ended)}")
    assert ended.total() == 15


def test_two_proposals_of_one_client_approved_at_once_make_it_once(office: Office) -> None:
    for number in range(10):
        first, second = office.propose(number), office.propose(number)
        ends = office.at_once(
            first, office.approve(SECOND), lambda use, _, other=second: office.approve(THIRD)(use, other)
        )
        assert sorted(ends) == ["EXECUTED", "OUTDATED"], ends
        assert office.client_version(number) == 1
