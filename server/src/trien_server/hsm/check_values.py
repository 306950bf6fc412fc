"""Check values of the installation's secret keys: which key it is, without telling anything of it.

The token computes with the key over a fixed message that names its label: a sealing key its HMAC-SHA256, the key of
one-time password secrets AES-GCM, a wrapping key AES-KWP of the message's SHA-256. The check value is the first half of
the result's SHA-256, 32 hexadecimal digits. Another key with the same check value would have to be searched for among
2^128, and a key has different ones under two labels.

What the keys make otherwise begins with other labels (`core.encoding.encode_all`), or has a random nonce (AES-GCM).
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from pkcs11 import Attribute, GCMParams, Mechanism, ObjectClass, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import MechanismInvalid

from trien_server.core.encoding import encode_all

ExportedKeys = Callable[[], Mapping[str, str]]
"""Returns the check values, by label, of keys that the installation names as exported. Raises `KeyMismatch`."""

NONCE: Final = b"key check v1"
"""AES-GCM's, 12 bytes: only ever used with the one message of a label."""

WRAPPING_MECHANISMS: Final = (Mechanism.AES_KEY_WRAP_PAD, Mechanism.AES_KEY_WRAP_KWP)
"""Two names of one mechanism: older modules know it as 0x210A, newer ones as 0x210B."""


def none_exported() -> Mapping[str, str]:
    """Names no key: every one has to be made on the token."""
    return {}


def check_message(label: str) -> bytes:
    """Returns what is computed over."""
    return encode_all("trien/key-check-value", [label])


def check_value(session: Session, key: Any, label: str) -> str:
    """Returns a secret key's check value under a label; for a wrapping key a session object is made and destroyed.

    Raises what the module raises.
    """
    message = check_message(label)
    if hasattr(key, "sign"):
        result = key.sign(message, mechanism=Mechanism.SHA256_HMAC)
    elif hasattr(key, "encrypt"):
        result = key.encrypt(message, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(NONCE, b"", 128))
    else:
        result = _wrapped(session, key, hashlib.sha256(message).digest())
    return hashlib.sha256(result).hexdigest()[:32]


def _wrapped(session: Session, key: Any, value: bytes) -> bytes:
    known: Any = session.create_object(
        {
            Attribute.CLASS: ObjectClass.SECRET_KEY,
            Attribute.KEY_TYPE: TokenKeyType.GENERIC_SECRET,
            Attribute.VALUE: value,
            Attribute.TOKEN: False,
            Attribute.SENSITIVE: False,
            Attribute.EXTRACTABLE: True,
        }
    )
    try:
        try:
            wrapped: bytes = key.wrap_key(known, mechanism=WRAPPING_MECHANISMS[0])
        except MechanismInvalid:
            wrapped = key.wrap_key(known, mechanism=WRAPPING_MECHANISMS[1])
    finally:
        known.destroy()
    return wrapped
