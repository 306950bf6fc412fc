"""The server is killed at system calls of an approval: the change is made whole and once, or not at all (P9)."""

import hashlib
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_fsck import fsck
from tests.fault.server.faulted_server import places_of
from tests.fault.server.tracing import EVERY_CALL, Seen, Target, Tracing, spread
from tests.support.administration import Administrator, Refused
from tests.support.moving import running_on_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import access_service_pb2, proposal_service_pb2

Record = Callable[[str, object], None]
STATE = proposal_service_pb2.Proposal


@dataclass
class Office:
    """Two officers whose server dies."""

    installation: Installation
    number: int = 0

    def approve_once(self, target: Target | None) -> tuple[Seen, str]:
        """Has a proposal approved, killed at the target; then looks what became of it, and finishes it.

        Returns what was seen, and the state that the next process found the proposal in.
        """
        self.number += 1
        name = f"clients/kill-{self.number}"
        process = self.installation.process
        assert process is not None
        with Administrator(self.installation) as administrator:
            propose = access_service_pb2.CreateClientRequest(
                client_id=name.partition("/")[2],
                client=access_service_pb2.Client(display_name=name, token_hash=hashlib.sha256(name.encode()).digest()),
            )
            proposal = administrator.connection.call(administrator.connection.access.CreateClient, propose)
            told = None
            with Tracing(process.pid, EVERY_CALL, places_of(self.installation), target) as tracing:
                try:
                    administrator.approve(proposal)
                except Refused as refused:
                    told = refused
                seen = tracing.end()
        if target is None and told is not None:
            raise told
        if process.poll() is not None or seen.hits:
            assert self.installation.wait() == -signal.SIGKILL
            self.installation.start()
        with Administrator(self.installation) as administrator:
            found = self._state(administrator, proposal)
            assert self._is_there(administrator, name) is (found == "EXECUTED")
            # A caller who was told that it is done was told the truth.
            assert found == "EXECUTED" or told is not None
            if found == "PENDING":
                assert administrator.approve(proposal).state == STATE.EXECUTED
            else:
                with pytest.raises(Refused) as again:
                    administrator.approve(proposal)
                assert again.value.reason == "PROPOSAL_NOT_PENDING"
            assert self._is_there(administrator, name)
        return seen, found

    @staticmethod
    def _state(administrator: Administrator, proposal: Any) -> str:
        request = proposal_service_pb2.GetProposalRequest(name=proposal.name)
        found = administrator.connection.call(administrator.connection.proposals.GetProposal, request, wait=True)
        return STATE.State.Name(found.state)

    @staticmethod
    def _is_there(administrator: Administrator, name: str) -> bool:
        connection = administrator.connection
        told = None
        try:
            connection.call(connection.access.GetClient, access_service_pb2.GetClientRequest(name=name))
        except Refused as refused:
            told = refused
        assert told is None or told.reason == "PERMISSION_DENIED"
        return told is None


@pytest.mark.promise("P1", "P5", "P9")
@pytest.mark.parametrize(
    "most", [pytest.param(5, marks=pytest.mark.slow, id="some"), pytest.param(10_000, marks=pytest.mark.soak, id="all")]
)
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_kill_in_an_approval_leaves_the_change_whole_or_undone(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, database: str, most: int
) -> None:
    if database == "sqlite":
        running = running_sandbox(tmp_path / "installation")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        running = running_on_postgresql(tmp_path / "installation", server.url(server.copy()))
    found: Counter[str] = Counter()
    missed = 0
    with running as installation:
        office = Office(installation)
        office.approve_once(None)
        counts = office.approve_once(None)[0].counts
        targets = [Target(group=group, at=at) for group in sorted(counts) for at in spread(counts[group], most)]
        for target in targets:
            seen, state = office.approve_once(target)
            if seen.hits:
                found[state] += 1
            else:
                missed += 1
        code, told = fsck(installation)
        assert code == 0, told
    told = f"kill points {found.total()} of {sum(counts.values())} calls, not reached {missed}, found {dict(found)}"
    record_property("count", f"{database}, an approval by an officer: {told}")
    assert found.total() >= 0.7 * len(targets) > 10
    assert min(found["PENDING"], found["EXECUTED"]) > 0
