"""A sandbox's folder for tests: made once in a run by `trien-server sandbox`, copied for each server.

`Installation` runs `trien-server run` on such a copy, as a process of its own with real TLS and a real
SoftHSM token, and stops, kills and starts it again on the same ports.
"""

import atexit
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from trien_server.hsm.softhsm import write_softhsm_configuration

TRIEN_SERVER = str(Path(sys.executable).parent / "trien-server")
START_SECONDS = 60.0
STOP_SECONDS = 60.0


def environment(**added: str) -> dict[str, str]:
    """Returns the environment of a command: this process's, without what would configure the server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TRIEN_", "SOFTHSM2_", "GRPC_"))}
    return {**kept, **added}


def trien_server(
    *arguments: str, timeout: float = 60.0, cwd: Path | None = None, **added: str
) -> subprocess.CompletedProcess[str]:
    """Runs a host command to its end."""
    return subprocess.run(
        [TRIEN_SERVER, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(**added),
        check=False,
    )


@cache
def original_sandbox() -> Path:
    """Returns the folder that all others are copies of; once in a process, about ten seconds for the RSA keys."""
    directory = Path(tempfile.mkdtemp(prefix="trien-sandbox-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    folder, log = directory / "sandbox", directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [TRIEN_SERVER, "sandbox", "--dir", str(folder)], stdout=output, stderr=output, env=environment()
        )
        try:
            _wait_until(
                lambda: (folder / "connection.json").exists(), process, "the sandbox writes connection.json", log, 120.0
            )
        finally:
            process.terminate()
            code = process.wait(STOP_SECONDS)
    if code != 0:
        raise AssertionError(f"the sandbox ended with {code}: {log.read_text()}")
    return folder


def copy_sandbox(directory: Path) -> Path:
    """Copies the sandbox into the new folder `directory` and returns it."""
    shutil.copytree(original_sandbox(), directory)
    if (directory / "token" / "tokens").exists():
        write_softhsm_configuration(directory / "token")
    return directory


class Installation:
    """An installation's folder and the server process that runs on it."""

    def __init__(self, directory: Path, *settings: str, **environment: str) -> None:
        """`settings` are `SECTION.KEY=VALUE`, for every start; the server sees `environment` too."""
        self.directory = directory
        self.settings = settings
        self.environment = environment
        self.log_path = directory.parent / f"{directory.name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.token_port = 0
        self.certificate_port = 0
        self.web_port = 0
        self.starts = 0

    @property
    def address(self) -> str:
        """Where callers with bearer tokens connect."""
        return f"127.0.0.1:{self.token_port}"

    @property
    def certificate_address(self) -> str:
        """Where callers with certificates connect."""
        return f"127.0.0.1:{self.certificate_port}"

    @property
    def database(self) -> Path:
        return self.directory / "trien.db"

    @property
    def population(self) -> dict[str, Any]:
        """Who is in the sandbox."""
        content: dict[str, Any] = json.loads((self.directory / "population.json").read_text())
        return content

    def start(self) -> None:
        """Starts the server and waits until it says that it serves; later starts take the same ports."""
        begun = self.log_path.stat().st_size if self.log_path.exists() else 0
        command = [TRIEN_SERVER, "run", "--config", str(self.directory / "trien.toml")]
        settings = [
            f"server.token_address={self.address}",
            f"server.certificate_address={self.certificate_address}",
            "log.format=json",
            "server.drain_seconds=0",
            "enrolment.replacement_wait_hours=0",
            *self.settings,
        ]
        for setting in settings:
            command += ["--set", setting]
        with self.log_path.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment(**self.environment))
        serving: dict[str, Any] = {}

        def serves() -> bool:
            serving.update(next((line for line in self.lines(begun) if line.get("event") == "serving"), {}))
            return bool(serving)

        _wait_until(serves, self.process, "the server serves", self.log_path, START_SECONDS)
        self.token_port, self.certificate_port = serving["token_port"], serving["certificate_port"]
        self.web_port = serving.get("web_port", 0)
        self.starts += 1
        self._write_connection_file()

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit code; None is there to stop: 0."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Sends SIGKILL and waits for the process's end."""
        if self.process is not None:
            self.process.kill()
            self.wait()

    def wait(self) -> int:
        """Waits for the process's end and returns its exit code."""
        if self.process is None:
            raise AssertionError("no server was started")
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process = None

    def log(self) -> str:
        """Returns all that the server ever wrote."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def lines(self, offset: int = 0) -> list[dict[str, Any]]:
        """Returns the log's lines from a byte on, those that are JSON."""
        lines = self.log_path.read_bytes()[offset:].splitlines()
        return [json.loads(line) for line in lines if line.startswith(b"{") and line.endswith(b"}")]

    @contextmanager
    def read_database(self) -> Iterator[sqlite3.Connection]:
        """Opens the database for reading, also while the server runs."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as connection:
            yield connection

    def _write_connection_file(self) -> None:
        connection = {
            "sandbox": True,
            "address": self.address,
            "mutual_tls_address": self.certificate_address,
            "ca_file": str(self.directory / "tls" / "ca.pem"),
            "trust_anchors_file": str(self.directory / "signing-ca" / "ca.pem"),
            "operators": [
                {
                    "name": f"operators/{name}",
                    "certificate_file": str(self.directory / "operators" / f"{name}.pem"),
                    "key_file": str(self.directory / "operators" / f"{name}.key"),
                }
                for name in ("first", "second")
            ],
        }
        if (self.directory / "population.json").exists():
            path = self.directory / "connection.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps({**connection, **self.population}))


@contextmanager
def running_sandbox(directory: Path, *settings: str, **environment: str) -> Iterator[Installation]:
    """Copies the sandbox into the new folder `directory` and runs it; kills what still runs at the end."""
    installation = Installation(copy_sandbox(directory), *settings, **environment)
    try:
        installation.start()
        yield installation
    finally:
        installation.kill()


def _wait_until(
    done: Callable[[], bool], process: subprocess.Popen[bytes], what: str, log: Path, timeout: float
) -> None:
    end = time.monotonic() + timeout
    while not done():
        if process.poll() is not None or time.monotonic() > end:
            code = process.poll()
            process.kill()
            process.wait()
            raise AssertionError(f"{what}: not within {timeout} s, exit code {code}: {log.read_text()}")
        time.sleep(0.03)
