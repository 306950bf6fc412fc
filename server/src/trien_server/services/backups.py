"""Backups: one consistent snapshot of everything that the database holds, with its seals as they are."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trien_server.core.backups import Bringing, KeptRow, LogState, Manifest, NeededKey
from trien_server.core.errors import RecordNotTrusted, StateConflict
from trien_server.core.installation_keys import ONE_TIME_PASSWORD_LABEL, token_label
from trien_server.core.ports import Clock, Sealed, Snapshot, Store
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    AuditEntry,
    GrantedRequest,
    Installation,
    InstallationKey,
    InstallationKeyPurpose,
    Key,
    KeyState,
    LogCheckpoint,
    LogHead,
    ProtectionLevel,
    Record,
)

PAGE = 500
"""How many rows are in memory at a time."""
MOST_UNSEALED = 1_000_000
"""More entries than this without a position are a log that nobody seals, and no second of work."""

Encode = Callable[[KeptRow], bytes]
Progress = Callable[[str, int], None]
"""Hears of what is being done and how many rows it has come to."""

_WITHOUT_OBJECT = frozenset({KeyState.DESTROYED, KeyState.GENERATION_FAILED, KeyState.PENDING_GENERATION})


class TakeBackup:
    """Takes backups, also while servers run: they go on as if nobody read."""

    def __init__(self, *, store: Store, schema: str, encode: Encode, clock: Clock) -> None:
        self._store = store
        self._schema = schema
        self._encode = encode
        self._clock = clock

    def __call__(self, write: Callable[[Iterator[bytes]], None], *, progress: Progress) -> Manifest:
        """Hands `write` the manifest and behind it every row, and returns the manifest.

        The rows are read twice from the same snapshot, for the manifest in front says what follows: first they are
        counted and digested, then written. Bounded memory. Raises `StateConflict` when there is no installation,
        `RecordNotTrusted` when a row cannot even be read, `StoreUnavailable`, and whatever `write` raises.
        """

        def within(snapshot: Snapshot) -> Manifest:
            manifest = self._manifest(snapshot, progress)
            write(self._lines(snapshot, manifest, progress))
            return manifest

        return self._store.read(within)

    def _manifest(self, snapshot: Snapshot, progress: Progress) -> Manifest:
        installation = snapshot.find(Installation, limit=1)
        if not installation:
            raise StateConflict("The database has no installation: there is nothing to keep.")
        counts: Counter[str] = Counter()
        digest = hashlib.sha256()
        keys = list(_secret_keys(snapshot))
        log = _log(snapshot)
        for row in rows_of(snapshot):
            counts[row.table] += 1
            digest.update(self._encode(row))
            if isinstance(row.content, Sealed) and isinstance(row.content.record, Key):
                keys += _key_pair(row.content.record)
            progress("read", counts.total())
        return Manifest(
            schema=self._schema,
            create_time=self._clock.now(),
            installation_time=installation[0].record.create_time,
            log=log,
            keys=tuple(keys),
            tables=dict(counts),
            digest=digest.digest(),
        )

    def _lines(self, snapshot: Snapshot, manifest: Manifest, progress: Progress) -> Iterator[bytes]:
        yield manifest.line()
        digest = hashlib.sha256()
        part: list[bytes] = []
        for number, row in enumerate(rows_of(snapshot), 1):
            line = self._encode(row)
            digest.update(line)
            part.append(line)
            if len(part) == PAGE:
                yield b"".join(part)
                part = []
            progress("written", number)
        yield b"".join(part)
        if digest.digest() != manifest.digest:
            raise StateConflict("The database gave other rows the second time: look at its disk and memory.")


def rows_of(snapshot: Snapshot) -> Iterator[KeptRow]:
    """Yields every row: slow tables, hot tables, requests with their outcomes behind them, and the log last, in order.

    Raises `RecordNotTrusted` for one that cannot be read, and for a position of the log whose entry is missing.
    """
    for kind in (*SLOW_RECORDS, *HOT_RECORDS):
        if kind is not AuditEntry:
            for row in _table(snapshot, kind):
                yield KeptRow(content=row)
                outcome = snapshot.outcome(row.record.name) if kind is GrantedRequest else None
                if outcome is not None:
                    yield KeptRow(content=outcome)
    yield from _entries(snapshot)


def _table(snapshot: Snapshot, kind: type[Record]) -> Iterator[Sealed[Any]]:
    after = ""
    while rows := snapshot.find(kind, limit=PAGE, after=after):
        yield from rows
        after = rows[-1].record.name


def _entries(snapshot: Snapshot) -> Iterator[KeptRow]:
    expected = 0
    while page := snapshot.log(expected, limit=PAGE):
        for position, row in page:
            if position != expected:
                raise RecordNotTrusted(AuditEntry.table, f"position {expected}", "the entry is missing")
            yield KeptRow(content=row, position=position)
            expected += 1
    head = snapshot.get(LogHead, "log")
    if head is not None and head.record.size != expected:
        raise RecordNotTrusted(AuditEntry.table, f"position {expected}", "the entry is missing")
    for row in snapshot.unsealed(limit=MOST_UNSEALED):
        yield KeptRow(content=row)


def _log(snapshot: Snapshot) -> LogState | None:
    head = snapshot.get(LogHead, "log")
    if head is None:
        return None
    checkpoint = snapshot.get(LogCheckpoint, "checkpoint")
    return LogState(
        origin=head.record.origin,
        size=head.record.size,
        root=head.record.root,
        checkpoint="" if checkpoint is None else checkpoint.record.note,
        unsealed=len(snapshot.unsealed(limit=MOST_UNSEALED)),
    )


def _secret_keys(snapshot: Snapshot) -> Iterable[NeededKey]:
    """Yields the installation's own keys: all generations, for retired ones still verify or unwrap what they made."""
    for key in (row.record for row in _table(snapshot, InstallationKey)):
        pair = key.purpose is InstallationKeyPurpose.LOG
        yield NeededKey(
            name=key.name,
            purpose=key.purpose.value,
            generation=key.generation,
            state=key.state.value,
            bringing=Bringing.CLONE if pair else Bringing.CUSTODIANS,
            label=None if pair else token_label(key.purpose, key.generation),
            object_id=key.object_id,
            public_key=key.public_key,
        )
    yield NeededKey(
        name="one-time password key",
        purpose="ONE_TIME_PASSWORD",
        state="ACTIVE",
        bringing=Bringing.CUSTODIANS,
        label=ONE_TIME_PASSWORD_LABEL,
    )


def _key_pair(key: Key) -> Iterable[NeededKey]:
    """Yields a key that lives on the token. Of a WRAPPED one the record, and so the backup, holds all there is."""
    if key.protection_level is ProtectionLevel.TOKEN and key.state not in _WITHOUT_OBJECT:
        yield NeededKey(
            name=key.name,
            purpose=key.purpose.value,
            state=key.state.value,
            bringing=Bringing.CLONE,
            object_id=key.object_id,
            public_key=key.public_key,
        )
