"""What a restore has to know of a backup before it writes any of it: a small part, kept in memory."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from trien_server.core.audit import committed_details
from trien_server.core.backups import KeptRow, Manifest, NotABackup
from trien_server.core.ports import R, Sealed
from trien_server.core.records import (
    AuditEntry,
    Authenticator,
    Authorization,
    AuthorizationState,
    CertificateAuthority,
    Challenge,
    Enrolment,
    EnrolmentState,
    Installation,
    InstallationKey,
    Key,
    KeyState,
    LogHead,
    Operator,
    Outcome,
    Proposal,
    ProposalState,
    ProtectionLevel,
    Record,
)
from trien_server.core.restores import Replay

_KEPT: tuple[type[Record], ...] = (Installation, InstallationKey, Operator, LogHead)


class Excerpt:
    """A snapshot of a backup's installation, its keys and operators, and the names of what a restore ends.

    Made while the backup is read, so that nothing is believed before all of it was; the rows are verified by whoever
    uses them, as those of any other snapshot.
    """

    def __init__(self, *, at: datetime, sizes: Iterable[int] = ()) -> None:
        """`at` is when the restore happens; `sizes` those of the log at which its root is wanted."""
        self._at = at
        self._rows: dict[type[Record], dict[str, Sealed[Any]]] = {kind: {} for kind in _KEPT}
        self._changes: dict[str, Sealed[AuditEntry]] = {}
        self._latest_time: datetime | None = None
        self._entries_begun = False
        self.last_entry_time: datetime | None = None
        """When the last entry that has a position was made."""
        self.replay = Replay(sizes=sizes)
        self.open: dict[type[Record], list[str]] = {}
        """What is under way or waits, by kind: names."""
        self.with_secret: Sealed[Authenticator] | None = None
        """An authenticator whose secret tells whether the token has the right one-time password key."""
        self.wrapped: dict[int, Sealed[Key]] = {}
        """A wrapped key of each generation of the wrapping key, which tells the same of that."""

    def take(self, row: KeptRow) -> None:
        """Looks at the next row of the backup.

        Raises `NotABackup` for entries out of order or not behind all else, for an entry that is not what its leaf
        commits to, and for a row of those kept here that is there twice: which row is in force has one answer.
        """
        entry = isinstance(row.content, Sealed) and isinstance(row.content.record, AuditEntry)
        if self._entries_begun and not entry:
            raise NotABackup("Its entries are not behind all other rows.")
        self._entries_begun = entry
        if isinstance(row.content, Outcome):
            return
        sealed: Sealed[Any] = row.content
        record = sealed.record
        if type(record) in self._rows:
            if record.name in self._rows[type(record)]:
                raise NotABackup(f"{record.name} is there twice.")
            self._rows[type(record)][record.name] = sealed
        if isinstance(record, AuditEntry):
            self._entry(sealed, row.position)
        elif self._is_open(record):
            self.open.setdefault(type(record), []).append(record.name)
        if isinstance(record, Authenticator) and record.encrypted_secret and self.with_secret is None:
            self.with_secret = sealed
        if isinstance(record, Key) and record.protection_level is ProtectionLevel.WRAPPED and record.wrapped_key:
            self.wrapped.setdefault(record.wrapping_generation, sealed)

    def require_log_of(self, manifest: Manifest) -> None:
        """Raises `NotABackup` when the log is not the one that manifest and head say: entries were left out or changed.

        The head is sealed; so with its seal verified, so is every entry that has a position.
        """
        head = self.get(LogHead, "log")
        said = manifest.log
        installation = self.get(Installation, "installation")
        if installation is not None and installation.record.create_time != manifest.installation_time:
            raise NotABackup("Its manifest names another installation than its rows.")
        if (head is None) is not (said is None):
            raise NotABackup("Its manifest and its rows do not agree on whether there is a log.")
        if head is None or said is None:
            return
        found = (head.record.origin, head.record.size, head.record.root)
        if found != (said.origin, said.size, said.root):
            raise NotABackup("Its manifest names another head of the log than its rows.")
        if (self.replay.size, self.replay.root()) != found[1:]:
            raise NotABackup("Its entries are not the ones that the head of its log is of.")

    def _entry(self, row: Sealed[AuditEntry], position: int | None) -> None:
        entry = row.record
        if position is not None:
            if position != self.replay.size:
                raise NotABackup("Its entries are not in the order of their positions.")
            try:
                committed_details(entry)
            except ValueError as fault:
                # Else an entry could name another subject than the log: an older row would be in force.
                raise NotABackup(f"{entry.name} is not what its leaf in the log commits to.") from fault
            self.replay.append(entry.leaf)
            self.last_entry_time = entry.time
        self._latest_time = max(entry.time, self._latest_time or entry.time)
        if entry.subject is None or entry.subject_version is None or not self._keeps(entry.subject):
            return
        before = self._changes.get(entry.subject)
        if before is None or (before.record.subject_version or 0) <= entry.subject_version:
            self._changes[entry.subject] = row

    def _keeps(self, name: str) -> bool:
        return any(name in rows for rows in self._rows.values())

    def _is_open(self, record: Record) -> bool:
        match record:
            case Authorization(state=AuthorizationState.PENDING | AuthorizationState.APPROVED, expire_time=end):
                return end > self._at
            case Challenge(answered=False, expire_time=end):
                return end > self._at
            case Enrolment(state=EnrolmentState.PENDING | EnrolmentState.BEGUN):
                return True
            case Proposal(state=ProposalState.PENDING):
                return True
            case Key(state=KeyState.DESTROY_SCHEDULED):
                return True
            case CertificateAuthority():
                return True
        return False

    def get(self, kind: type[R], name: str) -> Sealed[R] | None:
        return self._rows.get(kind, {}).get(name)

    def find(self, kind: type[R], /, *, limit: int, after: str = "", **equal: object) -> list[Sealed[R]]:
        rows = self._rows[kind]
        return [
            rows[name]
            for name in sorted(rows, key=str.encode)
            if name.encode() > after.encode()
            and all(getattr(rows[name].record, field) == value for field, value in equal.items())
        ][:limit]

    def count(self, kind: type[Record]) -> int:
        return len(self._rows[kind])

    def latest_change(self, subject: str) -> Sealed[AuditEntry] | None:
        return self._changes.get(subject)

    def latest_time(self) -> datetime | None:
        return self._latest_time

    def outcome(self, request: str) -> Outcome | None:  # noqa: ARG002
        return None

    def unsealed(self, *, limit: int, after: str = "") -> list[Sealed[AuditEntry]]:  # noqa: ARG002
        return []

    def oldest_unsealed(self) -> datetime | None:
        return None

    def log(self, first: int, *, limit: int) -> list[tuple[int, Sealed[AuditEntry]]]:  # noqa: ARG002
        return []

    def position(self, entry: str) -> int | None:  # noqa: ARG002
        return None
