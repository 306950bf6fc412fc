"""Several server processes on the same ports, and a supervisor that replaces those that die or hang.

Workers are spawned, never forked: the token's module and gRPC are loaded only in the process that uses
them. Each worker tells over a pipe, once a second, how it is; a C call that hangs in the token cannot be
interrupted, so its process is ended.
"""

import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum

from trien_server.core.ports import Report
from trien_server.host.stop import StopSignal

SILENCE_SECONDS = 5.0
"""A worker that says nothing for so long hangs."""
START_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""A worker that served for so long shows that starting works."""
DYING_SECONDS = 2.0
"""How long a worker that is replaced may take to end before it is killed."""
PIN_REFUSED = 3
_BACKOFF = (0.5, 1.0, 2.0, 5.0)


class Heartbeat(Enum):
    """What a worker says of itself, one byte each."""

    ALIVE = b"a"
    """It serves, or waits for its token or database."""
    HUNG = b"h"
    """A call of its token's module does not come back."""


@dataclass(eq=False)
class _Worker:
    number: int
    process: subprocess.Popen[bytes]
    pipe: int
    begun: float
    heard: float
    served: bool = False
    leaving_since: float | None = None


class Supervisor:
    """Keeps `workers` processes running until it is stopped."""

    def __init__(
        self,
        *,
        command: Callable[[int], Sequence[str]],
        configuration: bytes,
        workers: int,
        report: Report,
        started: Callable[[int], None],
    ) -> None:
        """`command` returns a worker's command line for the descriptor of its pipe; it reads `configuration`.

        `started` hears the id of each process that was started.
        """
        self._command = command
        self._configuration = configuration
        self._count = workers
        self._report = report
        self._started = started
        self._workers: list[_Worker] = []
        self._failures = 0
        self._last_end = 0.0
        """When a worker last ended or was dismissed, on the monotonic clock."""
        self._next_start = 0.0
        self._numbers = 0

    def run(
        self,
        stop: StopSignal,
        *,
        grace: float,
        ready: Callable[[], None] = lambda: None,
        reload: Callable[[], bool] = lambda: False,
    ) -> int:
        """Runs until `stop` is set, then ends the workers gracefully; returns the exit code.

        `reload` tells whether SIGHUP is to be handed on to the workers.

        0 after a stop; 3 when a worker says that the token refused the PIN: nothing logs in again, for tokens
        lock; 1 when no worker ever served.
        """
        told = False
        try:
            while not stop.is_set():
                self._start_missing()
                self._listen(0.1)
                if reload():
                    self._hand_on_hangup()
                code = self._bury()
                if code is not None:
                    return code
                self._replace_hung()
                if not told and sum(worker.served for worker in self._workers) == self._count:
                    told = True
                    ready()
            return 0
        finally:
            self._end_all(grace)

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [worker.process.pid for worker in self._workers]

    def _start_missing(self) -> None:
        staying = [worker for worker in self._workers if worker.leaving_since is None]
        missing = self._count - len(staying)
        # One at a time until one serves, at a start and whenever workers ended: a wrong PIN is tried once, not once by
        # each, for tokens lock.
        if not any(worker.served and worker.begun > self._last_end for worker in staying):
            missing = min(missing, 0 if any(not worker.served for worker in staying) else 1)
        while missing > 0 and time.monotonic() >= self._next_start:
            receiving, sending = os.pipe()
            os.set_blocking(receiving, False)
            try:
                process = subprocess.Popen(  # noqa: S603 - the command is this program's own
                    list(self._command(sending)), pass_fds=[sending], stdin=subprocess.PIPE, start_new_session=True
                )
            except OSError as fault:
                os.close(receiving)
                self._report("worker_not_started", {"because": str(fault)})
                self._failed()
                return
            finally:
                os.close(sending)
            if process.stdin is not None:
                with suppress(BrokenPipeError), process.stdin as stdin:
                    stdin.write(self._configuration)
            now = time.monotonic()
            self._numbers += 1
            self._workers.append(_Worker(self._numbers, process, receiving, begun=now, heard=now))
            self._started(process.pid)
            missing -= 1

    def _listen(self, seconds: float) -> None:
        by_pipe = {worker.pipe: worker for worker in self._workers}
        readable, _, _ = select.select(list(by_pipe), [], [], seconds)
        for pipe in readable:
            worker = by_pipe[pipe]
            with suppress(BlockingIOError):
                said = os.read(pipe, 4096)
                if not said:
                    time.sleep(0.02)  # its process is ending; `_bury` sees to it
                    continue
                worker.heard = time.monotonic()
                if Heartbeat.HUNG.value in said:
                    self._dismiss(worker, "worker_hung")
                else:
                    worker.served = True
                    if time.monotonic() - worker.begun > STEADY_SECONDS:
                        self._failures = 0

    def _replace_hung(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            allowed = SILENCE_SECONDS if worker.served else START_SECONDS
            if worker.leaving_since is None and now - worker.heard > allowed:
                self._dismiss(worker, "worker_silent")
            if worker.leaving_since is not None and now - worker.leaving_since > DYING_SECONDS:
                self._signal(worker, signal.SIGKILL)

    def _hand_on_hangup(self) -> None:
        for worker in self._workers:
            if worker.served:  # one that begins reads everything anyway, and may not know the signal yet
                self._signal(worker, signal.SIGHUP)

    def _dismiss(self, worker: _Worker, event: str) -> None:
        if worker.leaving_since is None:
            worker.leaving_since = time.monotonic()
            self._last_end = time.monotonic()
            self._report(event, {"pid": str(worker.process.pid)})
            self._signal(worker, signal.SIGTERM)
            # A stopped process (SIGSTOP) does not even see SIGTERM: after DYING_SECONDS it is killed.

    def _bury(self) -> int | None:
        """Takes the dead away; returns an exit code when going on makes no sense."""
        for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
            self._workers.remove(worker)
            self._last_end = time.monotonic()
            os.close(worker.pipe)
            code = worker.process.returncode
            self._report("worker_ended", {"pid": str(worker.process.pid), "code": str(code)})
            if code == PIN_REFUSED:
                return PIN_REFUSED
            if not worker.served:
                if self._failures >= 2 * self._count and not any(other.served for other in self._workers):
                    return 1
                self._failed()
        return None

    def _failed(self) -> None:
        """Puts the next start off, longer each time until a worker served for a while."""
        self._next_start = time.monotonic() + _BACKOFF[min(self._failures, len(_BACKOFF) - 1)]
        self._failures += 1

    def _end_all(self, grace: float) -> None:
        for worker in self._workers:
            self._signal(worker, signal.SIGTERM)
        end = time.monotonic() + grace
        for worker in self._workers:
            try:
                worker.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._report("worker_killed", {"pid": str(worker.process.pid)})
                self._signal(worker, signal.SIGKILL)
                worker.process.wait()
            os.close(worker.pipe)
        self._workers.clear()

    @staticmethod
    def _signal(worker: _Worker, number: int) -> None:
        with suppress(ProcessLookupError):
            worker.process.send_signal(number)


def reserve(address: str) -> tuple[socket.socket, str]:
    """Binds an address for workers that share it; returns the socket, to be kept open, and the address with its port.

    Raises `OSError` when somebody has the port: with SO_REUSEPORT alone a second server would share it silently.
    """
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bare = host.strip("[]")
    try:
        with socket.socket(family) as probe:
            probe.bind((bare, int(port)))
            chosen = probe.getsockname()[1]
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((bare, chosen))
    except (OSError, ValueError) as fault:
        raise OSError(f"cannot listen on {address}: is the port taken?") from fault
    return held, f"{host}:{chosen}"


class HeartbeatPipe:
    """A worker's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        os.set_blocking(descriptor, False)

    def tell(self, heartbeat: Heartbeat) -> None:
        """Says how the worker is. Does nothing when nobody listens fast enough.

        Ends the process when the supervisor is gone: a worker that nobody supervises must not stay.
        """
        try:
            os.write(self._descriptor, heartbeat.value)
        except BlockingIOError:
            pass
        except BrokenPipeError:
            os.kill(os.getpid(), signal.SIGTERM)
