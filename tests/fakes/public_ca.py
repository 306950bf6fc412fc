"""A CA that others run: it issues, answers OCSP, publishes lists over HTTP, and lies as a test asks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


@dataclass(kw_only=True)
class Issued:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    name: str,
    *,
    at: datetime,
    by: Issued | None = None,
    public_key: Any = None,
    extensions: tuple[x509.ExtensionType, ...] = (),
    begin: timedelta = -DAY,
    end: timedelta = 400 * DAY,
) -> Issued:
    """Issues a certificate of that common name, by itself when no CA is given."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if by is None else by.certificate.subject)
        .public_key(public_key or key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(at + begin)
        .not_valid_after(at + end)
    )
    for extension in extensions:
        builder = builder.add_extension(
            extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    return Issued(certificate=builder.sign(key if by is None else by.key, hashes.SHA256()), key=key)


def ca_extensions() -> tuple[x509.ExtensionType, ...]:
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    return (
        x509.BasicConstraints(ca=True, path_length=None),
        x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False),
    )


def crl_points(*urls: str) -> x509.CRLDistributionPoints:
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None) for url in urls]
    )


def ocsp_access(*urls: str) -> x509.AuthorityInformationAccess:
    return x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))
            for url in urls
        ]
    )


@dataclass
class PublicCa:
    """The CA. What it answers is made anew for each request from the fields, which a test changes."""

    at: datetime
    root: Issued = field(init=False)
    status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD
    reason: x509.ReasonFlags | None = None
    responder: Issued | None = None
    responder_certificates: tuple[x509.Certificate, ...] = ()
    digest: hashes.HashAlgorithm = field(default_factory=hashes.SHA256)
    this_update: timedelta = timedelta(0)
    next_update: timedelta | None = 2 * DAY
    about: x509.Certificate | None = None
    echo: Callable[[bytes], bytes | None] = field(default=lambda nonce: nonce)
    tamper: Callable[[bytes], bytes] = field(default=lambda encoded: encoded)

    def __post_init__(self) -> None:
        self.root = issue("Public CA", at=self.at, extensions=ca_extensions())

    def answer(self, request: bytes, certificate: x509.Certificate) -> bytes:
        """Returns an OCSP response about a certificate."""
        asked = ocsp.load_der_ocsp_request(request)
        revoked = self.status is ocsp.OCSPCertStatus.REVOKED
        signer = self.responder or self.root
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=self.about or certificate,
                issuer=self.root.certificate,
                algorithm=hashes.SHA1(),
                cert_status=self.status,
                this_update=self.at + self.this_update,
                next_update=None if self.next_update is None else self.at + self.next_update,
                revocation_time=self.at - DAY if revoked else None,
                revocation_reason=self.reason if revoked else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
        )
        if self.responder_certificates:
            builder = builder.certificates(list(self.responder_certificates))
        nonce = self.echo(asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce)
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        return self.tamper(builder.sign(signer.key, self.digest).public_bytes(Encoding.DER))

    def appoint(self, name: str = "Responder", **given: Any) -> Issued:
        """Issues an OCSP responder's certificate."""
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
        return issue(name, at=self.at, by=self.root, **{"extensions": (purposes,), **given})

    def crl(
        self,
        *revoked: tuple[int, x509.ReasonFlags | None],
        number: int | None = 1,
        by: Issued | None = None,
        begin: timedelta = timedelta(0),
        end: timedelta = 2 * DAY,
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    ) -> bytes:
        """Returns a revocation list."""
        signer = by or self.root
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.root.certificate.subject)
            .last_update(self.at + begin)
            .next_update(self.at + end)
        )
        for serial, reason in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.at - DAY)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(signer.key, hashes.SHA256()).public_bytes(Encoding.DER)


@dataclass
class WebServer:
    """An HTTP server on this machine; `serve` answers a path and a body with a status and a body, or writes itself."""

    port: int = 0
    requests: list[str] = field(default_factory=list)
    serve: Callable[[str, bytes, BaseHTTPRequestHandler], tuple[int, bytes] | None] = field(
        default=lambda path, body, handler: (404, b"")
    )

    def url(self, path: str = "/", host: str = "localhost") -> str:
        return f"http://{host}:{self.port}{path}"


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Serves until the block ends."""
    state = WebServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            state.requests.append(f"{self.command} {self.path}")
            answer = state.serve(self.path, body, self)
            if answer is not None:
                status, content = answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if status in (301, 302, 307):
                    self.send_header("Location", content.decode())
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def drip(handler: BaseHTTPRequestHandler, begun: bytes, seconds: float) -> None:
    """Sends a byte now and then, for longer than anybody should wait."""
    end = time.monotonic() + seconds
    try:
        handler.wfile.write(begun)
        while time.monotonic() < end:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass
