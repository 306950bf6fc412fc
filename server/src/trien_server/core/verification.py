"""Checks a signature with the public key before it leaves the server (P6)."""

from functools import lru_cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import load_der_public_key

from trien_server.core.algorithms import HashFunction
from trien_server.core.items import SignatureScheme

_HASHES: dict[HashFunction, hashes.HashAlgorithm] = {
    HashFunction.SHA256: hashes.SHA256(),
    HashFunction.SHA384: hashes.SHA384(),
    HashFunction.SHA512: hashes.SHA512(),
}
_load = lru_cache(maxsize=4096)(load_der_public_key)


class SignatureDoesNotVerify(Exception):  # noqa: N818
    """The signature was not made by this key over this message with this scheme."""


def verify_signature(public_key: bytes, scheme: SignatureScheme, *, message: bytes, signature: bytes) -> None:
    """Verifies a signature over a digest (Ed25519: over the data) with a key in DER SubjectPublicKeyInfo.

    Raises `SignatureDoesNotVerify`.
    """
    key = _load(public_key)
    function = scheme.algorithm.hash_function
    try:
        match key:
            case ed25519.Ed25519PublicKey() if function is None:
                key.verify(signature, message)
                return
            case ec.EllipticCurvePublicKey() if scheme.algorithm.is_ecdsa and function is not None:
                key.verify(signature, message, ec.ECDSA(utils.Prehashed(_HASHES[function])))
                return
            case rsa.RSAPublicKey() if scheme.algorithm.is_pkcs1 and function is not None:
                key.verify(signature, message, padding.PKCS1v15(), utils.Prehashed(_HASHES[function]))
                return
            case rsa.RSAPublicKey() if scheme.pss_salt_length is not None and function is not None:
                mgf = padding.MGF1(_HASHES[function])
                pss = padding.PSS(mgf=mgf, salt_length=scheme.pss_salt_length)
                key.verify(signature, message, pss, utils.Prehashed(_HASHES[function]))
                return
    except (InvalidSignature, ValueError) as fault:
        raise SignatureDoesNotVerify(str(scheme.algorithm)) from fault
    raise SignatureDoesNotVerify(f"the key is not for {scheme.algorithm}")
