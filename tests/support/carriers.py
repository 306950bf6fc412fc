"""A mail server and an SMS gateway on this machine, over TLS, that take messages on or misbehave as they are told.

What a misbehaving one does: it says nothing (`silent`), a byte now and then (`drip`), closes (`close`), or answers with
a code that refuses. None of them ends by itself: a delivery that ends in time has ended them.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword, Session
from standardwebhooks import Webhook

from trien_server.host.private_ca import PrivateCa

C = TypeVar("C", "MailServer", "SmsGateway")
LOOPBACK = "127.0.0.1"
DRIP_SECONDS = 0.05
RECORD_BEGIN = b"\x16\x03\x03\x40\x00"
"""The begin of a TLS record of 16 KiB with a handshake's message, the rest of which takes its time."""


@dataclass(frozen=True, kw_only=True)
class Tls:
    """A CA, and files with a server's certificate and key by it."""

    ca_file: Path
    certificate_file: Path
    key_file: Path

    @classmethod
    def create(cls, directory: Path, *hosts: str) -> "Tls":
        """Makes them in a new folder; without `hosts` for 127.0.0.1 and localhost."""
        directory.mkdir(parents=True)
        ca = PrivateCa.create("Carriers")
        identity = ca.issue_server(hosts or (LOOPBACK, "localhost"))
        made = cls(
            ca_file=directory / "ca.pem", certificate_file=directory / "cert.pem", key_file=directory / "key.pem"
        )
        made.ca_file.write_bytes(ca.identity.certificate)
        made.certificate_file.write_bytes(identity.certificate)
        made.key_file.write_bytes(identity.private_key)
        return made

    def context(self) -> ssl.SSLContext:
        """Returns the server's side."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail as the server took it."""

    sender: str
    recipients: list[str]
    message: EmailMessage
    options: list[str]

    @property
    def text(self) -> str:
        return str(self.message.get_content()).rstrip("\r\n")


class _SmtpSession(SMTP):
    """aiosmtpd's session, which misbehaves at the command that it is told."""

    def __init__(self, server: "MailServer", **options: Any) -> None:
        self._server = server
        super().__init__(server, **options)

    def connection_made(self, transport: Any) -> None:
        if self.session is None:
            self._server.connections += 1
            self._server.transports.append(transport)
        super().connection_made(transport)

    async def push(self, status: Any) -> None:
        # The banner is the first thing that a server says.
        if self._server.at == "BANNER" and not self._server.reached.is_set():
            status = await self.misbehave("BANNER") or status
        await super().push(status)

    async def misbehave(self, command: str) -> str | None:
        """Does what the server was told for this command; returns an answer to give instead of doing the command."""
        server = self._server
        server.commands.append(command)
        if command != server.at:
            return None
        server.reached.set()
        if server.misbehaviour == "close":
            self.transport.abort()
            await asyncio.Event().wait()
        if server.misbehaviour == "silent":
            await asyncio.Event().wait()
        if command == "HANDSHAKE":
            self.transport.write(RECORD_BEGIN)
        while server.misbehaviour == "drip":
            self.transport.write(b"2")
            await asyncio.sleep(DRIP_SECONDS)
        return server.misbehaviour


def _misbehaving(command: str) -> Any:
    normal = getattr(SMTP, f"smtp_{command}")

    async def perform(self: _SmtpSession, argument: str | None = None) -> None:
        answer = await self.misbehave(command)
        if answer is not None:
            await self.push(answer)
        else:
            await normal(self, argument)

    return perform


for _command in ("EHLO", "HELO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "QUIT"):
    setattr(_SmtpSession, f"smtp_{_command}", _misbehaving(_command))


async def _no_handshake(self: _SmtpSession, argument: str | None = None) -> None:
    answer = await self.misbehave("STARTTLS")
    if answer is None and self._server.at == "HANDSHAKE":
        await self.push("220 Ready to start TLS")
        await self._reader.readexactly(1)  # the client's side of the handshake has begun
        await self.misbehave("HANDSHAKE")
    elif answer is not None:
        await self.push(answer)
    else:
        await SMTP.smtp_STARTTLS(self, argument)


setattr(_SmtpSession, "smtp_STARTTLS", _no_handshake)  # noqa: B010 - as for the others


class MailServer:
    """A mail server by aiosmtpd. `at` and `misbehaviour` say what it does wrong, and at which command."""

    def __init__(
        self,
        tls: Tls,
        *,
        mode: str = "starttls",
        user: tuple[str, str] | None = None,
        unicode: bool = True,
        at: str = "",
        misbehaviour: str = "",
    ) -> None:
        """`mode` is starttls, implicit or none; `misbehaviour` silent, drip, close, or an answer such as `550 No`."""
        self.at, self.misbehaviour = at, misbehaviour
        self.taken: list[Mail] = []
        self.commands: list[str] = []
        self.connections = 0
        self.transports: list[Any] = []
        self.reached = threading.Event()
        self.port = 0
        self._tls, self._mode, self._user, self._unicode = tls, mode, user, unicode
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="mail server")
        self._started = threading.Event()

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's
        misbehaving = await server.misbehave("MESSAGE")  # type: ignore[attr-defined]
        if misbehaving is not None:
            return str(misbehaving)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.taken.append(
            Mail(
                sender=envelope.mail_from,
                recipients=list(envelope.rcpt_tos),
                message=message,
                options=list(envelope.mail_options),
            )
        )
        return "250 OK"

    def _authenticate(self, *arguments: Any) -> AuthResult:
        data = arguments[-1]
        given = isinstance(data, LoginPassword) and (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self._user, handled=False)

    def _session(self) -> _SmtpSession:
        options: dict[str, Any] = {"hostname": "mail.test", "enable_SMTPUTF8": self._unicode, "loop": self._loop}
        if self._mode == "starttls":
            options |= {"tls_context": self._tls.context(), "require_starttls": True}
        if self._user is None:
            options["auth_exclude_mechanism"] = ["LOGIN", "PLAIN"]
        else:
            over_starttls = self._mode == "starttls"
            options |= {
                "authenticator": self._authenticate,
                "auth_required": over_starttls,
                "auth_require_tls": over_starttls,
            }
        return _SmtpSession(self, **options)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        implicit = self._tls.context() if self._mode == "implicit" else None
        listening = self._loop.create_server(self._session, LOOPBACK, self.port, ssl=implicit)
        server = self._loop.run_until_complete(listening)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(self._end())
        self._loop.close()

    async def _end(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        sessions = {task for task in tasks if "_handle_client" in repr(task.get_coro())}
        if tasks - sessions:
            await asyncio.wait(tasks - sessions, timeout=10)  # what was accepted becomes a session
        sessions |= asyncio.all_tasks() - {asyncio.current_task()}
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0.02)  # the loop closes what was aborted

    def start(self, port: int = 0) -> "MailServer":
        self.port = port
        self._thread.start()
        assert self._started.wait(30)
        return self

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A request that the gateway received, its signature verified."""

    headers: dict[str, str]
    path: str
    body: bytes
    content: dict[str, str]


@dataclass
class SmsGateway:
    """An SMS gateway. `misbehaviour` is silent, drip, close, flood, or a status such as `503`, `307 https://…`.

    It misbehaves so many `times`, at the TLS `HANDSHAKE` or in its `ANSWER`.
    """

    tls: Tls | None
    secret: str | bytes
    misbehaviour: str = ""
    at: str = "ANSWER"
    times: int = 1_000_000
    taken: list[Posted] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    connections: int = 0
    written: int = 0
    _released: threading.Event = field(default_factory=threading.Event)

    def start(self, port: int = 0) -> "SmsGateway":
        self._server = _GatewayServer((LOOPBACK, port), _GatewayHandler)
        self._server.gateway = self
        self._server.context = None if self.tls is None else self.tls.context()
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="gateway")
        self._thread.start()
        return self

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(30)

    def misbehave(self, connection: socket.socket, at: str) -> bool:
        """Does what it was told at this point, until the other side or the test ends it."""
        if at != self.at or self.misbehaviour not in {"silent", "drip", "close", "flood"}:
            return False
        if self.times <= 0:
            return False
        self.times -= 1
        self.reached.set()
        with contextlib.suppress(OSError):
            if self.misbehaviour == "silent":
                self._released.wait(60)
            elif self.misbehaviour == "drip":
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: " if at == "ANSWER" else RECORD_BEGIN)
                while not self._released.wait(DRIP_SECONDS):
                    connection.sendall(b"a")
            elif self.misbehaviour == "flood":
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                while not self._released.is_set() and self.written < 1_000_000_000:
                    connection.sendall(bytes(65536))
                    self.written += 65536
        return True


class _GatewayServer(ThreadingHTTPServer):
    daemon_threads = False
    gateway: SmsGateway
    context: ssl.SSLContext | None

    def finish_request(self, request: Any, client_address: Any) -> None:
        self.gateway.connections += 1
        request.settimeout(60)
        if self.gateway.misbehave(request, "HANDSHAKE"):
            return
        if self.context is None:
            super().finish_request(request, client_address)
            return
        try:
            request.getpeername()
        except OSError:
            return  # gone before it was served; ssl would leave the socket open
        with contextlib.suppress(OSError), self.context.wrap_socket(request.dup(), server_side=True) as encrypted:
            super().finish_request(encrypted, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is no news."""


class _GatewayHandler(BaseHTTPRequestHandler):
    server: _GatewayServer

    def do_POST(self) -> None:
        gateway = self.server.gateway
        body = self.rfile.read(int(self.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = Webhook(gateway.secret).verify(body, headers)
        if gateway.misbehave(self.connection, "ANSWER"):
            return
        gateway.reached.set()
        gateway.taken.append(Posted(headers=headers, path=self.path, body=body, content=content))
        status, _, location = gateway.misbehaviour.partition(" ")
        self.send_response(int(status) if status.isdigit() else 202)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_POST()  # a redirect that was followed would be seen

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def running(carrier: C) -> Iterator[C]:
    """Runs a carrier until the end of the block."""
    carrier.start()
    try:
        yield carrier
    finally:
        carrier.stop()


def wait_for(condition: Any, what: str, seconds: float = 30.0) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)
