"""A receipt of a real server, on a real token, verified with OpenSSL and a shell as docs/auditor.md says."""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.pages import commands_of, run_all
from tests.support.sandbox import Installation, environment

pytestmark = pytest.mark.promise("P10")
PAGE = Path(__file__).parents[2] / "docs/auditor.md"
TRIEN = str(Path(sys.executable).parent / "trien")


def test_a_servers_receipt_verifies_by_hand(installation: Installation, tmp_path: Path) -> None:
    def trien(*arguments: str) -> str:
        done = subprocess.run(
            [TRIEN, *arguments],
            cwd=tmp_path,
            env=environment(TRIEN_CONNECTION=str(installation.directory / "connection.json")),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "decision.txt").write_text("A decision of its own.\n")
    trien("audit", "keys", "--out", "log-keys", "--as", "operators/first")
    (tmp_path / "code").write_text(trien("otp", "--signer", "signers/nguyen-thi-hoa"))
    credential = ("--credential", "ubnd-seal", "--signer", "signers/nguyen-thi-hoa", "--otp-file", "code")
    receipt = ("--receipt", "decision.receipt", "--log-key", "log-keys")
    trien("sign", "file", "decision.txt", *credential, *receipt)
    said = trien("verify", "receipt", "decision.receipt", "--log-key", "log-keys", "--document", "decision.txt")
    assert said.startswith("Good.\n")

    commands = commands_of(PAGE)
    begin = next(at for at, command in enumerate(commands) if command.text.startswith("hex()"))
    end = next(at for at, command in enumerate(commands) if command.text.startswith("sed -n 3p body"))
    printed = run_all(commands[begin : end + 1], folder=tmp_path, environment={})
    assert "Signature Verified Successfully\n" in printed
    assert printed[-1] == printed[-2]
    assert len(printed[-1].strip()) == 64
