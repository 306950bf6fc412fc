"""Mail: each thing that a mail server can do wrong, at each command."""

import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes.clock import ManualClock
from tests.support.carriers import LOOPBACK, MailServer, Tls, running, wait_for

from trien_server.core.errors import DeliveryFailed
from trien_server.core.ports import DeliveredText
from trien_server.core.secret import Secret
from trien_server.delivery import SmtpDelivery, SmtpTls, verifying_context
from trien_server.delivery.lines import Line, NotTaken

BODY = '482915 là mã ký 20 văn bản, do "Văn phòng điện tử" gửi. Số đối chiếu: 4f2a 91c3.'
PASSWORD = "a password"
PHASES = ("BANNER", "EHLO", "STARTTLS", "HANDSHAKE", "AUTH", "MAIL", "RCPT", "DATA", "MESSAGE")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.create(tmp_path_factory.mktemp("smtp") / "tls")


class Sender:
    """A delivery to a test's server, and what it reported."""

    def __init__(self, server: MailServer | SimpleNamespace, files: Tls, /, **changes: Any) -> None:
        self.reports: list[Mapping[str, str]] = []
        self.clock = ManualClock()
        options: dict[str, Any] = {
            "host": LOOPBACK,
            "port": server.port,
            "tls": SmtpTls.STARTTLS,
            "context": verifying_context(files.ca_file),
            "login": None,
            "from_address": "no-reply@district.example",
            "from_name": "Ký số huyện",
        }
        self._delivery = SmtpDelivery(
            **(options | changes), clock=self.clock, report=lambda event, fields: self.reports.append(fields)
        )

    def send(self, *, address: str = "hoa@xa.example", timeout: float = 60.0) -> None:
        text = DeliveredText(subject="Ký số huyện: mã ký văn bản", body=Secret(BODY.encode()))
        self._delivery.deliver(address=address, text=text, message="mfzwizltoqxw4y3p", timeout=timeout)

    def fails(self, *, timeout: float = 60.0, address: str = "hoa@xa.example") -> str:
        """Sends, fails, and returns the reason that was reported."""
        self.reports.clear()
        with pytest.raises(DeliveryFailed):
            self.send(timeout=timeout, address=address)
        (fields,) = self.reports
        return fields["reason"]


def test_a_mail_says_whose_it_is_and_asks_for_no_answer(tls: Tls) -> None:
    with running(MailServer(tls)) as server:
        sender = Sender(server, tls)
        sender.send()
    (mail,) = server.taken
    assert (mail.sender, mail.recipients) == ("no-reply@district.example", ["hoa@xa.example"])
    headers = {name: str(value) for name, value in mail.message.items()}
    assert headers["From"] == "Ký số huyện <no-reply@district.example>"
    assert headers["To"] == "hoa@xa.example"
    assert headers["Subject"] == "Ký số huyện: mã ký văn bản"
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["Message-ID"] == "<mfzwizltoqxw4y3p@district.example>"
    assert parsedate_to_datetime(headers["Date"]) == sender.clock.now().replace(microsecond=0)
    assert mail.message.get_content_type() == "text/plain"
    assert mail.message.get_content_charset() == "utf-8"
    assert mail.text == BODY
    assert "482915" not in str(headers)
    # The address that the session began with stands for the machine, and no name server was asked for it.
    assert server.commands == ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA", "MESSAGE", "QUIT"]


@pytest.mark.parametrize("mode", ["starttls", "implicit", "none"])
def test_each_way_of_encryption_delivers_with_a_log_in(tls: Tls, mode: str) -> None:
    with running(MailServer(tls, mode=mode, user=("trien", PASSWORD))) as server:
        Sender(server, tls, tls=SmtpTls(mode), login=("trien", Secret(PASSWORD.encode()))).send()
        wrong = Sender(server, tls, tls=SmtpTls(mode), login=("trien", Secret(b"another")))
        assert wrong.fails() == "it refused the log-in (535)"
    assert len(server.taken) == 1
    assert "AUTH" in server.commands


@pytest.mark.promise("P8")
@pytest.mark.parametrize("misbehaviour", ["silent", "drip"])
def test_a_server_that_hangs_at_any_command_is_left_in_time(tls: Tls, misbehaviour: str, record_property: Any) -> None:
    def hang(phase: str) -> str:
        server = MailServer(tls, user=("trien", PASSWORD), at=phase, misbehaviour=misbehaviour)
        with running(server):
            sender = Sender(server, tls, login=("trien", Secret(PASSWORD.encode())))
            for timeout in (1.5, 8.0, 30.0):  # a busy machine may need longer to get there
                reason = sender.fails(timeout=timeout)
                if server.reached.is_set():
                    break
        assert server.reached.is_set(), phase
        assert server.taken == [], phase
        return reason

    with ThreadPoolExecutor(len(PHASES)) as pool:
        reasons = list(pool.map(hang, PHASES))
    assert all("in time" in reason for reason in reasons), reasons
    wait_for(lambda: not [one for one in threading.enumerate() if one.name == "smtp delivery"], "the threads end")
    record_property("count", f"mail server, {misbehaviour}: commands {len(reasons)}")


@pytest.mark.parametrize("misbehaviour", ["silent", "close", "500 What?"])
def test_what_goes_wrong_behind_the_servers_word_changes_nothing(tls: Tls, misbehaviour: str) -> None:
    with running(MailServer(tls, at="QUIT", misbehaviour=misbehaviour)) as server:
        sender = Sender(server, tls)
        sender.send()
        assert server.reached.is_set()
    assert len(server.taken) == 1
    assert sender.reports == []


@pytest.mark.parametrize(
    ("phase", "answer", "reason"),
    [
        ("BANNER", "554 no service", "it answered 554"),
        ("STARTTLS", "454 TLS not available", "it answered 454"),
        ("AUTH", "535 wrong", "it refused the log-in (535)"),
        ("AUTH", "454 later", "it refused the log-in (454)"),
        ("MAIL", "451 later", "it refused the sender's address (451)"),
        ("MAIL", "553 no", "it refused the sender's address (553)"),
        ("RCPT", "450 later", "it refused the recipient's address (450)"),
        ("RCPT", "550 nobody", "it refused the recipient's address (550)"),
        ("DATA", "421 closing", "it refused the message (421)"),
        ("DATA", "554 no", "it refused the message (554)"),
        ("MESSAGE", "452 full", "it refused the message (452)"),
        ("MESSAGE", "554 spam", "it refused the message (554)"),
    ],
)
def test_an_answer_that_refuses_is_told_by_its_code_alone(tls: Tls, phase: str, answer: str, reason: str) -> None:
    echo = f"{answer} {BODY.encode('ascii', 'ignore').decode()}"
    with running(MailServer(tls, user=("trien", PASSWORD), at=phase, misbehaviour=echo)) as server:
        assert Sender(server, tls, login=("trien", Secret(PASSWORD.encode()))).fails() == reason
    assert server.taken == []


@pytest.mark.requirement("ASVS 5.0.0-12.3.1")
@pytest.mark.promise("P12")
def test_without_starttls_neither_password_nor_code_is_sent(tls: Tls) -> None:
    with running(MailServer(tls, mode="none", user=("trien", PASSWORD))) as server:
        sender = Sender(server, tls, login=("trien", Secret(PASSWORD.encode())))
        assert sender.fails() == "it does not offer STARTTLS"
    assert set(server.commands) == {"EHLO"}


@pytest.mark.requirement("ASVS 5.0.0-12.3.2")
@pytest.mark.promise("P12")
@pytest.mark.parametrize("mode", ["starttls", "implicit"])
def test_a_server_of_another_name_is_told_nothing(tmp_path: Path, mode: str) -> None:
    other = Tls.create(tmp_path / "tls", "mail.example")
    with running(MailServer(other, mode=mode)) as server:
        reason = Sender(server, other, tls=SmtpTls(mode)).fails()
    assert reason.startswith("its certificate does not verify: IP address mismatch")
    assert set(server.commands) <= {"EHLO", "STARTTLS"}


def test_a_server_that_offers_no_log_in_is_not_sent_to(tls: Tls) -> None:
    with running(MailServer(tls)) as server:
        reason = Sender(server, tls, login=("trien", Secret(b"x"))).fails()
    assert reason == "it offers no way to log in that is known here"
    with running(MailServer(tls, mode="none", at="EHLO", misbehaviour="250 mail.test")) as server:
        reason = Sender(server, tls, tls=SmtpTls.NONE, login=("trien", Secret(b"x"))).fails()
    assert reason == "it offers no log-in"
    assert "AUTH" not in server.commands


def test_an_address_in_unicode_needs_a_server_that_takes_it(tls: Tls) -> None:
    with running(MailServer(tls)) as server:
        Sender(server, tls).send(address="nguyễn@xa.example")
    assert server.taken[0].recipients == ["nguyễn@xa.example"]
    assert "SMTPUTF8" in server.taken[0].options
    with running(MailServer(tls, unicode=False)) as old:
        reason = Sender(old, tls).fails(address="nguyễn@xa.example")
    assert "SMTPUTF8" in reason
    assert old.taken == []


@pytest.mark.requirement("ASVS 5.0.0-12.3.1")
def test_without_encryption_only_this_machine_is_connected() -> None:
    with pytest.raises(NotTaken):
        Line(5.0).open("192.0.2.1", 25, loopback_only=True)


def test_a_name_that_does_not_exist_is_told(tls: Tls) -> None:
    with running(MailServer(tls)) as server:
        assert "resolved" in Sender(server, tls, host="mail.invalid").fails(timeout=20.0)


@pytest.mark.promise("P8")
def test_an_answer_without_end_is_not_kept(tls: Tls) -> None:
    sent = 0

    def answer(listening: socket.socket) -> None:
        nonlocal sent
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(b"220 ready\r\n")
            connection.recv(1000)
            while True:
                sent += connection.send((b"250-" + b"a" * 8000 + b"\r\n") * 10)

    with socket.create_server((LOOPBACK, 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        server = SimpleNamespace(port=listening.getsockname()[1])
        assert Sender(server, tls).fails() == "its answers are too long"
        thread.join(60)
    assert 256 * 1024 < sent < 64 * 1024 * 1024, "what the two sockets hold is sent besides"
