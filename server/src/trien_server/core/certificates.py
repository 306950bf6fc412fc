"""Certificates of credentials (RFC 5280)."""

import itertools
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from trien_server.core.errors import CertificateNotValid, InvalidArgument

LONGEST_CHAIN = 10
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

_SHORTEST_RSA = 2048
_SHORTEST_EC = 256
_BROKEN_HASHES = frozenset({"md2", "md4", "md5", "sha1"})
_KNOWN_CRITICAL = frozenset(
    {
        "2.5.29.15",  # key usage
        "2.5.29.17",  # subject alternative name
        "2.5.29.18",  # issuer alternative name
        "2.5.29.19",  # basic constraints
        "2.5.29.30",  # name constraints: for those who verify signatures to evaluate
        "2.5.29.31",  # CRL distribution points
        "2.5.29.32",  # certificate policies
        "2.5.29.33",  # policy mappings
        "2.5.29.36",  # policy constraints
        "2.5.29.37",  # extended key usage
        "2.5.29.54",  # inhibit any policy
        "1.3.6.1.5.5.7.1.3",  # qualified certificate statements (RFC 3739)
    }
)

E = TypeVar("E", bound=x509.ExtensionType)

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


def validity_of(chain: Sequence[bytes]) -> tuple[datetime, datetime]:
    """Returns from when until when all certificates of a chain (DER) are within their dates."""
    certificates = [_load(encoded) for encoded in chain]
    return (
        max(certificate.not_valid_before_utc for certificate in certificates),
        min(certificate.not_valid_after_utc for certificate in certificates),
    )


def is_self_issued(encoded: bytes) -> bool:
    """Tells whether a certificate (DER) names itself as its issuer."""
    certificate = _load(encoded)
    return certificate.issuer == certificate.subject


def serial_issued_by(encoded: bytes, issuer: bytes) -> int | None:
    """Returns the serial number of a certificate (DER) that an issuer (DER) signed; None when another one did."""
    certificate, above = _load(encoded), _load(issuer)
    issued = certificate.issuer == above.subject and _is_signed_by(encoded, issuer)
    return certificate.serial_number if issued else None


def check_chain(chain: Sequence[bytes], *, public_key: bytes, at: datetime, field: str) -> None:
    """Checks that a chain can become a credential's: the signer's certificate first, each issued by the next.

    The last one need not be a root. Raises `InvalidArgument` that names the first fault and its position:

    - none, or more than 10; not a DER certificate; one twice; a key or an extension that cannot be read; a serial
      number that is not positive; a critical extension that is not known here (RFC 5280, section 4.2);
    - the signer's is for another key than `public_key` (SPKI, DER), signed by its own key, a CA's, or lacks
      contentCommitment and digitalSignature both, or has an extended key usage for something else;
    - another one did not issue the one before it, is no CA's (basicConstraints, keyCertSign), has more CAs below it
      than its path length allows, or a DSA key or one that is too short; a signature is over MD5 or SHA-1.

    Raises `CertificateNotValid` for dates. Policies and name constraints are for those who verify signatures.
    """
    if not 1 <= len(chain) <= LONGEST_CHAIN:
        raise InvalidArgument(field, f"expected 1 to {LONGEST_CHAIN} certificates, the signer's own first")
    certificates = [_parse(encoded, field=f"{field}[{position}]") for position, encoded in enumerate(chain)]
    for position, encoded in enumerate(chain):
        if encoded in chain[:position]:
            raise InvalidArgument(f"{field}[{position}]", "the same certificate stands before it")
    _check_signer(certificates[0], public_key, field=f"{field}[0]")
    for position, (certificate, issuer) in enumerate(itertools.pairwise(certificates)):
        _check_issued(certificate, issuer, field=f"{field}[{position}]")
    if certificates[-1].subject != certificates[-1].issuer:  # Nothing rests on the signature of a root.
        _check_hash(certificates[-1], field=f"{field}[{len(chain) - 1}]")
    below = 0
    for position, authority in enumerate(certificates[1:], start=1):
        _check_authority(authority, below, field=f"{field}[{position}]")
        # Self-issued ones do not count (RFC 5280, section 4.2.1.9).
        below += authority.subject != authority.issuer
    assert_valid_at(chain, at)


def _parse(encoded: bytes, *, field: str) -> x509.Certificate:
    try:
        certificate = _load(encoded)
    except ValueError as fault:
        raise InvalidArgument(field, "not a DER certificate") from fault
    try:
        certificate.public_key()
        # Read here once: they are parsed only when they are asked for.
        extensions, _ = certificate.extensions, (certificate.subject, certificate.issuer)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as fault:
        raise InvalidArgument(field, "its key, names or one of its extensions cannot be read") from fault
    if certificate.serial_number <= 0:
        raise InvalidArgument(field, "its serial number is not positive (RFC 5280, section 4.1.2.2)")
    for extension in extensions:
        if extension.critical and extension.oid.dotted_string not in _KNOWN_CRITICAL:
            raise InvalidArgument(field, f"it has an unknown critical extension, {extension.oid.dotted_string}")
    return certificate


def _check_signer(certificate: x509.Certificate, public_key: bytes, *, field: str) -> None:
    if certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public_key:
        raise InvalidArgument(field, "the certificate is for another key")
    if certificate.subject == certificate.issuer and _is_issued_by(certificate, certificate):
        raise InvalidArgument(field, "its own key signed it: nobody says whose it is; a CA has to issue it")
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    if (constraints is not None and constraints.ca) or (usage is not None and usage.key_cert_sign):
        raise InvalidArgument(field, "it is a CA's: documents are signed with certificates that issue none")
    if usage is not None and not (usage.content_commitment or usage.digital_signature):
        raise InvalidArgument(field, "its key usage allows no signatures of documents")
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and not any(purpose.dotted_string in DOCUMENT_PURPOSES for purpose in purposes):
        raise InvalidArgument(field, "its extended key usage allows no signatures of documents")


def _check_issued(certificate: x509.Certificate, issuer: x509.Certificate, *, field: str) -> None:
    _check_hash(certificate, field=field)
    if certificate.issuer != issuer.subject:
        named = issuer.subject.rfc4514_string()[:200]
        raise InvalidArgument(field, f"the next certificate is not its issuer's but that of {named!r}")
    if not _is_issued_by(certificate, issuer):
        raise InvalidArgument(field, "the next certificate did not issue it: the signature is not by its key")


def _check_hash(certificate: x509.Certificate, *, field: str) -> None:
    try:
        function = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm as fault:
        raise InvalidArgument(field, "it is signed with an algorithm that is not known here") from fault
    if function is not None and function.name in _BROKEN_HASHES:
        raise InvalidArgument(field, f"it is signed over {function.name.upper()}, which can be forged")


def _check_authority(authority: x509.Certificate, below: int, *, field: str) -> None:
    constraints = _extension(authority, x509.BasicConstraints)
    if constraints is None or not constraints.ca:
        raise InvalidArgument(field, "it is no CA's (basicConstraints) and can issue nothing")
    usage = _extension(authority, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise InvalidArgument(field, "its key usage lacks keyCertSign: it can issue nothing")
    if constraints.path_length is not None and below > constraints.path_length:
        raise InvalidArgument(
            field, f"its path length allows {constraints.path_length} CAs below it, and there are {below}"
        )
    key = authority.public_key()
    match key:
        case dsa.DSAPublicKey():
            raise InvalidArgument(field, "it has a DSA key, a key of a kind that is not used any more")
        case rsa.RSAPublicKey() if key.key_size < _SHORTEST_RSA:
            raise InvalidArgument(field, f"its RSA key has {key.key_size} bits, at least {_SHORTEST_RSA} are needed")
        case ec.EllipticCurvePublicKey() if key.key_size < _SHORTEST_EC:
            raise InvalidArgument(field, f"its curve has {key.key_size} bits, at least {_SHORTEST_EC} are needed")


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


@lru_cache(maxsize=4096)
def _is_signed_by(encoded: bytes, issuer: bytes) -> bool:
    return _is_issued_by(_load(encoded), _load(issuer))


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
