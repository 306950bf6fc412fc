"""What a restore does that people have to agree to: the statement, its approvals, and what it takes from a lost log."""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.core.approval import approval_text, statement_digest
from trien_server.core.audit import leaf_of
from trien_server.core.backups import LogState, Manifest
from trien_server.core.checkpoints import (
    LogKey,
    NoteNotValid,
    follow_keys,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
)
from trien_server.core.merkle import EMPTY_ROOT, Frontier, hash_leaf
from trien_server.core.records import AuditEntry

STATEMENT = "trien restore 1"
_RESTRICTIVE: Mapping[str, tuple[str, ...]] = {
    "signers": ("FROZEN", "DISABLED"),
    "signers/authenticators": ("DISABLED",),
    "credentials": ("SUSPENDED", "REVOKED"),
    "credentials/signers": ("DISABLED",),
    "credentials/clients": ("DISABLED",),
    "clients": ("DISABLED",),
    "operators": ("DISABLED",),
    "keys": ("DISABLED", "DESTROY_SCHEDULED", "DESTROYING", "DESTROYED"),
    "certificateAuthorities": ("DISABLED",),
    "certificateAuthorities/certificates": ("REVOKED",),
}
"""The states that a restore applies from the lost part of the log, by collection, each stronger than the one before."""


class NotRestorable(ValueError):  # noqa: N818
    """A restore cannot be done so; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class KnownCheckpoint:
    """A head of the log that was published, and where it was found: the most that is known of what a backup lacks."""

    found: str
    origin: str
    size: int
    root: bytes
    note: str = ""
    """The checkpoint as it is signed."""
    on_token: bool = False
    """Whether the token keeps it: what somebody brings along asks for more agreement, never for less."""

    def is_signed(self, keys: Sequence[LogKey]) -> bool:
        """Tells whether one of the log's keys signed it."""
        try:
            open_checkpoint(self.note, keys)
        except NoteNotValid:
            return False
        return True

    def require_signed(self, keys: Sequence[LogKey]) -> None:
        """Raises `NotRestorable` unless one of the log's keys signed it."""
        try:
            open_checkpoint(self.note, keys)
        except NoteNotValid as fault:
            raise NotRestorable(
                f"The checkpoint in {self.found} is not signed by a key of the log that is known ({fault}): give the"
                " folder that has its log-keys with --published."
            ) from fault


@dataclass(frozen=True, kw_only=True)
class LostEntry:
    """An entry behind the end of a backup's log, with its position there."""

    position: int
    entry: AuditEntry

    def changed(self) -> Mapping[str, Any]:
        """Returns what it says of the record that it put in force; nothing when it put none in force."""
        if self.entry.subject is None:
            return {}
        record = json.loads(self.entry.details).get("record") if self.entry.details else None
        return record if isinstance(record, dict) else {}


@dataclass(frozen=True, kw_only=True)
class LostRestriction:
    """That something was disabled, revoked, suspended, frozen or destroyed in the lost part of the log."""

    subject: str
    state: str
    lost: LostEntry


def collection_of(name: str) -> str:
    """Returns the collection of a resource: `signers/authenticators` for `signers/a/authenticators/b`."""
    return "/".join(name.split("/")[::2])


def restrictions(lost: Iterable[LostEntry]) -> list[LostRestriction]:
    """Returns for each resource the strongest restriction that lost entries put in force, by position.

    One that was taken back later counts too: with entries missing nobody knows the end of the story, and letting go
    again is a decision of people.
    """
    strongest: dict[str, LostRestriction] = {}
    for one in sorted(lost, key=lambda entry: entry.position):
        subject, state = one.entry.subject, one.changed().get("state")
        ranks = _RESTRICTIVE.get(collection_of(subject or ""), ())
        if subject is None or state not in ranks:
            continue
        before = strongest.get(subject)
        if before is None or ranks.index(state) > ranks.index(before.state):
            strongest[subject] = LostRestriction(subject=subject, state=state, lost=one)
    return sorted(strongest.values(), key=lambda restriction: restriction.lost.position)


def parse_lost_entry(line: bytes) -> LostEntry:
    """Returns the entry of a line of an exported log, whose leaf commits to all that it says.

    Raises `NotRestorable`. That the leaf is in the log is for the caller to check.
    """
    try:
        content = json.loads(line)
        time = datetime.fromisoformat(content["time"])
        entry = AuditEntry(
            name=content["name"],
            time=time,
            kind=content["kind"],
            subject=content.get("subject") or None,
            subject_version=content.get("subject_version") or None,
            leaf=_bytes(content["leaf"]),
            head_salt=_bytes(content["head_salt"]),
            salt=_bytes(content.get("salt") or ""),
            details=content.get("details") or "",
            items_root=_bytes(content.get("items_root") or ""),
        )
        position = int(content["position"])
        opened = leaf_of(entry) == entry.leaf
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise NotRestorable("A line of the exported log is no entry.") from fault
    if not opened:
        raise NotRestorable(f"{entry.name} of the exported log is not what its leaf commits to.")
    return LostEntry(position=position, entry=entry)


def parse_known_checkpoint(note: str, *, found: str, on_token: bool = False) -> KnownCheckpoint:
    """Returns what a signed checkpoint (C2SP) says; `found` says for people where it was. Raises `NotRestorable`.

    Its signature is not verified here: one that nobody signed asks for more agreement, never for less.
    """
    try:
        checkpoint = parse_checkpoint(parse_note(note).body)
    except NoteNotValid as fault:
        raise NotRestorable(f"The checkpoint in {found} cannot be read: {fault}.") from fault
    return KnownCheckpoint(
        found=found,
        origin=checkpoint.origin,
        size=checkpoint.size,
        root=checkpoint.root,
        note=note,
        on_token=on_token,
    )


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What a backup lacks, as far as it is known."""

    known: tuple[KnownCheckpoint, ...]
    lost: tuple[LostEntry, ...]
    """Entries of the lost part that were verified, by position."""

    def entries(self, log: LogState | None) -> int | None:
        """Returns how many entries are lost; None when nothing tells."""
        of_this = [known.size for known in self.known if log is not None and known.origin == log.origin]
        if not of_this or len(of_this) < len(self.known) or log is None:
            return None
        return max(0, max(of_this) - log.size)


def statement(manifest: Manifest, loss: Loss, *, last_entry_time: datetime | None) -> str:
    """Returns what two officers agree to: what the backup is, what is known to be lost, and what is applied of it.

    The same for the same backup, checkpoints and entries, whenever and wherever it is made. `createTime` is what the
    backup says of itself; `lastEntryTime` is of an entry below the sealed head of its log.
    """
    count = loss.entries(manifest.log)
    applied = restrictions(loss.lost)
    subjects = {restriction.lost.entry.name for restriction in applied}
    others = [one for one in loss.lost if one.entry.subject is not None and one.entry.name not in subjects]
    log = manifest.log
    content = {
        "statement": STATEMENT,
        "restore": restore_name(manifest),
        "backup": {
            "sha256": manifest.identity().hex(),
            "createTime": manifest.create_time.isoformat(),
            "installationTime": manifest.installation_time.isoformat(),
            "lastEntryTime": None if last_entry_time is None else last_entry_time.isoformat(),
            "log": None if log is None else {"origin": log.origin, "size": log.size, "root": log.root.hex()},
        },
        "lastKnown": [
            {"found": known.found, "origin": known.origin, "size": known.size, "root": known.root.hex()}
            for known in loss.known
        ],
        "lost": {
            "entries": "unknown" if count is None else count,
            "verified": len(loss.lost),
            "unknown": "unknown" if count is None else count - len(loss.lost),
        },
        "applied": [
            {"resource": one.subject, "state": one.state, "time": one.lost.entry.time.isoformat()} for one in applied
        ],
        "notApplied": [
            {"resource": one.entry.subject, "kind": one.entry.kind, "time": one.entry.time.isoformat()}
            for one in others
        ],
    }
    return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def restore_name(manifest: Manifest) -> str:
    """Returns what a restore of a backup is called in its approvals: `restores/` and 16 hexadecimal digits."""
    return f"restores/{manifest.identity().hex()[:16]}"


@dataclass(frozen=True, kw_only=True)
class StatementApproval:
    """An officer's signature over a statement's digest, with the certificate (DER) that they say is theirs."""

    certificate: bytes
    signature: bytes


def parse_approval(content: bytes, of: str) -> StatementApproval:
    """Returns what `trien proposals approve-statement` wrote. Raises `NotRestorable`, also for another statement's."""
    try:
        read = json.loads(content)
        digest = bytes.fromhex(read["digest"].removeprefix("sha256:"))
        certificate = x509.load_pem_x509_certificate(read["certificate"].encode()).public_bytes(Encoding.DER)
        signature = base64.b64decode(read["signature"], validate=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise NotRestorable("An approval is not what `trien proposals approve-statement` writes.") from fault
    if digest != statement_digest(of):
        raise NotRestorable(
            f"An approval is of another statement (sha256:{digest.hex()}): what is lost, or what is known of it, is not"
            " what that officer read."
        )
    return StatementApproval(certificate=certificate, signature=signature)


def statement_text(manifest: Manifest, of: str) -> bytes:
    """Returns the text that an approval of a restore signs: `trien.v1 approve restores/… sha256:…`."""
    return approval_text(restore_name(manifest), statement_digest(of))


def next_origin(origins: Sequence[str], nonce: bytes) -> str:
    """Returns a name for the log that no log had: the first one's, counted up, with a random end.

    `origins` are all that are known, the backup's first. The random end keeps two restores of one backup apart.
    """
    numbers = []
    base = origins[0].partition("/trien/")
    head, _, first = base[0], base[1], base[2].split("/")[0]
    for origin in origins:
        number = origin.rpartition("/")[2].partition("-")[0] if origin.count("/") > 2 else "1"
        numbers.append(int(number) if number.isdecimal() and len(number) < 9 else 1)
    return f"{head}/trien/{first}/{max(numbers) + 1}-{nonce.hex()}"


def followed_keys(known: Sequence[LogKey], published: str | None) -> list[LogKey]:
    """Returns the log's keys: those that are known, and those that the published ones lead to from there.

    Published keys (`log-keys`) are taken when they begin with a known one. Raises `NotRestorable` when they do not.
    """
    if published is None:
        return list(known)
    try:
        followed = follow_keys(published)
    except NoteNotValid as fault:
        raise NotRestorable(f"The log's published keys cannot be read: {fault}.") from fault
    if followed[0] not in known:
        raise NotRestorable("The log's published keys begin with another key than the backup's.")
    return [*known, *followed]


class Replay:
    """Grows a log's root entry by entry, and remembers the root at sizes that are asked for."""

    def __init__(self, *, sizes: Iterable[int] = ()) -> None:
        self._frontier = Frontier()
        self._wanted = frozenset(sizes)
        self.roots: dict[int, bytes] = {0: EMPTY_ROOT}
        """The root at each wanted size that was come to."""

    @property
    def size(self) -> int:
        return self._frontier.size

    def append(self, leaf: bytes) -> None:
        """Takes in the next leaf's bytes."""
        self._frontier = self._frontier.extend([hash_leaf(leaf)])
        if self.size in self._wanted:
            self.roots[self.size] = self.root()

    def root(self) -> bytes:
        """Returns the root over all leaves so far."""
        return self._frontier.root()
