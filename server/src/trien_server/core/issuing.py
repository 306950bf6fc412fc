"""Certificates and revocation lists of the installation's own CA (RFC 5280), around signatures that the token makes.

What the token signs is fixed before it is asked, so it is put together here, and not while it is signed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509.oid import NameOID

from trien_server.core import der
from trien_server.core.algorithms import KeyType
from trien_server.core.records import RevocationReason
from trien_server.core.signing_request import ALGORITHM_IDENTIFIERS, ALGORITHMS

SERIAL_BYTES = 20
"""A serial number is positive and has at most 20 octets (RFC 5280, section 4.1.2.2): 159 random bits fit."""
NO_PUBLIC_CA = "Private CA of one installation. It is no public CA, and nobody outside has to trust it."
"""What the notice in the certificate of a CA of our own says."""

_UTC_TIME, _GENERALIZED_TIME, _ENUMERATED, _BIT_STRING = 0x17, 0x18, 0x0A, 0x03
_UTF8_STRING = 0x0C
_CONTEXT_0, _CONTEXT_3 = 0xA0, 0xA3
_EXPLICIT_TEXT = 200
_LAST_UTC_YEAR = 2049
_REASON_CODES = {
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
}
"""CRLReason (RFC 5280, section 5.3.1); `unspecified` is left out, as the section says."""


@dataclass(frozen=True, kw_only=True)
class RevokedSerial:
    """An entry of a revocation list."""

    serial: int
    at: datetime
    reason: RevocationReason


def issued_name(authority: str, serial: int) -> str:
    """Returns the name of the record of a certificate that one of the installation's own CAs issued."""
    return f"{authority}/certificates/{serial:0{2 * SERIAL_BYTES}x}"


def parse_serial(random: bytes) -> int:
    """Returns a serial number of 159 bits made of 20 random bytes."""
    return int.from_bytes(random) >> 1 or 1


def ca_subject(*, common_name: str, organization: str) -> bytes:
    """Returns a CA's subject as a DER Name; the unit says that it is private."""
    named = (
        (NameOID.ORGANIZATION_NAME, organization),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Private CA - not a public CA"),
        (NameOID.COMMON_NAME, common_name),
    )
    # As in `signing_request.subject_name`: a bound in characters, which `cryptography` counts as bytes.
    attributes = [
        der.encode(der.SEQUENCE, _oid(oid.dotted_string), der.encode(_UTF8_STRING, value.encode()))
        for oid, value in named
    ]
    return der.encode(der.SEQUENCE, *(der.encode(der.SET, attribute) for attribute in attributes))


def ca_to_be_signed(
    *, key_type: KeyType, public_key: bytes, subject: bytes, serial: int, not_before: datetime, not_after: datetime
) -> bytes:
    """Returns the TBSCertificate of a CA that certifies itself; it may issue to persons and agencies alone."""
    notice = x509.UserNotice(notice_reference=None, explicit_text=NO_PUBLIC_CA[:_EXPLICIT_TEXT])
    policy = x509.PolicyInformation(x509.ObjectIdentifier("2.5.29.32.0"), [notice])
    key = _load(public_key)
    return _certificate(
        key_type=key_type,
        issuer=subject,
        subject=subject,
        public_key=public_key,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        extensions=[
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (_usage(authority=True), True),
            (x509.SubjectKeyIdentifier.from_public_key(key), False),
            (x509.CertificatePolicies([policy]), False),
        ],
    )


def ca_request_information(*, subject: bytes, public_key: bytes) -> bytes:
    """Returns the CertificationRequestInfo (RFC 2986) by which a CA of our own asks a parent for its certificate."""
    wanted = [(x509.BasicConstraints(ca=True, path_length=0), True), (_usage(authority=True), True)]
    extensions = der.encode(der.SEQUENCE, *(_extension(value, critical) for value, critical in wanted))
    request = der.encode(der.SEQUENCE, _oid("1.2.840.113549.1.9.14"), der.encode(der.SET, extensions))
    return der.encode(
        der.SEQUENCE, der.encode(der.INTEGER, b"\x00"), subject, public_key, der.encode(_CONTEXT_0, request)
    )


def certificate_to_be_signed(
    *,
    authority: x509.Certificate,
    authority_key_type: KeyType,
    public_key: bytes,
    subject: bytes,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    crl_url: str | None,
) -> bytes:
    """Returns the TBSCertificate of a signer: for signatures of documents, and for nothing else."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(authority=False), True),
        (x509.SubjectKeyIdentifier.from_public_key(_load(public_key)), False),
        (authority_key_identifier(authority), False),
    ]
    if crl_url is not None:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl_url)], None, None, None)
        extensions.append((x509.CRLDistributionPoints([point]), False))
    return _certificate(
        key_type=authority_key_type,
        issuer=authority.subject.public_bytes(),
        subject=subject,
        public_key=public_key,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
        extensions=extensions,
    )


def list_to_be_signed(
    *,
    authority: x509.Certificate,
    authority_key_type: KeyType,
    number: int,
    this_update: datetime,
    next_update: datetime,
    revoked: Sequence[RevokedSerial],
) -> bytes:
    """Returns the TBSCertList of all that a CA revoked (RFC 5280, section 5.1.2)."""
    entries = [
        der.encode(der.SEQUENCE, _integer(one.serial), _time(one.at), *_reason(one.reason))
        for one in sorted(revoked, key=lambda one: one.serial)
    ]
    extensions = [
        _extension(authority_key_identifier(authority), False),
        _extension(x509.CRLNumber(number), False),
    ]
    return der.encode(
        der.SEQUENCE,
        _integer(1),
        ALGORITHM_IDENTIFIERS[ALGORITHMS[authority_key_type]],
        authority.subject.public_bytes(),
        _time(this_update),
        _time(next_update),
        *([der.encode(der.SEQUENCE, *entries)] if entries else []),
        der.encode(_CONTEXT_0, der.encode(der.SEQUENCE, *extensions)),
    )


def signed(content: bytes, key_type: KeyType, signature: bytes) -> bytes:
    """Returns a Certificate, CertificateList or CertificationRequest in DER: content, algorithm, signature."""
    bits = der.encode(_BIT_STRING, b"\x00" + signature)
    return der.encode(der.SEQUENCE, content, ALGORITHM_IDENTIFIERS[ALGORITHMS[key_type]], bits)


def authority_key_identifier(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Returns the extension that names a CA's key, as its own certificate names it."""
    try:
        named = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = authority.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(named)


def whole_seconds(at: datetime) -> datetime:
    """Returns a time as certificates have it."""
    return at.astimezone(UTC).replace(microsecond=0)


def add_days(at: datetime, days: int) -> datetime:
    """Returns the last second of so many days (RFC 5280, section 4.1.2.5: both ends belong to the time)."""
    return whole_seconds(at) + timedelta(days=days) - timedelta(seconds=1)


def _certificate(
    *,
    key_type: KeyType,
    issuer: bytes,
    subject: bytes,
    public_key: bytes,
    serial: int,
    not_before: datetime,
    not_after: datetime,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> bytes:
    return der.encode(
        der.SEQUENCE,
        der.encode(_CONTEXT_0, _integer(2)),
        _integer(serial),
        ALGORITHM_IDENTIFIERS[ALGORITHMS[key_type]],
        issuer,
        der.encode(der.SEQUENCE, _time(not_before), _time(not_after)),
        subject,
        public_key,
        der.encode(
            _CONTEXT_3, der.encode(der.SEQUENCE, *(_extension(value, critical) for value, critical in extensions))
        ),
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    """Returns what a CA's key may do, or a signer's: contentCommitment alone, as its signing request asks for."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _extension(value: x509.ExtensionType, critical: bool) -> bytes:
    flag = [der.encode(der.BOOLEAN, b"\xff")] if critical else []
    content = der.encode(der.OCTET_STRING, value.public_bytes())
    return der.encode(der.SEQUENCE, _oid(value.oid.dotted_string), *flag, content)


def _reason(reason: RevocationReason) -> list[bytes]:
    code = _REASON_CODES.get(reason)
    if code is None:
        return []
    value = der.encode(der.OCTET_STRING, der.encode(_ENUMERATED, bytes([code])))
    return [der.encode(der.SEQUENCE, der.encode(der.SEQUENCE, _oid("2.5.29.21"), value))]


def _load(public_key: bytes) -> CertificatePublicKeyTypes:
    return load_der_public_key(public_key)  # type: ignore[return-value]


def _integer(value: int) -> bytes:
    return der.encode(der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def _time(at: datetime) -> bytes:
    """Returns a Time: UTCTime through the year 2049, GeneralizedTime after it (RFC 5280, section 4.1.2.5)."""
    utc = at.astimezone(UTC)
    if utc.year <= _LAST_UTC_YEAR:
        return der.encode(_UTC_TIME, f"{utc:%y%m%d%H%M%SZ}".encode("ascii"))
    return der.encode(_GENERALIZED_TIME, f"{utc:%Y%m%d%H%M%SZ}".encode("ascii"))


def _oid(dotted: str) -> bytes:
    first, second, *others = (int(arc) for arc in dotted.split("."))
    content = bytearray()
    for arc in (first * 40 + second, *others):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(0x80 | arc & 0x7F)
        content += bytes(reversed(septets))
    return der.encode(der.OBJECT_IDENTIFIER, bytes(content))
