"""Receipts: the proof that an entry is in the server's audit log, and one digest of its call in the entry."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from trien_client._errors import ProofNotValid
from trien_client._log_leaves import Leaf, commit_head, encode_item
from trien_client._log_notes import Checkpoint, LogKey, decode_base64, open_checkpoint
from trien_client._log_tree import HASH_SIZE, hash_leaf, root_of_proof, split_hashes, verify_inclusion

LARGEST_RECEIPT = 64 * 1024
_TITLE = "trien receipt 1"
_SALT_SIZE = 16
_LONGEST_PROOF = 63
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_TEXT = re.compile(r"[!-~]{1,200}")


@dataclass(frozen=True, kw_only=True)
class ReceiptItem:
    """One digest of a call: it was at `index` of `count`."""

    index: int
    count: int
    digest: bytes
    salt: bytes
    hashes: tuple[bytes, ...]

    def root(self) -> bytes:
        """Returns the root over all digests of the call that this one leads to. Raises `ProofNotValid`."""
        leaf = encode_item(self.salt, self.index, self.count, self.digest)
        return root_of_proof(hash_leaf(leaf), self.index, self.count, self.hashes)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A receipt. Believe nothing of it before `verify`."""

    entry: str
    """The entry's name, as an answer of the server gave it."""
    time: datetime
    kind: str
    """What kind of event it was, such as `signing_granted`."""
    subject: str | None
    subject_version: int | None
    head_salt: bytes
    details_commitment: bytes
    item: ReceiptItem | None
    """The digest that the receipt is about; None when it is about the entry alone."""
    items_root: bytes
    position: int
    """The entry's position in the log, from 0."""
    hashes: tuple[bytes, ...]
    checkpoint_note: str

    @property
    def leaf_hash(self) -> bytes:
        """The hash of the entry's leaf, which an answer of the server gave too."""
        head = commit_head(self.head_salt, self.time, self.kind, self.subject, self.subject_version)
        return hash_leaf(Leaf(self.entry, head, self.details_commitment, self.items_root).encode())

    def verify(self, keys: Sequence[LogKey]) -> Checkpoint:
        """Verifies that the entry, and the digest if there is one, are in the log of these keys.

        Returns the signed checkpoint that covers it. Raises `ProofNotValid`.
        """
        checkpoint = open_checkpoint(self.checkpoint_note, keys)
        if self.item is not None and self.item.root() != self.items_root:
            raise ProofNotValid("The digest is not among those that the entry commits to.")
        verify_inclusion(self.leaf_hash, self.position, checkpoint.size, self.hashes, checkpoint.root)
        return checkpoint

    def require_digest(self, digest: bytes) -> None:
        """Raises `ProofNotValid` when the receipt is not about this digest."""
        if self.item is None:
            raise ProofNotValid("The receipt is about its entry alone, and about no digest.")
        if self.item.digest != digest:
            raise ProofNotValid(f"The receipt is about another digest: {self.item.digest.hex()}.")

    def require_document(self, parts: Iterable[bytes]) -> None:
        """Raises `ProofNotValid` when the receipt's digest is not that of this content, which may come in parts."""
        size = 0 if self.item is None else len(self.item.digest)
        # Lengths of FIPS 180-4's functions; a receipt has no other digests.
        function = {32: hashlib.sha256, 48: hashlib.sha384, 64: hashlib.sha512}.get(size, hashlib.sha256)()
        for part in parts:
            function.update(part)
        self.require_digest(function.digest())


def parse_receipt(text: str) -> Receipt:
    """Reads a receipt; it verifies nothing yet. Raises `ProofNotValid` when the text is not a receipt."""
    if len(text) > LARGEST_RECEIPT:
        raise ProofNotValid("The text is too long for a receipt.")
    head, _, note = text.partition("\n\n")
    lines = _Lines(head.split("\n"))
    if lines.next() != _TITLE:
        raise ProofNotValid(f"A receipt begins with the line `{_TITLE}`.")
    entry, time, kind = lines.text("entry"), _parse_time(lines.value("time")), lines.text("kind")
    subject = lines.text("subject") if lines.has("subject") else None
    version = _parse_number(lines.value("subject version")) if lines.has("subject version") else None
    head_salt, details = lines.decoded("head salt", _SALT_SIZE), lines.decoded("details", HASH_SIZE)
    item = _parse_item(lines) if lines.has("item") else None
    if item is not None:
        items_root = item.root()
    else:
        items_root = lines.decoded("items root", HASH_SIZE) if lines.has("items root") else b""
    receipt = Receipt(
        entry=entry,
        time=time,
        kind=kind,
        subject=subject,
        subject_version=version,
        head_salt=head_salt,
        details_commitment=details,
        item=item,
        items_root=items_root,
        position=_parse_number(lines.value("position")),
        hashes=lines.hashes("proof"),
        checkpoint_note=note,
    )
    lines.end()
    return receipt


def _parse_item(lines: "_Lines") -> ReceiptItem:
    index, _, count = lines.value("item").partition(" of ")
    salt = lines.decoded("item salt", _SALT_SIZE)
    digest = lines.text("digest")
    try:
        content = bytes.fromhex(digest)
    except ValueError:
        content = b""
    if not content or content.hex() != digest:
        raise ProofNotValid("The receipt's digest is not hexadecimal.")
    return ReceiptItem(
        index=_parse_number(index),
        count=_parse_number(count),
        digest=content,
        salt=salt,
        hashes=lines.hashes("item proof"),
    )


class _Lines:
    """The lines of a receipt, each read once, in order; no two texts are the same receipt."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def next(self) -> str:
        if self._at >= len(self._lines):
            raise ProofNotValid("The receipt ends too early.")
        self._at += 1
        return self._lines[self._at - 1]

    def end(self) -> None:
        if self._at < len(self._lines):
            raise ProofNotValid(f"Line {self._at + 1} of the receipt does not belong there.")

    def has(self, name: str) -> bool:
        return self._at < len(self._lines) and self._lines[self._at].startswith(f"{name}: ")

    def value(self, name: str) -> str:
        if not self.has(name):
            raise ProofNotValid(f"Line {self._at + 1} of the receipt should be its {name}.")
        return self.next().removeprefix(f"{name}: ")

    def text(self, name: str) -> str:
        value = self.value(name)
        if not _TEXT.fullmatch(value):
            raise ProofNotValid(f"The receipt's {name} is malformed.")
        return value

    def decoded(self, name: str, size: int) -> bytes:
        content = decode_base64(self.value(name))
        if len(content) != size:
            raise ProofNotValid(f"The receipt's {name} should have {size} bytes.")
        return content

    def hashes(self, name: str) -> tuple[bytes, ...]:
        if self.next() != f"{name}:":
            raise ProofNotValid(f"Line {self._at} of the receipt should begin its {name}.")
        begin = self._at
        while self._at < len(self._lines) and ":" not in self._lines[self._at]:
            self._at += 1
        written = self._lines[begin : self._at]
        content = b"".join(map(decode_base64, written))
        hashes = split_hashes(content)
        # Three hashes a line, and no other way of writing them.
        rows = [base64.b64encode(content[at : at + 3 * HASH_SIZE]).decode() for at in range(0, len(content), 96)]
        if len(hashes) > _LONGEST_PROOF or rows != written or len(content) % HASH_SIZE:
            raise ProofNotValid(f"The receipt's {name} is malformed.")
        return tuple(hashes)


def _parse_number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ProofNotValid("A number of the receipt is malformed.")
    return int(text)


def _parse_time(text: str) -> datetime:
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise ProofNotValid("The receipt's time is malformed.") from None
    if time.strftime(_TIME) != text:
        raise ProofNotValid("The receipt's time is malformed.")
    return time
