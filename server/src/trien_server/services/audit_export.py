"""Hands the audit log over to other systems, in order, from where it stopped: each entry at least once."""

import json
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from trien_server.core.errors import Busy, RecordNotTrusted, Refusal
from trien_server.core.ports import AuditSink, Clock, NameTaken, Report, VersionConflict
from trien_server.core.records import AuditEntry, AuditExport
from trien_server.services.audit_entries import log_size
from trien_server.services.leases import Leases
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

BATCH = 250
_LOOK_SECONDS = 1.0
_PASS_SECONDS = 10.0
"""How long one hold of the lease goes on: far less than the lease's lifetime."""
_LONGEST_PAUSE = 30.0
_TELL_AGAIN_SECONDS = 600.0
_REWIND_SECONDS = 30.0
"""What was handed over so long before a connection broke is handed over again: syslog has no answers."""
_STORE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class NamedSink:
    """A sink, and the name under which it is remembered how far it got."""

    name: str
    sink: AuditSink

    @property
    def record(self) -> str:
        return f"auditExports/{self.name}"

    @property
    def lease(self) -> str:
        return f"leases/audit-export-{self.name}"


class AuditExporter:
    """Feeds one sink in a thread of its own; over all nodes one process at a time does it, under a lease.

    No request waits for it. Entries go out in the log's order. Where it is, is written down after they were taken: a
    crash between the two hands them over again, and none is left out. An entry that cannot be trusted is stood for by
    one of kind `entry_not_trusted`.
    """

    def __init__(
        self, named: NamedSink, *, transactions: Transactions, leases: Leases, clock: Clock, report: Report
    ) -> None:
        self._named = named
        self._transactions = transactions
        self._leases = leases
        self._clock = clock
        self._report = report
        self._stopped = threading.Event()
        self._recent: deque[tuple[float, int]] = deque()
        self._told_at: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"audit-export-{named.name}", daemon=True)

    def start(self) -> None:
        """Begins to hand over."""
        self._thread.start()

    def stop(self) -> None:
        """Ends behind the write that is under way, which has its own time limit."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._named.sink.close()

    def hand_over(self) -> int:
        """Hands over what is new, for some seconds at most, and returns how many entries these were.

        Raises `OSError` when the sink did not take them, `Busy` when another process is at it, other refusals when
        the store or the token cannot be used.
        """
        if not self._transactions.read(self._is_behind):
            return 0
        handed = 0
        with self._leases.hold(self._named.lease, wait=0.0, stopped=self._stopped):
            end = self._clock.monotonic() + _PASS_SECONDS
            while not self._stopped.is_set() and self._clock.monotonic() < end:
                export, entries = self._transactions.read(self._next)
                if not entries:
                    break
                self._write(export, entries)
                handed += len(entries)
        return handed

    def _is_behind(self, view: TrustedView) -> bool:
        export = view.get(AuditExport, self._named.record)
        return (0 if export is None else export.position) < log_size(view)

    def _next(self, view: TrustedView) -> tuple[AuditExport | None, list[tuple[int, AuditEntry]]]:
        """Returns what is remembered, and the entries behind it."""
        export = view.get(AuditExport, self._named.record)
        first = 0 if export is None else export.position
        found = view.log(first, min(log_size(view), first + BATCH))
        at = self._clock.now()
        return export, [
            (
                position,
                entry
                if isinstance(entry, AuditEntry)
                else AuditEntry(
                    name=entry.name,
                    time=at,
                    kind="entry_not_trusted",
                    subject=None,
                    subject_version=None,
                    leaf=b"",
                    head_salt=b"",
                    salt=b"",
                    details=json.dumps({"finding": entry.finding}, ensure_ascii=False),
                ),
            )
            for position, entry in found
        ]

    def _write(self, export: AuditExport | None, entries: Sequence[tuple[int, AuditEntry]]) -> None:
        now = self._clock.monotonic()
        try:
            self._named.sink.write(entries)
        except OSError:
            self._rewind(export, now)
            raise
        self._recent.append((now, entries[0][0]))
        while len(self._recent) > 1 and self._recent[1][0] < now - _REWIND_SECONDS:
            self._recent.popleft()
        self._remember(export, entries[-1][0] + 1)

    def _rewind(self, export: AuditExport | None, now: float) -> None:
        """Goes back to what was handed over lately, once for each connection that broke."""
        lately = [position for at, position in self._recent if at >= now - _REWIND_SECONDS]
        self._recent.clear()
        if export is not None and lately and min(lately) < export.position:
            self._remember(export, min(lately))

    def _remember(self, export: AuditExport | None, position: int) -> None:
        """Writes down where to go on, unless another process did it meanwhile: then its word counts."""

        def work(ledger: Ledger) -> None:
            if export is None:
                record = AuditExport(name=self._named.record, position=position, time=ledger.at)
            else:
                record = next_version(export, position=position, time=ledger.at)
            try:
                ledger.put_or_keep(record)
            except (NameTaken, VersionConflict):
                return

        self._transactions.run(work, timeout=_STORE_SECONDS)

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            try:
                handed = self.hand_over()
            except Busy:
                pause = _LOOK_SECONDS  # another process is at it
            except Exception as fault:  # noqa: BLE001 - nothing else hands the log over
                self._tell(fault)
                pause = min(_LONGEST_PAUSE, 2 * pause or _LOOK_SECONDS)
            else:
                self._tell(None)
                pause = 0.0 if handed >= BATCH else _LOOK_SECONDS

    def _tell(self, fault: Exception | None) -> None:
        """Reports that a sink does not take the log, when that begins and then now and again; and its end."""
        now = self._clock.monotonic()
        if fault is None:
            if self._told_at is not None:
                self._report("audit_export_goes_on", {"sink": self._named.name})
            self._told_at = None
        elif self._told_at is None or now - self._told_at >= _TELL_AGAIN_SECONDS:
            self._told_at = now
            self._report("audit_export_delayed", {"sink": self._named.name, "because": _because(fault)})


def _because(fault: Exception) -> str:
    """Returns why, for operators: nothing of what was handed over."""
    match fault:
        case RecordNotTrusted():
            return f"{fault.reason}: {fault.finding}"
        case Refusal():
            return fault.reason
        case OSError():
            return f"{type(fault).__name__}: {fault.strerror or fault}"
    return type(fault).__name__
