"""Receipts: the proof that an audit entry is in the log, and one digest of its call in the entry.

A receipt is a text that verifies with nothing but the log's public key. An entry that signed many digests commits to
them by a Merkle tree of its own, with a salted leaf for each: the receipt of one tells nothing of the others.
"""

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from trien_server.core.audit import commit_head, encode_leaf
from trien_server.core.checkpoints import Checkpoint, LogKey, NoteNotValid, decode_base64, open_checkpoint
from trien_server.core.encoding import encode_value
from trien_server.core.merkle import (
    HASH_SIZE,
    ProofNotValid,
    hash_leaf,
    inclusion_proof,
    read_from_hashes,
    root_at,
    root_of_proof,
    split_tile,
    verify_inclusion,
)

LARGEST_RECEIPT = 64 * 1024
TITLE = "trien receipt 1"
HEAD_SALT_SIZE = ITEM_SALT_SIZE = 16
_LONGEST_PROOF = 63
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2}){1,64}")
_VALUE = re.compile(r"[!-~]{1,200}")
_ITEM = re.compile(r"[0-9]{1,19} of [0-9]{1,19}")
_ITEM_LABEL = encode_value("trien/audit-item")
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class ReceiptNotValid(ProofNotValid):
    """A text is not a receipt; the message says where it is malformed."""


@dataclass(frozen=True, kw_only=True)
class ItemProof:
    """One digest of a call: which of how many, its salt, and the path to the entry's `items_root`."""

    index: int
    count: int
    salt: bytes
    digest: bytes
    hashes: tuple[bytes, ...]

    def root(self) -> bytes:
        """Returns the root that the path leads to. Raises `ProofNotValid`."""
        leaf = encode_item(self.salt, index=self.index, count=self.count, digest=self.digest)
        return root_of_proof(hash_leaf(leaf), self.index, self.count, self.hashes)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The proof that an entry with this head is at `position` of the log of a checkpoint. It proves it once verified.

    `hashes` is the audit path from the entry's leaf to the root of the checkpoint in `note`. With an item, `items_root`
    is what its path leads to.
    """

    entry: str
    time: datetime
    kind: str
    subject: str | None
    subject_version: int | None
    head_salt: bytes
    details_commitment: bytes
    items_root: bytes
    position: int
    hashes: tuple[bytes, ...]
    note: str
    item: ItemProof | None = None

    @property
    def leaf(self) -> bytes:
        """The entry's leaf in the log."""
        head = commit_head(
            self.head_salt,
            time=self.time,
            kind=self.kind,
            subject=self.subject,
            subject_version=self.subject_version,
        )
        return encode_leaf(
            name=self.entry,
            head_commitment=head,
            details_commitment=self.details_commitment,
            items_root=self.items_root,
        )


def item_salt(salt: bytes, index: int) -> bytes:
    """Returns the salt of a digest, made of the salt of the entry's details: without that nobody makes it."""
    return hmac.digest(salt, b"item" + index.to_bytes(8, "big"), "sha256")[:ITEM_SALT_SIZE]


def encode_item(salt: bytes, *, index: int, count: int, digest: bytes) -> bytes:
    """Returns the leaf of a digest: its salt, which of how many, and the digest."""
    return _ITEM_LABEL + b"".join(map(encode_value, (salt, index, count, digest)))


@dataclass(frozen=True, kw_only=True)
class ItemsCommitment:
    """What an entry commits to the digests of its call by: the salt of its details, and the root under that."""

    salt: bytes
    root: bytes


def commit_items(salt: bytes, digests: Sequence[bytes]) -> ItemsCommitment:
    """Returns the commitment to digests under 32 random bytes. A thousand take milliseconds: not in a transaction."""
    return ItemsCommitment(salt=salt, root=items_root(salt, digests))


def items_root(salt: bytes, digests: Sequence[bytes]) -> bytes:
    """Returns the root over the digests of a call, in order; b"" when there are none."""
    return root_at(read_from_hashes(item_hashes(salt, digests)), len(digests)) if digests else b""


def prove_item(
    salt: bytes,
    digests: Sequence[bytes],
    index: int,
    *,
    hashes_of: Callable[[bytes, tuple[bytes, ...]], Sequence[bytes]] | None = None,
) -> ItemProof:
    """Returns the proof of one digest of a call. Raises `ValueError` when the call has no digest `index`.

    `hashes_of` may be `item_hashes` with a memory: of a thousand digests they take longer than all the rest.
    """
    hashes = (hashes_of or item_hashes)(salt, tuple(digests))
    return ItemProof(
        index=index,
        count=len(digests),
        salt=item_salt(salt, index),
        digest=digests[index],
        hashes=inclusion_proof(read_from_hashes(hashes), index, len(digests)),
    )


def item_hashes(salt: bytes, digests: Sequence[bytes]) -> list[bytes]:
    """Returns the leaf hashes of a call's digests, in order."""
    count = len(digests)
    return [
        hash_leaf(encode_item(item_salt(salt, index), index=index, count=count, digest=digest))
        for index, digest in enumerate(digests)
    ]


def format_receipt(receipt: Receipt) -> str:
    """Returns the receipt's text. A receipt has one text only."""
    lines = [
        TITLE,
        f"entry: {receipt.entry}",
        f"time: {receipt.time.astimezone(UTC).strftime(_TIME)}",
        f"kind: {receipt.kind}",
    ]
    if receipt.subject is not None:
        lines.append(f"subject: {receipt.subject}")
    if receipt.subject_version is not None:
        lines.append(f"subject version: {receipt.subject_version}")
    lines += [f"head salt: {_encode(receipt.head_salt)}", f"details: {_encode(receipt.details_commitment)}"]
    item = receipt.item
    if item is not None:
        lines += [
            f"item: {item.index} of {item.count}",
            f"item salt: {_encode(item.salt)}",
            f"digest: {item.digest.hex()}",
            "item proof:",
            *_encode_hashes(item.hashes),
        ]
    elif receipt.items_root:
        lines.append(f"items root: {_encode(receipt.items_root)}")
    lines += [f"position: {receipt.position}", "proof:", *_encode_hashes(receipt.hashes), "", receipt.note]
    return "\n".join(lines)


def parse_receipt(text: str) -> Receipt:
    """Reads a receipt; it verifies nothing yet. Raises `ReceiptNotValid`, or `ProofNotValid` for an impossible path."""
    if len(text) > LARGEST_RECEIPT:
        raise ReceiptNotValid("the text is too long for a receipt")
    head, _, note = text.partition("\n\n")
    lines = _Lines(head.split("\n"))
    if lines.next() != TITLE:
        raise ReceiptNotValid(f"the text does not begin with `{TITLE}`")
    entry, time, kind = lines.value("entry"), _parse_time(lines.value("time")), lines.value("kind")
    subject, subject_version = lines.optional("subject"), lines.optional("subject version")
    head_salt = lines.decoded("head salt", HEAD_SALT_SIZE)
    details = lines.decoded("details", HASH_SIZE)
    item = _parse_item(lines)
    items = b""
    if item is not None:
        items = item.root()
    elif lines.has("items root"):
        items = lines.decoded("items root", HASH_SIZE)
    receipt = Receipt(
        entry=entry,
        time=time,
        kind=kind,
        subject=subject,
        subject_version=None if subject_version is None else _parse_number(subject_version),
        head_salt=head_salt,
        details_commitment=details,
        items_root=items,
        position=_parse_number(lines.value("position")),
        hashes=lines.hashes("proof"),
        note=note,
        item=item,
    )
    # A receipt has one text: a changed byte that means nothing would be one that nobody checked.
    if format_receipt(receipt) != text:
        raise ReceiptNotValid("the receipt is not written as receipts are")
    return receipt


def verify_receipt(receipt: Receipt, keys: Sequence[LogKey]) -> Checkpoint:
    """Verifies that the receipt's entry, and its digest if it has one, are in the log of these keys.

    Returns the checkpoint that covers it. Raises `NoteNotValid` when none of the keys signed the checkpoint,
    `ProofNotValid` when the path does not lead to its root.
    """
    checkpoint = open_checkpoint(receipt.note, keys)
    if receipt.item is not None and receipt.item.root() != receipt.items_root:
        raise ProofNotValid("the digest is not among those that the entry commits to")
    verify_inclusion(hash_leaf(receipt.leaf), receipt.position, checkpoint.size, receipt.hashes, checkpoint.root)
    return checkpoint


class _Lines:
    """The lines of a receipt, read once from the first to the last."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def next(self) -> str:
        if self._at >= len(self._lines):
            raise ReceiptNotValid("the receipt ends too early")
        self._at += 1
        return self._lines[self._at - 1]

    def has(self, name: str) -> bool:
        return self._at < len(self._lines) and self._lines[self._at].startswith(f"{name}: ")

    def value(self, name: str, form: re.Pattern[str] = _VALUE) -> str:
        line = self.next()
        value = line.removeprefix(f"{name}: ")
        if value == line or not form.fullmatch(value):
            raise ReceiptNotValid(f"line {self._at} of the receipt should be its {name}")
        return value

    def optional(self, name: str) -> str | None:
        return self.value(name) if self.has(name) else None

    def decoded(self, name: str, size: int) -> bytes:
        content = _decode(self.value(name))
        if len(content) != size:
            raise ReceiptNotValid(f"the {name} of the receipt should have {size} bytes")
        return content

    def hashes(self, name: str) -> tuple[bytes, ...]:
        if self.next() != f"{name}:":
            raise ReceiptNotValid(f"line {self._at} of the receipt should begin its {name}")
        content = b""
        while self._at < len(self._lines) and ":" not in self._lines[self._at]:
            content += _decode(self.next())
            if len(content) > _LONGEST_PROOF * HASH_SIZE:
                raise ReceiptNotValid(f"the {name} has too many hashes")
        if len(content) % HASH_SIZE:
            raise ReceiptNotValid(f"the {name} is not made of hashes")
        return tuple(split_tile(content))


def _parse_item(lines: _Lines) -> ItemProof | None:
    if not lines.has("item"):
        return None
    index, _, count = lines.value("item", _ITEM).partition(" of ")
    salt = lines.decoded("item salt", ITEM_SALT_SIZE)
    digest = lines.value("digest", _HEXADECIMAL)
    return ItemProof(
        index=_parse_number(index),
        count=_parse_number(count),
        salt=salt,
        digest=bytes.fromhex(digest),
        hashes=lines.hashes("item proof"),
    )


def _parse_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ReceiptNotValid("a number of the receipt is malformed")
    return int(text)


def _parse_time(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise ReceiptNotValid("the receipt's time is malformed") from None


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _encode_hashes(hashes: Sequence[bytes]) -> list[str]:
    """Three hashes a line: so a line needs no padding, and a receipt is short."""
    return [_encode(b"".join(hashes[at : at + 3])) for at in range(0, len(hashes), 3)]


def _decode(text: str) -> bytes:
    try:
        return decode_base64(text)
    except NoteNotValid as fault:
        raise ReceiptNotValid(str(fault)) from None
