"""Logs made in memory and published as folders of tiles, for whoever verifies them."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.log_keys import LogKeyPair

from trien_server.core.audit import commit_details, make_entry
from trien_server.core.checkpoints import format_log_keys
from trien_server.core.merkle import (
    GetTile,
    Tile,
    grow_tiles,
    hash_leaf,
    inclusion_proof,
    read_from_tiles,
    root_at,
    tiles_of,
)
from trien_server.core.receipts import Receipt, format_receipt, items_root, prove_item
from trien_server.core.records import AuditEntry

BEGUN = datetime(2026, 11, 25, 8, tzinfo=UTC)


def document_digests(number: int, count: int) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(b"document %d of entry %d" % (index, number)).digest() for index in range(count))


def make_entries(count: int) -> list[AuditEntry]:
    """Returns entries: each third signed two digests, each third put a credential in force."""
    entries = []
    for number in range(count):
        seed = hashlib.sha512(b"entry %d" % number).digest()
        digests = document_digests(number, 2) if number % 3 == 0 else ()
        details: dict[str, object] = {"client": "clients/office", "number": number}
        if digests:
            details["digests"] = [digest.hex() for digest in digests]
        entries.append(
            make_entry(
                name=f"auditEntries/{base64.b32encode(seed[:20]).decode().lower()}",
                time=BEGUN + timedelta(seconds=number, microseconds=number),
                kind=("signing_granted", "credential_created", "refused")[number % 3],
                subject="credentials/chair" if number % 3 == 1 else None,
                subject_version=number if number % 3 == 1 else None,
                details=details,
                head_salt=seed[20:36],
                salt=seed[32:64],
                items_root=items_root(seed[32:64], digests),
            )
        )
    return entries


@dataclass
class PublishedLog:
    """A log of some leaves and the key pair that signs its checkpoints."""

    leaves: Sequence[bytes]
    pair: LogKeyPair = field(default_factory=LogKeyPair.generate)
    tiles: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.tiles:
            grown = grow_tiles(lambda level, index: b"", 0, [hash_leaf(leaf) for leaf in self.leaves])
            self.tiles = {(tile.level, tile.index): content for tile, content in grown.items()}

    @property
    def get_tile(self) -> GetTile:
        return lambda level, index: self.tiles.get((level, index), b"")

    def root(self, size: int | None = None) -> bytes:
        return root_at(read_from_tiles(self.get_tile), len(self.leaves) if size is None else size)

    def checkpoint(self, size: int | None = None) -> str:
        return self.pair.checkpoint(len(self.leaves) if size is None else size, self.root(size))

    def receipt(self, entry: AuditEntry, position: int, digests: Sequence[bytes] = (), index: int | None = None) -> str:
        """Returns the receipt of the entry at a position, and of one of its digests."""
        assert self.leaves[position] == entry.leaf
        return format_receipt(
            Receipt(
                entry=entry.name,
                time=entry.time,
                kind=entry.kind,
                subject=entry.subject,
                subject_version=entry.subject_version,
                head_salt=entry.head_salt,
                details_commitment=commit_details(entry.salt, entry.details),
                items_root=entry.items_root,
                position=position,
                hashes=inclusion_proof(read_from_tiles(self.get_tile), position, len(self.leaves)),
                note=self.checkpoint(),
                item=None if index is None else prove_item(entry.salt, digests, index),
            )
        )

    def publish(self, folder: Path) -> Path:
        """Writes the folder."""
        for tile in tiles_of(len(self.leaves)):
            write(folder / tile.path, self.tiles[tile.level, tile.index])
            if tile.level == 0:
                write(folder / tile.entries_path, bundle(self.leaves_of(tile)))
        write(folder / "log-keys", format_log_keys(self.pair.key, []).encode())
        write(folder / "checkpoint", self.checkpoint().encode())
        return folder

    def leaves_of(self, tile: Tile) -> Sequence[bytes]:
        return self.leaves[tile.index * 256 : tile.index * 256 + tile.width]


def bundle(leaves: Sequence[bytes]) -> bytes:
    """Returns the file of some leaves: each behind its length as two bytes."""
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def exported(position: int, entry: AuditEntry, /, **changes: object) -> str:
    """Returns an entry as a line of JSON, as `trien audit export` writes it."""

    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    content: dict[str, object] = {
        "name": entry.name,
        "position": position,
        "time": entry.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "kind": entry.kind,
        "subject": entry.subject,
        "subject_version": entry.subject_version,
        "details": entry.details,
        "leaf": encoded(entry.leaf),
        "head_salt": encoded(entry.head_salt),
        "salt": encoded(entry.salt),
        "items_root": encoded(entry.items_root),
    }
    return json.dumps({**content, **changes}, ensure_ascii=False) + "\n"
