"""Keeps one connection to the token, notices when it is lost, and makes a new one.

The states: READY; RECOVERING (nothing is asked of the token but by the one thread that recovers);
SEALED (the PIN was refused: only a restart, an operator's act, tries it again); CLOSED.
"""

import random
import threading
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic
from typing import Final

from trien_server.core.errors import HsmUnavailable
from trien_server.hsm.connection import Connection, Report
from trien_server.hsm.failures import PinRejected, describe
from trien_server.hsm.module import Module
from trien_server.hsm.sessions import Slot

LONGEST_PROBE_INTERVAL: Final = 1.2
"""The probe's interval and a half, and `STALE_AFTER`, make less than five seconds to not-ready."""

STALE_AFTER: Final = 3.0
"""When calls are under way and none ended well for so many seconds, the token counts as hung."""

STALE_AFTER_WRITING: Final = 60.0
"""The same while a key pair is made or destroyed, for some tokens do one thing at a time (seconds)."""

HANGS_AFTER: Final = 4.0
"""When one session is in use for so long it hangs, though others go on: nothing that is asked of it lasts so long."""

HANGS_AFTER_WRITING: Final = 300.0
"""The same for the session that makes and destroys key pairs (seconds)."""

DRAIN: Final = 5.0
"""How long calls under way may take to end before they count as hung (seconds)."""

SHORTEST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0


class State(Enum):
    READY = auto()
    RECOVERING = auto()
    SEALED = auto()
    CLOSED = auto()


class Recovery:
    """Owns the module, the present connection and the thread that probes and recovers."""

    def __init__(
        self, *, module: Module, connect: Callable[[], Connection], report: Report, probe_interval: float
    ) -> None:
        """Connects. Raises what `connect` raises; the module is then ended again."""
        self._module = module
        self._connect = connect
        self._report = report
        self._interval = probe_interval
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hung = False
        self._hanging: set[Slot] = set()
        self._last_good = self._last_answer = monotonic()
        self._state = State.READY
        try:
            self._connection = connect()
        except BaseException:
            module.shut_down()
            raise
        self._probe: Callable[[], None] | None = None
        self._thread: threading.Thread | None = None

    def start(self, probe: Callable[[], None]) -> None:
        """Starts the thread. `probe` uses the token and so calls `good` or `failed`."""
        self._probe = probe
        self.good()
        self._thread = threading.Thread(target=self._run, name="trien-hsm", daemon=True)
        self._thread.start()

    def ready(self) -> bool:
        """Tells whether the token may be used. Reports calls that hang."""
        if self._state is State.READY and self._stale():
            self._report_hung()
            return False
        self._report_hanging()
        return self._state is State.READY

    def connection(self, *, probing: bool = False) -> Connection:
        """Returns the present connection.

        Raises `HsmUnavailable` at once when the token is known to be lost or hung. The probe passes a
        hung token, for it is what finds out that the token is back.
        """
        if self._state is not State.READY:
            raise HsmUnavailable
        if not probing and self._stale():
            self._report_hung()
            raise HsmUnavailable
        return self._connection

    def good(self) -> None:
        """Notes that the token answered well."""
        self._last_good = monotonic()
        self.answered()

    def answered(self) -> None:
        """Notes that the module does not hang.

        A module may sign with an unwrapped key from its own memory when the token is gone: that is no
        reason to leave the probe out.
        """
        self._last_answer = monotonic()
        self._hung = False

    def failed(self, connection: Connection, error: BaseException) -> None:
        """Stops all use of the token at once, and wakes the thread that recovers it.

        Says so once for each connection; later errors of the same one are its echo.
        """
        if self._leave_ready(connection, State.RECOVERING):
            self._report("hsm.unavailable", {"error": describe(error)})
            self._wake.set()

    def pin_refused(self, connection: Connection, error: BaseException) -> None:
        """Stops all use of the token for good: the token says that its PIN expired or is locked."""
        if self._leave_ready(connection, State.SEALED):
            self._report("hsm.pin_rejected", {"error": describe(error)})
            self._wake.set()

    def _leave_ready(self, connection: Connection, state: State) -> bool:
        with self._lock:
            if connection is not self._connection or self._state is not State.READY:
                return False
            self._state = state
        connection.refuse()
        return True

    def close(self) -> None:
        """Refuses new calls, waits a bounded time for those under way, and ends the module.

        When calls hang the module is left as it is: ending it would crash the process.
        """
        with self._lock:
            already, self._state = self._state is State.CLOSED, State.CLOSED
        if already:
            return
        self._wake.set()
        thread, self._thread, self._probe = self._thread, None, None
        if thread is not None:
            thread.join(2 * DRAIN)
        self._connection.refuse()
        if self._connection.drain(DRAIN) and not (thread is not None and thread.is_alive()):
            self._module.shut_down()
        else:
            self._report_hung()

    def _stale(self) -> bool:
        """Tells whether calls are under way that do not end. A token that nobody asks is not stale."""
        begun = [since for pool in self._connection.pools if (since := pool.busy_since) is not None]
        limit = STALE_AFTER if self._connection.writer.busy_since is None else STALE_AFTER_WRITING
        return bool(begun) and monotonic() - max(self._last_answer, min(begun)) > limit

    def _report_hung(self) -> None:
        with self._lock:
            already, self._hung = self._hung, True
        if not already:
            self._report("hsm.hung", {"action": "calls into the module do not return: replace this process"})

    def _report_hanging(self) -> None:
        """Says of each session that hangs alone, once, that it does. The token is used on with those that are left."""
        now = monotonic()
        # Some tokens do one thing at a time: while a key pair is made the others wait for it.
        hangs_after = HANGS_AFTER if self._connection.writer.busy_since is None else STALE_AFTER_WRITING
        with self._lock:
            for pool in self._connection.pools:
                limit = HANGS_AFTER_WRITING if pool is self._connection.writer else hangs_after
                for slot in pool.slots:
                    since = slot.busy_since
                    if since is None or now - since < limit:
                        self._hanging.discard(slot)
                    elif slot not in self._hanging:
                        self._hanging.add(slot)
                        self._report(
                            "hsm.hung", {"action": "a call into the module does not return: replace this process"}
                        )

    def _run(self) -> None:
        """Probes while all is well, recovers while it is not. Ends when sealed or closed."""
        pause = SHORTEST_PAUSE
        while True:
            if self._state is State.READY:
                pause = SHORTEST_PAUSE
                self._wake.wait(self._interval)
                self._wake.clear()
                self._probe_when_idle()
            elif self._state is State.RECOVERING:
                if not self._recover():
                    self._wake.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - only spreads the attempts
                    pause = min(2 * pause, LONGEST_PAUSE)
            else:
                return

    def _probe_when_idle(self) -> None:
        """Probes, unless the token answered within the interval anyway."""
        probe = self._probe
        if probe is None or self._state is not State.READY or monotonic() - self._last_good < self._interval / 2:
            return
        try:
            probe()
        except Exception:  # noqa: BLE001 - `failed` knows already, or the token goes stale
            if self._stale():
                self._report_hung()

    def _recover(self) -> bool:
        """Drains, ends and starts the module, logs in, and probes; tells whether the token is back.

        A connection that fails leaves the module ended, so that the next attempt starts from nothing.
        """
        self._connection.refuse()
        if not self._connection.drain(DRAIN):
            self._report_hung()
            return False
        self._module.shut_down()
        try:
            self._module.initialize()
            connection = self._connect()
            with connection.readers.lease(DRAIN) as slot:
                slot.session().probe()
        except PinRejected as error:
            self._module.shut_down()
            self._leave_recovering(State.SEALED)
            self._report("hsm.pin_rejected", {"error": str(error)})
            return False
        except Exception:  # noqa: BLE001 - whatever it was, the thread lives and tries again
            self._module.shut_down()
            return False
        self._connection = connection
        self.good()
        if self._leave_recovering(State.READY):
            self._report("hsm.recovered", {})
        return True

    def _leave_recovering(self, state: State) -> bool:
        """Changes the state, unless the adapter was closed meanwhile."""
        with self._lock:
            if self._state is not State.RECOVERING:
                return False
            self._state = state
            return True
