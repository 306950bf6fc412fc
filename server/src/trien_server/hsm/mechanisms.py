"""From a signature algorithm to the token's mechanism, and from its output to a standard signature.

Tokens check little: SoftHSM signs an empty digest with ECDSA and a naked hash with RSA. So every
length is checked here, before and after.
"""

from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import MGF, Mechanism

from trien_server.core.algorithms import HashFunction, KeyType, SignatureAlgorithm, largest_pss_salt
from trien_server.hsm.failures import TokenFailed

MAXIMUM_DATA_SIZE: Final = 64 * 1024
"""Ed25519 signs the data itself; more than this is not sent to a token (bytes)."""

_DIGEST_INFO: Final = {
    HashFunction.SHA256: bytes.fromhex("3031300d060960864801650304020105000420"),
    HashFunction.SHA384: bytes.fromhex("3041300d060960864801650304020205000430"),
    HashFunction.SHA512: bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""What precedes the digest in a DigestInfo (RFC 8017, section 9.2, note 1)."""

_PSS: Final = {
    HashFunction.SHA256: (Mechanism.SHA256, MGF.SHA256),
    HashFunction.SHA384: (Mechanism.SHA384, MGF.SHA384),
    HashFunction.SHA512: (Mechanism.SHA512, MGF.SHA512),
}


class SigningMechanism(NamedTuple):
    """What the token is asked for: the mechanism and, for PSS, (hash, mask generation, salt length)."""

    mechanism: Mechanism
    parameter: tuple[Mechanism, MGF, int] | None


def signing_mechanism(
    algorithm: SignatureAlgorithm, key_type: KeyType, pss_salt_length: int | None
) -> SigningMechanism:
    """Returns the mechanism for an algorithm; the salt is as long as the digest when None is given.

    Raises `ValueError` when the key cannot make such signatures, or the salt length does not fit it
    or is given for another algorithm.
    """
    if not algorithm.fits(key_type):
        raise ValueError(f"a {key_type} key makes no {algorithm} signatures")
    if pss_salt_length is not None and not algorithm.is_pss:
        raise ValueError(f"{algorithm} has no salt")
    function = algorithm.hash_function
    if function is None:
        return SigningMechanism(Mechanism.EDDSA, None)
    if algorithm.is_ecdsa:
        return SigningMechanism(Mechanism.ECDSA, None)
    if algorithm.is_pkcs1:
        return SigningMechanism(Mechanism.RSA_PKCS, None)
    salt = function.size if pss_salt_length is None else pss_salt_length
    if not 0 <= salt <= largest_pss_salt(key_type, function):
        raise ValueError(f"a salt of {salt} bytes does not fit {key_type} with {function}")
    hash_mechanism, mask = _PSS[function]
    return SigningMechanism(Mechanism.RSA_PKCS_PSS, (hash_mechanism, mask, salt))


def token_input(algorithm: SignatureAlgorithm, message: bytes) -> bytes:
    """Returns what the token signs for a digest, or for Ed25519 for data.

    Raises `ValueError` when the digest has not exactly the algorithm's length, or the data are longer
    than `MAXIMUM_DATA_SIZE`.
    """
    function = algorithm.hash_function
    if function is None:
        if len(message) > MAXIMUM_DATA_SIZE:
            raise ValueError(f"{len(message)} bytes of data; at most {MAXIMUM_DATA_SIZE} are signed")
        return message
    if len(message) != function.size:
        raise ValueError(f"a {function} digest has {function.size} bytes, not {len(message)}")
    return _DIGEST_INFO[function] + message if algorithm.is_pkcs1 else message


def standard_signature(algorithm: SignatureAlgorithm, key_type: KeyType, raw: bytes) -> bytes:
    """Returns the signature as the standards write it: ECDSA's r ‖ s becomes DER (RFC 3279, section 2.2.3).

    Raises `TokenFailed` when the token's output has another length than it must have.
    """
    expected = key_type.bits // 8 if key_type.is_rsa else 64 if key_type is KeyType.EC_ED25519 else key_type.bits // 4
    if len(raw) != expected:
        raise TokenFailed(f"The token returned {len(raw)} bytes as a signature of {expected}.")
    if not algorithm.is_ecdsa:
        return raw
    half = expected // 2
    return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))
