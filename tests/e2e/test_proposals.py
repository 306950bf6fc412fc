"""Officers at the terminal: `trien proposals`, and `trien-server operators recover` (P9)."""

import hashlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.integration.client.command import at_terminal
from tests.support.administration import Administrator, Connection, Refused, client_identity, identity_of
from tests.support.openssl import openssl
from tests.support.sandbox import TRIEN_SERVER, Installation, environment, running_sandbox
from trien.v1 import access_service_pb2, proposal_service_pb2
from typer.testing import CliRunner

from trien_client.cli.main import build_app
from trien_client.operators import approved_text, sign_approval
from trien_server.host.private_ca import Identity

pytestmark = pytest.mark.promise("P9")
Run = Callable[..., Any]


@pytest.fixture
def trien(installation: Installation) -> Run:
    return runner(installation)


def runner(installation: Installation) -> Run:
    def run(*arguments: object, exit_code: int = 0, **variables: str) -> Any:
        variables = {"TRIEN_CONNECTION": str(installation.directory / "connection.json"), **variables}
        result = CliRunner().invoke(
            build_app(completion=False), [str(argument) for argument in arguments], env=variables
        )
        assert "Traceback" not in result.output
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result

    return run


_numbers: Iterator[int] = iter(range(1000))


def propose(administrator: Administrator) -> Any:
    """Has the first operator propose a client."""
    identifier = f"cli-{next(_numbers)}"
    client = access_service_pb2.Client(
        display_name="Văn phòng điện tử", token_hash=hashlib.sha256(identifier.encode()).digest()
    )
    request = access_service_pb2.CreateClientRequest(client_id=identifier, client=client)
    return administrator.connection.call(administrator.connection.access.CreateClient, request)


def test_an_officer_sees_exactly_what_would_happen_and_the_other_approves_it(
    administrator: Administrator, trien: Run, tmp_path: Path
) -> None:
    proposal = propose(administrator)
    assert proposal.name in trien("proposals", "list").stdout
    shown = trien("proposals", "show", proposal.name).stdout
    for part in ("AccessService.CreateClient", "proposed by: operators/first", '"Văn phòng điện tử"', "state: ENABLED"):
        assert part in shown, part
    assert f"digest sha256:{proposal.digest.hex()}" in shown
    assert all(len(line) <= 80 for line in shown.splitlines()), shown
    approve = ("proposals", "approve", proposal.name, "--digest", proposal.digest.hex())
    own = trien(*approve, exit_code=1)
    assert "OWN_PROPOSAL" in own.stderr
    done = trien(*approve, TRIEN_OPERATOR="second")
    assert "EXECUTED by operators/second" in done.stdout
    assert "EXECUTED" in trien(*approve, exit_code=1, TRIEN_OPERATOR="second").stderr
    file = tmp_path / "proposal.json"
    file.write_text(trien("proposals", "show", proposal.name, "--output", "json").stdout)
    assert json.loads(file.read_text())["state"] == "EXECUTED"
    assert proposal.name not in trien("proposals", "list").stdout
    assert proposal.name in trien("proposals", "list", "--state", "executed").stdout


def test_another_digest_is_not_approved(administrator: Administrator, trien: Run) -> None:
    proposal = propose(administrator)
    other = hashlib.sha256(proposal.statement.encode() + b" ").hexdigest()
    refused = trien("proposals", "approve", proposal.name, "--digest", other, exit_code=1, TRIEN_OPERATOR="second")
    assert "Read it again" in refused.stderr
    trien("proposals", "approve", proposal.name, "--digest", "00", exit_code=2, TRIEN_OPERATOR="second")
    assert "no terminal" in trien("proposals", "approve", proposal.name, exit_code=2, TRIEN_OPERATOR="second").stderr
    rejected = trien("proposals", "reject", proposal.name, "--reason", "no", TRIEN_OPERATOR="second")
    assert "REJECTED by operators/second" in rejected.stdout
    withdrawn = propose(administrator)
    assert "CANCELLED" in trien("proposals", "cancel", withdrawn.name).stdout


@pytest.mark.parametrize(("answer", "exit_code", "told"), [("y", 0, "EXECUTED"), ("n", 1, "Nothing was approved")])
def test_at_a_terminal_the_officer_is_asked_about_what_is_shown(
    administrator: Administrator, installation: Installation, answer: str, exit_code: int, told: str
) -> None:
    proposal = propose(administrator)
    variables = {
        "TRIEN_CONNECTION": str(installation.directory / "connection.json"),
        "TRIEN_OPERATOR": "second",
    }
    code, screen, prompts = at_terminal(
        ["proposals", "approve", proposal.name], [answer], variables, prompt="Approve exactly this?"
    )
    assert (code, prompts) == (exit_code, 1), screen
    assert proposal.digest.hex() in screen
    assert told in screen


def test_an_approval_is_verified_offline_by_the_command_and_by_openssl_alone(
    administrator: Administrator, installation: Installation, trien: Run, tmp_path: Path
) -> None:
    proposal = administrator.approve(propose(administrator))
    file = tmp_path / "proposal.json"
    file.write_text(trien("proposals", "show", proposal.name, "--output", "json").stdout)
    second, first = (installation.directory / "operators" / f"{name}.pem" for name in ("second", "first"))
    nowhere = {"TRIEN_CONNECTION": str(tmp_path / "none.json")}
    good = trien("proposals", "verify", file, "--approver-certificate", second, **nowhere)
    assert "The approval is good." in good.stdout
    assert "another key" in trien("proposals", "verify", file, "--approver-certificate", first, exit_code=5).stderr
    # With OpenSSL, by the steps of docs/operator.md.
    content = json.loads(file.read_text())
    (tmp_path / "statement").write_text(content["statement"])
    digest = hashlib.sha256((tmp_path / "statement").read_bytes()).hexdigest()
    (tmp_path / "text").write_text(f"trien.v1 approve {content['name']} sha256:{digest}\n")
    (tmp_path / "signature").write_bytes(proposal.approval_signature)
    openssl(tmp_path, "x509", "-in", str(second), "-pubkey", "-noout", "-out", "key.pem")
    told = openssl(tmp_path, "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "text")
    assert "Verified OK" in told
    # Any change of what was agreed on is found.
    for change in ({"statement": content["statement"].replace("Văn", "Vân")}, {"name": "proposals/other"}):
        file.write_text(json.dumps({**content, **change}))
        assert "NOT_VERIFIED" in trien("proposals", "verify", file, exit_code=5).stderr


def at_once(installation: Installation, officers: Sequence[Identity], proposal: Any) -> list[str]:
    """Has officers approve one proposal at the same time; returns how each call ended."""
    start = threading.Barrier(len(officers))

    def approve(officer: Identity) -> str:
        with Connection(installation, identity=officer) as connection:
            request = proposal_service_pb2.ApproveProposalRequest(
                name=proposal.name,
                digest=proposal.digest,
                signature=sign_approval(officer.private_key, approved_text(proposal)),
            )
            grpc.channel_ready_future(connection.channel).result(timeout=30)
            start.wait()
            try:
                decided = connection.call(connection.proposals.ApproveProposal, request)
            except Refused as refused:
                return refused.reason
            return proposal_service_pb2.Proposal.State.Name(decided.state)

    with ThreadPoolExecutor(len(officers)) as threads:
        return list(threads.map(approve, officers))


def test_the_officer_who_is_left_approves_what_the_host_proposes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The second officer's key is lost: first a colleague, then all goes on."""
    with running_sandbox(tmp_path / "installation") as installation:
        operators = installation.directory / "operators"
        (tmp_path / "lost.key").write_bytes((operators / "second.key").read_bytes())
        identity = client_identity(installation, "operator third")
        (operators / "third.pem").write_bytes(identity.certificate)
        (operators / "third.key").write_bytes(identity.private_key)
        recover = [
            TRIEN_SERVER, "operators", "recover", "--config", str(installation.directory / "trien.toml"),
            "--name", "third", "--display-name", "Lê Văn C", "--certificate", str(operators / "third.pem"),
        ]  # fmt: skip
        roles = ["--role", "security-officer", "--role", "registration-officer"]
        done = subprocess.run([*recover, *roles], capture_output=True, text=True, env=environment(), timeout=120)
        assert done.returncode == 0, done.stderr
        name = done.stdout.split()[-1]
        third = Connection(installation, identity=identity)
        with third, pytest.raises(Refused) as refused:
            third.call(third.access.ListClients, access_service_pb2.ListClientsRequest())
        assert refused.value.reason == "UNAUTHENTICATED"
        trien = runner(installation)
        listed = trien("proposals", "list").stdout
        assert name in listed
        assert "by host" in listed
        digest = trien("proposals", "show", name).stdout.rpartition("digest sha256:")[2].split()[0]
        assert "EXECUTED" in trien("proposals", "approve", name, "--digest", digest).stdout
        # Whoever found the key, and the colleague, approve at once: one of them does it.
        second = identity_of(operators / "second.pem", tmp_path / "lost.key")
        with Administrator(installation) as administrator:
            ends = [sorted(at_once(installation, (second, identity), propose(administrator))) for _ in range(8)]
        assert ends == [["EXECUTED", "PROPOSAL_NOT_PENDING"]] * 8
        record_property("count", f"rounds of two officers at once over gRPC {len(ends)}")
        # The lost key is shut out, and the two that are there agree on the next change.
        first = identity_of(operators / "first.pem", operators / "first.key")
        with Connection(installation, identity=first) as officer:
            request = access_service_pb2.DisableOperatorRequest(name="operators/second")
            officer.call(officer.access.DisableOperator, request)
            client = access_service_pb2.Client(display_name="Next", token_hash=bytes(32))
            made = officer.call(
                officer.access.CreateClient, access_service_pb2.CreateClientRequest(client_id="next", client=client)
            )
        options = (
            "--address", installation.certificate_address, "--ca-file", installation.directory / "tls" / "ca.pem",
            "--certificate-file", operators / "third.pem", "--key-file", operators / "third.key",
        )  # fmt: skip
        approve = ("proposals", "approve", made.name, "--digest", made.digest.hex())
        assert "EXECUTED" in trien(*approve, *options).stdout
        wrong = subprocess.run(
            [*recover, "--role", "king"], capture_output=True, text=True, env=environment(), timeout=120
        )
        assert wrong.returncode == 1
        assert "there is no role king" in wrong.stderr
