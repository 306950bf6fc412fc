"""Verifies the server's answer before anything of it is handed out (P6)."""

import hmac

import google_crc32c
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from trien.v1 import signing_service_pb2

from trien_client._algorithms import HashFunction, KeyType, SignatureAlgorithm
from trien_client._errors import AlgorithmMismatch, VerificationError
from trien_client._resources import algorithm_message

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

_HASHES: dict[HashFunction, type[hashes.HashAlgorithm]] = {
    HashFunction.SHA256: hashes.SHA256,
    HashFunction.SHA384: hashes.SHA384,
    HashFunction.SHA512: hashes.SHA512,
}


def key_type_of(certificate: x509.Certificate) -> KeyType:
    """Returns the type of the certificate's key.

    Raises `VerificationError` for a key that makes none of Trien's signatures.
    """
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise VerificationError("The certificate's public key cannot be read.") from None
    if isinstance(key, rsa.RSAPublicKey) and f"RSA_{key.key_size}" in set(KeyType):
        return KeyType(f"RSA_{key.key_size}")
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, ec.SECP256R1):
            return KeyType.EC_P256
        if isinstance(key.curve, ec.SECP384R1):
            return KeyType.EC_P384
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyType.EC_ED25519
    raise VerificationError("The certificate's public key is of a type that Trien does not sign with.")


def require_fit(certificate: x509.Certificate, algorithm: SignatureAlgorithm) -> None:
    """Raises `AlgorithmMismatch` when the certificate's key cannot have made signatures of `algorithm`."""
    key_type = key_type_of(certificate)
    if not algorithm.fits(key_type):
        raise AlgorithmMismatch(f"A key of type {key_type} cannot make signatures of {algorithm}.")


def effective_salt_length(algorithm: SignatureAlgorithm, pss_salt_length: int | None) -> int | None:
    """Returns the salt's length in bytes: the one asked for, or the digest's; None when it is not RSASSA-PSS."""
    hash_function = algorithm.hash_function
    if not algorithm.is_pss or hash_function is None:
        return None
    return hash_function.size if pss_salt_length is None else pss_salt_length


def verify_signature(
    certificate: x509.Certificate,
    algorithm: SignatureAlgorithm,
    signature: bytes,
    signed: bytes,
    *,
    pss_salt_length: int | None = None,
) -> None:
    """Verifies one signature over `signed`: a digest of the algorithm's hash, or for Ed25519 the data.

    `pss_salt_length` None means the digest's length; another salt than this one is refused.

    Raises `VerificationError`.
    """
    try:
        _verify(certificate, algorithm, signature, signed, effective_salt_length(algorithm, pss_salt_length))
    except (InvalidSignature, ValueError, AlgorithmMismatch):
        raise VerificationError("The signature does not verify with the certificate.") from None


def _verify(
    certificate: x509.Certificate, algorithm: SignatureAlgorithm, signature: bytes, signed: bytes, salt: int | None
) -> None:
    require_fit(certificate, algorithm)
    key = certificate.public_key()
    hash_function = algorithm.hash_function
    if hash_function is None:
        if isinstance(key, ed25519.Ed25519PublicKey):
            return key.verify(signature, signed)
        raise InvalidSignature
    if len(signed) != hash_function.size:
        raise InvalidSignature
    function = _HASHES[hash_function]()
    prehashed = utils.Prehashed(function)
    if isinstance(key, rsa.RSAPublicKey):
        if salt is None:
            return key.verify(signature, signed, padding.PKCS1v15(), prehashed)
        return key.verify(signature, signed, padding.PSS(mgf=padding.MGF1(function), salt_length=salt), prehashed)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.verify(signature, signed, ec.ECDSA(prehashed))
    raise InvalidSignature


def require_echo(
    request: signing_service_pb2.SignDigestsRequest,
    response: signing_service_pb2.SignDigestsResponse,
    algorithm: SignatureAlgorithm,
) -> None:
    """Checks that the answer is one to this request, whole and in one piece.

    Raises `VerificationError` that says what differs.
    """
    salt = effective_salt_length(algorithm, request.pss_salt_length if request.HasField("pss_salt_length") else None)
    echoed_salt = response.pss_salt_length if response.HasField("pss_salt_length") else None
    findings = {
        "names another credential": response.credential != request.credential,
        "names another algorithm": response.algorithm != algorithm_message(algorithm),
        "names another salt length": echoed_salt != salt,
        "does not confirm the items' checksum": not response.verified_items_crc32c,
        f"has {len(response.signatures)} signatures for {len(request.items)} items": len(response.signatures)
        != len(request.items),
        "names another authorization": request.WhichOneof("authority") == "activated_authorization"
        and response.authorization != request.activated_authorization.authorization,
        "names another person": bool(request.one_time_password.signer)
        and response.approved_by != request.one_time_password.signer,
    }
    wrong = [finding for finding, found in findings.items() if found]
    if wrong:
        raise VerificationError(f"The server's answer {' and '.join(wrong)}; its signatures are not handed out.")
    for position, signature in enumerate(response.signatures):
        checksum = google_crc32c.value(signature.value).to_bytes(4, "big")
        if not hmac.compare_digest(checksum, signature.crc32c.to_bytes(4, "big")):
            raise VerificationError(f"Signature {position} was changed on its way: its checksum is wrong.")
