"""The leaves of the server's audit log: what an entry and each of its digests are committed to by."""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from trien_client._errors import ProofNotValid
from trien_client._log_tree import hash_leaf, root_of

LEAF_VERSION = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LENGTH = struct.Struct(">Q")


@dataclass(frozen=True)
class Leaf:
    """What a leaf consists of."""

    name: str
    head_commitment: bytes
    details_commitment: bytes
    items_root: bytes

    def encode(self) -> bytes:
        return _encode(
            "trien/audit-leaf",
            LEAF_VERSION,
            self.name,
            self.head_commitment,
            self.details_commitment,
            self.items_root,
        )

    @classmethod
    def parse(cls, content: bytes) -> "Leaf":
        """Reads a leaf. Raises `ProofNotValid`."""
        values: list[bytes] = []
        at = 0
        while at < len(content):
            (length,) = _LENGTH.unpack(content[at + 1 : at + 9].ljust(8, b"\xff"))
            values.append(content[at + 9 : at + 9 + length])
            at += 9 + length
        try:
            leaf = cls(values[2].decode(), *values[3:])
        except (IndexError, TypeError, UnicodeDecodeError):
            leaf = None
        # There is one encoding of a leaf: another one is none.
        if leaf is None or leaf.encode() != content:
            raise ProofNotValid("The leaf is not one of an audit entry.")
        return leaf


def commit_head(head_salt: bytes, time: datetime, kind: str, subject: str | None, version: int | None) -> bytes:
    """Returns the salted commitment to an entry's time, kind and subject."""
    return hashlib.sha256(_encode("trien/audit-head", head_salt, time, kind, subject, version)).digest()


def commit_details(salt: bytes, details: str) -> bytes:
    """Returns the salted commitment to an entry's details."""
    return hashlib.sha256(_encode("trien/audit-details", salt, details)).digest()


def encode_item(salt: bytes, index: int, count: int, digest: bytes) -> bytes:
    """Returns the leaf of one digest of an entry."""
    return _encode("trien/audit-item", salt, index, count, digest)


def items_root(salt: bytes, digests: Sequence[bytes]) -> bytes:
    """Returns the root over the digests of an entry whose details have this salt."""
    leaves = [
        encode_item(hmac.digest(salt, b"item" + _LENGTH.pack(index), "sha256")[:16], index, len(digests), digest)
        for index, digest in enumerate(digests)
    ]
    return root_of([hash_leaf(leaf) for leaf in leaves])


def _encode(*values: str | bytes | int | datetime | None) -> bytes:
    """Encodes values in order: a letter for the kind, the length as 8 bytes, the content; `-` for what is absent."""
    encoded = []
    for value in values:
        match value:
            case None:
                encoded.append(b"-")
                continue
            case str():
                kind, content = b"s", value.encode()
            case bytes():
                kind, content = b"y", value
            case int():
                kind, content = b"i", b"%d" % value
            case datetime():
                kind, content = b"t", b"%d" % ((value - _EPOCH) // timedelta(microseconds=1))
        encoded.append(kind + _LENGTH.pack(len(content)) + content)
    return b"".join(encoded)
