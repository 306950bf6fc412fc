"""Child processes that measure: one line of JSON in, one line of JSON out.

Secrets (a token's PIN, a one-time password's secret) go through the pipe, never through arguments or the environment,
which others can read in the process list. A child ends when its input does, so also when its parent was killed.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_KEPT_APART = ("TRIEN_", "SOFTHSM2_", "GRPC_")
_SET_UP_SECONDS = 60.0
_STOP_SECONDS = 30.0

Message = Mapping[str, Any]
Handler = Callable[[Message], Message]


class ChildFailed(Exception):  # noqa: N818
    """A process that the measurement needs ended, or did not answer in time; the text says which and why."""


def clean_environment(**added: str) -> dict[str, str]:
    """Returns this process's environment without what would configure a server, a token or gRPC, and with `added`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_KEPT_APART)}
    return {**kept, "GRPC_VERBOSITY": "NONE", **added}


def last_lines(log: Path, count: int = 5) -> str:
    """Returns the last lines of a log, for a message."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines) or "    (it said nothing)"


class Child:
    """A running child, whose standard error goes to `log`. It is set up by `setup`, its first message."""

    def __init__(self, module: str, setup: Message, *, log: Path, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._log = log
        with log.open("wb") as errors:
            # A session of its own, so that Ctrl-C reaches only the parent, which then ends the children in order.
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=clean_environment(**(environment or {})),
                start_new_session=True,
            )
        self.send(setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            # It may be in the middle of a step, whose answer nobody waits for any more.
            self._process.kill()
        self.close()

    def send(self, message: Message) -> None:
        """Gives the child something to do. Raises `ChildFailed` when it ended."""
        if self._process.stdin is None:
            raise AssertionError("the child has a standard input")
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("ended") from None

    def receive(self, timeout: float) -> Message:
        """Returns the next answer. Raises `ChildFailed` when the child ended or took longer than `timeout` seconds."""
        if self._process.stdout is None:
            raise AssertionError("the child has a standard output")
        # A read from a pipe has no time limit; the end of the child ends it.
        watchdog = threading.Timer(timeout, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise self._failure(f"ended, or did not answer within {timeout:g} s")
        answer: Message = json.loads(line)
        return answer

    def close(self) -> None:
        """Ends the child: first by ending its input, then by force."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _failure(self, what: str) -> ChildFailed:
        return ChildFailed(f"The process {self._module} {what}:\n{last_lines(self._log)}")


class Crew:
    """Children that do the same at the same time."""

    def __init__(self, children: Iterable[Child]) -> None:
        """Waits until all are set up. Raises `ChildFailed`, and then none is left."""
        with ExitStack() as started:
            self._children = [started.enter_context(child) for child in children]
            for child in self._children:
                child.receive(_SET_UP_SECONDS)
            self._stack = started.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def ask(self, message: Message, *, timeout: float) -> list[Message]:
        """Gives all children the same to do and returns their answers. Raises `ChildFailed`."""
        for child in self._children:
            child.send(message)
        return [child.receive(timeout) for child in self._children]


def serve(set_up: Callable[[Message], Handler]) -> None:
    """The child's side: sets up by the first line, then answers each line, until the input ends."""
    first = sys.stdin.readline()
    if not first:
        return
    handle = set_up(json.loads(first))
    _answer({"ready": True})
    for line in sys.stdin:
        _answer(handle(json.loads(line)))


def _answer(message: Message) -> None:
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The parent is gone or has stopped: nobody is left to tell, and the interpreter must not try again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
