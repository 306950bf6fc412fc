"""What `init` and `sandbox` find in a folder decides what they do: never a new CA over an old one, never a trap."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest


def trien_server(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trien_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def contents(folder: Path) -> dict[str, str]:
    """Returns a hash of every file that belongs to an installation, the database's own work files aside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "trien.db" not in path.name
    }


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init") / "trien"
    made = trien_server("init", "--dir", folder)
    assert made.returncode == 0, made.stderr
    return folder


def test_init_again_changes_nothing_also_when_the_keys_were_taken_offline(installation: Path) -> None:
    """The operator's page says to take `ca.key` offline and to remove the operators' files."""
    rounds = 0
    for gone in ("tls/ca.key", "operators/first.key", "operators/first.pem", "operators/second.key", "token-so-pin"):
        (installation / gone).unlink()
        before = contents(installation)
        again = trien_server("init", "--dir", installation)
        assert again.returncode == 1
        assert "installation" in again.stderr
        assert contents(installation) == before
        rounds += 1
    assert rounds == 5


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
@pytest.mark.parametrize("command", ["init", "sandbox"])
def test_a_folder_that_somebody_else_prepared_is_refused(tmp_path: Path, command: str) -> None:
    """Its `trien.toml` could name a module whose code would run at once."""
    folder = tmp_path / "trap"
    folder.mkdir()
    trap = folder / "trien.toml"
    trap.write_text('[token]\nmodule = "/nowhere/evil.so"\n')
    (folder / "THIS-IS-A-SANDBOX.txt").write_text("sandbox")
    refused = 0
    for path in (trap, folder):
        os.chown(path, 65534, 65534)
        answer = trien_server(command, "--dir", folder)
        assert answer.returncode == 1
        assert "not yours alone" in answer.stderr
        os.chown(path, 0, 0)
        refused += 1
    folder.chmod(0o777)
    assert "not yours alone" in trien_server(command, "--dir", folder).stderr
    assert refused == 2
    assert "Traceback" not in answer.stderr
