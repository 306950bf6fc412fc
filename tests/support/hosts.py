"""Backups and restores by their commands, on a host of their own."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyrage
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401
from tests.support.sandbox import TRIEN_SERVER, Installation, environment

from trien_server.hsm.softhsm import write_softhsm_configuration

TRIEN = str(Path(TRIEN_SERVER).parent / "trien")


@dataclass
class Host:
    """A machine with a recipient's identity, and the commands that run there."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        identity = pyrage.x25519.Identity.generate()
        self.recipient = str(identity.to_public())
        self.identity = self.folder / "identity.txt"
        self.identity.write_text(f"{identity}\n")
        self.identity.chmod(0o600)

    def run(self, *arguments: object, program: str = TRIEN_SERVER) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=180,
            env=environment(),
            check=False,
            cwd=self.folder,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def backup(self, installation: Installation, name: str) -> Path:
        path = self.folder / name
        settings = [option for setting in installation.settings for option in ("--set", setting)]
        config = installation.directory / "trien.toml"
        done = self.run("backup", "--config", config, "--out", path, "--recipient", self.recipient, *settings)
        assert done.returncode == 0, done.stderr
        return path

    def restore(self, backup: Path, installation: Installation, *options: object) -> subprocess.CompletedProcess[str]:
        settings = [option for setting in installation.settings for option in ("--set", setting)]
        config = installation.directory / "trien.toml"
        return self.run(
            "restore", "--backup", backup, "--identity", self.identity, "--config", config,
            "--out-dir", self.folder, *settings, *options,
        )  # fmt: skip

    def approvals(self, installation: Installation) -> list[object]:
        """Has both officers approve the one statement that lies there; returns the options that say so."""
        (statement,) = self.folder.glob("*.statement.json")
        digest = subprocess.run(["sha256sum", statement], capture_output=True, text=True, check=True).stdout[:64]
        options: list[object] = []
        for name in ("first", "second"):
            out = self.folder / f"{statement.stem}.{name}.json"
            out.unlink(missing_ok=True)
            operators = installation.directory / "operators"
            done = self.run(
                "proposals", "approve-statement", statement, "--out", out, "--digest", digest,
                "--certificate-file", operators / f"{name}.pem", "--key-file", operators / f"{name}.key",
                program=TRIEN,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            options += ["--approval", out]
        statement.unlink()
        return options

    def fsck(self, installation: Installation) -> str:
        settings = [option for setting in installation.settings for option in ("--set", setting)]
        return self.run("fsck", "--config", installation.directory / "trien.toml", *settings).stdout

    def agreed_restore(self, backup: Path, installation: Installation) -> str:
        """Restores, with the officers' approvals if they are asked for; returns the report."""
        done = self.tried_restore(backup, installation)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def tried_restore(self, backup: Path, installation: Installation) -> subprocess.CompletedProcess[str]:
        done = self.restore(backup, installation)
        if "Two security officers have to agree" not in done.stdout:
            return done
        assert (done.returncode, "Nothing was changed" in done.stdout) == (1, True), done.stderr
        return self.restore(backup, installation, *self.approvals(installation))


def empty_copy(of: Installation, folder: Path, *settings: str) -> Installation:
    """Returns an installation's folder on another machine: its files and a copy of its token, without a database."""
    shutil.copytree(of.directory, folder)
    for path in folder.glob("trien.db*"):
        path.unlink()
    write_softhsm_configuration(folder / "token")
    return Installation(folder, *settings)


@contextmanager
def running(installation: Installation) -> Iterator[Installation]:
    installation.start()
    try:
        yield installation
    finally:
        installation.kill()
