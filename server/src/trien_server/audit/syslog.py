"""The audit log as syslog messages (RFC 5424): over TLS (RFC 5425), TCP, UDP, or to this machine's syslog socket."""

import fcntl
import ipaddress
import socket
import ssl
import struct
import termios
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from trien_server.core.audit_lines import syslog_message
from trien_server.core.records import AuditEntry

_POLL_SECONDS = 0.01


class _SyslogSink:
    """Keeps one connection, and makes it anew after a failure."""

    def __init__(self, *, hostname: str, timeout: float) -> None:
        """`hostname` is what the messages say they come from; a write takes `timeout` seconds at most, or fails."""
        self._hostname = hostname
        self._timeout = timeout
        self._connection: socket.socket | None = None

    def write(self, entries: Sequence[tuple[int, AuditEntry]]) -> None:
        """Sends the entries in order. Raises `OSError`; some of them may then have arrived."""
        end = time.monotonic() + self._timeout
        try:
            if self._connection is None:
                self._connection = self._connect(self._timeout)
            messages = (syslog_message(position, entry, hostname=self._hostname) for position, entry in entries)
            self._send(self._connection, messages_of=list(messages), end=end)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @abstractmethod
    def _connect(self, timeout: float) -> socket.socket: ...

    @abstractmethod
    def _send(self, connection: socket.socket, *, messages_of: Sequence[bytes], end: float) -> None: ...


class SyslogStream(_SyslogSink):
    """Syslog over TLS or TCP, each message behind its length (RFC 5425, section 4.3; RFC 6587, section 3.4.1).

    Syslog knows no answer. `write` returns when the receiver's system has acknowledged every byte: what it loses behind
    that is sent again only by who begins earlier after the next failure.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        hostname: str,
        timeout: float,
    ) -> None:
        """`context` verifies the receiver; without it only a receiver on this machine is connected."""
        super().__init__(hostname=hostname, timeout=timeout)
        self._host = host
        self._port = port
        self._context = context

    def _connect(self, timeout: float) -> socket.socket:
        plain = socket.create_connection((self._host, self._port), timeout=timeout)
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if self._context is None:
                _require_loopback(plain.getpeername()[0])
                return plain
            return self._context.wrap_socket(plain, server_hostname=self._host)
        except BaseException:
            plain.close()
            raise

    def _send(self, connection: socket.socket, *, messages_of: Sequence[bytes], end: float) -> None:
        _require_open(connection)
        left = memoryview(b"".join(b"%d %s" % (len(message), message) for message in messages_of))
        while left:
            # Over TLS `sendall` would have its time for each part that a slow receiver takes.
            connection.settimeout(_remaining(end))
            left = left[connection.send(left) :]
        while _unacknowledged(connection):
            time.sleep(min(_POLL_SECONDS, _remaining(end)))
        _require_open(connection)


class SyslogDatagrams(_SyslogSink):
    """Syslog in datagrams: over UDP (RFC 5426) to a receiver on this machine, or to its socket, such as /dev/log.

    UDP loses messages without a word when the receiver is slow or gone; the socket holds the sender up instead.
    """

    def __init__(self, *, address: str | tuple[str, int], hostname: str, timeout: float) -> None:
        """`address` is a socket's path, or a host on this machine and a port."""
        super().__init__(hostname=hostname, timeout=timeout)
        self._address = address

    def _connect(self, timeout: float) -> socket.socket:
        if isinstance(self._address, str):
            return _connected(socket.AF_UNIX, self._address, timeout)
        host, port = self._address
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        family, _, _, _, address = found[0]
        _require_loopback(str(address[0]))
        return _connected(family, address, timeout)

    def _send(self, connection: socket.socket, *, messages_of: Sequence[bytes], end: float) -> None:
        for message in messages_of:
            connection.settimeout(_remaining(end))
            connection.send(message)


def _connected(family: int, address: Any, timeout: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_DGRAM)
    try:
        connection.settimeout(timeout)
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_open(connection: socket.socket) -> None:
    """Raises `OSError` when the receiver has closed: what is sent then is lost without a word."""
    connection.setblocking(False)
    try:
        # A receiver says nothing (RFC 5425, section 4.3); whatever it says is not kept.
        if connection.recv(4096) == b"":
            raise ConnectionResetError("the receiver closed the connection")
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass


def _unacknowledged(connection: socket.socket) -> int:
    """Returns how many bytes the receiver's system has not acknowledged yet (SIOCOUTQ, which is TIOCOUTQ)."""
    found: tuple[int] = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0" * 4))
    return found[0]


def _remaining(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("the receiver does not take messages fast enough")
    return left


def _require_loopback(address: str) -> None:
    if not ipaddress.ip_address(address).is_loopback:
        raise PermissionError("without TLS only a receiver on this machine is connected")
