"""A store in memory, with faults on demand."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from trien_server.core.errors import RecordNotTrusted, StoreUnavailable
from trien_server.core.ports import NameTaken, Sealed, Snapshot, Transaction, VersionConflict
from trien_server.core.records import AuditEntry, GrantedRequest, Outcome, Record
from trien_server.store.mapping import INDEXES, LOG_POSITIONS, OUTCOME_MAPPING, UNSEALED_ENTRIES, mapping_of

R = TypeVar("R", bound=Record)
T = TypeVar("T")

Rows = Mapping[str, Any]


@dataclass(frozen=True)
class MemoryCounts:
    """How many commits there were, and how many requests they carried: here always one each."""

    commits: int
    works: int


class MemoryStore:
    """Implements `core.ports.Store` in dictionaries.

    A published table is never changed: a transaction copies what it touches and the commit puts the
    copies in its place, so that a snapshot stays what it was. Records go through the same strict
    mapping as in the databases.

    Faults: `fail_transact` for one transaction, `unavailable` for all calls while it is True.
    """

    def __init__(self, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.clock = clock
        self.unavailable = False
        self.reads = 0
        self.transacts = 0
        self._tables: Mapping[str, Rows] = {}
        self._mangled: dict[tuple[str, str], tuple[str, str]] = {}
        self._faults: dict[int, bool] = {}
        self._writer = threading.Lock()
        self._writer_thread: int | None = None
        self._commits = 0
        self._closed = False

    @property
    def counts(self) -> MemoryCounts:
        return MemoryCounts(self._commits, self._commits)

    def fail_transact(self, number: int = 1, *, persisted: bool) -> None:
        """Makes the `number`-th transaction from now raise `StoreUnavailable`.

        `persisted` says whether its writes are there nevertheless.
        """
        self._faults[self.transacts + number] = persisted

    def mangle(self, kind: type[Record], name: str, finding: str = "mangled", *, called: str | None = None) -> None:
        """Makes a row one that cannot be read as its record; `called` is what the refusal calls it."""
        self._mangled[kind.table, name] = (name if called is None else called, finding)

    def overwrite(self, row: Sealed[Record]) -> None:
        """Puts a row where it is or is not, as someone with the database's password could."""
        with self._writer:
            table = {**self._tables.get(row.record.table, {}), row.record.name: row}
            self._tables = {**self._tables, row.record.table: table}

    def list_again(self, entry: str) -> None:
        """Lists an audit entry as one without a position, as someone with the database's password could."""
        with self._writer:
            self._tables = {**self._tables, UNSEALED_ENTRIES: {**self._tables.get(UNSEALED_ENTRIES, {}), entry: True}}

    def delete(self, kind: type[Record], name: str) -> None:
        """Removes a row, as someone with the database's password could. Raises `KeyError` when there is none."""
        with self._writer:
            table = dict(self._tables.get(kind.table, {}))
            del table[name]
            self._tables = {**self._tables, kind.table: table}

    def reopened(self) -> "MemoryStore":
        """Returns a new store with what is committed, as after a restart."""
        store = MemoryStore(clock=self.clock)
        store._tables = self._tables
        store._mangled = dict(self._mangled)
        return store

    def rows(self, kind: type[R]) -> list[Sealed[R]]:
        """Returns all rows of a table, by name."""
        table = self._tables.get(kind.table, {})
        return [table[name] for name in sorted(table)]

    def outcomes(self) -> list[Outcome]:
        """Returns all outcomes, by request."""
        table = self._tables.get(OUTCOME_MAPPING.table, {})
        return [table[name] for name in sorted(table)]

    def read(self, work: Callable[[Snapshot], T]) -> T:
        self._check()
        self.reads += 1
        snapshot = _MemorySnapshot(self._tables, self._mangled)
        try:
            return work(snapshot)
        finally:
            snapshot.ended = True

    def transact(self, work: Callable[[Transaction], T], *, timeout: float) -> T:
        self._check()
        if self._writer_thread == threading.get_ident():
            raise RuntimeError("a work may not wait for another transaction")
        if timeout <= 0 or not self._writer.acquire(timeout=timeout):
            raise StoreUnavailable("The database did not begin in time; nothing was written.")
        try:
            self._writer_thread = threading.get_ident()
            return self._commit(work)
        finally:
            self._writer_thread = None
            self._writer.release()

    def _commit(self, work: Callable[[Transaction], T]) -> T:
        self.transacts += 1
        persisted = self._faults.pop(self.transacts, None)
        transaction = _MemoryTransaction(self._tables, self._mangled)
        try:
            result = work(transaction)
        except BaseException:
            if persisted is None:
                raise
            raise StoreUnavailable("The database did not commit.") from None
        finally:
            transaction.ended = True
        if persisted is not False:
            self._tables = transaction.tables
            self._commits += 1
        if persisted is not None:
            raise StoreUnavailable("The database did not commit.")
        return result

    def now(self) -> datetime:
        self._check()
        return self.clock()

    def close(self) -> None:
        with self._writer:
            self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise StoreUnavailable("The database is closed.")
        if self.unavailable:
            raise StoreUnavailable


class _MemorySnapshot:
    """A view of the published tables."""

    def __init__(self, tables: Mapping[str, Rows], mangled: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        self.tables = dict(tables)
        self.ended = False
        self._mangled = mangled

    def get(self, kind: type[R], name: str) -> Sealed[R] | None:
        row: Sealed[R] | None = self._rows(kind.table).get(name)
        if row is not None:
            self._require_readable(kind.table, name)
        return row

    def find(self, kind: type[R], /, *, limit: int, after: str = "", **equal: object) -> list[Sealed[R]]:
        if limit < 1:
            raise ValueError("limit: expected at least 1")
        mapping_of(kind).conditions(equal)
        rows: dict[str, Sealed[R]] = dict(self._rows(kind.table))
        found = [
            row
            for name, row in sorted(rows.items(), key=lambda item: item[0].encode())
            if name.encode() > after.encode()
            and all(getattr(row.record, field) == value for field, value in equal.items())
        ][:limit]
        for row in found:
            self._require_readable(kind.table, row.record.name)
        return found

    def count(self, kind: type[Record]) -> int:
        return len(self._rows(kind.table))

    def latest_change(self, subject: str) -> Sealed[AuditEntry] | None:
        rows: list[Sealed[AuditEntry]] = [
            row
            for row in self._rows(AuditEntry.table).values()
            if row.record.subject == subject and row.record.subject_version is not None
        ]
        if not rows:
            return None
        latest = max(rows, key=lambda row: (row.record.subject_version or 0, row.record.name.encode()))
        self._require_readable(AuditEntry.table, latest.record.name)
        return latest

    def latest_time(self) -> datetime | None:
        return max((row.record.time for row in self._rows(AuditEntry.table).values()), default=None)

    def outcome(self, request: str) -> Outcome | None:
        outcome: Outcome | None = self._rows(OUTCOME_MAPPING.table).get(request)
        return outcome

    def unsealed(self, *, limit: int, after: str = "") -> list[Sealed[AuditEntry]]:
        waiting = (name for name in self._rows(UNSEALED_ENTRIES) if name.encode() > after.encode())
        names = sorted(waiting, key=str.encode)[:limit]
        return [row for name in names if (row := self.get(AuditEntry, name)) is not None]

    def oldest_unsealed(self) -> datetime | None:
        rows = self._rows(AuditEntry.table)
        return min((rows[name].record.time for name in self._rows(UNSEALED_ENTRIES) if name in rows), default=None)

    def log(self, first: int, *, limit: int) -> list[tuple[int, Sealed[AuditEntry]]]:
        positions = self._rows(LOG_POSITIONS)
        found = ((at, self.get(AuditEntry, positions[at])) for at in sorted(positions) if first <= at < first + limit)
        return [(at, row) for at, row in found if row is not None]

    def position(self, entry: str) -> int | None:
        return next((at for at, name in self._rows(LOG_POSITIONS).items() if name == entry), None)

    def _rows(self, table: str) -> Rows:
        if self.ended:
            raise RuntimeError("the transaction is over")
        return self.tables.get(table, {})

    def _require_readable(self, table: str, name: str) -> None:
        if (table, name) in self._mangled:
            raise RecordNotTrusted(table, *self._mangled[table, name])


class _MemoryTransaction(_MemorySnapshot):
    """A view of the published tables, and copies of those that it wrote to."""

    def __init__(self, tables: Mapping[str, Rows], mangled: Mapping[tuple[str, str], tuple[str, str]]) -> None:
        super().__init__(tables, mangled)
        self._copied: dict[str, dict[str, Any]] = {}

    def insert(self, row: Sealed[R]) -> None:
        kind, name = type(row.record), row.record.name
        if row.record.version != 1:
            raise ValueError(f"{kind.table}: a new record has version 1, not {row.record.version}")
        row = _stored(row)
        if name in self._rows(kind.table):
            raise NameTaken(f"{kind.table}: {name}")
        self._require_unique(row)
        self._writable(kind.table)[name] = row
        if kind is AuditEntry:
            self._writable(UNSEALED_ENTRIES)[name] = True

    def replace(self, row: Sealed[R]) -> None:
        kind, name = type(row.record), row.record.name
        row = _stored(row)
        stored = self._rows(kind.table).get(name)
        if stored is None or stored.record.version != row.record.version - 1:
            raise VersionConflict(f"{kind.table}: {name} has no version {row.record.version - 1}")
        self._require_unique(row)
        self._writable(kind.table)[name] = row

    def record_outcome(self, outcome: Outcome) -> None:
        outcome = OUTCOME_MAPPING.record(OUTCOME_MAPPING.values(outcome))
        self._writable(OUTCOME_MAPPING.table).setdefault(outcome.request, outcome)

    def assign_positions(self, first: int, entries: Sequence[str]) -> None:
        for position, entry in enumerate(entries, first):
            if self._writable(UNSEALED_ENTRIES).pop(entry, None) is None:
                raise VersionConflict(f"{entry} has a position, or does not exist")
            self._take_position(position, entry)

    def remove(self, kind: type[Record], name: str, *, version: int) -> None:
        if kind is AuditEntry:
            raise ValueError("audit entries are not removed")
        stored = self._rows(kind.table).get(name)
        if stored is None or stored.record.version != version:
            raise VersionConflict(f"{kind.table}: {name} has no version {version}")
        del self._writable(kind.table)[name]
        if kind is GrantedRequest:
            self._writable(OUTCOME_MAPPING.table).pop(name, None)

    def put_back(self, row: Sealed[R], *, position: int | None = None) -> None:
        kind, name = type(row.record), row.record.name
        row = _stored(row)
        if name in self._rows(kind.table):
            raise NameTaken(f"{kind.table}: {name}")
        self._require_unique(row)
        self._writable(kind.table)[name] = row
        if kind is AuditEntry and position is None:
            self._writable(UNSEALED_ENTRIES)[name] = True
        elif kind is AuditEntry and position is not None:
            self._take_position(position, name)

    def _take_position(self, position: int, entry: str) -> None:
        positions = self._writable(LOG_POSITIONS)
        if position in positions or entry in positions.values():
            raise NameTaken(f"{entry}: position {position} is taken")
        positions[position] = entry

    def _writable(self, table: str) -> dict[str, Any]:
        if table not in self._copied:
            self.tables[table] = self._copied[table] = dict(self._rows(table))
        return self._copied[table]

    def _require_unique(self, row: Sealed[R]) -> None:
        for index in INDEXES:
            if not index.unique or index.table != row.record.table:
                continue
            values = [getattr(row.record, column) for column in index.columns]
            if None not in values and any(
                other.record.name != row.record.name
                and [getattr(other.record, column) for column in index.columns] == values
                for other in self._rows(index.table).values()
            ):
                raise NameTaken(f"{index.table}: {row.record.name}: another record has its {index.columns}")


def _stored(row: Sealed[R]) -> Sealed[R]:
    """Returns the row as it comes back from a table."""
    mapping = mapping_of(type(row.record))
    return mapping.sealed(mapping.row(row))
