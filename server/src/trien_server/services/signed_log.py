"""The log as its newest checkpoint covers it: what receipts, proofs and the publication are made of.

Nothing here is taken because the database says it: a hash counts when the proof made of it leads to the root that the
token signed.
"""

from dataclasses import dataclass

from trien_server.core.checkpoints import (
    Checkpoint,
    LogKey,
    NoteNotValid,
    follow_keys,
    format_log_keys,
    open_checkpoint,
)
from trien_server.core.errors import LogNotTrusted
from trien_server.core.merkle import HashMissing, ProofNotValid, ReadHash, read_from_tiles
from trien_server.core.ports import Report
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import LogCheckpoint, LogTile
from trien_server.services.access import require_client, require_operator
from trien_server.services.log_history import LOG_CHECKPOINT, tile_name
from trien_server.services.log_keys import generated, log_key_of, read_log_keys
from trien_server.services.trusted import TrustedView

LogFaults = (ProofNotValid, HashMissing)
"""What reading the log raises when its rows do not lead to what the token signed."""


@dataclass(frozen=True, kw_only=True)
class LogKeys:
    """The log's keys, each signed by the one before, and the text that says so."""

    text: str
    keys: tuple[LogKey, ...]

    @property
    def present(self) -> LogKey:
        return self.keys[-1]


@dataclass(frozen=True, kw_only=True)
class SignedLog:
    """One snapshot of the log. `read` returns its hashes: unverified, until a proof led to the checkpoint's root."""

    note: str
    checkpoint: Checkpoint
    keys: LogKeys
    read: ReadHash

    @property
    def size(self) -> int:
        return self.checkpoint.size


def read_published_keys(view: TrustedView) -> LogKeys | None:
    """Returns the log's keys, or None before there is one.

    They begin with the last one that no other signed in: the first of all, or the first of a log that was restored to a
    token without the key before. Raises `NoteNotValid`, `RecordNotTrusted`.
    """
    generations = generated(read_log_keys(view))
    if not generations:
        return None
    begin = max(number for number, key in enumerate(generations) if number == 0 or key.succession is None)
    generations = generations[begin:]
    text = format_log_keys(log_key_of(generations[0]), [key.succession or "" for key in generations[1:]])
    keys = tuple(follow_keys(text))
    if keys != tuple(map(log_key_of, generations)):
        raise NoteNotValid("the successions of the log's keys name other keys than the records")
    return LogKeys(text=text, keys=keys)


def read_signed_log(view: TrustedView) -> SignedLog | None:
    """Returns the log up to its newest checkpoint, whose signature was verified; None before there is one.

    Raises `NoteNotValid`, `RecordNotTrusted`.
    """
    row = view.get(LogCheckpoint, LOG_CHECKPOINT)
    if row is None:
        return None
    keys = read_published_keys(view)
    if keys is None:
        raise NoteNotValid("there is a checkpoint, and no key of the log")
    checkpoint = open_checkpoint(row.note, keys.keys)
    if (row.origin, row.size, row.root) != (checkpoint.origin, checkpoint.size, checkpoint.root):
        raise NoteNotValid("the checkpoint's row says something else than its note")

    def get_tile(level: int, index: int) -> bytes:
        tile = view.get(LogTile, tile_name(level, index))
        return b"" if tile is None else tile.hashes

    return SignedLog(note=row.note, checkpoint=checkpoint, keys=keys, read=read_from_tiles(get_tile))


def distrust_log(report: Report, fault: Exception) -> LogNotTrusted:
    """Reports that the log does not lead to what the token signed, and returns the refusal to raise."""
    finding = str(fault)
    report("log_not_trusted", {"finding": finding})
    return LogNotTrusted(finding)


def require_log_reader(view: TrustedView, principal: Principal, method: str) -> None:
    """Raises `PermissionDenied` unless a client or an operator may call a method that tells of the whole log."""
    if principal.kind is PrincipalKind.OPERATOR:
        require_operator(view, principal, method)
    else:
        require_client(view, principal, method)
