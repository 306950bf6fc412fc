"""Runs decisions in transactions that also write the audit log (P1)."""

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from trien_server.core import sealing
from trien_server.core.audit import make_entry
from trien_server.core.errors import Busy, ClockNotTrusted, Refusal
from trien_server.core.installation_keys import installation_key_name
from trien_server.core.ports import Clock, R, Randomness, Report, Sealed, Snapshot, Store, Transaction
from trien_server.core.receipts import ItemsCommitment, commit_items
from trien_server.core.records import (
    AuditEntry,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    Outcome,
    Record,
)
from trien_server.core.sealing import CLOCK_TOLERANCE
from trien_server.services.clock_guard import ClockGuard
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.log_guard import LogGuard
from trien_server.services.sealing_generations import read_sealing_generations
from trien_server.services.seals import DayKeyMissing, Seals
from trien_server.services.trusted import Stale, TrustedView, assert_unchanged

T = TypeVar("T")

_MOST_TRIES = 5
_FOLLOW_SECONDS = 5.0
"""How long a process goes on with what it knows of the sealing key; twice so long at most, while it is being read.

Far less than `sealing.HANDOVER`.
"""


class Ledger:
    """One transaction, with seals and audit entries. Calls neither the token nor a network.

    `at` is the transaction's time.
    """

    def __init__(self, transaction: Transaction, *, seals: Seals, randomness: Randomness, at: datetime) -> None:
        self._transaction = transaction
        self._seals = seals
        self._randomness = randomness
        self.at = at

    def get(self, kind: type[R], name: str) -> R | None:
        """Returns a hot record, verified. Raises `RecordNotTrusted`."""
        row = self._transaction.get(kind, name)
        if row is None:
            return None
        if row.record.name != name:
            raise self._seals.distrust(kind.table, name, "another row's name came back")
        return self._seals.verify_hot(row)

    def require(self, kind: type[R], name: str) -> R:
        """Returns a hot record that has to be there. Raises `RecordNotTrusted`."""
        record = self.get(kind, name)
        if record is None:
            raise self._seals.distrust(kind.table, name, "a row that another one names is missing")
        return record

    def insert(self, record: Record) -> None:
        """Adds a hot record. Raises `NameTaken`."""
        self._transaction.insert(self._seals.seal_hot(record, at=self.at))

    def replace(self, record: Record) -> None:
        """Puts a hot record in the place of its version - 1. Raises `VersionConflict`."""
        self._transaction.replace(self._seals.seal_hot(record, at=self.at))

    def put(self, row: Sealed[R], *, kind: str, details: Mapping[str, object]) -> AuditEntry:
        """Puts a slow record, sealed before, in force: the row and the audit entry that names its version.

        Raises `NameTaken` or `VersionConflict`.
        """
        self._require_in_use(row.seal_key)
        if row.record.version == 1:
            self._transaction.insert(row)
        else:
            self._transaction.replace(row)
        return self.record(kind, details, subject=row.record)

    def _require_in_use(self, seal_key: str) -> None:
        """Raises `Stale` when the sealing key was retired since: a process that was paused puts no such row in."""
        generation = sealing.generation_of(seal_key, hot=False) or 0
        key = self._transaction.get(InstallationKey, installation_key_name(InstallationKeyPurpose.SEALING, generation))
        if key is not None and key.record.state is InstallationKeyState.RETIRED:
            raise Stale

    def remove(self, record: Record) -> None:
        """Removes a hot record as it was read. Raises `VersionConflict` when it is another now, or gone."""
        self._transaction.remove(type(record), record.name, version=record.version)

    def put_or_keep(self, record: Record) -> None:
        """Writes a hot record of any version: the first as an insertion."""
        if record.version == 1:
            self.insert(record)
        else:
            self.replace(record)

    def record(
        self,
        kind: str,
        details: Mapping[str, object],
        *,
        subject: Record | None = None,
        items: ItemsCommitment | None = None,
    ) -> AuditEntry:
        """Writes an audit entry and returns it. `items` commits to the digests that it lets sign, in order."""
        if items is None:
            items = commit_items(self._randomness.bytes(32), ())
        entry = make_entry(
            name=f"auditEntries/{new_id(self._randomness)}",
            time=self.at,
            kind=kind,
            details=details,
            head_salt=self._randomness.bytes(16),
            salt=items.salt,
            items_root=items.root,
            subject=None if subject is None else subject.name,
            subject_version=None if subject is None else subject.version,
        )
        self.insert(entry)
        return entry

    def refuse(self, refusal: Refusal, details: Mapping[str, object]) -> Refusal:
        """Writes an audit entry about a refusal and returns the refusal, to be returned by the work."""
        self.record("refused", {**details, "reason": refusal.reason})
        refusal.recorded = True
        return refusal

    def record_outcome(self, outcome: Outcome) -> None:
        """Keeps a granted request's signatures."""
        self._transaction.record_outcome(outcome)

    def assign_positions(self, first: int, entries: Sequence[str]) -> None:
        """Gives audit entries their positions in the log. Raises `VersionConflict` or `NameTaken`."""
        self._transaction.assign_positions(first, entries)

    def assert_unchanged(self, view: TrustedView) -> None:
        """Raises `Stale` when a slow row that a view handed out is another now."""
        assert_unchanged(self._transaction, view)


class Transactions:
    """Reads trusted views and runs decisions. May be used from any thread."""

    def __init__(
        self,
        *,
        store: Store,
        seals: Seals,
        clock: Clock,
        clock_guard: ClockGuard,
        randomness: Randomness,
        report: Report,
        log_guard: LogGuard | None = None,
    ) -> None:
        """What keeps the log itself in order has no `log_guard`: it goes on while the log is not."""
        self._store = store
        self._clock_guard = clock_guard
        self._log_guard = log_guard
        self._seals = seals
        self._clock = clock
        self._randomness = randomness
        self._report = report
        self._following = threading.Lock()
        self._followed: float | None = None

    def follow(self) -> None:
        """Learns from the records which generation of the sealing key seals, as other processes may have changed it.

        Raises `RecordNotTrusted`, `HsmUnavailable`, `StoreUnavailable`.
        """
        begun = self._clock.monotonic()
        found = self._store.read(
            lambda snapshot: read_sealing_generations(TrustedView(snapshot, self._seals, by_any=True), self._seals)
        )
        self._seals.learn(found)
        self._followed = begun

    def keep_up(self) -> None:
        """The same, unless it was done in the last seconds.

        One does it for all. While that one is at it the others go on with what is known, if it is not much older, and
        else look for themselves: behind a store that hangs nobody waits for another's time limit, and then for the
        own one.
        """
        followed, now = self._followed, self._clock.monotonic()
        if followed is not None and now - followed < _FOLLOW_SECONDS:
            return
        alone = self._following.acquire(blocking=False)
        try:
            if alone or followed is None or now - followed >= 2 * _FOLLOW_SECONDS:
                self.follow()
        finally:
            if alone:
                self._following.release()

    def read(self, work: Callable[[TrustedView], T]) -> T:
        """Runs `work` on trusted rows of one snapshot. `work` may call the token.

        Raises `LogNotTrusted` while the log is not the one that was seen before.
        """

        def on(snapshot: Snapshot) -> T:
            return work(TrustedView(snapshot, self._seals))

        if self._log_guard is not None:
            self._log_guard.assert_trusted()
        self.keep_up()
        return self._store.read(on)

    def run(self, work: Callable[[Ledger], T | Refusal], *, timeout: float) -> T:
        """Runs `work` in a transaction and returns what it returns, durable (P1).

        A `Refusal` that `work` returns is raised after its audit entry is durable; one that it raises
        leaves nothing. Raises `ClockNotTrusted` (P8), also when an entry that was committed meanwhile is later
        than the clock; `LogNotSealed`, `LogNotTrusted`; `Stale`, `StoreUnavailable`, `HsmUnavailable`.
        """

        def within(transaction: Transaction) -> T | Refusal:
            at = self._clock.now()
            latest = transaction.latest_time()
            if latest is not None and at < latest - CLOCK_TOLERANCE:
                self._report("clock_went_back", {"now": at.isoformat(), "log": latest.isoformat()})
                raise ClockNotTrusted
            return work(Ledger(transaction, seals=self._seals, randomness=self._randomness, at=at))

        self._clock_guard.assert_trusted()
        if self._log_guard is not None:
            self._log_guard.assert_open()
        for _ in range(_MOST_TRIES):
            self.keep_up()
            self._seals.prepare(self._clock.now())
            try:
                result = self._store.transact(within, timeout=timeout)
            except DayKeyMissing as missing:
                self._seals.derive(missing.seal_key)
                continue
            if isinstance(result, Refusal):
                try:
                    raise result
                finally:
                    del result  # The traceback holds this frame: the two would keep each other and the call alive.
            return result
        raise Busy

    def decide(self, prepare_and_run: Callable[[], T], *, deadline: Deadline) -> T:
        """Runs a decision, preparation included, anew while rows that it rests on change meanwhile.

        Raises `Busy` when they do not come to rest before the deadline.
        """
        for _ in range(_MOST_TRIES):
            try:
                return prepare_and_run()
            except Stale:
                self._followed = None
                if deadline.remaining() == 0:
                    break
        raise Busy

    def record_refusal(self, refusal: Refusal, details: Mapping[str, object]) -> None:
        """Writes an audit entry about a refusal that no transaction recorded; a failure to do so is reported."""
        if refusal.recorded:
            return

        def work(ledger: Ledger) -> None:
            ledger.refuse(refusal, details)

        try:
            self.run(work, timeout=2.0)
        except Refusal as failure:
            self._report("refusal_not_recorded", {"reason": refusal.reason, "because": failure.reason})


def next_version(record: R, **changes: object) -> R:
    """Returns the record with changes and the next version."""
    return dataclasses.replace(record, version=record.version + 1, **changes)  # type: ignore[arg-type]
