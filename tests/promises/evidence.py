"""What the database holds, read through the product's own store, so alike for every adapter."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, cast

from trien_server.core.ports import Sealed, Snapshot, Store
from trien_server.core.records import HOT_RECORDS, SLOW_RECORDS, AuditEntry, GrantedRequest, Outcome, Record

R = TypeVar("R", bound=Record)
KINDS: tuple[type[Record], ...] = (*SLOW_RECORDS, *HOT_RECORDS)
_PAGE = 500
_ALL = 10_000_000


@dataclass(frozen=True)
class Evidence:
    """Every row with its seal, of one snapshot, and the outcomes of granted requests."""

    rows: tuple[Sealed[Record], ...]
    outcomes: Mapping[str, Outcome]
    log: tuple[tuple[int, str], ...] | None = None
    """Which entry has which position in the log, in order; None when that was not read."""
    unsealed: tuple[str, ...] = ()
    """The entries that wait for theirs."""

    def of(self, kind: type[R]) -> dict[str, R]:
        """Returns a table's records by name."""
        return cast(dict[str, R], self._tables.get(kind, {}))

    def details(self, entry: AuditEntry) -> dict[str, Any]:
        """Returns what an entry says."""
        found: dict[str, Any] = json.loads(entry.details)
        return found

    @cached_property
    def _tables(self) -> dict[type[Record], dict[str, Record]]:
        tables: dict[type[Record], dict[str, Record]] = {}
        for row in self.rows:
            tables.setdefault(type(row.record), {})[row.record.name] = row.record
        return tables


def read_evidence(store: Store) -> Evidence:
    """Reads everything in one snapshot. Raises `RecordNotTrusted` for a row that is no record at all."""

    def read(snapshot: Snapshot) -> Evidence:
        rows = tuple(row for kind in KINDS for row in _all(snapshot, kind))
        granted = [row.record.name for row in rows if isinstance(row.record, GrantedRequest)]
        found = [(name, snapshot.outcome(name)) for name in granted]
        outcomes = {name: outcome for name, outcome in found if outcome is not None}
        unsealed = tuple(row.record.name for row in snapshot.unsealed(limit=_ALL))
        log = tuple((at, row.record.name) for at, row in snapshot.log(0, limit=_ALL))
        return Evidence(rows, outcomes, log, unsealed)

    return store.read(read)


def _all(snapshot: Snapshot, kind: type[Record]) -> Iterable[Sealed[Record]]:
    after = ""
    while page := snapshot.find(kind, limit=_PAGE, after=after):
        yield from page
        after = page[-1].record.name
