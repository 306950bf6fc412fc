"""What the real adapter makes of CAs that answer, lie, or are away: OCSP and lists over HTTP on this machine."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.fakes.public_ca import (
    DAY,
    Issued,
    PublicCa,
    WebServer,
    ca_extensions,
    crl_points,
    drip,
    issue,
    ocsp_access,
    web_server,
)

from trien_server.core.ports import RevocationAnswer, StatusNotKnown
from trien_server.core.records import Revocation
from trien_server.revocation import Network, NetworkRevocationSource

AT = datetime.now(UTC).replace(microsecond=0)
GOOD, REVOKED = Revocation.GOOD, Revocation.REVOKED


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    with web_server() as running:
        yield running


class Case:
    """A CA, a certificate of it, and the adapter that asks."""

    def __init__(self, web: WebServer, *, timeout: float = 10.0, folder: Path | None = None) -> None:
        self.web = web
        self.ca = PublicCa(AT)
        web.requests.clear()
        self.source = NetworkRevocationSource(
            network=Network(allowed_hosts=["localhost"], timeout=timeout), list_folder=folder
        )
        self.leaf = self.certify(ocsp_access(web.url("/ocsp")))
        self.answers: Callable[[bytes], bytes] = lambda request: self.ca.answer(request, self.leaf.certificate)
        web.serve = lambda path, body, handler: (200, self.answers(body))

    def certify(self, *extensions: x509.ExtensionType) -> Issued:
        return issue("Leaf", at=AT, by=self.ca.root, extensions=extensions)

    def with_lists(self, *lists: bytes) -> None:
        """Has the certificate name a list, which is another one at each fetch."""
        self.leaf = self.certify(crl_points(self.web.url("/list.crl")))
        waiting = list(lists)
        self.answers = lambda _: waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def ask(self, at: datetime = AT) -> RevocationAnswer:
        return self.source.status_of(self.leaf.der, self.ca.root.der, at=at)

    def finding(self, at: datetime = AT) -> str:
        with pytest.raises(StatusNotKnown) as caught:
            self.ask(at)
        return str(caught.value)


@pytest.fixture
def case(web: WebServer) -> Case:
    return Case(web)


def test_a_good_certificate_is_good_until_the_next_answer_is_due(case: Case) -> None:
    answer = case.ask()
    assert answer == RevocationAnswer(revocation=GOOD, source="OCSP localhost", valid_until=AT + 2 * DAY)
    case.ca.next_update = None
    assert case.ask().valid_until == AT + DAY


def test_a_revoked_certificate_is_revoked_and_one_on_hold_says_so(case: Case) -> None:
    case.ca.status = ocsp.OCSPCertStatus.REVOKED
    answer = case.ask()
    assert (answer.revocation, answer.revoke_time, answer.on_hold) == (REVOKED, AT - DAY, False)
    case.ca.reason = x509.ReasonFlags.certificate_hold
    assert case.ask().on_hold


def test_a_responder_that_the_ca_appointed_is_believed(case: Case) -> None:
    responder = case.ca.appoint()
    case.ca.responder, case.ca.responder_certificates = responder, (responder.certificate,)
    assert case.ask().revocation is GOOD


def test_an_answer_without_a_nonce_is_believed_by_its_dates(case: Case) -> None:
    case.ca.echo = lambda _: None
    assert case.ask().revocation is GOOD
    case.ca.this_update, case.ca.next_update = -2 * DAY, None
    assert "too old" in case.finding()


def _other_responder(ca: PublicCa, **given: object) -> None:
    responder = ca.appoint(**given)
    ca.responder, ca.responder_certificates = responder, (responder.certificate,)


def _foreign_responder(ca: PublicCa) -> None:
    stranger = issue("Stranger", at=AT, extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]),))
    ca.responder, ca.responder_certificates = stranger, (stranger.certificate,)


def _flip_last(encoded: bytes) -> bytes:
    return encoded[:-1] + bytes([encoded[-1] ^ 1])


def _unnamed(ca: PublicCa) -> None:
    ca.responder = ca.appoint()


LIES: dict[str, tuple[Callable[[PublicCa], None], str]] = {
    "unknown": (lambda ca: setattr(ca, "status", ocsp.OCSPCertStatus.UNKNOWN), "does not know"),
    "stale": (lambda ca: (setattr(ca, "this_update", -3 * DAY), setattr(ca, "next_update", -DAY))[0], "too old"),
    "future": (lambda ca: setattr(ca, "this_update", DAY), "from the future"),
    "another certificate": (lambda ca: setattr(ca, "about", issue("x", at=AT, by=ca.root).certificate), "another"),
    "another nonce": (lambda ca: setattr(ca, "echo", lambda _: bytes(32)), "another question"),
    "another signature": (lambda ca: setattr(ca, "tamper", _flip_last), "does not verify"),
    "a stranger": (_foreign_responder, "did not appoint"),
    "no certificate of the signer": (_unnamed, "without a certificate"),
    "no purpose": (lambda ca: _other_responder(ca, extensions=()), "did not appoint"),
    "another purpose": (
        lambda ca: _other_responder(ca, extensions=(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]),)),
        "did not appoint",
    ),
    "expired responder": (lambda ca: _other_responder(ca, begin=-9 * DAY, end=-DAY), "not valid now"),
    "future responder": (lambda ca: _other_responder(ca, begin=DAY), "not valid now"),
}


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_lies_says_nothing(case: Case, lie: str) -> None:
    tell, said = LIES[lie]
    tell(case.ca)
    assert said in case.finding()
    case.ca.status = ocsp.OCSPCertStatus.REVOKED
    if lie != "unknown":
        assert said in case.finding()


def test_what_is_no_answer_says_nothing(case: Case, record_property: Callable[[str, object], None]) -> None:
    good = case.ca.answer(ocsp_request(case), case.leaf.certificate)
    refused = [ocsp.OCSPResponseBuilder.build_unsuccessful(one) for one in ocsp.OCSPResponseStatus if one.value]
    bodies = [b"", b"x", good[:-1], good + b"x", b"<html>" * 100, *(one.public_bytes(Encoding.DER) for one in refused)]
    for body in bodies:
        case.answers = lambda _, body=body: body  # type: ignore[misc]
        assert case.finding()
    flipped = 0
    for place in range(0, len(good), 7):
        body = bytearray(good)
        body[place] ^= 0x01
        case.answers = lambda _, body=bytes(body): body  # type: ignore[misc]
        with suppress(StatusNotKnown):
            # A bit of an unsigned part may not matter; then the answer is the true one.
            assert case.ask().revocation is GOOD
        flipped += 1
    record_property("count", f"OCSP: {len(bodies)} bodies that are no answer, {flipped} bits flipped")
    assert flipped > 30


def ocsp_request(case: Case) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(case.leaf.certificate, case.ca.root.certificate, hashes.SHA1())
    return builder.add_extension(x509.OCSPNonce(bytes(32)), critical=False).build().public_bytes(Encoding.DER)


def test_a_list_says_which_certificates_are_revoked(case: Case) -> None:
    case.with_lists(b"")
    other, hold = case.leaf.certificate.serial_number + 1, x509.ReasonFlags.certificate_hold
    for revoked, expected in (
        ([], (GOOD, False)),
        ([(other, None)], (GOOD, False)),
        ([(other, None), (other - 1, x509.ReasonFlags.key_compromise)], (REVOKED, False)),
        ([(other - 1, hold)], (REVOKED, True)),
    ):
        case.source = NetworkRevocationSource(
            network=Network(allowed_hosts=["localhost"], timeout=10), list_folder=None
        )
        content = case.ca.crl(*revoked)
        case.answers = lambda _, content=content: content  # type: ignore[misc]
        answer = case.ask()
        assert (answer.revocation, answer.on_hold) == expected
        assert (answer.source, answer.valid_until) == ("CRL localhost", AT + 2 * DAY)


def _scope(**given: object) -> tuple[tuple[x509.ExtensionType, bool], ...]:
    values: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return ((x509.IssuingDistributionPoint(**(values | given)), True),)  # type: ignore[arg-type]


LISTS: dict[str, tuple[Callable[[PublicCa], bytes], str]] = {
    "stale": (lambda ca: ca.crl(begin=-3 * DAY, end=-DAY), "too old"),
    "future": (lambda ca: ca.crl(begin=DAY, end=3 * DAY), "from the future"),
    "another key": (lambda ca: ca.crl(by=issue("x", at=AT)), "does not verify"),
    "another CA": (lambda ca: PublicCaNamed("Other").crl(), "another CA's"),
    "indirect": (lambda ca: ca.crl(extensions=_scope(indirect_crl=True)), "indirect"),
    "some reasons": (
        lambda ca: ca.crl(extensions=_scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}))),
        "all reasons",
    ),
    "for CAs": (lambda ca: ca.crl(extensions=_scope(only_contains_ca_certs=True)), "other certificates"),
    "elsewhere": (
        lambda ca: ca.crl(extensions=_scope(full_name=[x509.UniformResourceIdentifier("http://other/list")])),
        "other certificates",
    ),
    "a place of another kind": (
        lambda ca: ca.crl(
            extensions=_scope(
                relative_name=x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, "part 2")])
            )
        ),
        "a way that is not known here",
    ),
    "delta": (lambda ca: ca.crl(extensions=((x509.DeltaCRLIndicator(1), True),)), "changes alone"),
    "critical": (
        lambda ca: ca.crl(extensions=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True),)),
        "not known here",
    ),
    "broken": (lambda ca: ca.crl()[:-4], "cannot be read"),
    "empty": (lambda ca: b"", "cannot be read"),
}


class PublicCaNamed(PublicCa):
    """A CA of another name."""

    def __init__(self, name: str) -> None:
        super().__init__(AT)
        self.root = issue(name, at=AT, extensions=ca_extensions())


@pytest.mark.parametrize("lie", LISTS)
def test_a_list_that_lies_says_nothing(case: Case, lie: str) -> None:
    made, said = LISTS[lie]
    case.with_lists(made(case.ca))
    assert said in case.finding()


def test_a_list_never_goes_back(case: Case) -> None:
    serial = None
    case.with_lists(b"")
    serial = case.leaf.certificate.serial_number
    case.answers = lambda _: case.ca.crl((serial, None), number=7)
    assert case.ask().revocation is REVOKED
    case.answers = lambda _: case.ca.crl(number=6, begin=timedelta(hours=2))
    assert "older than one that was seen" in case.finding(AT + timedelta(hours=3))
    case.answers = lambda _: case.ca.crl(number=8, begin=timedelta(hours=2))
    assert case.ask(AT + timedelta(hours=3)).revocation is GOOD


def test_one_list_serves_all_certificates_of_a_ca_for_a_while(case: Case) -> None:
    case.with_lists(case.ca.crl())
    for _ in range(5):
        case.ask()
    assert case.web.requests == ["GET /list.crl"]
    case.ask(AT + timedelta(hours=2))
    assert len(case.web.requests) == 2


def test_a_list_is_asked_for_when_the_responder_is_away_or_lies(case: Case) -> None:
    case.leaf = case.certify(ocsp_access(case.web.url("/ocsp")), crl_points(case.web.url("/list.crl")))
    case.web.serve = lambda path, body, handler: (200, case.ca.crl()) if path == "/list.crl" else (500, b"")
    assert case.ask().source == "CRL localhost"


def test_lists_in_a_folder_are_looked_into(web: WebServer, tmp_path: Path) -> None:
    case = Case(web, folder=tmp_path)
    case.leaf = case.certify()
    assert case.finding() == "the certificate names nobody to ask"
    (tmp_path / "a-broken.crl").write_bytes(b"x")
    (tmp_path / "b-other.crl").write_bytes(PublicCaNamed("Other").crl())
    assert "another CA's" in case.finding()
    crl = x509.load_der_x509_crl(case.ca.crl((case.leaf.certificate.serial_number, None)))
    (tmp_path / "c.crl").write_bytes(crl.public_bytes(Encoding.PEM))
    answer = case.ask()
    assert (answer.revocation, answer.source) == (REVOKED, "CRL c.crl")
    assert web.requests == []


@pytest.mark.requirement("ASVS 5.0.0-13.2.4")
@pytest.mark.parametrize("status", [301, 302, 307, 404, 500, 204])
def test_a_redirect_is_not_followed_and_no_other_answer_than_200_counts(case: Case, status: int) -> None:
    good = lambda body: case.ca.answer(body, case.leaf.certificate)  # noqa: E731
    redirect = case.web.url("/elsewhere").encode()
    case.web.serve = lambda path, body, handler: (
        (200, good(body)) if path == "/elsewhere" else (status, b"" if status == 204 else redirect)
    )
    assert f"answered {status}" in case.finding()
    assert case.web.requests == ["POST /ocsp"]


def test_what_is_too_large_is_not_read_to_its_end(case: Case) -> None:
    case.answers = lambda _: bytes(1024 * 1024)
    assert "more than 65536 bytes" in case.finding()


@pytest.mark.parametrize(
    "begun",
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"],
    ids=["line", "head", "body"],
)
def test_a_slow_drip_is_cut_in_time(web: WebServer, begun: bytes) -> None:
    case = Case(web, timeout=1.0)
    web.serve = lambda path, body, handler: drip(handler, begun, 30.0)
    start = time.monotonic()
    assert "did not answer in time" in case.finding()
    assert time.monotonic() - start < 15
    assert "did not answer just now" in case.finding()
    assert len(web.requests) == 1


def test_an_answer_that_is_cut_off_is_none(case: Case) -> None:
    def serve(path: str, body: bytes, handler: object) -> None:
        content = case.ca.answer(body, case.leaf.certificate)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(content) + 1) + content)  # type: ignore[attr-defined]

    case.web.serve = serve
    assert "less than it said" in case.finding()


def test_a_ca_that_is_away_is_told_apart(web: WebServer) -> None:
    case = Case(web)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    case.leaf = case.certify(ocsp_access(f"http://localhost:{port}/"))
    assert "cannot be reached" in case.finding()


@pytest.mark.requirement("ASVS 5.0.0-13.2.4")
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}/ocsp", "not the usual port"),
        ("http://127.0.0.1/ocsp", "no public address"),
        ("http://[::1]/ocsp", "no public address"),
        ("http://[::ffff:127.0.0.1]/ocsp", "no public address"),
        ("http://169.254.169.254/latest/meta-data", "no public address"),
        ("http://10.0.0.1/", "no public address"),
        ("http://0.0.0.0/", "no public address"),
        ("http://[64:ff9b::10.0.0.1]/", "no public address"),
        ("http://[64:ff9b:1::10.0.0.1]/", "no public address"),
        ("http://[2002:a00:1::]/", "no public address"),
        ("http://[::10.0.0.1]/", "no public address"),
        ("http://[::ffff:0:10.0.0.1]/", "no public address"),
        ("http://[fec0::1]/", "no public address"),
        ("http://[5f00::1]/", "no public address"),
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://example.com/", "neither http nor https"),
        ("ldap://example.com/", "neither http nor https"),
        ("http://user:password@localhost:{port}/ocsp", "neither http nor https"),
        ("http://localhost:99999/", "cannot be read"),
    ],
)
def test_a_url_leads_to_no_place_inside(case: Case, url: str, said: str) -> None:
    case.leaf = case.certify(ocsp_access(url.format(port=case.web.port)))
    assert said in case.finding()
    assert case.web.requests == []


@pytest.mark.requirement("ASVS 5.0.0-13.2.4")
def test_no_proxy_of_the_environment_is_asked(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert case.ask().revocation is GOOD


def test_without_a_network_nobody_is_asked(case: Case) -> None:
    case.source = NetworkRevocationSource(network=None, list_folder=None)
    assert "revocation.network is off" in case.finding()
    assert case.web.requests == []


def test_openssls_responder_and_list_are_understood(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    ca = PublicCa(now)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    access = ocsp_access(f"http://localhost:{port}/")
    good, revoked = (issue(name, at=now, by=ca.root, extensions=(access,)) for name in ("Good", "Revoked"))
    (tmp_path / "ca.pem").write_bytes(ca.root.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "ca.key").write_bytes(ca.root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    lines = []
    for state, one, when in (("V", good, ""), ("R", revoked, f"{now - DAY:%y%m%d%H%M%SZ},keyCompromise")):
        serial = f"{one.certificate.serial_number:X}"
        serial = serial.zfill(len(serial) + len(serial) % 2)
        expires = f"{one.certificate.not_valid_after_utc:%y%m%d%H%M%SZ}"
        lines.append(f"{state}\t{expires}\t{when}\t{serial}\tunknown\t/CN=x\n")
    (tmp_path / "index.txt").write_text("".join(lines))
    command = ["openssl", "ocsp", "-index", "index.txt", "-port", str(port), "-CA", "ca.pem", "-rsigner", "ca.pem"]
    command += ["-rkey", "ca.key", "-ndays", "2"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("waiting for OCSP client connections" in line for line in process.stderr)
        source = NetworkRevocationSource(network=Network(allowed_hosts=["localhost"], timeout=10), list_folder=None)
        found = [source.status_of(one.der, ca.root.der, at=datetime.now(UTC)) for one in (good, revoked)]
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert [answer.revocation for answer in found] == [GOOD, REVOKED]
    assert found[1].revoke_time == (now - DAY).replace(microsecond=0)
