"""Key pairs of a log, made in memory, and what they sign."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import Checkpoint, LogKey, format_note, succession_body

ORIGIN = "signing.example.gov.vn/trien/0123456789abcdef"


@dataclass(frozen=True)
class LogKeyPair:
    """A key pair that signs as the token does: Ed25519 the body, ECDSA the body's digest."""

    origin: str
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls, key_type: KeyType = KeyType.EC_ED25519, origin: str = ORIGIN) -> "LogKeyPair":
        if key_type is KeyType.EC_ED25519:
            return cls(origin, ed25519.Ed25519PrivateKey.generate())
        return cls(origin, ec.generate_private_key(ec.SECP256R1()))

    @cached_property
    def key(self) -> LogKey:
        public = self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ed = isinstance(self.private, ed25519.Ed25519PrivateKey)
        return LogKey(self.origin, KeyType.EC_ED25519 if ed else KeyType.EC_P256, public)

    def sign(self, body: str) -> str:
        """Returns the signed note."""
        message = self.key.message(body)
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return format_note(body, [(self.key, self.private.sign(message))])
        assert len(message) == hashlib.sha256().digest_size
        return format_note(body, [(self.key, self.private.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))])

    def checkpoint(self, size: int, root: bytes) -> str:
        """Returns a signed checkpoint."""
        return self.sign(Checkpoint(self.origin, size, root).body)

    def succeed(self, new: LogKey) -> str:
        """Returns the note that names the next key."""
        return self.sign(succession_body(self.origin, new))
