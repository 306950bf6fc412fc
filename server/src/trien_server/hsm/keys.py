"""Key objects of the token: templates, names, and public keys as SubjectPublicKeyInfo.

A signer's key is found by its random CKA_ID. The installation's own keys are found by label, and
each must be there exactly once with the attributes of its purpose.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, Mechanism, MechanismFlag, Object, ObjectClass, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid, FunctionFailed
from pkcs11.util.ec import encode_named_curve_parameters

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch
from trien_server.core.records import InstallationKeyPurpose
from trien_server.hsm.check_values import ExportedKeys, check_value, none_exported
from trien_server.hsm.module import find_objects

SEALING_KEY: Final = "trien sealing key 1"
ONE_TIME_PASSWORD_KEY: Final = "trien one-time password key 1"
WRAPPING_KEY: Final = "trien wrapping key 1"
PROBE_KEY: Final = "trien probe key"

SECRET_KEYS: Final[Mapping[str, Mapping[Attribute, Any]]] = {
    SEALING_KEY: {
        Attribute.KEY_TYPE: TokenKeyType.GENERIC_SECRET,
        Attribute.SIGN: True,
        Attribute.VERIFY: True,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
    },
    ONE_TIME_PASSWORD_KEY: {
        Attribute.KEY_TYPE: TokenKeyType.AES,
        Attribute.SIGN: False,
        Attribute.VERIFY: False,
        Attribute.ENCRYPT: True,
        Attribute.DECRYPT: True,
    },
    WRAPPING_KEY: {
        Attribute.KEY_TYPE: TokenKeyType.AES,
        Attribute.SIGN: False,
        Attribute.VERIFY: False,
        Attribute.ENCRYPT: False,
        Attribute.DECRYPT: False,
        Attribute.WRAP: True,
        Attribute.UNWRAP: True,
    },
}
"""The installation's secret keys, by the labels of their first generations, with the attributes of their purposes."""

FIRST_LABELS: Final[Mapping[InstallationKeyPurpose, str]] = {
    InstallationKeyPurpose.SEALING: SEALING_KEY,
    InstallationKeyPurpose.WRAPPING: WRAPPING_KEY,
}
"""The labels of the first generations of the keys that have several."""

PROTECTED: Final[Mapping[Attribute, Any]] = {
    Attribute.TOKEN: True,
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.WRAP: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
"""What every secret key has, unless its purpose says otherwise: it never leaves the token, and has no other use."""

_MADE_THERE: Final[Mapping[Attribute, Any]] = {
    Attribute.LOCAL: True,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
}
"""What the token alone says of a key that it generated and never showed (PKCS #11, section 4.9).

Who has the PIN could else put a key that they know under the label of the next generation: it would seal whatever they
like long after the PIN was changed. A key that custodians can bring back lacks it, and counts by its check value alone.
"""

_ED25519_PARAMETERS: Final = encode_named_curve_parameters("1.3.101.112")
_CURVES: Final[Mapping[KeyType, tuple[bytes, ec.EllipticCurve]]] = {
    KeyType.EC_P256: (encode_named_curve_parameters("secp256r1"), ec.SECP256R1()),
    KeyType.EC_P384: (encode_named_curve_parameters("secp384r1"), ec.SECP384R1()),
}
_PRIVATE_TEMPLATE: Final = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.SIGN: True,
    Attribute.DECRYPT: False,
    Attribute.UNWRAP: False,
    Attribute.DERIVE: False,
}
_PUBLIC_TEMPLATE: Final = {Attribute.PRIVATE: False, Attribute.ENCRYPT: False, Attribute.WRAP: False}


def generate_key_pair(session: Session, object_id: bytes, key_type: KeyType, *, label: str = "") -> bytes:
    """Generates a key pair on the token and returns its public key (SPKI, DER).

    Raises `HsmUnavailable` when the token made a private key that can leave it; it is removed again.
    """
    public, private = _generate(session, key_type, _PRIVATE_TEMPLATE, id=object_id, label=label, store=True)
    if not private[Attribute.SENSITIVE] or private[Attribute.EXTRACTABLE]:
        private.destroy()
        public.destroy()
        raise HsmUnavailable("The token made a private key that can leave it.")
    return encode_public_key(public)


def generate_key_pair_to_wrap(session: Session, key_type: KeyType, *, trusted: bool) -> tuple[Any, Any]:
    """Generates a key pair as session objects and returns both; the private one can be wrapped once, no more.

    With `trusted` only a key that the security officer marked as trusted wraps it.
    """
    template = {
        **_PRIVATE_TEMPLATE,
        Attribute.EXTRACTABLE: True,
        Attribute.MODIFIABLE: False,
        Attribute.COPYABLE: False,
        **({Attribute.WRAP_WITH_TRUSTED: True} if trusted else {}),
    }
    return _generate(session, key_type, template, store=False)


def generate_throw_away_key_pair(session: Session, key_type: KeyType) -> tuple[Any, Any]:
    """Generates a key pair as signers' keys are, but as session objects, and returns both: public and private."""
    return _generate(session, key_type, _PRIVATE_TEMPLATE, store=False)


def _generate(session: Session, key_type: KeyType, template: Mapping[Attribute, Any], **named: Any) -> tuple[Any, Any]:
    arguments: dict[str, Any] = {
        "capabilities": MechanismFlag.SIGN | MechanismFlag.VERIFY,
        "public_template": _PUBLIC_TEMPLATE,
        "private_template": template,
        **named,
    }
    if key_type.is_rsa:
        return session.generate_keypair(
            TokenKeyType.RSA, key_type.bits, mechanism=Mechanism.RSA_PKCS_KEY_PAIR_GEN, **arguments
        )
    kind, parameters, mechanism = TokenKeyType.EC_EDWARDS, _ED25519_PARAMETERS, Mechanism.EC_EDWARDS_KEY_PAIR_GEN
    if key_type in _CURVES:
        kind, parameters, mechanism = TokenKeyType.EC, _CURVES[key_type][0], Mechanism.EC_KEY_PAIR_GEN
    domain = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: parameters}, local=True)
    return domain.generate_keypair(mechanism=mechanism, **arguments)


def token_key_type(key_type: KeyType) -> TokenKeyType:
    """Returns the token's CKK_ for a type of key."""
    if key_type.is_rsa:
        return TokenKeyType.RSA
    return TokenKeyType.EC_EDWARDS if key_type is KeyType.EC_ED25519 else TokenKeyType.EC


def encode_public_key(public: Object) -> bytes:
    """Returns a public key object as SubjectPublicKeyInfo in DER.

    Raises `KeyMismatch` when it is of no type that is used here.
    """
    key: PublicKeyTypes
    try:
        kind = public[Attribute.KEY_TYPE]
        if kind is TokenKeyType.RSA:
            modulus, exponent = public[Attribute.MODULUS], public[Attribute.PUBLIC_EXPONENT]
            key = rsa.RSAPublicNumbers(int.from_bytes(exponent), int.from_bytes(modulus)).public_key()
        elif kind is TokenKeyType.EC_EDWARDS:
            key = ed25519.Ed25519PublicKey.from_public_bytes(_point(public, 32))
        else:
            parameters = public[Attribute.EC_PARAMS]
            curve = next(curve for known, curve in _CURVES.values() if known == parameters)
            key = ec.EllipticCurvePublicKey.from_encoded_point(curve, _point(public, 1 + 2 * (curve.key_size // 8)))
    except (ValueError, StopIteration) as error:
        raise KeyMismatch("the public key object is of no known type") from error
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _point(public: Object, size: int) -> bytes:
    """Returns CKA_EC_POINT without the OCTET STRING that most modules, not all, put around it."""
    value: bytes = public[Attribute.EC_POINT]
    if len(value) == size + 2 and value[:2] == bytes((0x04, size)):
        return value[2:]
    return value


def find_key_pair(session: Session, object_id: bytes) -> tuple[list[Object], list[Object]]:
    """Returns the private and the public key objects with that CKA_ID; one walk over the token."""
    found = find_objects(session, {Attribute.ID: object_id})
    classes = [(item, item[Attribute.CLASS]) for item in found]
    return (
        [item for item, kind in classes if kind is ObjectClass.PRIVATE_KEY],
        [item for item, kind in classes if kind is ObjectClass.PUBLIC_KEY],
    )


def find_all_key_pairs(session: Session) -> dict[bytes, bytes | None]:
    """Returns the public key (SPKI, DER) of every key pair on the token but the probe's. See `Hsm.key_pairs`."""
    found: dict[bytes, list[Object]] = {}
    private: Counter[bytes] = Counter()
    for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
        for item in find_objects(session, {Attribute.CLASS: kind, Attribute.TOKEN: True}):
            if item[Attribute.LABEL] == PROBE_KEY:
                continue
            of_id = found.setdefault(item[Attribute.ID], [])
            if kind is ObjectClass.PRIVATE_KEY:
                private[item[Attribute.ID]] += 1
            else:
                of_id.append(item)
    return {
        object_id: _encoded_or_none(public[0]) if private[object_id] == len(public) == 1 else None
        for object_id, public in found.items()
    }


def find_data(session: Session, label: str) -> list[Object]:
    """Returns the data objects with that label. They are private: a session without the PIN does not see them."""
    return find_objects(session, {Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: label, Attribute.TOKEN: True})


def create_data(session: Session, label: str, value: bytes) -> None:
    """Puts a private data object on the token."""
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.LABEL: label,
            Attribute.APPLICATION: "trien",
            Attribute.VALUE: value,
        }
    )


def _encoded_or_none(public: Object) -> bytes | None:
    try:
        return encode_public_key(public)
    except KeyMismatch:
        return None


def label_of(first: str, generation: int) -> str:
    """Returns the label of a generation of an installation's key, from that of the first: `trien sealing key 2`."""
    return f"{first.removesuffix('1')}{generation}"


def parse_label(label: str) -> tuple[str, int]:
    """Returns the label of the first generation, and which generation a label is of. Raises `KeyMismatch`."""
    for first in SECRET_KEYS:
        number = label.removeprefix(first.removesuffix("1"))
        if number != label and number.isascii() and number.isdigit() and not number.startswith("0"):
            return first, int(number)
    raise KeyMismatch(f"{label!r} is the label of none of the installation's keys")


def find_secret_keys(
    session: Session, first: str, generation: int = 1, *, exported: ExportedKeys = none_exported
) -> list[Object]:
    """Returns the secret keys with the label of that generation; `first` is the label of the first one.

    Raises `KeyMismatch` when one has not the attributes of its purpose, can leave the token, or ever could. A key whose
    label `exported` names is one that custodians can bring back: there its check value counts, not where it was made.
    """
    label = label_of(first, generation)
    found = find_objects(session, {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label})
    named = exported().get(label)
    expected = {**PROTECTED, **SECRET_KEYS[first], **(_MADE_THERE if named is None else {})}
    for item in found:
        wrong = sorted(name.name for name, value in expected.items() if not _has(item, name, value))
        if wrong:
            raise KeyMismatch(f"{label!r} has not the attributes of its purpose: {', '.join(wrong)}")
        if named is not None and check_value(session, item, label) != named:
            raise KeyMismatch(f"{label!r} has not the check value of the key that was exported: it is another key")
    return found


def _has(item: Object, name: Attribute, value: object) -> bool:
    """Tells whether an attribute has the value. One that the token does not show passes, but the two that protect."""
    try:
        return bool(item[name] == value)
    except (AttributeTypeInvalid, AttributeSensitive, FunctionFailed):
        return name not in (Attribute.SENSITIVE, Attribute.EXTRACTABLE)


def find_probe_keys(session: Session) -> tuple[list[Object], list[Object]]:
    """Returns the probe key's private and public objects."""
    template = {Attribute.LABEL: PROBE_KEY}
    private = find_objects(session, {**template, Attribute.CLASS: ObjectClass.PRIVATE_KEY})
    public = find_objects(session, {**template, Attribute.CLASS: ObjectClass.PUBLIC_KEY})
    return private, public
