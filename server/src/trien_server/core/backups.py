"""What a backup says of itself: the manifest in front of its rows."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from trien_server.core.ports import Sealed
from trien_server.core.records import Outcome, Record

FORMAT = "trien backup 1"


class Bringing(StrEnum):
    """How a key of the token gets to another token: as shares of two custodians, or by what its vendor has for it."""

    CUSTODIANS = "CUSTODIANS"
    CLONE = "CLONE"


@dataclass(frozen=True, kw_only=True)
class NeededKey:
    """A key that the token has to hold for a backup to be of use.

    A secret key is found by `label`, a key pair by `object_id`, and proved by its public key (SPKI, DER).
    """

    name: str
    purpose: str
    state: str
    bringing: Bringing
    generation: int | None = None
    label: str | None = None
    object_id: bytes | None = None
    public_key: bytes | None = None

    @property
    def kind(self) -> str:
        """What people call it: `one-time password`, `sealing`, `CA`."""
        return {"ONE_TIME_PASSWORD": "one-time password", "CA": "CA"}.get(self.purpose, self.purpose.lower())


@dataclass(frozen=True, kw_only=True)
class LogState:
    """The log as a backup has it: its name, how many entries have a position, their root, and the last checkpoint."""

    origin: str
    size: int
    root: bytes
    checkpoint: str = ""
    """The signed note; empty when none was signed yet."""
    unsealed: int = 0
    """How many entries behind `size` had no position yet."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a backup holds. `digest` is SHA-256 over the lines of all rows; `tables` says how many each table has."""

    schema: str
    create_time: datetime
    installation_time: datetime
    log: LogState | None
    keys: tuple[NeededKey, ...]
    tables: Mapping[str, int]
    digest: bytes

    def line(self) -> bytes:
        """Returns the manifest as the first line of a backup."""
        log = None if self.log is None else _plain(self.log)
        content = {
            "format": FORMAT,
            "schema": self.schema,
            "createTime": self.create_time.isoformat(),
            "installationTime": self.installation_time.isoformat(),
            "log": log,
            "keys": [_plain(key) for key in self.keys],
            "tables": dict(self.tables),
            "digest": self.digest.hex(),
        }
        return json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n"

    def identity(self) -> bytes:
        """Returns SHA-256 over the manifest's line: it stands for the whole backup."""
        return hashlib.sha256(self.line()).digest()


class NotABackup(ValueError):  # noqa: N818
    """A file is no backup that this server can read; the message says what was found."""


def read_manifest(line: bytes) -> Manifest:
    """Returns the manifest of a backup's first line. Raises `NotABackup`."""
    try:
        content = json.loads(line)
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise NotABackup("It is no backup of the kind that this version of the server makes.")
        log = content["log"]
        manifest = Manifest(
            schema=str(content["schema"]),
            create_time=datetime.fromisoformat(content["createTime"]),
            installation_time=datetime.fromisoformat(content["installationTime"]),
            log=None if log is None else LogState(**{**log, "root": bytes.fromhex(log["root"])}),
            keys=tuple(_key(key) for key in content["keys"]),
            tables={str(table): int(rows) for table, rows in content["tables"].items()},
            digest=bytes.fromhex(content["digest"]),
        )
    except NotABackup:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        raise NotABackup("Its manifest cannot be read.") from fault
    if manifest.line() != line:
        raise NotABackup("Its manifest is not in its one form.")
    return manifest


@dataclass(frozen=True, kw_only=True)
class KeptRow:
    """What a backup keeps of one row: a record as it is sealed, or an outcome; of an entry also its position."""

    content: Sealed[Record] | Outcome
    position: int | None = None

    @property
    def table(self) -> str:
        return "outcomes" if isinstance(self.content, Outcome) else self.content.record.table


def _plain(value: NeededKey | LogState) -> dict[str, object]:
    return {
        name: field.hex() if isinstance(field, bytes) else field
        for name, field in vars(value).items()
        if field is not None
    }


def _key(content: dict[str, Any]) -> NeededKey:
    parsed: dict[str, Any] = {**content, "bringing": Bringing(content["bringing"])}
    for name in ("object_id", "public_key"):
        if name in content:
            parsed[name] = bytes.fromhex(content[name])
    return NeededKey(**parsed)


_LONGEST_LINE = 256 * 1024 * 1024


class Reading:
    """Reads a backup's content as it comes: the manifest, then each row.

    Nothing of it is known to be whole before `end` returned.
    """

    def __init__(
        self,
        *,
        decode: Callable[[bytes], KeptRow],
        begin: Callable[[Manifest], None] = lambda _: None,
        take: Callable[[KeptRow], None] = lambda _: None,
    ) -> None:
        """`begin` gets the manifest, `take` each row. `decode` raises `NotABackup`."""
        self._decode = decode
        self._begin = begin
        self._take = take
        self._manifest: Manifest | None = None
        self._digest = hashlib.sha256()
        self._counts: Counter[str] = Counter()
        self._left: list[bytes] = []
        self._left_size = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes. Raises `NotABackup`, and whatever `begin` and `take` raise."""
        *lines, left = data.split(b"\n")
        for line in lines:
            self._line(b"".join([*self._left, line, b"\n"]))
            self._left, self._left_size = [], 0
        if left:
            # Joined once, when its end has come: a line without one costs no more than its length.
            self._left.append(left)
            self._left_size += len(left)
        if self._left_size > _LONGEST_LINE:
            raise NotABackup("It has a line that no row comes to.")

    def end(self) -> Manifest:
        """Returns the manifest. Raises `NotABackup` unless every row that it counts was there, and no other."""
        if self._manifest is None or self._left:
            raise NotABackup("It ends in the middle.")
        if self._digest.digest() != self._manifest.digest or dict(self._counts) != dict(self._manifest.tables):
            raise NotABackup("Its rows are not the ones that its manifest is of.")
        return self._manifest

    def _line(self, line: bytes) -> None:
        if self._manifest is None:
            self._manifest = read_manifest(line)
            self._begin(self._manifest)
            return
        row = self._decode(line)
        self._digest.update(line)
        self._counts[row.table] += 1
        self._take(row)
