"""The audit log: its entries, and the tree over them."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from trien_server.core.records.record import Record


@dataclass(frozen=True, kw_only=True)
class AuditEntry(Record):
    """What happened, written before its effect.

    `leaf` is what the log commits to: random name, salted commitments to the head (time, kind, subject and its version)
    and to `details` (JSON text), and the root over the digests of a call, `items_root` (b"" without). Version 2 has its
    details and their `salt` (b"") erased, which breaks nothing in the log. `subject` and `subject_version` name the
    slow record that the entry puts in force.
    """

    table: ClassVar[str] = "audit_entries"
    hot: ClassVar[bool] = True

    time: datetime
    kind: str
    subject: str | None
    subject_version: int | None
    leaf: bytes
    head_salt: bytes
    salt: bytes
    details: str
    items_root: bytes = b""


@dataclass(frozen=True, kw_only=True)
class LogHead(Record):
    """The log as its positions are assigned (RFC 6962): `root` over `size` entries; `frontier` grows it.

    The one row is `log`. It is replaced in the transaction that assigns positions, or they are not assigned.
    """

    table: ClassVar[str] = "log_heads"
    hot: ClassVar[bool] = True

    origin: str
    size: int
    root: bytes
    frontier: tuple[bytes, ...]
    time: datetime


@dataclass(frozen=True, kw_only=True)
class LogTile(Record):
    """Up to 256 hashes of complete subtrees of the log, 32 bytes each (C2SP tlog-tiles): `logTiles/LEVEL/INDEX`."""

    table: ClassVar[str] = "log_tiles"
    hot: ClassVar[bool] = True

    hashes: bytes
    time: datetime


@dataclass(frozen=True, kw_only=True)
class LogCheckpoint(Record):
    """The newest signed checkpoint, the one row `checkpoint`: `note` is a signed note (C2SP)."""

    table: ClassVar[str] = "log_checkpoints"
    hot: ClassVar[bool] = True

    origin: str
    size: int
    root: bytes
    note: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class AuditExport(Record):
    """How far the log was handed to a sink (`auditExports/SINK`): entries before `position` were."""

    table: ClassVar[str] = "audit_exports"
    hot: ClassVar[bool] = True

    position: int
    time: datetime


@dataclass(frozen=True, kw_only=True)
class LogPosition:
    """Where an audit entry stands in the log. It needs no seal: the log's root says it."""

    position: int
    entry: str


@dataclass(frozen=True, kw_only=True)
class UnsealedEntry:
    """An audit entry that has no position yet."""

    entry: str
