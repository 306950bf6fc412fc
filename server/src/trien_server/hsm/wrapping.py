"""The wrapping key, and private keys that leave the token only wrapped by it (RFC 5649, AES-KWP).

What keeps a wrapped key closed for whoever holds the PIN is on the wrapping key: it wraps and unwraps
only, by the two names of one mechanism, nobody changes it, and CKA_UNWRAP_TEMPLATE lets it open a key
only as an object that signs and never leaves, or, when the wrapping key is a trusted one, that leaves only wrapped by
another trusted one: that is how a key is wrapped anew. A module need not enforce any of it: `findings` tries.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, Mechanism, ObjectClass, Session, _pkcs11
from pkcs11.exceptions import (
    AttributeSensitive,
    AttributeTypeInvalid,
    FunctionFailed,
    PKCS11Error,
    WrappedKeyInvalid,
    WrappedKeyLenRange,
)

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.ports import KeyMismatch, KeyReference, WrappedKeyPair, WrappingNotSupported
from trien_server.hsm.calls import ALLOWED_MECHANISMS, Calls
from trien_server.hsm.check_values import WRAPPING_MECHANISMS
from trien_server.hsm.failures import Failure, TokenFailed, classify, describe
from trien_server.hsm.keys import (
    PROTECTED,
    SECRET_KEYS,
    WRAPPING_KEY,
    encode_public_key,
    generate_key_pair_to_wrap,
    label_of,
    token_key_type,
)
from trien_server.hsm.mechanisms import signing_mechanism, standard_signature, token_input
from trien_server.hsm.sessions import TokenSession

UNWRAP_TEMPLATE: Final[Mapping[int, bool | int | bytes]] = {
    Attribute.CLASS: int(ObjectClass.PRIVATE_KEY),
    Attribute.TOKEN: False,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.COPYABLE: False,
    Attribute.SIGN: True,
    Attribute.SIGN_RECOVER: False,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
    Attribute.MODIFIABLE: False,  # the last one: SoftHSM 2.6.1 changes nothing after it
}
"""What an unwrapped key is, and the only thing that the wrapping key lets it be.

It derives nothing: ECDH with points of the attacker's choice would give a private key away.
"""

TRUSTED_UNWRAP_TEMPLATE: Final[Mapping[int, bool | int | bytes]] = {
    **{
        name: value
        for name, value in UNWRAP_TEMPLATE.items()
        if name not in (Attribute.EXTRACTABLE, Attribute.MODIFIABLE)
    },
    Attribute.WRAP_WITH_TRUSTED: True,
    Attribute.MODIFIABLE: False,
}
"""The same on a trusted wrapping key: an unwrapped key may be extractable, and then only a trusted key wraps it.

Only the security officer makes trusted keys, so to the holder of the PIN it opens no way out.
"""

_PROBED_WITH: Final[Mapping[KeyType, SignatureAlgorithm]] = {
    KeyType.RSA_2048: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.RSA_3072: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.RSA_4096: SignatureAlgorithm.RSA_PKCS1_SHA256,
    KeyType.EC_P256: SignatureAlgorithm.ECDSA_P256_SHA256,
    KeyType.EC_P384: SignatureAlgorithm.ECDSA_P384_SHA384,
    KeyType.EC_ED25519: SignatureAlgorithm.ED25519,
}


class UnwrappedKey(_pkcs11.SignMixin):  # type: ignore[misc, name-defined]
    """A key by its handle, to sign in any session of the token; asks the token nothing."""

    session: Any = None
    handle = 0
    key_type: Any = None

    def __init__(self, session: Session, handle: int, key_type: KeyType) -> None:
        self.session = session
        self.handle = handle
        self.key_type = token_key_type(key_type)


class Wrapping:
    """How a token wraps: the mechanism, found by trying, and whether its wrapping key is trusted."""

    def __init__(self, calls: Calls) -> None:
        self.calls: Final = calls
        self._mechanism: Mechanism | None = None
        self._trusted: dict[int, bool] = {}
        """Which generations' keys are trusted: nothing changes it."""

    def generate(self, session: TokenSession, key_type: KeyType, generation: int = 1) -> WrappedKeyPair:
        """Generates a key pair, wraps it, and proves that what was wrapped unwraps and signs.

        Nothing is left in the session. Raises `WrappingNotSupported` with the token's answer.
        """
        mechanism = self.mechanism(session)
        return self._generate(session, key_type, mechanism, generation)

    def rewrap(self, session: TokenSession, key: KeyReference, generation: int) -> WrappedKeyPair:
        """Wraps a wrapped key by another generation's key, and proves that it unwraps and signs as the record's key.

        Nothing is left in the session. Raises `KeyMismatch` when the token does not open the key, or it is not the
        record's; `WrappingNotSupported` when the token does not let it be wrapped again.
        """
        self.destroy(session, self.unwrap(session, key))
        mechanism = self.mechanism(session)
        new = session.wrapping_key(generation)
        with _telling_refusals(session, "the token does not let an unwrapped key be wrapped again"):
            handle = self._open(
                session, mechanism, key.wrapping_generation, key.key_type, key.wrapped_key or b"", extractable=True
            )
        try:
            with _telling_refusals(session, "the token does not let an unwrapped key be wrapped again"):
                wrapped = self.calls.wrap_key(session.session, mechanism, new.handle, handle)
        finally:
            self.destroy(session, handle)
        with _telling_refusals(session, f"the token does not unwrap {key.key_type} keys"):
            handle = self._open(session, mechanism, generation, key.key_type, wrapped)
        try:
            _prove(UnwrappedKey(session.session, handle, key.key_type), key.key_type, key.public_key)
        except WrappingNotSupported:
            raise KeyMismatch("what the token opens does not sign as the record's key") from None
        finally:
            self.destroy(session, handle)
        return WrappedKeyPair(public_key=key.public_key, wrapped_key=wrapped, wrapping_generation=generation)

    def unwrap(self, session: TokenSession, key: KeyReference) -> int:
        """Unwraps a key as an object of this session and returns its handle.

        Raises `KeyMismatch` when the token does not open it. SoftHSM says for it the same as for a
        lost token: then a probe signature tells which.
        """
        wrapped = key.wrapped_key
        if not wrapped:
            raise KeyMismatch("the wrapped key is empty")
        try:
            mechanism = self.mechanism(session)
        except WrappingNotSupported as error:
            raise KeyMismatch(f"the token opens no wrapped keys: {error}") from error
        try:
            return self._open(session, mechanism, key.wrapping_generation, key.key_type, wrapped)
        except (WrappedKeyInvalid, WrappedKeyLenRange):
            raise KeyMismatch("the token does not open the wrapped key") from None
        except PKCS11Error as error:
            if classify(error) is not Failure.DEVICE:
                raise
        session.probe()
        try:
            return self._open(session, mechanism, key.wrapping_generation, key.key_type, wrapped)
        except PKCS11Error as error:
            if classify(error) is not Failure.DEVICE:
                raise
        raise KeyMismatch("the token does not open the wrapped key")

    def destroy(self, session: TokenSession, handle: int) -> None:
        """Destroys an object of this session. After any error the session has to be closed: it may still hold it."""
        try:
            self.calls.destroy_object(session.session, handle)
        except PKCS11Error as error:
            if classify(error) is Failure.REQUEST:
                raise TokenFailed(f"An unwrapped key could not be destroyed: {describe(error)}.") from error
            raise

    def mechanism(self, session: TokenSession) -> Mechanism:
        """Returns the mechanism that wraps and unwraps a throw-away key; two threads may both find it."""
        if self._mechanism is None:
            answers = []
            for mechanism in WRAPPING_MECHANISMS:
                try:
                    self._generate(session, KeyType.EC_P256, mechanism, 1)
                except WrappingNotSupported as error:
                    answers.append(f"{mechanism.name}: {error}")
                else:
                    self._mechanism = mechanism
                    return mechanism
            raise WrappingNotSupported("; ".join(answers))
        return self._mechanism

    def _generate(
        self, session: TokenSession, key_type: KeyType, mechanism: Mechanism, generation: int
    ) -> WrappedKeyPair:
        wrapping_key = session.wrapping_key(generation)
        trusted = self._is_trusted(session, generation)
        with _telling_refusals(session, f"the token does not generate {key_type} keys to wrap"):
            public, private = generate_key_pair_to_wrap(session.session, key_type, trusted=trusted)
        try:
            with _telling_refusals(session, f"the token does not wrap {key_type} keys"):
                wrapped = self.calls.wrap_key(session.session, mechanism, wrapping_key.handle, private.handle)
            public_key = encode_public_key(public)
        finally:
            for half in (private, public):
                self.destroy(session, half.handle)
        with _telling_refusals(session, f"the token does not unwrap {key_type} keys"):
            handle = self._open(session, mechanism, generation, key_type, wrapped)
        try:
            _prove(UnwrappedKey(session.session, handle, key_type), key_type, public_key)
        finally:
            self.destroy(session, handle)
        return WrappedKeyPair(public_key=public_key, wrapped_key=wrapped, wrapping_generation=generation)

    def _open(
        self,
        session: TokenSession,
        mechanism: Mechanism,
        generation: int,
        key_type: KeyType,
        wrapped: bytes,
        *,
        extractable: bool = False,
    ) -> int:
        wrapping_key = session.wrapping_key(generation)
        trusted = self._is_trusted(session, generation)
        template = unwrapping_template(key_type, trusted=trusted, extractable=extractable)
        return self.calls.unwrap_key(session.session, mechanism, wrapping_key.handle, wrapped, template)

    def _is_trusted(self, session: TokenSession, generation: int) -> bool:
        """Asks the token once for each generation: an unwrapping costs it one call."""
        if generation not in self._trusted:
            self._trusted[generation] = is_trusted(session.wrapping_key(generation))
        return self._trusted[generation]


@contextmanager
def _telling_refusals(session: TokenSession, what: str) -> Iterator[None]:
    """Turns an error of wrapping into `WrappingNotSupported`, while a probe signature shows that the token is well."""
    try:
        yield
    except PKCS11Error as error:
        if classify(error) in (Failure.SESSION, Failure.SESSION_COUNT, Failure.PIN):
            raise
        session.probe()
        raise WrappingNotSupported(f"{what} ({describe(error)})") from error


def _prove(key: UnwrappedKey, key_type: KeyType, public_key: bytes) -> None:
    """Signs a random message with the unwrapped key and verifies it. Raises `WrappingNotSupported`."""
    algorithm = _PROBED_WITH[key_type]
    message = os.urandom(algorithm.hash_function.size if algorithm.hash_function is not None else 32)
    mechanism, parameter = signing_mechanism(algorithm, key_type, None)
    raw = key.sign(token_input(algorithm, message), mechanism=mechanism, mechanism_param=parameter)
    signature = standard_signature(algorithm, key_type, raw)
    public = load_der_public_key(public_key)
    try:
        if isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, message, padding.PKCS1v15(), Prehashed(SHA256()))
        elif isinstance(public, ec.EllipticCurvePublicKey):
            hashed = SHA256() if key_type is KeyType.EC_P256 else SHA384()
            public.verify(signature, message, ec.ECDSA(Prehashed(hashed)))
        elif isinstance(public, ed25519.Ed25519PublicKey):
            public.verify(signature, message)
    except InvalidSignature:
        raise WrappingNotSupported(f"the token unwraps {key_type} keys as others") from None


def unwrapping_template(key_type: KeyType, *, trusted: bool, extractable: bool = False) -> dict[int, Any]:
    """Returns what a key is unwrapped as: not extractable, unless it is to be wrapped by another trusted key."""
    template = {Attribute.KEY_TYPE: int(token_key_type(key_type)), Attribute.EXTRACTABLE: extractable}
    return template | {
        name: value
        for name, value in (TRUSTED_UNWRAP_TEMPLATE if trusted else UNWRAP_TEMPLATE).items()
        if name is not Attribute.EXTRACTABLE
    }


def is_trusted(wrapping_key: Any) -> bool:
    """Tells whether the wrapping key has CKA_TRUSTED, which only the security officer gives."""
    return _shown(wrapping_key, Attribute.TRUSTED, default=False)


def is_changeable(wrapping_key: Any) -> bool:
    """Tells whether the wrapping key's attributes may be changed (CKA_MODIFIABLE)."""
    return _shown(wrapping_key, Attribute.MODIFIABLE, default=True)


def _shown(item: Any, name: Attribute, *, default: bool) -> bool:
    try:
        return bool(item[name])
    except (AttributeTypeInvalid, AttributeSensitive, FunctionFailed):
        return default


def wrapping_key_template(object_id: bytes, generation: int = 1, *, trusted: bool = False) -> dict[int, Any]:
    """Returns the attributes of a new wrapping key; CKA_TOKEN, CKA_PRIVATE and CKA_MODIFIABLE are its maker's."""
    return {
        **{int(name): value for name, value in {**PROTECTED, **SECRET_KEYS[WRAPPING_KEY]}.items()},
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.VALUE_LEN: 32,
        Attribute.ID: object_id,
        Attribute.LABEL: label_of(WRAPPING_KEY, generation).encode(),
        Attribute.UNWRAP_TEMPLATE: TRUSTED_UNWRAP_TEMPLATE if trusted else UNWRAP_TEMPLATE,
        **({Attribute.TRUSTED: True} if trusted else {}),
        ALLOWED_MECHANISMS: WRAPPING_MECHANISMS,
    }
