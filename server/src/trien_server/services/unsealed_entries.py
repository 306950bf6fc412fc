"""The audit entries that wait for their positions in the log (P10)."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import Report, Sealed, Snapshot
from trien_server.core.records import AuditEntry
from trien_server.services.seals import Seals

_PAGE = 500
_MOST_PAGES = 40
_REMEMBERED = 65_536


class EntriesInTheWay(Exception):  # noqa: N818 - an answer, not a defect
    """There are rows behind which nobody looked: what waits there is not known."""


@dataclass
class UnsealedEntries:
    """Walks the entries that have no position yet, and sorts out what is not to be taken in.

    An entry whose row cannot be read or whose seal does not verify is reported once, stays where it is, and is in
    nobody's way: a thousand of them that sort before all others are passed over.
    """

    seals: Seals
    report: Report
    refused: set[tuple[str, bytes]] = field(default_factory=set)

    def walk(self, snapshot: Snapshot) -> Iterator[AuditEntry]:
        """Yields the entries whose seals verify, by name. May call the token.

        Raises `EntriesInTheWay` after the last one that it comes upon, when it does not come to the end.
        """
        after = ""
        for _ in range(_MOST_PAGES):
            rows, last = self._page(snapshot, after)
            for row in rows:
                entry = self._verified(row)
                if entry is not None:
                    yield entry
            if last is None:
                return
            if last <= after:
                break
            after = last
        self.report("log_entries_in_the_way", {"behind": after})
        raise EntriesInTheWay

    def _page(self, snapshot: Snapshot, after: str) -> tuple[list[Sealed[AuditEntry]], str | None]:
        """Returns rows from behind a name, and behind which name the next ones are; None when these are the last.

        It is `after` itself when the next row cannot be passed, for its name cannot be told.
        """
        try:
            rows = snapshot.unsealed(limit=_PAGE, after=after)
        except RecordNotTrusted:
            return self._one_by_one(snapshot, after)
        return rows, rows[-1].record.name if len(rows) == _PAGE else None

    def _one_by_one(self, snapshot: Snapshot, after: str) -> tuple[list[Sealed[AuditEntry]], str | None]:
        """Reads up to a row that is no entry at all, and past it."""
        rows: list[Sealed[AuditEntry]] = []
        begin = after
        while True:
            try:
                found = snapshot.unsealed(limit=1, after=after)
            except RecordNotTrusted as fault:
                self._refuse((fault.name, b""), fault)
                # One whose name cannot be told ends the walk: what is behind it waits, and the guard says so.
                return rows, fault.name if fault.name > after else begin
            if not found:
                return rows, None
            rows += found
            after = found[0].record.name

    def _verified(self, row: Sealed[AuditEntry]) -> AuditEntry | None:
        if (row.record.name, row.seal) in self.refused:
            return None
        try:
            return self.seals.verify(row)
        except RecordNotTrusted as fault:
            self._refuse((row.record.name, row.seal), fault)
            return None

    def refuse(self, row: tuple[str, bytes]) -> None:
        """Leaves an entry out from now on."""
        if len(self.refused) >= _REMEMBERED:
            self.refused.clear()
        self.refused.add(row)

    def _refuse(self, row: tuple[str, bytes], fault: RecordNotTrusted) -> None:
        if row not in self.refused:
            self.refuse(row)
            self.report("log_entry_refused", {"name": fault.name, "finding": fault.finding})
