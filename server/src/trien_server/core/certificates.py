"""Certificates of credentials (RFC 5280)."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trien_server.core.errors import CertificateNotValid, InvalidArgument

DOCUMENT_PURPOSES = frozenset(
    {
        "2.5.29.37.0",  # any (RFC 5280, section 4.2.1.12)
        "1.3.6.1.5.5.7.3.36",  # document signing (RFC 9336)
        "1.3.6.1.5.5.7.3.4",  # e-mail protection
        "1.2.840.113583.1.1.5",  # Adobe's authentic documents
        "1.3.6.1.4.1.311.10.3.12",  # Microsoft's document signing
    }
)
"""What an extended key usage has to name at least one of, where a signer's certificate has one."""

_load = lru_cache(maxsize=4096)(x509.load_der_x509_certificate)


def assert_valid_at(chain: Sequence[bytes], at: datetime) -> None:
    """Raises `CertificateNotValid` unless every certificate of the chain (DER) is within its dates."""
    if not chain:
        raise CertificateNotValid("The credential has no certificate.")
    for encoded in chain:
        certificate = _load(encoded)
        if at < certificate.not_valid_before_utc:
            raise CertificateNotValid(f"A certificate is valid only from {certificate.not_valid_before_utc:%Y-%m-%d}.")
        if at > certificate.not_valid_after_utc:
            raise CertificateNotValid(f"A certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d}.")


def expire_time(certificate: bytes) -> datetime:
    """Returns until when a certificate (DER) is valid."""
    return _load(certificate).not_valid_after_utc


def check_chain(chain: Sequence[bytes], *, public_key: bytes, at: datetime, field: str) -> None:
    """Checks that a chain can become a credential's.

    Raises `InvalidArgument` that names the first fault: not a certificate, another key than
    `public_key` (SPKI, DER), a signature that is not the next one's, a key usage that lacks
    contentCommitment and digitalSignature both, an extended key usage for something else;
    `CertificateNotValid` for dates.
    """
    if not chain:
        raise InvalidArgument(field, "at least the signer's certificate is required")
    certificates = []
    for position, encoded in enumerate(chain):
        try:
            certificates.append(_load(encoded))
        except ValueError as fault:
            raise InvalidArgument(f"{field}[{position}]", "not a DER certificate") from fault
    try:
        spki = certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        _ = certificates[0].extensions  # read here once: they are parsed only when they are asked for
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as fault:
        raise InvalidArgument(f"{field}[0]", "its key or one of its extensions cannot be read") from fault
    if spki != public_key:
        raise InvalidArgument(f"{field}[0]", "the certificate is for another key")
    for position, (certificate, issuer) in enumerate(itertools.pairwise(certificates)):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, ValueError, TypeError) as fault:
            raise InvalidArgument(f"{field}[{position}]", "the next certificate did not issue it") from fault
    try:
        usage = certificates[0].extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not (usage.content_commitment or usage.digital_signature):
        raise InvalidArgument(f"{field}[0]", "its key usage allows no signatures of documents")
    try:
        purposes = certificates[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        purposes = None
    if purposes is not None and not any(purpose.dotted_string in DOCUMENT_PURPOSES for purpose in purposes):
        raise InvalidArgument(f"{field}[0]", "its extended key usage allows no signatures of documents")
    assert_valid_at(chain, at)
