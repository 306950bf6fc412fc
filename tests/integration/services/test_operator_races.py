"""Operators who are disabled at once, on real databases and through two processes' use cases (P9)."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.world import OPERATOR, SECOND, World, operators

from trien_client.operators import sign_approval
from trien_server.core import errors
from trien_server.core.approval import approval_text
from trien_server.core.principal import Principal
from trien_server.core.records import Operator, Proposal, ProposalState, State
from trien_server.core.roles import Role
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.services.operators import OperatorValues
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store
from trien_server.wiring import UseCases

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P9")
THIRD = Principal(kind=OPERATOR.kind, name="operators/third", authenticated_by=OPERATOR.authenticated_by)
AUDITORS = ("operators/auditor", "operators/other-auditor")


@dataclass
class Office:
    """Three officers and two auditors, and two processes that serve them from one database."""

    world: World
    processes: tuple[UseCases, UseCases]
    ca: PrivateCa = field(default_factory=lambda: PrivateCa.create("Test CA of operators"))
    identities: dict[str, Identity] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.identities = {f"operators/{name}": identity for name, identity in operators().items()}
        self.processes[0].create_installation(
            {name: identity.certificate_der for name, identity in operators().items()}
        )
        for name, role in ((THIRD.name, Role.SECURITY_OFFICER), *((auditor, Role.AUDITOR) for auditor in AUDITORS)):
            self.identities[name] = self.ca.issue_client(name)
            values = OperatorValues(
                name=name, display_name=name, certificate=self.identities[name].certificate_der, roles=(role,)
            )
            use = self.processes[0]
            self.agree(use.create_operator(OPERATOR, values, deadline=self.world.deadline()), by=SECOND)

    def agree(self, proposal: Proposal, *, by: Principal) -> None:
        signature = sign_approval(self.identities[by.name].private_key, approval_text(proposal.name, proposal.digest))
        decided = self.processes[1].proposals.approve(
            by, proposal.name, digest=proposal.digest, signature=signature, deadline=self.world.deadline()
        )
        assert decided.state is ProposalState.EXECUTED

    def disable_at_once(self, *acts: tuple[Principal, str]) -> list[str]:
        """Lets operators disable others at the same time, by turns in either process; returns how each ended."""
        ends = [""] * len(acts)
        start = threading.Barrier(len(acts))

        def one(place: int) -> None:
            by, name = acts[place]
            start.wait(30)
            try:
                use = self.processes[place % 2]
                ends[place] = use.disable_operator(by, name, deadline=self.world.deadline()).state
            except errors.Refusal as refusal:
                ends[place] = refusal.reason

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ends

    def enabled(self, *names: str) -> list[str]:
        def work(view: object) -> list[str]:
            found = [view.require(Operator, name) for name in names]  # type: ignore[attr-defined]
            return [operator.name for operator in found if operator.state is State.ENABLED]

        return self.processes[1].transactions.read(work)

    def enable(self, name: str, *, by: Principal, with_: Principal) -> None:
        self.agree(self.processes[0].enable_operator(by, name, deadline=self.world.deadline()), by=with_)


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
    else:
        url = f"sqlite:///{tmp_path / 'trien.db'}"
        migrate(url)
    stores = [open_store(url, on_fatal=lambda reason: None) for _ in range(2)]
    try:
        world = World(store=stores[0])
        yield Office(world, (world.use, world.new_process(store=stores[1])))
    finally:
        for store in stores:
            store.close()


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_however_many_are_disabled_at_once_somebody_is_left(
    office: Office, rounds: int, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    ends: Counter[str] = Counter()
    done = 0
    for _ in range(rounds):
        # Two officers take one of the last two auditors each.
        taken = office.disable_at_once((OPERATOR, AUDITORS[0]), (SECOND, AUDITORS[1]))
        assert sorted(taken) == ["DISABLED", "LAST_OF_ROLE"], taken
        (left,) = office.enabled(*AUDITORS)
        gone = AUDITORS[1 - AUDITORS.index(left)]
        office.enable(gone, by=OPERATOR, with_=SECOND)
        # Two officers disable each other.
        each_other = office.disable_at_once((OPERATOR, SECOND.name), (SECOND, OPERATOR.name))
        assert sorted(each_other) == ["DISABLED", "PERMISSION_DENIED"], each_other
        (winner,) = office.enabled(OPERATOR.name, SECOND.name)
        by, loser = (OPERATOR, SECOND.name) if winner == OPERATOR.name else (SECOND, OPERATOR.name)
        office.enable(loser, by=by, with_=THIRD)
        ends[f"{winner} won"] += 1
        done += 1
    record_property(
        "count",
        f"{request.node.callspec.params['office']}: two auditors, and two officers, disabled at once: rounds {done},"
        f" exactly one of each is left ({', '.join(f'{name} {count}' for name, count in sorted(ends.items()))})",
    )
    assert done == rounds
