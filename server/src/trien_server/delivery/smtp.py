"""Delivery by a mail server: SMTP (RFC 5321) with TLS, submission as a rule (RFC 6409, RFC 8314)."""

import smtplib
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum
from typing import Any, BinaryIO

from trien_server.core.ports import Clock, DeliveredText, Report
from trien_server.core.secret import Secret
from trien_server.delivery.lines import Line, Lines, NotTaken

_GOOD_BYE_SECONDS = 1.0
_MOST_ANSWERS = 256 * 1024
"""How many bytes a server may answer in a session, before TLS and again behind it."""


class SmtpTls(StrEnum):
    """How a connection to a mail server is encrypted."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


class SmtpDelivery:
    """Implements `core.ports.Delivery`: a message is taken on once the server has answered its data with 250."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        tls: SmtpTls,
        context: ssl.SSLContext,
        login: tuple[str, Secret] | None,
        from_address: str,
        from_name: str,
        clock: Clock,
        report: Report,
    ) -> None:
        """With `SmtpTls.NONE` only addresses of this machine are connected. Raises `ValueError` for a bad address."""
        self._host = host
        self._port = port
        self._tls = tls
        self._context = context
        self._login = login
        self._from = _address(from_address, name=from_name)
        self._clock = clock
        self._lines = Lines(carrier="smtp", report=report)

    def deliver(self, *, address: str, text: DeliveredText, message: str, timeout: float) -> None:
        """Sends a mail. Raises `DeliveryFailed`, and reports why."""
        mail = self._mail(address, text, message)

        def send(session: "_Session") -> None:
            session.send_message(mail, from_addr=self._from.addr_spec, to_addrs=[address])

        self._lines.deliver(lambda line: self._converse(line, send), message=message, timeout=timeout)

    def reach(self, *, timeout: float) -> None:
        """Greets the server, with TLS and log-in, and takes leave. Raises `DeliveryFailed`, and reports why."""
        self._lines.deliver(lambda line: self._converse(line, lambda _: None), message="", timeout=timeout)

    def _mail(self, address: str, text: DeliveredText, message: str) -> EmailMessage:
        mail = EmailMessage(policy=SMTP)
        mail["From"] = self._from
        mail["To"] = _address(address)
        mail["Subject"] = text.subject
        mail["Date"] = format_datetime(self._clock.now())
        mail["Message-ID"] = f"<{message}@{self._from.domain}>"
        # No absence notice answers it (RFC 3834).
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(f"{text.body.reveal().decode()}\n", charset="utf-8", cte="quoted-printable")
        return mail

    def _converse(self, line: Line, send: Callable[["_Session"], None]) -> None:
        try:
            session = _Session(line, self._host, self._port, tls=self._tls, context=self._context)
            try:
                self._greet(session)
                send(session)
                line.take()
                session.say_good_bye()
            finally:
                session.close()
        except smtplib.SMTPException as fault:
            raise NotTaken(_reason(fault)) from None

    def _greet(self, session: "_Session") -> None:
        session.ehlo_or_helo_if_needed()
        if self._tls is SmtpTls.STARTTLS:
            if not session.has_extn("starttls"):
                raise NotTaken("it does not offer STARTTLS")
            session.starttls(context=self._context)
            session.ehlo_or_helo_if_needed()
        if self._login is not None:
            user, password = self._login
            if not session.has_extn("auth"):
                raise NotTaken("it offers no log-in")
            session.login(user, password.reveal().decode("ascii"))


class _Session(smtplib.SMTP):
    """smtplib's session over a line."""

    def __init__(self, line: Line, host: str, port: int, *, tls: SmtpTls, context: ssl.SSLContext) -> None:
        self._line = line
        self._tls = tls
        self._context = context
        # An address literal (RFC 5321, section 4.1.3), set below: finding the machine's name would ask name servers.
        super().__init__(host, port, local_hostname="[127.0.0.1]")

    def _get_socket(self, host: str, port: int, _timeout: Any) -> socket.socket:
        connection = self._line.open(host, port, loopback_only=self._tls is SmtpTls.NONE)
        own = connection.getsockname()[0]
        self._literal = f"[IPv6:{own}]" if ":" in own else f"[{own}]"
        if self._tls is SmtpTls.IMPLICIT:
            return self._context.wrap_socket(connection, server_hostname=host)
        return connection

    def ehlo_or_helo_if_needed(self) -> None:
        self.local_hostname = self._literal
        super().ehlo_or_helo_if_needed()

    def getreply(self) -> tuple[int, bytes]:
        """Reads an answer, of a limited length: anybody on the way can give one before TLS begins."""
        if self.file is None and self.sock is not None:
            self.file = _LimitedAnswers(self.sock.makefile("rb"))
        return super().getreply()

    def say_good_bye(self) -> None:
        """Ends the session politely; a server that does not answer is not waited for."""
        with suppress(OSError, smtplib.SMTPException):
            if self.sock is not None:
                self.sock.settimeout(min(_GOOD_BYE_SECONDS, self._line.remaining()))
            self.quit()


class _LimitedAnswers:
    """The lines of a session; smtplib keeps all lines of an answer."""

    def __init__(self, lines: BinaryIO) -> None:
        self._lines = lines
        self._left = _MOST_ANSWERS

    def readline(self, most: int) -> bytes:
        """Returns the next line, at most `most` bytes of it. Raises `NotTaken` when there were too many bytes."""
        line = self._lines.readline(most)
        self._left -= len(line)
        if self._left < 0:
            raise NotTaken("its answers are too long")
        return line

    def close(self) -> None:
        """Closes the file."""
        self._lines.close()


def _address(address: str, *, name: str = "") -> Address:
    local, separator, domain = address.rpartition("@")
    if not (local and separator and domain):
        raise ValueError("expected a mail address")
    return Address(display_name=name, username=local, domain=domain)


def _reason(fault: smtplib.SMTPException) -> str:
    """Returns what happened without the server's words: they may repeat what was sent."""
    match fault:
        case smtplib.SMTPAuthenticationError():
            return f"it refused the log-in ({fault.smtp_code})"
        case smtplib.SMTPSenderRefused():
            return f"it refused the sender's address ({fault.smtp_code})"
        case smtplib.SMTPRecipientsRefused():
            return f"it refused the recipient's address ({min(code for code, _ in fault.recipients.values())})"
        case smtplib.SMTPDataError():
            return f"it refused the message ({fault.smtp_code})"
        case smtplib.SMTPResponseException():
            return f"it answered {fault.smtp_code}"
        case smtplib.SMTPServerDisconnected():
            return "it closed the connection, or did not answer in time"
        case smtplib.SMTPNotSupportedError():
            return "it does not support addresses in Unicode (SMTPUTF8)"
    return "it offers no way to log in that is known here"
