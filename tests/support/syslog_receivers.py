"""Syslog receivers of the tests' own: they take frames and datagrams apart by themselves."""

import re
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MESSAGE = re.compile(
    rb"<(?P<priority>[0-9]{1,3})>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<process>\S+) (?P<id>\S+) "
    rb'\[(?P<sd>[!-~]+@[0-9]+)(?P<parameters>(?: [!-~]+?="(?:[^"\\\]]|\\["\\\]])*")*)\] \xef\xbb\xbf(?P<text>.*)',
    re.DOTALL,
)
_PARAMETER = re.compile(rb' ([A-Za-z]+)="((?:[^"\\\]]|\\["\\\]])*)"')


@dataclass(frozen=True)
class Message:
    """A message as RFC 5424 reads it."""

    priority: int
    time: str
    host: str
    id: str
    parameters: dict[str, str]
    text: str

    @property
    def position(self) -> int:
        return int(self.parameters["position"])


def parsed(message: bytes) -> Message:
    """Reads a message. Raises `AssertionError` for what is none."""
    found = MESSAGE.fullmatch(message)
    assert found is not None, message[:300]
    unescaped = {
        name.decode(): re.sub(rb"\\(.)", rb"\1", value).decode()
        for name, value in _PARAMETER.findall(found["parameters"])
    }
    return Message(
        priority=int(found["priority"]),
        time=found["time"].decode(),
        host=found["host"].decode(),
        id=found["id"].decode(),
        parameters=unescaped,
        text=found["text"].decode(),
    )


@dataclass
class StreamReceiver:
    """Takes octet-counted frames over TCP, or TLS with a context. Each connection is read by a thread of its own.

    With `cut_after` a connection is cut once so many bytes came; while `reads` is not set nothing is read.
    """

    context: ssl.SSLContext | None = None
    port: int = 0
    cut_after: int | None = None
    messages: list[bytes] = field(default_factory=list)
    connections: int = 0
    rest: list[bytes] = field(default_factory=list)
    reads: threading.Event = field(default_factory=threading.Event)
    _open: list[Any] = field(default_factory=list)
    _listener: socket.socket | None = None

    def start(self) -> "StreamReceiver":
        self.reads.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Closes the port and every connection."""
        if self._listener is not None:
            # The thread that waits in accept holds the socket: closing alone would leave it listening.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()

    def cut(self) -> None:
        """Ends every connection."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: Any) -> None:
        data = b""
        taken = 0
        try:
            if self.context is not None:
                connection = self.context.wrap_socket(connection, server_side=True)
            self._open.append(connection)
            while True:
                self.reads.wait()
                more = connection.recv(65536)
                if not more:
                    break
                taken += len(more)
                data = self._frames(data + more)
                if self.cut_after is not None and taken >= self.cut_after:
                    self.cut_after = None
                    connection.close()
                    break
        except OSError:
            pass
        self.rest.append(data)

    def _frames(self, data: bytes) -> bytes:
        while True:
            length, space, rest = data.partition(b" ")
            if not space or len(rest) < int(length):
                return data
            self.messages.append(rest[: int(length)])
            data = rest[int(length) :]


@dataclass
class DatagramReceiver:
    """Takes datagrams: over UDP, or at a socket's path."""

    path: Path | None = None
    port: int = 0
    messages: list[bytes] = field(default_factory=list)
    reads: threading.Event = field(default_factory=threading.Event)
    _socket: socket.socket | None = None

    def start(self) -> "DatagramReceiver":
        self.reads.set()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(str(self.path))
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            self._socket.bind(("127.0.0.1", self.port))
            self.port = self._socket.getsockname()[1]
        self._socket.settimeout(0.1)
        threading.Thread(target=self._read, args=(self._socket,), daemon=True).start()
        return self

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _read(self, receiving: socket.socket) -> None:
        while True:
            self.reads.wait()
            try:
                self.messages.append(receiving.recv(65536))
            except TimeoutError:
                continue
            except OSError:
                return


def wait_until(done: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Waits for something that another thread brings about."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if done():
            return
        pause.wait(0.02)
    raise AssertionError(f"not within {seconds} s")
