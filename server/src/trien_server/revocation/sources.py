"""Asks what a certificate names: its OCSP responder first, its revocation list then; or a list in a file."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from trien_server.core.ports import RevocationAnswer, StatusNotKnown
from trien_server.revocation import lists, ocsp
from trien_server.revocation.lists import read_list
from trien_server.revocation.network import Network, NotFetched
from trien_server.revocation.ocsp import NotBelieved

_MOST_URLS = 3
_KEPT_LISTS = 16


class NetworkRevocationSource:
    """Implements `core.ports.RevocationSource`.

    A list is kept while it is valid, at most for `list_seconds`, so that all certificates of a CA cost one fetch. The
    highest number that was seen of each list is remembered as long as the process lives.
    """

    def __init__(self, *, network: Network | None, list_folder: Path | None) -> None:
        """Without a network only lists in files are looked at: every `*.crl` in the folder, DER or PEM."""
        self._network = network
        self._folder = list_folder
        self._lists: OrderedDict[str, x509.CertificateRevocationList] = OrderedDict()
        self._numbers: dict[tuple[bytes, str], int] = {}
        self._lock = threading.Lock()

    def status_of(self, certificate: bytes, issuer: bytes, *, at: datetime) -> RevocationAnswer:
        """See the port."""
        try:
            parsed, above = x509.load_der_x509_certificate(certificate), x509.load_der_x509_certificate(issuer)
            responders, points = _responders(parsed)[:_MOST_URLS], lists.list_urls(parsed)[:_MOST_URLS]
        except (ValueError, x509.DuplicateExtension) as fault:
            raise StatusNotKnown("a certificate of the chain cannot be read") from fault
        findings = []
        for url in responders:
            try:
                return self._ask(url, parsed, above, at)
            except (NotFetched, NotBelieved) as finding:
                findings.append(f"OCSP {_host(url)}: {finding}")
        for url in points:
            try:
                return self._look_up(url, parsed, above, at)
            except (NotFetched, NotBelieved) as finding:
                findings.append(f"CRL {_host(url)}: {finding}")
        for path in self._files():
            try:
                return self._look_into(path, parsed, above, at)
            except (OSError, NotBelieved) as finding:
                findings.append(f"CRL {path.name}: {finding if isinstance(finding, NotBelieved) else 'not readable'}")
        raise StatusNotKnown("; ".join(findings) or "the certificate names nobody to ask")

    def _ask(self, url: str, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime) -> RevocationAnswer:
        if self._network is None:
            raise NotFetched("revocation.network is off")
        request, nonce = ocsp.make_request(certificate, issuer)
        encoded = self._network.fetch(url, most=ocsp.LARGEST_ANSWER, body=request, media_type=ocsp.MEDIA_TYPE)
        return ocsp.read_answer(encoded, certificate, issuer, nonce=nonce, at=at, source=f"OCSP {_host(url)}")

    def _look_up(
        self, url: str, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime
    ) -> RevocationAnswer:
        if self._network is None:
            raise NotFetched("revocation.network is off")
        with self._lock:
            kept = self._lists.get(url)
        if kept is not None and _is_fresh(kept, at):
            try:
                return self._read(kept, url, certificate, issuer, at, f"CRL {_host(url)}")
            except NotBelieved:
                pass  # another may be there by now
        listed = lists.load(self._network.fetch(url, most=lists.LARGEST_LIST))
        answer = self._read(listed, url, certificate, issuer, at, f"CRL {_host(url)}")
        with self._lock:
            self._lists[url] = listed
            self._lists.move_to_end(url)
            while len(self._lists) > _KEPT_LISTS:
                self._lists.popitem(last=False)
        return answer

    def _look_into(
        self, path: Path, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime
    ) -> RevocationAnswer:
        if path.stat().st_size > lists.LARGEST_LIST:
            raise NotBelieved("it is too large")
        listed = lists.load(path.read_bytes())
        return self._read(listed, path.name, certificate, issuer, at, f"CRL {path.name}")

    def _read(
        self,
        listed: x509.CertificateRevocationList,
        place: str,
        certificate: x509.Certificate,
        issuer: x509.Certificate,
        at: datetime,
        source: str,
    ) -> RevocationAnswer:
        series = hashlib.sha256(issuer.public_bytes(Encoding.DER)).digest(), place
        with self._lock:
            lowest = self._numbers.get(series, 0)
        answer, number = read_list(listed, certificate, issuer, at=at, lowest_number=lowest, source=source)
        with self._lock:
            self._numbers[series] = max(number, self._numbers.get(series, 0))
        return answer

    def _files(self) -> Iterator[Path]:
        if self._folder is not None:
            yield from sorted(self._folder.glob("*.crl"))


_FRESH_PART = 4


def _is_fresh(listed: x509.CertificateRevocationList, at: datetime) -> bool:
    """Tells whether a list need not be fetched again: within the first quarter of its time, and an hour at most."""
    until = listed.next_update_utc
    if until is None:
        return False
    age = (at - listed.last_update_utc).total_seconds()
    return 0 <= age < min(3600.0, (until - listed.last_update_utc).total_seconds() / _FRESH_PART)


def _responders(certificate: x509.Certificate) -> list[str]:
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return []
    return [
        one.access_location.value
        for one in access
        if one.access_method == AuthorityInformationAccessOID.OCSP
        and isinstance(one.access_location, x509.UniformResourceIdentifier)
    ]


def _host(url: str) -> str:
    """Returns what reports and messages say of a URL: its host, for the rest may be a text of somebody's."""
    try:
        return urlsplit(url).hostname or "?"
    except ValueError:
        return "?"
