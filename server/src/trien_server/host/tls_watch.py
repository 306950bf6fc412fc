"""Takes renewed TLS files into use while the server runs."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from trien_server.core.ports import Clock, Report
from trien_server.core.tls import TlsIdentity, TlsNotUsable, check_tls, tls_dates
from trien_server.host.files import read_secret

LOOK_SECONDS = 2.0
_DATES_SECONDS = 60.0
_WARNINGS = (30, 7, 1)
"""How many days before its end a certificate is warned about."""


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where certificate chain, key and the CAs of client certificates are."""

    certificate: Path
    key: Path
    client_ca: Path

    def read(self) -> TlsIdentity:
        """Reads and checks them. Raises `OSError`, `TlsNotUsable`."""
        identity = TlsIdentity(
            certificate_chain=self.certificate.read_bytes(),
            private_key=read_secret(self.key).reveal() + b"\n",
            client_ca=self.client_ca.read_bytes(),
        )
        check_tls(identity)
        return identity


@dataclass
class _Told:
    """What the log has been told, so that it is not told every few seconds."""

    suspected: str = ""
    problem: str = ""
    dates: set[tuple[str, datetime, int]] = field(default_factory=set)


class TlsWatch:
    """Looks at the files every few seconds, in a thread of its own, and hands on what is new and good.

    What is new and not good is reported as `tls_reload_failed`, and the old stays in use. Whoever renews writes two
    files, one after the other: what does not fit together is reported only when it is seen twice.
    """

    def __init__(
        self,
        *,
        files: TlsFiles,
        present: TlsIdentity,
        apply: Callable[[TlsIdentity], None],
        clock: Clock,
        report: Report,
        seconds: float = LOOK_SECONDS,
    ) -> None:
        self._files = files
        self._present = present
        self._apply = apply
        self._clock = clock
        self._report = report
        self._seconds = seconds
        self._told = _Told()
        self._dates_at = 0.0
        self._asked = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="tls-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped = True
        self._asked.set()
        if self._thread.ident is not None:
            self._thread.join()

    def reload(self) -> None:
        """Looks at once, and reports at once what is wrong. Returns before it is done."""
        self._asked.set()

    def _run(self) -> None:
        while not self._stopped:
            self.look(at_once=self._asked.is_set())
            self._asked.clear()
            if self._stopped:
                return
            self._asked.wait(self._seconds)

    def look(self, *, at_once: bool = False) -> None:
        """Reads the files and takes into use what is new and good."""
        try:
            found = self._files.read()
        except (OSError, TlsNotUsable) as fault:
            self._failed(str(fault), at_once=at_once)
        else:
            self._told.suspected = self._told.problem = ""
            if found != self._present:
                self._apply(found)
                self._present = found
                self._dates_at = 0.0
                ends = min(dates.expire_time for dates in tls_dates(found))
                self._report("tls_reloaded", {"first_expires": ends.isoformat()})
        self._look_at_dates()

    def _failed(self, problem: str, *, at_once: bool) -> None:
        if problem == self._told.problem and not at_once:
            return
        if at_once or problem == self._told.suspected:
            self._told.problem = problem
            self._report("tls_reload_failed", {"because": problem})
        self._told.suspected = problem

    def _look_at_dates(self) -> None:
        """Warns of what is in use and expires soon, once at each of a few times; and when it has expired."""
        if self._clock.monotonic() < self._dates_at:
            return
        self._dates_at = self._clock.monotonic() + _DATES_SECONDS
        now = self._clock.now()
        for dates in tls_dates(self._present):
            left = dates.expire_time - now
            reached = [days for days in _WARNINGS if left <= timedelta(days=days)]
            stage = 0 if left <= timedelta(0) else min(reached, default=-1)
            if stage < 0 or (dates.what, dates.expire_time, stage) in self._told.dates:
                continue
            self._told.dates.add((dates.what, dates.expire_time, stage))
            event = "tls_certificate_expired" if stage == 0 else "tls_certificate_expires"
            self._report(event, {"certificate": dates.what, "time": dates.expire_time.isoformat()})
