"""A token in memory: the port `Hsm` with software keys, and faults that a test switches."""

import copy
import hashlib
import hmac
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap_with_padding, aes_key_wrap_with_padding
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from trien_server.core.algorithms import HashFunction, KeyType, SignatureAlgorithm, largest_pss_salt
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import (
    DecryptionFailed,
    KeyMismatch,
    KeyReference,
    SecurityOfficerNeeded,
    WrappedKeyPair,
    WrappingNotSupported,
)
from trien_server.core.records import InstallationKeyPurpose
from trien_server.core.secret import Secret

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
HASHES: dict[HashFunction, HashAlgorithm] = {
    HashFunction.SHA256: SHA256(),
    HashFunction.SHA384: SHA384(),
    HashFunction.SHA512: SHA512(),
}


class MemoryHsm:
    """The port `Hsm` in memory; as strict as the adapter of real tokens.

    With `officer_needed` it makes no wrapping key, and without `rewraps` it wraps none anew: as a token whose wrapping
    keys only its security officer makes, or whose unwrapped keys never leave it.

    `calls` counts the calls of each method, `signatures` the signatures made, `unwrappings` the wrapped
    keys that were unwrapped; `not_wrapped` are the types that it does not wrap, as SoftHSM. While `unavailable` is
    set every call is refused and `ready` says so; `fail_next` refuses single calls. `before` is called
    with the method's name at the start of each call, outside of any lock, and may raise or block.
    """

    def __init__(self, *, unwrapped_keys: int = 256) -> None:
        self.calls: Counter[str] = Counter()
        self.signatures = 0
        self.unwrappings = 0
        self.not_wrapped = {KeyType.EC_ED25519}
        self.unavailable = False
        self.before: Callable[[str], None] = _do_nothing
        self._failing: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._keys: dict[bytes, PrivateKey] = {}
        self._data: dict[str, list[bytes]] = {}
        self._sealing_keys = {1: os.urandom(32)}
        self._password_key = AESGCM(AESGCM.generate_key(256))
        self._wrapping_keys = {1: os.urandom(32)}
        self.officer_needed = False
        self.rewraps = True
        self._unwrapped: OrderedDict[KeyReference, PrivateKey] = OrderedDict()
        self._unwrapped_keys = unwrapped_keys
        self._probe_key = ec.generate_private_key(ec.SECP256R1())
        self._closed = False

    def fail_next(self, count: int = 1, *, method: str = "") -> None:
        """Lets the next `count` calls, of one method or of any, raise `HsmUnavailable` before their effect."""
        with self._lock:
            self._failing[method] += count

    def add_key(self, object_id: bytes, private_key: PrivateKey) -> bytes:
        """Puts a ready-made private key on the token (RSA keys are slow to generate); returns its SPKI."""
        with self._lock:
            self._keys[object_id] = private_key
            return _spki(private_key)

    def copied(self) -> "MemoryHsm":
        """Returns a token with the same keys, which goes its own way from then on."""
        other = copy.copy(self)
        other._keys, other._data = dict(self._keys), dict(self._data)
        other._sealing_keys, other._wrapping_keys = dict(self._sealing_keys), dict(self._wrapping_keys)
        return other

    def ready(self) -> bool:
        self.calls["ready"] += 1
        return not (self.unavailable or self._closed)

    def prepare(self, key: KeyReference) -> None:
        self._enter("prepare")
        self._find(key)

    def sign(
        self,
        key: KeyReference,
        algorithm: SignatureAlgorithm,
        messages: Sequence[bytes],
        *,
        pss_salt_length: int | None,
    ) -> list[bytes]:
        self._enter("sign")
        _check(key.key_type, algorithm, messages, pss_salt_length)
        private_key = self._find(key)
        signatures = [_sign(private_key, algorithm, message, pss_salt_length) for message in messages]
        with self._lock:
            self.signatures += len(signatures)
        return signatures

    def authenticate(self, message: bytes, *, generation: int = 1) -> bytes:
        self._enter("authenticate")
        if generation not in self._sealing_keys:
            raise KeyMismatch(f"the token holds no sealing key {generation}")
        return hmac.digest(self._sealing_keys[generation], message, hashlib.sha256)

    def encrypt(self, plaintext: Secret, *, associated_data: bytes) -> bytes:
        self._enter("encrypt")
        nonce = os.urandom(12)
        return nonce + self._password_key.encrypt(nonce, plaintext.reveal(), associated_data)

    def decrypt(self, ciphertext: bytes, *, associated_data: bytes) -> Secret:
        self._enter("decrypt")
        if len(ciphertext) < 28:
            raise DecryptionFailed
        try:
            return Secret(self._password_key.decrypt(ciphertext[:12], ciphertext[12:], associated_data))
        except InvalidTag:
            raise DecryptionFailed from None

    def generate_key_pair(self, object_id: bytes, key_type: KeyType) -> bytes:
        self._enter("generate_key_pair")
        _check_id(object_id)
        private_key = _generate(key_type)
        with self._lock:
            if object_id in self._keys:
                raise KeyMismatch("the token holds a key with that id")
            self._keys[object_id] = private_key
        return _spki(private_key)

    def generate_wrapped_key_pair(self, key_type: KeyType, *, generation: int = 1) -> WrappedKeyPair:
        self._enter("generate_wrapped_key_pair")
        if key_type in self.not_wrapped:
            raise WrappingNotSupported(f"the token does not wrap {key_type} keys")
        return self.wrap(_generate(key_type), generation=generation)

    def wrap(self, private_key: PrivateKey, *, generation: int = 1) -> WrappedKeyPair:
        """Wraps a ready-made private key (RSA keys are slow to generate)."""
        if generation not in self._wrapping_keys:
            raise KeyMismatch(f"the token holds no wrapping key {generation}")
        encoded = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        wrapped = aes_key_wrap_with_padding(self._wrapping_keys[generation], encoded)
        return WrappedKeyPair(public_key=_spki(private_key), wrapped_key=wrapped, wrapping_generation=generation)

    def rewrap(self, key: KeyReference, *, generation: int) -> WrappedKeyPair:
        self._enter("rewrap")
        private_key = self._open(key, key.wrapped_key or b"")
        if not self.rewraps:
            raise WrappingNotSupported("the token does not let an unwrapped key be wrapped again")
        if _spki(private_key) != key.public_key:
            raise KeyMismatch("what the token opens does not sign as the record's key")
        return self.wrap(private_key, generation=generation)

    def has_installation_key(self, purpose: InstallationKeyPurpose, generation: int) -> bool:
        self._enter("has_installation_key")
        keys = self._sealing_keys if purpose is InstallationKeyPurpose.SEALING else self._wrapping_keys
        return generation in keys

    def make_installation_key(self, purpose: InstallationKeyPurpose, generation: int) -> None:
        self._enter("make_installation_key")
        sealing = purpose is InstallationKeyPurpose.SEALING
        if self.officer_needed and not sealing and generation not in self._wrapping_keys:
            raise SecurityOfficerNeeded
        (self._sealing_keys if sealing else self._wrapping_keys).setdefault(generation, os.urandom(32))

    def destroy_key_pair(self, object_id: bytes) -> None:
        self._enter("destroy_key_pair")
        _check_id(object_id)
        with self._lock:
            self._keys.pop(object_id, None)

    def public_key(self, object_id: bytes) -> bytes | None:
        self._enter("public_key")
        _check_id(object_id)
        with self._lock:
            private_key = self._keys.get(object_id)
        return None if private_key is None else _spki(private_key)

    def key_pairs(self) -> dict[bytes, bytes | None]:
        self._enter("key_pairs")
        with self._lock:
            return {object_id: _spki(private_key) for object_id, private_key in self._keys.items()}

    def read_data(self, label: str) -> list[bytes]:
        self._enter("read_data")
        with self._lock:
            return list(self._data.get(label, ()))

    def write_data(self, label: str, value: bytes) -> None:
        self._enter("write_data")
        with self._lock:
            self._data[label] = [value]

    def probe(self) -> None:
        self._enter("probe")
        self._probe_key.sign(os.urandom(32), ec.ECDSA(SHA256()))

    def close(self) -> None:
        self.calls["close"] += 1
        self._closed = True

    def _enter(self, method: str) -> None:
        with self._lock:
            self.calls[method] += 1
        self.before(method)
        with self._lock:
            if self.unavailable or self._closed:
                raise HsmUnavailable
            for name in (method, ""):
                if self._failing[name] > 0:
                    self._failing[name] -= 1
                    raise HsmUnavailable

    def _find(self, key: KeyReference) -> PrivateKey:
        if key.wrapped_key is not None:
            with self._lock:
                return self._unwrap(key, key.wrapped_key)
        with self._lock:
            private_key = self._keys.get(key.object_id)
        if private_key is None or _spki(private_key) != key.public_key:
            raise KeyMismatch
        return private_key

    def _unwrap(self, key: KeyReference, wrapped_key: bytes) -> PrivateKey:
        """Does not compare the public key: a token does not show one."""
        if key not in self._unwrapped:
            private_key = self._open(key, wrapped_key)
            while len(self._unwrapped) >= self._unwrapped_keys:
                self._unwrapped.popitem(last=False)
            self._unwrapped[key] = private_key
            self.unwrappings += 1
        self._unwrapped.move_to_end(key)
        return self._unwrapped[key]

    def _open(self, key: KeyReference, wrapped_key: bytes) -> PrivateKey:
        if key.wrapping_generation not in self._wrapping_keys:
            raise KeyMismatch(f"the token holds no wrapping key {key.wrapping_generation}")
        try:
            encoded = aes_key_unwrap_with_padding(self._wrapping_keys[key.wrapping_generation], wrapped_key)
            private_key = load_der_private_key(encoded, None)
        except (InvalidUnwrap, ValueError):
            raise KeyMismatch("the token does not open the wrapped key") from None
        assert isinstance(private_key, PrivateKey)
        if not _is_of(private_key, key.key_type):
            raise KeyMismatch("the unwrapped key is of another type")
        return private_key


def _do_nothing(method: str) -> None:
    """Is what `before` is until a test sets it."""


def _spki(private_key: PrivateKey) -> bytes:
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_id(object_id: bytes) -> None:
    if not object_id:
        raise ValueError("the id is empty")


def _generate(key_type: KeyType) -> PrivateKey:
    if key_type.is_rsa:
        return rsa.generate_private_key(65537, key_type.bits)
    if key_type is KeyType.EC_ED25519:
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1() if key_type is KeyType.EC_P256 else ec.SECP384R1())


def _is_of(private_key: PrivateKey, key_type: KeyType) -> bool:
    if isinstance(private_key, ed25519.Ed25519PrivateKey):
        return key_type is KeyType.EC_ED25519
    return private_key.key_size == key_type.bits and isinstance(private_key, rsa.RSAPrivateKey) is key_type.is_rsa


def _check(
    key_type: KeyType, algorithm: SignatureAlgorithm, messages: Sequence[bytes], pss_salt_length: int | None
) -> None:
    if not algorithm.fits(key_type):
        raise ValueError("the key makes no such signatures")
    function = algorithm.hash_function
    if pss_salt_length is not None and (
        not algorithm.is_pss or function is None or not 0 <= pss_salt_length <= largest_pss_salt(key_type, function)
    ):
        raise ValueError("the salt length does not fit")
    for message in messages:
        if len(message) > 64 * 1024 if function is None else len(message) != function.size:
            raise ValueError("the digest has the wrong length")


def _sign(private_key: PrivateKey, algorithm: SignatureAlgorithm, message: bytes, pss_salt_length: int | None) -> bytes:
    if isinstance(private_key, ed25519.Ed25519PrivateKey):
        return private_key.sign(message)
    function = algorithm.hash_function
    assert function is not None
    prehashed = Prehashed(HASHES[function])
    if isinstance(private_key, ec.EllipticCurvePrivateKey):
        return private_key.sign(message, ec.ECDSA(prehashed))
    if algorithm.is_pkcs1:
        return private_key.sign(message, padding.PKCS1v15(), prehashed)
    salt = function.size if pss_salt_length is None else pss_salt_length
    return private_key.sign(message, padding.PSS(padding.MGF1(HASHES[function]), salt), prehashed)
