"""HTTP/2 over TLS for those who do not keep to what a client does: frames as bytes, sent as one likes.

`Http2` speaks well enough to be listened to; the attackers of tests/fault/network build on it. Header blocks are made
of literals that no table remembers (RFC 7541, section 6.2.2), so that the same bytes serve every stream.
"""

import socket
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Self

import h2.connection
import h2.events
from h2.config import H2Configuration
from h2.exceptions import ProtocolError
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame
from tests.support.sandbox import Installation

SIGN = "/trien.v1.SigningService/SignDigests"
Headers = Sequence[tuple[str, str]]


def grpc_headers(path: str, *, token: str | None = None, more: Headers = ()) -> list[tuple[str, str]]:
    """Returns the headers that open a gRPC call."""
    headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ]
    if token is not None:
        headers.append(("authorization", f"Bearer {token}"))
    return [*headers, *more]


def header_block(headers: Headers) -> bytes:
    """Returns headers as HPACK literals that are never indexed."""
    return bytes(Encoder().encode([(name, value, True) for name, value in headers], huffman=False))


def grpc_message(content: bytes) -> bytes:
    """Returns a gRPC message: not compressed, with its length."""
    return b"\0" + len(content).to_bytes(4, "big") + content


def headers_frame(stream: int, block: bytes, *, end_headers: bool = True, end_stream: bool = False) -> bytes:
    flags = [flag for flag, set_ in (("END_HEADERS", end_headers), ("END_STREAM", end_stream)) if set_]
    return HeadersFrame(stream, block, flags=flags).serialize()


def continuation_frame(stream: int, block: bytes, *, end_headers: bool = False) -> bytes:
    return ContinuationFrame(stream, block, flags=["END_HEADERS"] if end_headers else []).serialize()


def data_frame(stream: int, content: bytes, *, end_stream: bool = False) -> bytes:
    return DataFrame(stream, content, flags=["END_STREAM"] if end_stream else []).serialize()


def reset_frame(stream: int) -> bytes:
    return RstStreamFrame(stream, error_code=8).serialize()


def ping_frame() -> bytes:
    return PingFrame(0, b"trientri").serialize()


def settings_frame(settings: dict[int, int]) -> bytes:
    return SettingsFrame(0, settings=settings).serialize()


PATIENCE = 3.0
"""How long, in seconds, the server may take none of what is sent before the sender gives up."""


class ConnectionClosed(Exception):  # noqa: N818
    """The server ended the connection, as it may."""


class Http2:
    """One TLS connection with HTTP/2's preface sent, on which any bytes may follow."""

    def __init__(self, installation: Installation, *, settings: dict[int, int] | None = None) -> None:
        context = ssl.create_default_context(cafile=str(installation.directory / "tls" / "ca.pem"))
        context.set_alpn_protocols(["h2"])
        raw = socket.create_connection(("127.0.0.1", installation.token_port), timeout=20)
        try:
            self.socket = context.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise
        self.socket.settimeout(PATIENCE)
        self.session = h2.connection.H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.session.initiate_connection()
        if settings:
            self.session.update_settings(settings)
        self.next_stream = 1
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection without a word."""
        with suppress(OSError):
            self.socket.close()

    def flush(self) -> None:
        """Sends what the well-behaved half has to say."""
        self.send(self.session.data_to_send())

    def send(self, content: bytes) -> None:
        """Sends bytes as they are. Raises `ConnectionClosed`."""
        try:
            self.socket.sendall(content)
        except (OSError, ssl.SSLError) as fault:
            raise ConnectionClosed(str(fault)) from fault

    def send_all(self, frames: Iterable[bytes]) -> int:
        """Sends frame after frame until the server ends it; returns how many were sent."""
        sent = 0
        with suppress(ConnectionClosed):
            for frame in frames:
                self.send(frame)
                sent += 1
        return sent

    def take_streams(self, count: int) -> range:
        """Returns the numbers of that many new streams."""
        first = self.next_stream
        self.next_stream += 2 * count
        return range(first, self.next_stream, 2)

    def receive(self, seconds: float) -> list[h2.events.Event]:
        """Returns what the server says next, within that time; acknowledges settings. Raises `ConnectionClosed`."""
        self.socket.settimeout(seconds)
        try:
            content = self.socket.recv(65536)
        except TimeoutError:
            return []
        except (OSError, ssl.SSLError) as fault:
            raise ConnectionClosed(str(fault)) from fault
        finally:
            self.socket.settimeout(PATIENCE)
        if not content:
            raise ConnectionClosed("the server closed it")
        try:
            events: list[h2.events.Event] = self.session.receive_data(content)
        except ProtocolError:
            return []  # the session knows nothing of streams that were opened by raw bytes
        self.flush()
        return events
