"""What a second operator signs, and how anyone verifies it: with OpenSSL alone, if need be.

openssl dgst -sha256 -verify operator-public-key.pem -signature approval.sig approval.txt
"""

import hashlib

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trien_server.core.errors import InvalidArgument

_LEAST_RSA_BITS = 2048
_LARGEST_CERTIFICATE = 16 * 1024


def statement_digest(statement: str) -> bytes:
    """Returns SHA-256 over a proposal's statement in UTF-8: 32 bytes."""
    return hashlib.sha256(statement.encode()).digest()


def approval_text(proposal: str, digest: bytes) -> bytes:
    """Returns the text that an approval signs: `trien.v1 approve proposals/x sha256:00ff…` and a line feed."""
    return f"trien.v1 approve {proposal} sha256:{digest.hex()}\n".encode("ascii")


def verify_approval(certificate: bytes, text: bytes, signature: bytes) -> None:
    """Verifies a signature with a certificate's (DER) key: ECDSA or RSA PKCS #1 v1.5 with SHA-256, or Ed25519.

    Raises `InvalidSignature`, also for a key of another kind.
    """
    key = x509.load_der_x509_certificate(certificate).public_key()
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
        case rsa.RSAPublicKey():
            key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        case ed25519.Ed25519PublicKey():
            key.verify(signature, text)
        case _:
            raise InvalidSignature("no approvals are made with such a key")


def public_key_hash(certificate: bytes, *, field: str) -> bytes:
    """Returns SHA-256 over a certificate's SubjectPublicKeyInfo (DER): 32 bytes, one for all certificates of a key.

    Raises `InvalidArgument` for what is no certificate (DER), is larger than 16 KiB, or has a key that approvals
    are not made with.
    """
    if len(certificate) > _LARGEST_CERTIFICATE:
        raise InvalidArgument(field, "expected at most 16 KiB")
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise InvalidArgument(field, "not a certificate in DER") from fault
    usable = isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) or (
        isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS
    )
    if not usable:
        raise InvalidArgument(field, "expected a key of an elliptic curve, Ed25519, or RSA of 2,048 bits or more")
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
