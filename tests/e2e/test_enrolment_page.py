"""The page on which a person enrols: from the mail to the authenticator, and what the page withstands."""

import base64
import html
import http.client
import re
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import pytest
from tests.support.administration import Administrator
from tests.support.carriers import LOOPBACK, Mail, MailServer, Tls, running, wait_for
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import signer_service_pb2

CHROMIUM = shutil.which("chromium")
PUBLIC_URL = "https://sign.example"


@dataclass
class Enrolling:
    """A server with the page and a mail server."""

    installation: Installation
    administrator: Administrator
    mails: MailServer
    people: int = 0
    browsers: int = 0

    def invite(self, **enrolment: Any) -> tuple[str, str]:
        """Agrees on an enrolment of a new person, and has its code sent; returns the person and the link's path."""
        self.people += 1
        admin = self.administrator
        identifier = f"moi-{self.people}"
        signer = signer_service_pb2.Signer(
            display_name=f"Nguyễn Văn {self.people}",
            kind=signer_service_pb2.Signer.PERSON,
            organization=admin.organization,
            email=f"{identifier}@phulam.example",
        )
        request = signer_service_pb2.CreateSignerRequest(signer_id=identifier, signer=signer)
        name = admin.connection.call(admin.connection.signers.CreateSigner, request).name
        wanted = {"kind": signer_service_pb2.Authenticator.TOTP} | enrolment
        made = signer_service_pb2.Enrolment(name=f"{name}/enrolments/phone", **wanted)
        admin.agree(
            admin.connection.signers.CreateEnrolments, signer_service_pb2.CreateEnrolmentsRequest(enrolments=[made])
        )
        return name, self.send(made.name)

    def send(self, enrolment: str) -> str:
        admin = self.administrator
        before = len(self.mails.taken)
        sent = admin.connection.call(
            admin.connection.signers.SendEnrolmentCode, signer_service_pb2.SendEnrolmentCodeRequest(name=enrolment)
        )
        assert sent.sent_to == "m•••@phulam.example"
        assert sent.half == ""
        wait_for(lambda: len(self.mails.taken) > before, "the mail arrives")
        return self.path_in(self.mails.taken[-1])

    @staticmethod
    def path_in(mail: Mail) -> str:
        found = re.search(rf"{PUBLIC_URL}(/enrol/[a-z2-7]{{32}}) ", mail.text)
        assert found is not None, mail.text
        return found[1]

    def browser(self, language: str = "vi") -> "Browser":
        self.browsers += 1
        return Browser(self.installation, language, f"127.0.1.{self.browsers}")


class Browser:
    """A browser without scripts on a computer of its own: pages, forms, and the cookies that it was given."""

    def __init__(self, installation: Installation, language: str, address: str) -> None:
        self._address = address
        self._port = installation.web_port
        self._context = ssl.create_default_context(cafile=installation.directory / "tls" / "ca.pem")
        self._language = language
        self.cookies: dict[str, str] = {}
        self.set_cookie = ""
        self.headers: dict[str, str] = {}
        self.status = 0
        self.page = ""

    def get(self, path: str, **headers: str) -> str:
        return self._request("GET", path, None, headers)

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> str:
        return self._request("POST", path, urllib.parse.urlencode(fields), headers or {})

    def _request(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> str:
        sent = {"Accept-Language": self._language, **headers}
        if body is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection = http.client.HTTPSConnection(
            LOOPBACK, self._port, timeout=30, context=self._context, source_address=(self._address, 0)
        )
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            self.status, self.page = answer.status, answer.read().decode()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        self.set_cookie = self.headers.get("set-cookie", "")
        if self.set_cookie:
            name, _, value = self.set_cookie.partition(";")[0].partition("=")
            self.cookies = {name: value.strip('"')} if value.strip('"') else {}
        return self.page

    @property
    def uri(self) -> str:
        found = re.search(r'href="(otpauth://[^"]+)"', self.page)
        assert found is not None, self.page
        return html.unescape(found[1])


@pytest.fixture(scope="module")
def enrolling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Enrolling]:
    directory = tmp_path_factory.mktemp("enrolling")
    mails = MailServer(Tls.create(directory / "carriers"), mode="none")
    with running(mails):
        settings = (
            f"email.host={LOOPBACK}",
            f"email.port={mails.port}",
            "email.tls=none",
            "email.from_address=no-reply@phulam.example",
            "web.address=127.0.0.1:0",
            f"web.public_url={PUBLIC_URL}",
            "service.name=Chữ ký số xã Phú Lâm",
        )
        with (
            running_sandbox(directory / "installation", *settings) as installation,
            Administrator(installation) as administrator,
        ):
            yield Enrolling(installation, administrator, mails)


@pytest.mark.requirement("ASVS 5.0.0-14.2.1")
@pytest.mark.promise("P9", "P12")
def test_a_person_goes_from_the_mail_to_a_confirmed_authenticator(enrolling: Enrolling) -> None:
    name, path = enrolling.invite()
    log_before = enrolling.installation.log_path.stat().st_size
    scanner, person = enrolling.browser(), enrolling.browser()
    for _ in range(3):
        assert "Bắt đầu</button>" in scanner.get(path)
    assert scanner.set_cookie == ""
    person.get(path)
    page = person.post(path, act="begin")
    assert person.status == 200
    assert "<svg" in page
    uri = person.uri
    generator = pyotp.parse_uri(uri)
    assert isinstance(generator, pyotp.TOTP)
    shown = re.search(r"<code>([A-Z2-7 ]+)</code>", page)
    assert shown is not None
    assert shown[1].replace(" ", "") == generator.secret
    for part in ("Secure", "HttpOnly", "SameSite=strict", "Path=/enrol"):
        assert part in person.set_cookie

    wrong = str(10**6 - 1 - int(generator.now())).zfill(6)
    assert "còn thử được 4 lần" in person.post(path, act="confirm", code=wrong)
    assert 'role="alert"' in person.page
    assert generator.secret not in person.page, "it is shown once"
    assert "6 đến 8 chữ số" in person.post(path, act="confirm", code="12ab")
    assert "đã được bắt đầu ở nơi khác" in scanner.post(path, act="begin")
    assert "đã được bắt đầu ở nơi khác" in scanner.post(path, act="confirm", code=generator.now())
    assert "QR đã hiện một lần" in person.get(path)
    assert "Đã đăng ký xong" in person.post(path, act="confirm", code=generator.now())
    assert person.cookies == {}
    assert person.get(path)
    assert person.status == 404

    admin = enrolling.administrator
    request = signer_service_pb2.ListAuthenticatorsRequest(parent=name)
    [made] = admin.connection.call(admin.connection.signers.ListAuthenticators, request).authenticators
    assert made.name == f"{name}/authenticators/phone"
    wait_for(lambda: "đã có hiệu lực" in enrolling.mails.taken[-1].text, "the person is told")

    code = path.rpartition("/")[2]
    log = enrolling.installation.log_path.read_bytes()[log_before:]
    assert b'"event": "web"' in log or b'"web"' in log
    for secret in (code, code[:16], code[16:], generator.secret, urllib.parse.quote(uri)):
        assert secret.encode() not in log
    stored = b"".join(file.read_bytes() for file in enrolling.installation.directory.glob("trien.db*"))
    for secret in (code, code[:16], generator.secret):
        assert secret.encode() not in stored
    assert base64.b32decode(generator.secret) not in stored


@pytest.mark.requirement("ASVS 5.0.0-14.3.2")
@pytest.mark.promise("P12")
def test_every_answer_forbids_what_it_does_not_need(enrolling: Enrolling) -> None:
    _, path = enrolling.invite()
    browser = enrolling.browser()
    answers = 0
    for act in (
        lambda: browser.get(path),
        lambda: browser.post(path, act="begin"),
        lambda: browser.post(path, act="confirm", code="000000"),
        lambda: browser.get("/enrol/" + "a" * 32),
        lambda: browser.get("/nowhere"),
        lambda: browser.get("/livez"),
    ):
        act()
        answers += 1
        assert browser.headers["cache-control"] == "no-store"
        assert browser.headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in browser.headers["content-security-policy"]
        assert "server" not in browser.headers
        assert "<script" not in browser.page
        for outside in re.findall(r'(?:src|href|action)="([^"]*)"', browser.page):
            assert outside.startswith(("data:", "otpauth://")), outside
    assert answers == 6


@pytest.mark.requirement("ASVS 5.0.0-6.3.8")
@pytest.mark.promise("P11")
def test_an_unknown_code_and_one_that_was_replaced_look_the_same(enrolling: Enrolling) -> None:
    name, path = enrolling.invite()
    browser = enrolling.browser("en-GB,en;q=0.9,vi;q=0.5")
    unknown = browser.get("/enrol/" + "b" * 32)
    assert browser.status == 404
    assert "not right, was used, or has been replaced" in unknown
    admin = enrolling.administrator
    admin.connection.call(
        admin.connection.signers.CancelEnrolment,
        signer_service_pb2.CancelEnrolmentRequest(name=f"{name}/enrolments/phone"),
    )
    assert browser.get(path) == unknown
    for odd in ("/enrol/%00", "/enrol/" + "a" * 5000, "/enrol/%ff%fe", "/enrol/a%2Fb", "/enrol/", "//enrol/x"):
        browser.get(odd)
        assert browser.status == 404, odd


@pytest.mark.promise("P9")
def test_a_page_elsewhere_presses_no_button(enrolling: Enrolling) -> None:
    _, path = enrolling.invite()
    browser = enrolling.browser()
    for site in ("cross-site", "same-site", "none"):
        browser.post(path, {"Sec-Fetch-Site": site}, act="begin")
        assert browser.status == 403
    assert "<svg" in browser.post(path, {"Sec-Fetch-Site": "same-origin"}, act="begin")


@pytest.mark.promise("P2")
def test_of_browsers_that_begin_together_one_gets_the_secret(
    enrolling: Enrolling, record_property: Callable[[str, object], None]
) -> None:
    rounds, callers, shown = 3, 6, 0
    for _ in range(rounds):
        _, path = enrolling.invite()
        browsers = [enrolling.browser() for _ in range(callers)]
        barrier = threading.Barrier(callers)

        def press(browser: Browser, path: str = path, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(30)
            browser.post(path, act="begin")

        threads = [threading.Thread(target=press, args=(browser,)) for browser in browsers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        won = [browser for browser in browsers if "<svg" in browser.page]
        assert len(won) == 1, [browser.status for browser in browsers]
        assert all("bắt đầu ở nơi khác" in browser.page for browser in browsers if browser not in won)
        shown += len(won)
    record_property("count", f"pages on which {callers} browsers began together: {rounds}, secrets shown {shown}")


@pytest.mark.promise("P8")
def test_one_address_has_a_rate_and_hurts_no_other(
    enrolling: Enrolling, record_property: Callable[[str, object], None]
) -> None:
    _, path = enrolling.invite()
    guessing, person = enrolling.browser(), enrolling.browser()
    statuses = []
    for number in range(25):
        guessing.get(f"/enrol/{number:02}".replace("0", "a").replace("1", "b") + "c" * 30)
        statuses.append(guessing.status)
    assert set(statuses) == {404, 429}
    assert statuses.count(404) <= 20, "at most a minute's share, twice when the minute ends in between"
    assert "quá nhiều yêu cầu" in guessing.page
    assert "Bắt đầu" in person.get(path)
    record_property("count", f"codes that one address tried: {len(statuses)}, refused {statuses.count(429)}")


@pytest.mark.promise("P8")
def test_one_address_holds_only_some_connections(
    enrolling: Enrolling, record_property: Callable[[str, object], None]
) -> None:
    """Also when it says nothing, so that TLS never begins."""
    held: list[socket.socket] = []
    try:
        for _ in range(100):
            held.append(socket.create_connection((LOOPBACK, enrolling.installation.web_port), 10, ("127.0.2.1", 0)))  # noqa: PERF401
        ended = 0
        for one in held:
            one.settimeout(0.05)
            try:
                ended += one.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionResetError:
                ended += 1
        assert ended >= 68
        browser = enrolling.browser()
        assert browser.get("/livez") == "ok\n"
    finally:
        for one in held:
            one.close()
    record_property("count", f"connections of one address: {len(held)}, closed at once {ended}")


def test_a_slow_or_large_request_is_ended(enrolling: Enrolling) -> None:
    _, path = enrolling.invite()
    browser = enrolling.browser()
    browser.post(path, act="begin", code="9" * 5000)
    assert browser.status == 413
    port = enrolling.installation.web_port
    with socket.create_connection((LOOPBACK, port), 10) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP"), "only TLS is spoken"


@pytest.mark.slow
def test_several_processes_share_the_page(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """Each of them answers, and a stop ends them all."""
    settings = ("server.workers=2", "web.address=127.0.0.1:0")
    with running_sandbox(tmp_path / "installation", *settings) as installation:
        answered = 0
        for number in range(40):
            browser = Browser(installation, "en", f"127.0.3.{number + 1}")
            assert browser.get("/livez") == "ok\n"
            assert "not right, was used" in browser.get("/enrol/" + "d" * 32)
            answered += 1
        assert installation.stop() == 0
    record_property("count", f"two processes on one port for the page: browsers answered {answered}")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_real_browser_finds_no_fault_with_the_page(enrolling: Enrolling, tmp_path: Path) -> None:
    """Lays the page out at 360 pixels, and reports what its own content security policy forbids."""
    _, path = enrolling.invite()
    browser = enrolling.browser()
    browser.get(path)
    policy = browser.headers["content-security-policy"]
    pages = {"begin": browser.page, "secret": browser.post(path, act="begin")}
    for name, page in pages.items():
        # Served from a file, the page brings its policy along as an element.
        meta = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
        file = tmp_path / f"{name}.html"
        frame = tmp_path / f"{name}-frame.html"
        frame.write_text(f'<body><iframe src="{name}.html" width="360" height="1300"></iframe></body>')
        file.write_text(page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">{meta}'), encoding="utf-8")
        ran = subprocess.run(
            [
                str(CHROMIUM),
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                "--enable-logging=stderr",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=500,1400",
                f"--screenshot={tmp_path / name}.png",
                "--allow-file-access-from-files",
                frame.as_uri(),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "Refused to" not in ran.stderr.replace("'frame-ancestors' is ignored", "")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
