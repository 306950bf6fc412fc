"""Signed checkpoints of a log, and the keys that sign them (C2SP signed-note, tlog-checkpoint)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from trien_client._errors import ProofNotValid
from trien_client._log_tree import HASH_SIZE

LARGEST_NOTE = 128 * 1024
LARGEST_KEYS = 1024 * 1024
SUCCESSION = "trien log succession"
_ED25519, _ECDSA = b"\x01", b"\x02"
_MOST_SIGNATURES = 32
_VKEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_SIGNATURE_LINE = re.compile(r"\u2014 ([^\s+]+) ([A-Za-z0-9+/]+={0,2})")


@dataclass(frozen=True)
class LogKey:
    """A public key of a log: Ed25519, or ECDSA on P-256. `origin` is the log's name."""

    origin: str
    public_key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey

    @classmethod
    def parse(cls, text: str) -> "LogKey":
        """Reads a key from its line of text, `<origin>+<key id>+<key>`. Raises `ProofNotValid`."""
        found = _VKEY.fullmatch(text.strip())
        if found is None or not found[1].isprintable():
            raise ProofNotValid("A log key has the form <origin>+<key id>+<key>.")
        typed = decode_base64(found[3])
        key = cls(found[1], _load(typed[:1], typed[1:]))
        if key.typed_key != typed or key.key_id.hex() != found[2]:
            raise ProofNotValid("The log key's id is not that of its name and key.")
        return key

    @property
    def typed_key(self) -> bytes:
        """The byte of the signature's type, and the key: 32 bytes of Ed25519, or DER of P-256."""
        if isinstance(self.public_key, ed25519.Ed25519PublicKey):
            return _ED25519 + self.public_key.public_bytes_raw()
        return _ECDSA + self.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def key_id(self) -> bytes:
        """The 4 bytes that tell keys of one name apart, as the signature's type has them."""
        typed = self.typed_key
        named = self.origin.encode() + b"\n" + typed if typed[:1] == _ED25519 else typed[1:]
        return hashlib.sha256(named).digest()[:4]

    @property
    def pem(self) -> str:
        """The public key as PEM, for OpenSSL."""
        return self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    def __str__(self) -> str:
        return f"{self.origin}+{self.key_id.hex()}+{base64.b64encode(self.typed_key).decode()}"

    def verify(self, body: str, signature: bytes) -> None:
        """Verifies a signature of a note's text. Raises `ProofNotValid`."""
        try:
            if isinstance(self.public_key, ed25519.Ed25519PublicKey):
                self.public_key.verify(signature, body.encode())
            else:
                self.public_key.verify(signature, body.encode(), ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise ProofNotValid(f"The signature of {self.origin} does not verify.") from None


@dataclass(frozen=True)
class Checkpoint:
    """What the log was at a moment: its origin, its number of entries, and the root over them."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True)
class _Note:
    body: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def verify(self, keys: Iterable[LogKey]) -> None:
        """Verifies every signature of a known key, and that there is one. Raises `ProofNotValid`."""
        known = [
            (key, signature)
            for name, key_id, signature in self.signatures
            for key in keys
            if (name, key_id) == (key.origin, key.key_id)
        ]
        for key, signature in known:
            key.verify(self.body, signature)
        if not known:
            names = ", ".join(sorted({name for name, _, _ in self.signatures}))
            raise ProofNotValid(f"None of the log's keys signed the checkpoint; it is signed by {names}.")


def open_checkpoint(note: str, keys: Sequence[LogKey]) -> Checkpoint:
    """Returns the checkpoint of a note that one of the log's keys signed. Raises `ProofNotValid`."""
    parsed = _parse_note(note)
    lines = parsed.body.split("\n")
    if len(lines) < 4 or "" in lines[:-1]:
        raise ProofNotValid("A checkpoint has a line each for origin, size and root.")
    origin, size, root = lines[:3]
    if not _NUMBER.fullmatch(size):
        raise ProofNotValid("The checkpoint's size is malformed.")
    checkpoint = Checkpoint(origin, int(size), decode_base64(root))
    if len(checkpoint.root) != HASH_SIZE:
        raise ProofNotValid("The checkpoint's root is malformed.")
    parsed.verify([key for key in keys if key.origin == origin])
    return checkpoint


def follow_keys(text: str) -> list[LogKey]:
    """Returns a log's keys in order: the first as it is, and each later one as the one before it signed it.

    `text` is what the server publishes as `log-keys`, or one key alone. Raises `ProofNotValid`.
    """
    if len(text) > LARGEST_KEYS:
        raise ProofNotValid("The text is too long for a log's keys.")
    first, *successions = text.rstrip("\n").split(f"\n\n{SUCCESSION}\n")
    keys = [LogKey.parse(first)]
    for succession in successions:
        note = _parse_note(f"{SUCCESSION}\n{succession}\n")
        lines = note.body.split("\n")
        if len(lines) != 4 or lines[1] != keys[-1].origin:
            raise ProofNotValid(f"Key {len(keys) + 1} of the log does not follow key {len(keys)}.")
        note.verify(keys[-1:])
        keys.append(LogKey.parse(lines[2]))
    return keys


def follow_trusted(trusted: Sequence[LogKey], text: str) -> tuple[LogKey, ...]:
    """Returns the trusted keys and those that follow the last of them in the server's text.

    Raises `ProofNotValid` when that is not among the server's, or a succession does not verify.
    """
    keys = follow_keys(text)
    places = [place for place, key in enumerate(keys) if str(key) == str(trusted[-1])]
    if not places:
        raise ProofNotValid("The server's log has other keys than the one that is trusted.")
    # Only what follows the trusted key: what came before it, nobody that is trusted here vouches for.
    return (*trusted, *keys[places[0] + 1 :])


def read_log_keys(key: str | Path) -> list[LogKey]:
    """Returns the keys of a file such as `log-keys`, or the one that is given as text itself.

    Raises `ProofNotValid`, or `OSError` when the file cannot be read.
    """
    if isinstance(key, str) and _VKEY.fullmatch(key.strip()):
        return follow_keys(key)
    return follow_keys(read_text(Path(key), LARGEST_KEYS))


def read_text(path: Path, most: int) -> str:
    """Reads a text file of at most so many bytes. Raises `ProofNotValid`, `OSError`."""
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ProofNotValid(f"{path} is too long for what it should be.")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ProofNotValid(f"{path} is not a text.") from None


def decode_base64(text: str) -> bytes:
    """Decodes standard base64 that is the one encoding of its bytes. Raises `ProofNotValid`."""
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if base64.b64encode(content).decode() != text:
        raise ProofNotValid("What should be base64 is not.")
    return content


def _load(kind: bytes, content: bytes) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
    try:
        if kind == _ED25519:
            return ed25519.Ed25519PublicKey.from_public_bytes(content)
        key = load_der_public_key(content) if kind == _ECDSA else None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ProofNotValid("The log key is of a kind that is not known here.")


def _parse_note(text: str) -> _Note:
    if len(text) > LARGEST_NOTE:
        raise ProofNotValid("The note is too long.")
    if any((character < " " and character != "\n") or "\ud800" <= character <= "\udfff" for character in text):
        raise ProofNotValid("A note is UTF-8 without control characters.")
    body, separator, lines = text.rpartition("\n\n")
    signatures = lines.split("\n")
    if not separator or signatures.pop() or not 0 < len(signatures) <= _MOST_SIGNATURES:
        raise ProofNotValid("A note ends in an empty line and its signatures.")
    return _Note(f"{body}\n", tuple(map(_parse_signature, signatures)))


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    found = _SIGNATURE_LINE.fullmatch(line)
    content = b"" if found is None else decode_base64(found[2])
    if found is None or len(content) <= 4:
        raise ProofNotValid("A signature line of the note is malformed.")
    return found[1], content[:4], content[4:]
