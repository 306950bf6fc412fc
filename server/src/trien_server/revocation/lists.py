"""Revocation lists (CRLs, RFC 5280): what a list has to be before it is believed."""

from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from trien_server.core.ports import RevocationAnswer
from trien_server.core.records import Revocation
from trien_server.revocation.ocsp import NotBelieved

LARGEST_LIST = 32 * 1024 * 1024

_SKEW = timedelta(minutes=5)
_KNOWN_CRITICAL = {x509.IssuingDistributionPoint.oid}


def load(encoded: bytes) -> x509.CertificateRevocationList:
    """Returns a list from DER or PEM. Raises `NotBelieved`."""
    try:
        if encoded.lstrip().startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(encoded)
        return x509.load_der_x509_crl(encoded)
    except ValueError as fault:
        raise NotBelieved("its list cannot be read") from fault


def read_list(
    listed: x509.CertificateRevocationList,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    at: datetime,
    lowest_number: int,
    source: str,
) -> tuple[RevocationAnswer, int]:
    """Returns what a list says of a certificate, and the list's number. Raises `NotBelieved`."""
    try:
        number = _check(listed, certificate, issuer, at, lowest_number)
        until = listed.next_update_utc
        entry = listed.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if until is None:
            raise NotBelieved("its list does not say when the next one comes")
        if entry is None:
            return RevocationAnswer(revocation=Revocation.GOOD, source=source, valid_until=until), number
        return _revoked(entry, source, until), number
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as fault:
        raise NotBelieved("its list cannot be read") from fault


def _check(
    listed: x509.CertificateRevocationList,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    at: datetime,
    lowest_number: int,
) -> int:
    """Checks all but the entries and returns the list's number, 0 when it has none."""
    if listed.issuer != issuer.subject:
        raise NotBelieved("its list is another CA's")
    if not listed.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
        raise NotBelieved("the signature of its list does not verify")
    if not _may_sign_lists(issuer):
        raise NotBelieved("the CA may not sign lists")
    if listed.last_update_utc > at + _SKEW:
        raise NotBelieved("its list is from the future")
    if listed.next_update_utc is not None and listed.next_update_utc <= at:
        raise NotBelieved("its list is too old")
    for extension in listed.extensions:
        if extension.oid == x509.DeltaCRLIndicator.oid:
            raise NotBelieved("its list has the changes alone")
        if extension.critical and extension.oid not in _KNOWN_CRITICAL:
            raise NotBelieved("its list has a critical extension that is not known here")
    _check_scope(listed, certificate)
    try:
        number = int(listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
    except x509.ExtensionNotFound:
        number = 0
    if number < lowest_number:
        raise NotBelieved("its list is older than one that was seen before")
    return number


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _check_scope(listed: x509.CertificateRevocationList, certificate: x509.Certificate) -> None:
    """Refuses indirect lists, and those for other certificates or some reasons (RFC 5280, section 5.2.5)."""
    try:
        scope = listed.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return
    if scope.indirect_crl or scope.only_contains_attribute_certs or scope.only_some_reasons:
        raise NotBelieved("its list is indirect or not for all reasons")
    is_ca = _is_ca(certificate)
    if (scope.only_contains_ca_certs and not is_ca) or (scope.only_contains_user_certs and is_ca):
        raise NotBelieved("its list is for other certificates")
    if scope.relative_name is not None:
        raise NotBelieved("its list names its place in a way that is not known here")
    if scope.full_name is not None and not set(scope.full_name) & set(_points(certificate)):
        raise NotBelieved("its list is for other certificates")


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _points(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except x509.ExtensionNotFound:
        return []
    return [name for point in points for name in point.full_name or []]


def _revoked(entry: x509.RevokedCertificate, source: str, until: datetime) -> RevocationAnswer:
    on_hold = False
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            if extension.value.reason is x509.ReasonFlags.remove_from_crl:
                raise NotBelieved("its list has an entry that belongs in one of changes")
            on_hold = extension.value.reason is x509.ReasonFlags.certificate_hold
        elif extension.critical:
            # Such as certificateIssuer: the entry is about another CA's certificate.
            raise NotBelieved("its list has an entry with a critical extension that is not known here")
    return RevocationAnswer(
        revocation=Revocation.REVOKED,
        revoke_time=entry.revocation_date_utc,
        on_hold=on_hold,
        source=source,
        valid_until=until,
    )


def list_urls(certificate: x509.Certificate) -> list[str]:
    """Returns where a certificate says that its CA's own list for all reasons is."""
    try:
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, ValueError, x509.DuplicateExtension):
        return []
    return [
        name.value
        for point in points
        if point.crl_issuer is None and point.reasons is None
        for name in point.full_name or []
        if isinstance(name, x509.UniformResourceIdentifier) and name.value.startswith(("http://", "https://"))
    ]
