"""Signed heads of the log, and the keys that sign them (C2SP signed-note, tlog-checkpoint)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from trien_server.core.algorithms import KeyType
from trien_server.core.merkle import HASH_SIZE, ProofNotValid

LARGEST_NOTE = 128 * 1024
MOST_SIGNATURES = 32
SUCCESSION = "trien log succession"
_ED25519_PREFIX = bytes.fromhex("302a300506032b6570032100")
_ALGORITHM_BYTES = {KeyType.EC_ED25519: 1, KeyType.EC_P256: 2}
_KEY_NAME = re.compile(r"[^\s+]+")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


class NoteNotValid(ProofNotValid):
    """A signed note is malformed, or no key that is trusted signed it; the message says which."""


@dataclass(frozen=True)
class LogKey:
    """A public key of the log, of one origin: Ed25519, or ECDSA on P-256 where the token's module has no EdDSA.

    `public_key` is DER SubjectPublicKeyInfo. Raises `NoteNotValid` for another kind of key, or for an origin that
    cannot be the name of a key.
    """

    origin: str
    key_type: KeyType
    public_key: bytes

    def __post_init__(self) -> None:
        if not _KEY_NAME.fullmatch(self.origin) or not self.origin.isprintable():
            raise NoteNotValid("the origin of a log is a name without spaces and plus signs")
        try:
            key = load_der_public_key(self.public_key)
        except (ValueError, UnsupportedAlgorithm):
            raise NoteNotValid("the log's public key cannot be read") from None
        match self.key_type, key:
            case KeyType.EC_ED25519, ed25519.Ed25519PublicKey():
                pass
            case KeyType.EC_P256, ec.EllipticCurvePublicKey() if isinstance(key.curve, ec.SECP256R1):
                pass
            case _:
                raise NoteNotValid(f"the log's public key is not of type {self.key_type}")
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != self.public_key:
            raise NoteNotValid("the log's public key is not encoded as DER has it")

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that tell keys of one name apart, by the rule of the signature type."""
        if self.key_type is KeyType.EC_P256:
            return hashlib.sha256(self.public_key).digest()[:4]
        return hashlib.sha256(self.origin.encode() + b"\n" + self._typed_key).digest()[:4]

    @property
    def vkey(self) -> str:
        """The key as a line of text: `<origin>+<key id>+<base64 of type and key>`."""
        return f"{self.origin}+{self.key_id.hex()}+{base64.b64encode(self._typed_key).decode()}"

    @property
    def _typed_key(self) -> bytes:
        key = self.public_key.removeprefix(_ED25519_PREFIX) if self.key_type is KeyType.EC_ED25519 else self.public_key
        return bytes([_ALGORITHM_BYTES[self.key_type]]) + key

    def message(self, body: str) -> bytes:
        """Returns what the token signs for a note: the body for Ed25519, its SHA-256 digest for P-256."""
        if self.key_type is KeyType.EC_P256:
            return hashlib.sha256(body.encode()).digest()
        return body.encode()

    def verify(self, body: str, signature: bytes) -> None:
        """Verifies a signature of a note's body: 64 bytes for Ed25519, DER for P-256. Raises `NoteNotValid`."""
        key = load_der_public_key(self.public_key)
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, body.encode())
            elif isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, body.encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise NoteNotValid(f"the signature of {self.origin} does not verify") from None


def parse_vkey(text: str) -> LogKey:
    """Reads a key from its line of text. Raises `NoteNotValid` when it is malformed or its key id is another's."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise NoteNotValid("a log key has the form <origin>+<key id>+<key>")
    origin, key_id, encoded = parts
    typed = decode_base64(encoded)
    if typed[:1] == b"\x01" and len(typed) == 1 + HASH_SIZE:
        key = LogKey(origin, KeyType.EC_ED25519, _ED25519_PREFIX + typed[1:])
    elif typed[:1] == b"\x02":
        key = LogKey(origin, KeyType.EC_P256, typed[1:])
    else:
        raise NoteNotValid("the log key is of a type that is not known here")
    if key.key_id.hex() != key_id:
        raise NoteNotValid("the log key's id is not that of its name and key")
    return key


@dataclass(frozen=True)
class NoteSignature:
    """A signature line: who signed, the key's id, and the signature."""

    name: str
    key_id: bytes
    signature: bytes

    def is_by(self, key: LogKey) -> bool:
        return (self.name, self.key_id) == (key.origin, key.key_id)


@dataclass(frozen=True)
class Note:
    """A text, ending in a newline, and its signatures. It says nothing until a signature was verified."""

    body: str
    signatures: tuple[NoteSignature, ...]

    def verify(self, keys: Iterable[LogKey]) -> LogKey:
        """Returns a known key that signed. Signatures of unknown keys are ignored.

        Raises `NoteNotValid` when none of the keys signed, or the signature of one does not verify.
        """
        signers = [(key, one.signature) for one in self.signatures for key in keys if one.is_by(key)]
        for key, signature in signers:
            key.verify(self.body, signature)
        if not signers:
            names = ", ".join(sorted({one.name for one in self.signatures}))
            raise NoteNotValid(f"none of the log's keys signed it; it is signed by {names}")
        return signers[0][0]


def format_note(body: str, signatures: Iterable[tuple[LogKey, bytes]]) -> str:
    """Returns the signed note: the body, an empty line, and a line for each signature."""
    lines = [
        f"\u2014 {key.origin} {base64.b64encode(key.key_id + signature).decode()}\n" for key, signature in signatures
    ]
    return body + "\n" + "".join(lines)


def parse_note(text: str) -> Note:
    """Reads a signed note; it verifies nothing. Raises `NoteNotValid` when it is malformed."""
    if len(text) > LARGEST_NOTE:
        raise NoteNotValid("the note is too long")
    if any((character < " " and character != "\n") or "\ud800" <= character <= "\udfff" for character in text):
        raise NoteNotValid("a note is UTF-8 without control characters")
    body, separator, lines = text.rpartition("\n\n")
    if not separator or not lines.endswith("\n"):
        raise NoteNotValid("a note ends in an empty line and its signatures")
    signatures = lines[:-1].split("\n")
    if len(signatures) > MOST_SIGNATURES:
        raise NoteNotValid("the note has too many signatures")
    return Note(body + "\n", tuple(_parse_signature(line) for line in signatures))


def _parse_signature(line: str) -> NoteSignature:
    found = _SIGNATURE_LINE.fullmatch(line)
    if found is None:
        raise NoteNotValid("a signature line of the note is malformed")
    content = decode_base64(found[2])
    if len(content) <= 4:
        raise NoteNotValid("a signature line of the note has no signature")
    return NoteSignature(found[1], content[:4], content[4:])


@dataclass(frozen=True)
class Checkpoint:
    """What the log was at a moment: its origin, how many entries, and the root over them."""

    origin: str
    size: int
    root: bytes

    @property
    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def parse_checkpoint(body: str) -> Checkpoint:
    """Reads a checkpoint's text; extension lines are passed over. Raises `NoteNotValid` when it is malformed."""
    lines = body.split("\n")
    # Three lines at least, and what is behind the last newline.
    if len(lines) < 4 or "" in lines[:-1] or lines[-1]:
        raise NoteNotValid("a checkpoint has a line each for origin, size and root")
    origin, size, root = lines[:3]
    decoded = decode_base64(root)
    if not _NUMBER.fullmatch(size) or len(decoded) != HASH_SIZE:
        raise NoteNotValid("the checkpoint's size or root is malformed")
    return Checkpoint(origin, int(size), decoded)


def open_checkpoint(note: str, keys: Sequence[LogKey]) -> Checkpoint:
    """Returns the checkpoint of a note that one of the log's keys signed, under its own origin.

    Raises `NoteNotValid`.
    """
    parsed = parse_note(note)
    checkpoint = parse_checkpoint(parsed.body)
    parsed.verify([key for key in keys if key.origin == checkpoint.origin])
    return checkpoint


def succession_body(old_origin: str, new: LogKey) -> str:
    """Returns the text that a log's key signs to name the next one."""
    return f"{SUCCESSION}\n{old_origin}\n{new.vkey}\n"


def format_log_keys(first: LogKey, successions: Iterable[str]) -> str:
    """Returns the published text: the first key, then a signed note for each later one, behind an empty line each."""
    return f"{first.vkey}\n" + "".join(f"\n{note}" for note in successions)


def follow_keys(text: str) -> list[LogKey]:
    """Returns the log's keys in order, each signed by the one before; the first is taken as it is.

    The origin may change on the way: a log that was restored goes on under another. Raises `NoteNotValid`.
    """
    first, *successions = text.rstrip("\n").split(f"\n\n{SUCCESSION}\n")
    keys = [parse_vkey(first)]
    for succession in successions:
        note = parse_note(f"{SUCCESSION}\n{succession}\n")
        lines = note.body.split("\n")
        if len(lines) != 4 or lines[1] != keys[-1].origin:
            raise NoteNotValid(f"key {len(keys) + 1} of the log does not follow key {len(keys)}")
        note.verify(keys[-1:])
        keys.append(parse_vkey(lines[2]))
    return keys


def decode_base64(text: str) -> bytes:
    """Decodes standard base64 that is the one encoding of its bytes. Raises `NoteNotValid`."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteNotValid("what should be base64 is not") from None
    if base64.b64encode(content).decode() != text:
        raise NoteNotValid("what should be base64 is not")
    return content
