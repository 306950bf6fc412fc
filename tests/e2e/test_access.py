"""Operators and clients from the first key to being shut out, by the command line of officers."""

import json
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.administration import Connection, Refused
from tests.support.openssl import openssl
from tests.support.sandbox import Installation, running_sandbox, trien_server
from trien.v1 import credential_service_pb2
from typer.testing import CliRunner

from trien_client.cli.main import build_app

_SUFFIXES = {".csr", ".key", ".pem", ".token"}


@dataclass
class Desk:
    """An officer's computer: a folder, and the command `trien`."""

    installation: Installation
    folder: Path

    def run(self, *arguments: str, code: int = 0, by: str = "first") -> str:
        """Returns what the command printed, of both outputs; what has a suffix is a file in the folder."""
        connection = str(self.installation.directory / "connection.json")
        done = CliRunner().invoke(
            build_app(completion=False),
            [str(self.folder / word) if Path(word).suffix in _SUFFIXES else word for word in arguments],
            env={"TRIEN_CONNECTION": connection, "TRIEN_OPERATOR": by},
        )
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    def agree(self, *arguments: str) -> str:
        """Proposes as the first operator and approves as the second; returns what the first one saw."""
        asked = self.run(*arguments)
        name, digest = asked.partition(":")[0], asked.rpartition("sha256:")[2].partition("\n")[0]
        assert "EXECUTED" in self.run("proposals", "approve", name, "--digest", digest, by="second")
        return asked


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    tmp_path = tmp_path_factory.mktemp("access")
    with running_sandbox(tmp_path / "installation") as installation:
        (tmp_path / "desk").mkdir()
        yield Desk(installation, tmp_path / "desk")


@pytest.mark.promise("P9")
def test_an_operator_from_the_own_key_to_being_shut_out(desk: Desk) -> None:
    desk.run(
        "access",
        "operators",
        "request",
        "--common-name",
        "Trần Thị B",
        "--new-key-file",
        "b.key",
        "--request-file",
        "b.csr",
    )
    assert stat.S_IMODE((desk.folder / "b.key").stat().st_mode) == 0o600
    made = trien_server(
        "client-certificate",
        "--request",
        "b.csr",
        "--out",
        "b.pem",
        "--config",
        str(desk.installation.directory / "trien.toml"),
        cwd=desk.folder,
    )
    assert made.returncode == 0, made.stderr
    ca = str(desk.installation.directory / "tls" / "ca.pem")
    assert "b.pem: OK" in openssl(desk.folder, "verify", "-CAfile", ca, "-purpose", "sslclient", "b.pem")
    asked = desk.run(
        "access",
        "operators",
        "create",
        "tran-thi-b",
        "--name",
        "Trần Thị B",
        "--certificate",
        "b.pem",
        "--role",
        "auditor",
    )
    assert "Nothing is changed yet" in asked
    direct = (
        "--address",
        desk.installation.certificate_address,
        "--ca-file",
        ca,
        "--certificate-file",
        "b.pem",
        "--key-file",
        "b.key",
    )
    assert "not registered" in desk.run("access", "show", *direct, code=1)
    desk.agree(
        "access",
        "operators",
        "create",
        "tran-thi-b",
        "--name",
        "Trần Thị B",
        "--certificate",
        "b.pem",
        "--role",
        "auditor",
    )
    shown = desk.run("access", "show", *direct)
    assert "operators/tran-thi-b: ENABLED" in shown
    assert "roles: AUDITOR" in shown
    assert "AccessService.ListOperators" in shown
    assert "tran-thi-b  ENABLED  AUDITOR" in desk.run("access", "operators", "list")
    assert "its subject:" in desk.run("access", "operators", "show", "tran-thi-b")
    desk.run(
        "access",
        "operators",
        "create",
        "same-key",
        "--name",
        "X",
        "--certificate",
        "b.pem",
        "--role",
        "monitor",
        code=1,
    )
    last = desk.run("access", "operators", "disable", "tran-thi-b", code=1)
    assert "Nobody else is AUDITOR" in last
    assert "LAST_OF_ROLE" in last
    desk.agree("access", "operators", "update", "tran-thi-b", "--role", "auditor", "--name", "Trần Thị Bình")
    assert "Trần Thị Bình" in desk.run("access", "operators", "show", "tran-thi-b")
    desk.run("access", "operators", "update", "second", "--role", "registration-officer")
    alone = desk.run("proposals", "list")
    assert "AccessService.UpdateOperator" in alone


@pytest.mark.promise("P9", "P12")
def test_a_client_from_its_token_to_being_shut_out(desk: Desk) -> None:
    desk.run(
        "access",
        "clients",
        "create",
        "batch",
        "--title",
        "Lưu trữ",
        "--method",
        "No.Such",
        "--token-file",
        "batch.token",
        code=1,
    )
    assert not (desk.folder / "batch.token").exists()
    asked = desk.agree(
        "access",
        "clients",
        "create",
        "batch",
        "--title",
        "Lưu trữ",
        "--token-file",
        "batch.token",
        "--organization",
        "ubnd-xa-phu-lam",
        "--calls-per-minute",
        "600",
        "--concurrent-items",
        "50",
    )
    file = desk.folder / "batch.token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text().strip()
    assert token.startswith("trien_")
    assert token not in asked + desk.installation.log()
    assert calls(desk, token)
    assert "exists" in desk.run("access", "clients", "update", "batch", "--token-file", "batch.token", code=2)
    assert "600" in desk.run("access", "clients", "show", "batch")
    assert "NOT_STRICTER" in desk.run("access", "clients", "restrict", "batch", "--calls-per-minute", "601", code=1)
    assert "calls a minute:" in desk.run("access", "clients", "restrict", "batch", "--calls-per-minute", "60")
    renewal = desk.agree("access", "clients", "update", "batch", "--token-file", "new.token")
    assert "gets another token" in renewal
    renewed = (desk.folder / "new.token").read_text().strip()
    assert calls(desk, token)
    assert calls(desk, renewed)
    desk.run("access", "clients", "restrict", "batch", "--end-previous")
    assert not calls(desk, token)
    assert calls(desk, renewed)
    assert "clients/batch: ENABLED" in desk.run("access", "show", "clients/batch")
    assert "DISABLED" in desk.run("access", "clients", "disable", "batch")
    assert not calls(desk, renewed)
    assert "NOT ENABLED" in desk.run("access", "show", "clients/batch")
    desk.agree("access", "clients", "enable", "batch")
    assert calls(desk, renewed)
    assert "clients/batch  ENABLED" in desk.run("access", "clients", "list")


def test_what_is_in_force_for_the_sandboxs_own(desk: Desk) -> None:
    office = desk.run("access", "show", "clients/e-office")
    assert "can be used" in office
    signer = json.loads(desk.run("access", "show", "signers/hoang-trinh-don", "--output", "json"))
    assert signer["enabled"]
    assert all("why_not" not in found for found in signer["credentials"])


def calls(desk: Desk, token: str) -> bool:
    """Tells whether a token is let in."""
    with Connection(desk.installation, token=token) as connection:
        try:
            connection.call(connection.credentials.ListCredentials, credential_service_pb2.ListCredentialsRequest())
        except Refused as refused:
            return refused.reason != "UNAUTHENTICATED"
    return True
