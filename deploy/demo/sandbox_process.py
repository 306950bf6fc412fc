"""Runs `trien-server sandbox` as a process of its own, as any user would."""

import fcntl
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

BIN = Path(sys.executable).parent
# Making a token with three RSA-3072 keys takes seconds on a fast machine, more on a small one.
START_SECONDS = 120
STOP_SECONDS = 20
MARKER_NAME = "THIS-IS-A-SANDBOX.txt"
CONNECTION_NAME = "connection.json"


class SandboxFailed(Exception):  # noqa: N818
    """The sandbox did not start or stop as it should; the text says what a person can do."""


class SandboxProcess:
    """A sandbox server in `directory`, on free ports; its output goes to a log beside the folder."""

    def __init__(self, directory: Path) -> None:
        self.log = directory.with_name(f"{directory.name}.log")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # On the way out of a failure the sandbox's own is not the news.
        try:
            self.stop()
        except SandboxFailed:
            if error is None:
                raise

    def start(self, *arguments: str) -> Path:
        """Starts it and waits until it serves; returns its connection file.

        Raises `SandboxFailed`; when one runs in the folder already, nothing of it is touched.
        """
        _require_none_runs(self._directory)
        connection = self._directory / CONNECTION_NAME
        connection.unlink(missing_ok=True)
        command: list[str | Path] = [BIN / "trien-server", "sandbox", "--dir", self._directory, *arguments]
        with self.log.open("wb") as log:
            # A session of its own, so that Ctrl-C reaches only this program, which then stops it in order.
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not connection.exists():
            if self._process.poll() is not None:
                raise SandboxFailed(f"The sandbox ended before it served anything:\n{self._last_lines()}")
            if time.monotonic() > deadline:
                raise SandboxFailed(f"The sandbox did not start within {START_SECONDS} s:\n{self._last_lines()}")
            time.sleep(0.05)
        return connection

    def wait(self) -> int:
        """Waits until it ends by itself; returns its exit code."""
        return 0 if self._process is None else self._process.wait()

    def stop(self) -> None:
        """Asks it to finish and waits; kills it when it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise SandboxFailed(f"The sandbox did not stop within {STOP_SECONDS} s and was killed.") from None
        if code != 0:
            raise SandboxFailed(f"The sandbox ended with exit code {code}:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"


def remove_sandbox(directory: Path) -> None:
    """Removes an earlier sandbox. Raises `SandboxFailed` when it runs, or when the folder holds something else."""
    if not directory.exists():
        return
    _require_none_runs(directory)
    if not (directory / MARKER_NAME).exists() and any(directory.iterdir()):
        raise SandboxFailed(f"{directory} is no sandbox, so it was not removed: move it away and try again.")
    shutil.rmtree(directory)


def _require_none_runs(directory: Path) -> None:
    """Raises `SandboxFailed` when a sandbox runs in the folder: it holds a lock on its marker."""
    try:
        marker = (directory / MARKER_NAME).open("rb")
    except FileNotFoundError:
        return
    with marker:
        try:
            fcntl.flock(marker, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SandboxFailed(
                f"A sandbox already runs in {directory}; its connection file is {directory / CONNECTION_NAME}."
            ) from None
