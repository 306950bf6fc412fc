"""The TLS certificates that are in files: the server's chain and the CAs of client certificates."""

import ipaddress
import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from trien_server.cli.doctor.findings import Finding, error, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.config import Config
from trien_server.core.certificates import serial_issued_by
from trien_server.core.tls import TLS_KEYS, has_tls_key
from trien_server.services.expiry_notices import DAYS_BEFORE

_SERVER, _CLIENT_CA = "server.tls_certificate_file", "server.client_ca_file"
_RENEW = "Renew it and write the new files in their place: the server takes them into use by itself."
_RENEW_CA = "Add the new CA's certificate to the file before the old one ends, and give clients new certificates."


def tls_certificates(subject: Subject) -> Iterator[Finding]:
    """Yields what is wrong with certificates that can be read; those that cannot be are told of with the files."""
    server, authorities = _read(subject.config.server.tls_certificate_file), _read(subject.config.server.client_ca_file)
    for key, certificates, advice in ((_SERVER, server, _RENEW), (_CLIENT_CA, authorities, _RENEW_CA)):
        for certificate in certificates:
            yield from validity_findings(f"{key}: the certificate {_subject(certificate)}", certificate,
                                         at=subject.now, advice=advice)  # fmt: skip
    if server:
        yield from _use_findings(server[0])
        yield from _chain_findings(server)
        yield from _name_findings(server[0], subject.config)
    for authority in authorities:
        if not _is_authority(authority):
            yield error(
                f"{_CLIENT_CA}: the certificate {_subject(authority)} is no CA's: it lets in no client.",
                "Put the certificate of the CA there that issues clients' certificates.",
            )


def validity_findings(what: str, certificate: x509.Certificate, *, at: datetime, advice: str) -> Iterator[Finding]:
    """Yields a finding for a certificate that is not valid at a time, or ends soon."""
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if at < begins:
        yield error(f"{what} is not valid before {begins:%Y-%m-%d %H:%M} UTC.", f"Look at the clock. {advice}")
    elif at > ends:
        yield error(f"{what} expired on {ends:%Y-%m-%d %H:%M} UTC.", advice)
    elif ends - at <= timedelta(days=max(DAYS_BEFORE)):
        yield warning(f"{what} expires on {ends:%Y-%m-%d %H:%M} UTC, in {(ends - at).days} days.", advice)


def _use_findings(certificate: x509.Certificate) -> Iterator[Finding]:
    if not has_tls_key(certificate):
        yield error(
            f"{_SERVER}: the certificate's key is none of {TLS_KEYS}: every connection fails.",
            "Make a key of such a kind and have it certified.",
        )
    try:
        purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        yield error(
            f"{_SERVER}: the certificate is not for servers (extended key usage lacks serverAuth): clients refuse it.",
            "Have the CA issue a server's certificate.",
        )


def _chain_findings(chain: Sequence[x509.Certificate]) -> Iterator[Finding]:
    encoded = [certificate.public_bytes(Encoding.DER) for certificate in chain]
    for position, (own, above) in enumerate(itertools.pairwise(encoded)):
        if serial_issued_by(own, above) is None:
            yield error(
                f"{_SERVER}: certificate {position + 2} of the file, {_subject(chain[position + 1])}, did not issue "
                "the one before it.",
                "Put the server's certificate first, then the one that issued it, and so on; leave all others out.",
            )


def _name_findings(certificate: x509.Certificate, config: Config) -> Iterator[Finding]:
    names, addresses = _names(certificate)
    if not names and not addresses:
        yield error(
            f"{_SERVER}: the certificate has no name or address (subjectAltName): clients refuse it.",
            "Have it issued with the names that clients connect to.",
        )
        return
    listens = [config.server.token_address, config.server.certificate_address]
    beyond = any(not _is_local(address.rpartition(":")[0].strip("[]")) for address in listens)
    named = [*names, *map(str, addresses)]
    if beyond and all(_is_local(name) for name in named):
        yield warning(
            f"{_SERVER}: the server listens for others, but its certificate names this machine: {', '.join(named)}.",
            "Have one issued with the name that clients connect to.",
        )
    page = config.web.public_url
    host = None if page is None or config.web.address is None else urlsplit(page).hostname
    if host is not None and not any(_matches(name, host) for name in names) and host not in map(str, addresses):
        yield warning(
            f"{_SERVER}: the certificate does not name {host}, the host of web.public_url.",
            "Have one issued with that name, unless a proxy in front shows people a certificate of its own.",
        )


def _names(certificate: x509.Certificate) -> tuple[list[str], list[ipaddress.IPv4Address | ipaddress.IPv6Address]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return [], []
    addresses = [
        address
        for address in names.get_values_for_type(x509.IPAddress)
        if isinstance(address, ipaddress.IPv4Address | ipaddress.IPv6Address)
    ]
    return names.get_values_for_type(x509.DNSName), addresses


def _matches(name: str, host: str) -> bool:
    """Tells whether a certificate's name is a host's: a star stands for one label alone (RFC 9525, section 6.3)."""
    name, host = name.lower(), host.lower()
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"with serial number {certificate.serial_number:x}"
