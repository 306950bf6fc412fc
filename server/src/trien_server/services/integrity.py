"""Looks at everything that is at rest: what a request would refuse when it came upon it, and what none comes upon.

A request checks the rows that it rests on. A row that was deleted, or put back together with what names it, shows only
here: in the log, in other rows, and on the token.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.items import SignatureScheme
from trien_server.core.ports import Hsm, KeyMismatch, Sealed, Snapshot, Store
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    AuditEntry,
    AuditErasure,
    InstallationKey,
    InstallationKeyState,
    Key,
    KeyState,
    ProtectionLevel,
    Record,
    RequestPurge,
)
from trien_server.core.retention import REMOVED
from trien_server.core.signing_request import ALGORITHMS
from trien_server.core.verification import SignatureDoesNotVerify, verify_signature
from trien_server.services.access import reference_of
from trien_server.services.findings import Fault, Finding
from trien_server.services.log_integrity import CheckLog
from trien_server.services.sealing_generations import read_sealing_generations
from trien_server.services.seals import Seals
from trien_server.services.trusted import TrustedView

REQUEST_PURGE = "requestPurge"
PAGE = 200
"""How many rows are in memory at a time, and are read from one snapshot."""

_MOST_WAITING = 100_000
_NEVER = datetime.min.replace(tzinfo=UTC)


class Trusted:
    """A snapshot's rows for rules about rows that hang together: None for one that is missing or has no good seal.

    The row itself is told of where its own table is walked.
    """

    def __init__(self, snapshot: Snapshot, seals: Seals) -> None:
        self.snapshot = snapshot
        self._seals = seals
        self._purged_before: datetime | None = None
        self._erasable: frozenset[str] | None = None
        self._waiting: frozenset[str] | None = None

    def get(self, kind: type[Any], name: str) -> Any | None:
        try:
            row = self.snapshot.get(kind, name)
            return None if row is None else self._seals.verify(row)
        except RecordNotTrusted:
            return None

    def may_be_removed(self, kind: type[Record], since: datetime) -> bool:
        """Tells whether a record of a kind that something from a time names may have been removed (`retention`)."""
        if kind not in REMOVED:
            return False
        if self._purged_before is None:
            purge = self.get(RequestPurge, REQUEST_PURGE)
            self._purged_before = _NEVER if purge is None else purge.purged_before
        return since < self._purged_before

    def has_place(self, entry: str) -> bool:
        """Tells whether an audit entry has a position in the log, or waits for one."""
        if self.snapshot.position(entry) is not None:
            return True
        if self._waiting is None:
            try:
                rows = self.snapshot.unsealed(limit=_MOST_WAITING)
            except RecordNotTrusted:
                return True  # one of them cannot be read: told of where its table is walked
            self._waiting = frozenset(row.record.name for row in rows)
        return entry in self._waiting or len(self._waiting) == _MOST_WAITING

    def is_agreed_erasure(self, entry: str) -> bool:
        """Tells whether two operators agreed that an audit entry loses its details."""
        if self._erasable is None:
            self._erasable = frozenset(self._agreed_erasures())
        return entry in self._erasable

    def _agreed_erasures(self) -> Iterator[str]:
        after = ""
        while True:
            try:
                rows = self.snapshot.find(AuditErasure, limit=1, after=after)
            except RecordNotTrusted as fault:
                if fault.name <= after:
                    return
                after = fault.name
                continue
            if not rows:
                return
            after = rows[0].record.name
            with suppress(RecordNotTrusted):
                yield from self._seals.verify(rows[0]).audit_entries

    def is_there(self, kind: type[Record], name: str) -> bool:
        try:
            return self.snapshot.get(kind, name) is not None
        except RecordNotTrusted:
            return True


Rule = Callable[[Trusted, Any], Iterator[Finding]]
"""Says what is wrong with a row whose seal is good, or with what it names; reads the same snapshot."""

_ALL: tuple[type[Record], ...] = (*SLOW_RECORDS, *HOT_RECORDS)
_WITHOUT_WORK: frozenset[KeyState | InstallationKeyState] = frozenset(
    {
        KeyState.ENABLED,
        KeyState.DISABLED,
        KeyState.DESTROY_SCHEDULED,
        # Of the log's keys: what retired stays, to name its successor after a restore.
        InstallationKeyState.ACTIVE,
        InstallationKeyState.RETIRED,
    }
)
_ON_THE_TOKEN = _WITHOUT_WORK | {
    KeyState.PENDING_GENERATION,
    KeyState.DESTROYING,
    InstallationKeyState.PENDING_GENERATION,
}
"""The states in which the object is there for sure; in the others a worker may just be making or removing it."""


class CheckIntegrity:
    """Checks every row and the token's keys, in pages, also while servers run. Changes nothing."""

    def __init__(
        self,
        *,
        store: Store,
        seals: Seals,
        hsm: Hsm,
        rules: Mapping[type[Record], tuple[Rule, ...]],
        log: CheckLog,
    ) -> None:
        self._store = store
        self._log = log
        self._seals = seals
        self._hsm = hsm
        self._rules = rules
        self.counts: Counter[str] = Counter()
        """How many rows of each table, and objects of the token, were looked at."""

    def total(self) -> int:
        """Returns how many rows will be looked at, roughly: the audit entries twice. Raises `StoreUnavailable`."""
        counts = self._store.read(lambda snapshot: [snapshot.count(kind) for kind in _ALL])
        return sum(counts) + counts[_ALL.index(AuditEntry)]

    def __call__(
        self, *, unwrap: bool = False, looked: Callable[[str, int], None] = lambda _, __: None
    ) -> Iterator[Finding]:
        """Yields what is wrong. `looked` hears of which table how many rows were looked at.

        With `unwrap` the token opens every wrapped key, and signs with it.

        Raises `StoreUnavailable` or `HsmUnavailable`: then not everything was looked at.
        """
        with suppress(RecordNotTrusted):  # the rows that say it are found below
            self._seals.learn(
                self._store.read(
                    lambda snapshot: read_sealing_generations(
                        TrustedView(snapshot, self._seals, by_any=True), self._seals
                    )
                )
            )
        on_token = self._hsm.key_pairs()
        recorded: dict[bytes, Key | InstallationKey] = {}
        for kind in _ALL:
            for row in self._walk(kind, looked):
                if isinstance(row, Finding):
                    yield row
                elif isinstance(row, Key | InstallationKey) and (object_id := _id_on_token(row)) is not None:
                    recorded[object_id] = row
                elif unwrap and isinstance(row, Key) and row.state in _WITHOUT_WORK:
                    yield from self._unwrap(row)
        yield from self._log(looked)
        self.counts += self._log.counts
        self.counts["key pairs on the token"] += len(on_token)
        found = list(_compare(on_token, recorded))
        if found:
            # What was made or destroyed while the rows were read is no finding: it is another one the second time.
            again = set(_compare(self._hsm.key_pairs(), recorded))
            yield from (finding for finding in found if finding in again)

    def _unwrap(self, key: Key) -> Iterator[Finding]:
        """Has the token open a wrapped key and sign, and verifies with the record's public key."""
        scheme = SignatureScheme.parse(ALGORITHMS[key.key_type], None, key_type=key.key_type)
        message = bytes(scheme.algorithm.hash_function.size if scheme.algorithm.hash_function else 32)
        self.counts["wrapped keys opened"] += 1
        try:
            (signature,) = self._hsm.sign(
                reference_of(key), scheme.algorithm, [message], pss_salt_length=scheme.pss_salt_length
            )
            verify_signature(key.public_key, scheme, message=message, signature=signature)
        except KeyMismatch as fault:
            text = f"the token does not open it: {fault}"
        except SignatureDoesNotVerify:
            text = "what the token opens is not the private half of its public key"
        else:
            return
        yield Finding(fault=Fault.KEY_MISSING, table=key.table, name=key.name, text=text)

    def _walk(self, kind: type[Record], looked: Callable[[str, int], None]) -> Iterator[Finding | Record]:
        """Yields the findings of a table and its trusted rows."""
        after = ""
        while True:
            before = self.counts[kind.table]
            found, last = self._store.read(lambda snapshot, after=after: self._page(snapshot, kind, after))  # type: ignore[misc]
            yield from found
            looked(kind.table, self.counts[kind.table] - before)
            if last is None:
                return
            after = last

    def _page(self, snapshot: Snapshot, kind: type[Record], after: str) -> tuple[list[Finding | Record], str | None]:
        """Returns what a page has, and behind which name the next one begins; None when this is the last."""
        try:
            rows = snapshot.find(kind, limit=PAGE, after=after)
        except RecordNotTrusted:
            return self._one_by_one(snapshot, kind, after)
        found: list[Finding | Record] = []
        trusted = Trusted(snapshot, self._seals)
        for row in rows:
            found += self._check(trusted, row)
        return found, rows[-1].record.name if len(rows) == PAGE else None

    def _one_by_one(
        self, snapshot: Snapshot, kind: type[Record], after: str
    ) -> tuple[list[Finding | Record], str | None]:
        """Reads a page that has a row which is no such record at all, up to that row."""
        found: list[Finding | Record] = []
        trusted = Trusted(snapshot, self._seals)
        while True:
            try:
                rows = snapshot.find(kind, limit=1, after=after)
            except RecordNotTrusted as fault:
                self.counts[kind.table] += 1
                found.append(Finding(fault=Fault.ROW, table=kind.table, name=fault.name, text=fault.finding))
                if fault.name > after:
                    return found, fault.name
                text = "the rows behind it were not looked at, for it has no name"
                found.append(Finding(fault=Fault.ROW, table=kind.table, name=fault.name, text=text))
                return found, None
            if not rows:
                return found, None
            found += self._check(trusted, rows[0])
            after = rows[0].record.name

    def _check(self, trusted: Trusted, row: Sealed[Record]) -> Iterator[Finding | Record]:
        record = row.record
        self.counts[record.table] += 1
        try:
            self._seals.verify(row)
            if not record.hot:
                self._check_in_force(trusted.snapshot, record)
        except RecordNotTrusted as fault:
            yield Finding(fault=Fault.ROW, table=record.table, name=record.name, text=fault.finding)
            return
        yield record
        for rule in self._rules.get(type(record), ()):
            yield from rule(trusted, record)

    def _check_in_force(self, snapshot: Snapshot, record: Record) -> None:
        change = snapshot.latest_change(record.name)
        if change is None:
            raise RecordNotTrusted(record.table, record.name, "no audit entry names it")
        entry: AuditEntry = self._seals.verify(change)
        if entry.subject_version != record.version:
            finding = f"it is version {record.version}, but the log names {entry.subject_version} last"
            raise RecordNotTrusted(record.table, record.name, finding)


def _id_on_token(row: Key | InstallationKey) -> bytes | None:
    """Returns the id of the key pair that a record says is on the token; None when it says so of none."""
    match row:
        case Key(protection_level=ProtectionLevel.TOKEN) | InstallationKey():
            return row.object_id
    return None


def _compare(
    on_token: Mapping[bytes, bytes | None], recorded: Mapping[bytes, Key | InstallationKey]
) -> Iterator[Finding]:
    """Yields what keeps the token's key pairs and the records of keys from being the same."""
    for object_id, key in recorded.items():
        there = object_id in on_token
        if key.state in _WITHOUT_WORK and not there:
            text = f"its key pair is not on the token (id {object_id.hex()})"
            yield Finding(fault=Fault.KEY_MISSING, table=key.table, name=key.name, text=text)
        elif key.state in _WITHOUT_WORK and on_token[object_id] != key.public_key:
            text = f"the token has another public key for it, or several (id {object_id.hex()})"
            yield Finding(fault=Fault.KEY_MISSING, table=key.table, name=key.name, text=text)
        elif there and key.state not in _ON_THE_TOKEN:
            text = f"{key.name} is {key.state}, but its key pair is still there"
            yield Finding(fault=Fault.KEY_UNKNOWN, table="token", name=object_id.hex(), text=text)
    for object_id in sorted(on_token.keys() - recorded.keys()):
        text = "a key pair that no record names"
        yield Finding(fault=Fault.KEY_UNKNOWN, table="token", name=object_id.hex(), text=text)
