"""Tries what the server asks of a token, on throw-away keys in a session: nothing is inferred from lists of mechanisms.

Nothing is written to the token, so it can be done beside running servers.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pkcs11 import Attribute, GCMParams, Mechanism, MechanismFlag, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import PKCS11Error

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.items import SignatureScheme
from trien_server.core.ports import KeyMismatch
from trien_server.core.verification import SignatureDoesNotVerify, verify_signature
from trien_server.hsm.failures import describe
from trien_server.hsm.keys import PROTECTED, encode_public_key, generate_throw_away_key_pair
from trien_server.hsm.mechanisms import signing_mechanism, standard_signature, token_input

KEY_TYPES: Final = (KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_ED25519)
"""One size of RSA stands for all: making a large key only to try would take seconds."""

SEALS: Final = "HMAC-SHA256"
ONE_TIME_PASSWORDS: Final = "AES-GCM"
PROBE: Final = SignatureAlgorithm.ECDSA_P256_SHA256.value


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What was tried, and what the token answered: "" when it does it."""

    what: str
    answer: str


def try_mechanisms(session: Session) -> Iterator[Trial]:
    """Yields the outcome of each trial: seals, one-time password secrets, and every signature algorithm."""
    yield Trial(what=SEALS, answer=_answer(lambda: _authenticate(session)))
    yield Trial(what=ONE_TIME_PASSWORDS, answer=_answer(lambda: _encrypt(session)))
    for key_type in KEY_TYPES:
        yield from _sign(session, key_type)


def _answer(work: Callable[[], None]) -> str:
    """Returns why the token does not do it, or "" when it does."""
    try:
        work()
    except PKCS11Error as error:
        return describe(error)
    except (_Wrong, SignatureDoesNotVerify, HsmUnavailable, KeyMismatch, ValueError) as error:
        return str(error) or type(error).__name__
    return ""


class _Wrong(Exception):  # noqa: N818
    """The token answered, and the answer is wrong."""


def _authenticate(session: Session) -> None:
    capabilities = MechanismFlag.SIGN | MechanismFlag.VERIFY
    with _secret_key(session, TokenKeyType.GENERIC_SECRET, capabilities, Mechanism.GENERIC_SECRET_KEY_GEN) as key:
        first, again, other = (key.sign(message, mechanism=Mechanism.SHA256_HMAC) for message in (b"a", b"a", b"b"))
    if len(first) != 32 or first != again or first == other:
        raise _Wrong("the code is none of 32 bytes that depends on the message alone")


def _encrypt(session: Session) -> None:
    capabilities = MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT
    with _secret_key(session, TokenKeyType.AES, capabilities, Mechanism.AES_KEY_GEN) as key:
        own, others = (GCMParams(os.urandom(12), data, 128) for data in (b"own", b"others"))
        sealed = key.encrypt(b"tried", mechanism=Mechanism.AES_GCM, mechanism_param=own)
        if key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=own) != b"tried":
            raise _Wrong("it does not decrypt what it encrypted")
        try:
            key.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=others)
        except PKCS11Error:
            return
    raise _Wrong("it decrypts with other associated data than it encrypted with")


def _sign(session: Session, key_type: KeyType) -> Iterator[Trial]:
    algorithms = [algorithm for algorithm in SignatureAlgorithm if algorithm.fits(key_type)]
    try:
        public, private = generate_throw_away_key_pair(session, key_type)
    except PKCS11Error as error:
        answer = f"a key pair could not be generated: {describe(error)}"
        yield from (Trial(what=algorithm.value, answer=answer) for algorithm in algorithms)
        return
    try:
        for algorithm in algorithms:
            yield Trial(what=algorithm.value, answer=_answer(lambda: _sign_by(public, private, key_type, algorithm)))  # noqa: B023
    finally:
        private.destroy()
        public.destroy()


def _sign_by(public: Any, private: Any, key_type: KeyType, algorithm: SignatureAlgorithm) -> None:
    function = algorithm.hash_function
    message = os.urandom(32 if function is None else function.size)
    mechanism, parameter = signing_mechanism(algorithm, key_type, None)
    raw = private.sign(token_input(algorithm, message), mechanism=mechanism, mechanism_param=parameter)
    salt = function.size if function is not None and algorithm.is_pss else None
    verify_signature(
        encode_public_key(public),
        SignatureScheme(algorithm=algorithm, pss_salt_length=salt),
        message=message,
        signature=standard_signature(algorithm, key_type, raw),
    )


@contextmanager
def _secret_key(
    session: Session, key_type: TokenKeyType, capabilities: MechanismFlag, mechanism: Mechanism
) -> Iterator[Any]:
    key: Any = session.generate_key(
        key_type,
        256,
        store=False,
        capabilities=capabilities,
        mechanism=mechanism,
        template={name: value for name, value in PROTECTED.items() if name is not Attribute.TOKEN},
    )
    try:
        yield key
    finally:
        key.destroy()
