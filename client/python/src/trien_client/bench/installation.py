"""A server of the run's own: made by `trien-server init`, served by `trien-server run`, thrown away afterwards.

Everything is as an operator would have it: processes of its own, TLS, SQLite that flushes every commit (WAL, FULL), a
SoftHSM token. The SDK knows nothing of the server but these commands and what they write.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trien_client.bench.machine import cpu_seconds
from trien_client.bench.process import clean_environment, last_lines

_INIT_SECONDS = 120.0
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


class ServerNotStarted(Exception):  # noqa: N818
    """The server could not be made, started or stopped; the text says what a person can do."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A SoftHSM token: what a PKCS#11 caller needs to open it. `configuration` is for SOFTHSM2_CONF."""

    module: str
    label: str
    configuration: Path
    pin: str = field(repr=False)


class Installation:
    """An installation in a new folder, and the server that runs on it."""

    def __init__(self, folder: Path, *, workers: int) -> None:
        """Makes it. Raises `ServerNotStarted`."""
        self.folder = folder / "server"
        self._log = folder / "server.log"
        self._workers = workers
        self._process: subprocess.Popen[bytes] | None = None
        self._token_port = self._certificate_port = 0
        self._command = _server_command()
        with self._log.open("wb") as log:
            made = subprocess.run(  # noqa: S603 - a command of this installation
                [self._command, "init", "--dir", self.folder],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                timeout=_INIT_SECONDS,
                check=False,
            )
        if made.returncode != 0:
            raise ServerNotStarted(f"`trien-server init` ended with {made.returncode}:\n{last_lines(self._log)}")

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # On the way out of a failure the server's own is not the news.
        try:
            self._stop()
        except ServerNotStarted:
            if error is None:
                raise

    @property
    def ca_file(self) -> Path:
        """The CA of the server's certificate."""
        return self.folder / "tls" / "ca.pem"

    @property
    def address(self) -> str:
        """Where clients with tokens connect."""
        return f"127.0.0.1:{self._token_port}"

    @property
    def operators_address(self) -> str:
        """Where operators connect, by their certificates."""
        return f"127.0.0.1:{self._certificate_port}"

    def operator(self, name: str) -> tuple[Path, Path]:
        """Returns an operator's certificate and key."""
        return self.folder / "operators" / f"{name}.pem", self.folder / "operators" / f"{name}.key"

    @property
    def store(self) -> str:
        """The kind of database."""
        url: str = self._configuration()["store"]["url"]
        return url.partition(":")[0]

    def cpu_seconds(self) -> float | None:
        """Returns what the server's processes took of the processors since they started; None where Linux is not."""
        return None if self._process is None else cpu_seconds(self._process.pid)

    def copy_token(self, folder: Path) -> Token:
        """Copies the token as it is now, with all its keys, so that it can be driven without the server."""
        configured = self._configuration()["token"]
        shutil.copytree(self.folder / "token", folder)
        configuration = folder / "softhsm2.conf"
        lines = configuration.read_text(encoding="utf-8").splitlines()
        moved = [
            f"directories.tokendir = {(folder / 'tokens').absolute()}"
            if line.startswith("directories.tokendir")
            else line
            for line in lines
        ]
        configuration.write_text("\n".join(moved) + "\n", encoding="utf-8")
        return Token(
            module=configured["module"],
            label=configured["label"],
            configuration=configuration,
            pin=(self.folder / configured["pin_file"]).read_text(encoding="utf-8").strip(),
        )

    def _configuration(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "trien.toml").read_text(encoding="utf-8"))

    def _start(self) -> None:
        settings = (
            "server.token_address=127.0.0.1:0",
            "server.certificate_address=127.0.0.1:0",
            "server.drain_seconds=0",
            f"server.workers={self._workers}",
            "log.format=json",
        )
        command: list[str | Path] = [self._command, "run", "--config", self.folder / "trien.toml"]
        for setting in settings:
            command += ["--set", setting]
        begun = self._log.stat().st_size
        with self._log.open("ab") as log:
            # A session of its own, so that Ctrl-C reaches only this program, which then stops it in order.
            self._process = subprocess.Popen(  # noqa: S603 - a command of this installation
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=clean_environment(),
                start_new_session=True,
            )
        try:
            ports = self._await_serving(begun)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        self._token_port, self._certificate_port = ports

    def _await_serving(self, begun: int) -> tuple[int, int]:
        """Waits for the line of the log that says so; returns the ports."""
        end = time.monotonic() + _START_SECONDS
        while True:
            for line in self._log.read_bytes()[begun:].splitlines(keepends=True):
                if line.startswith(b"{") and line.endswith(b"}\n"):
                    said = json.loads(line)
                    if said.get("event") == "serving":
                        return said["token_port"], said["certificate_port"]
            if self._process is None or self._process.poll() is not None:
                raise ServerNotStarted(f"The server ended before it served:\n{last_lines(self._log)}")
            if time.monotonic() > end:
                raise ServerNotStarted(f"The server did not serve in {_START_SECONDS:g} s:\n{last_lines(self._log)}")
            time.sleep(0.05)

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            code = process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerNotStarted(f"The server did not stop in {_STOP_SECONDS:g} s and was killed.") from None
        if code != 0:
            raise ServerNotStarted(f"The server ended with exit code {code}:\n{last_lines(self._log)}")


def _server_command() -> str:
    """Returns the path of `trien-server`: the one beside this Python, or on the PATH."""
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("trien-server", path=places)
    if found is None:
        raise ServerNotStarted(
            "The command trien-server is not here: install trien-server beside trien-client, for the bench starts one."
        )
    return found
