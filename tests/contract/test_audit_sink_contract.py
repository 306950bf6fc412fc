"""The contract of `AuditSink`, against receivers that the tests start: real sockets, TLS, and files."""

import json
import re
import resource
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.support.syslog_receivers import DatagramReceiver, StreamReceiver, parsed, wait_until

from trien_server.audit.json_lines import JsonLinesFile
from trien_server.audit.syslog import SyslogDatagrams, SyslogStream
from trien_server.core.audit import make_entry
from trien_server.core.ports import AuditSink
from trien_server.core.records import AuditEntry
from trien_server.host.private_ca import PrivateCa

SECONDS = 2.0
GENEROUS = 60.0
_POSITION = re.compile(rb' position="([0-9]+)"')


def entries(count: int, *, first: int = 0, size: int = 1) -> list[tuple[int, AuditEntry]]:
    return [
        (
            position,
            make_entry(
                name=f"auditEntries/e{position}",
                time=datetime(2026, 11, 24, 8, 0, 0, position, tzinfo=UTC),
                kind="signing_granted",
                details={"signer": "signers/hoàng", "text": "x" * size},
                head_salt=b"h" * 16,
                salt=b"s" * 32,
            ),
        )
        for position in range(first, first + count)
    ]


def positions_of(messages: list[bytes]) -> list[int]:
    return [int(found[1]) for message in list(messages) if (found := _POSITION.search(message))]


def write_often(sink: AuditSink, times: int, some: list[tuple[int, AuditEntry]]) -> None:
    for _ in range(times):
        sink.write(some)


@dataclass
class AtFile:
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / "logs" / "audit.jsonl"

    def start(self) -> None:
        self.path.parent.mkdir()

    def stop(self) -> None:
        self.path.parent.rename(self.folder / "away")

    def restart(self) -> None:
        (self.folder / "away").rename(self.path.parent)

    def sink(self, *, timeout: float = GENEROUS) -> AuditSink:
        assert timeout > 0
        return JsonLinesFile(self.path)

    def positions(self) -> list[int]:
        return [json.loads(line)["position"] for line in self.path.read_bytes().splitlines()]


@dataclass
class AtStream:
    folder: Path
    tls: bool
    receiver: StreamReceiver = field(default_factory=StreamReceiver)
    context: ssl.SSLContext | None = None

    def start(self) -> None:
        if self.tls:
            ca = PrivateCa.create("Receivers' CA")
            server, client = ca.issue_server(["localhost"]), ca.issue_client("trien")
            for name, content in (
                ("ca.pem", ca.identity.certificate),
                ("server.pem", server.certificate + server.private_key),
                ("client.pem", client.certificate + client.private_key),
            ):
                (self.folder / name).write_bytes(content)
            accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.folder / "ca.pem"))
            accepting.load_cert_chain(self.folder / "server.pem")
            accepting.verify_mode = ssl.CERT_REQUIRED
            self.receiver.context = accepting
            self.context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
            self.context.load_cert_chain(self.folder / "client.pem")
        self.receiver.start()

    def stop(self) -> None:
        self.receiver.stop()

    def restart(self) -> None:
        self.receiver.start()

    def sink(self, *, timeout: float = GENEROUS) -> AuditSink:
        return SyslogStream(
            host="localhost" if self.tls else "127.0.0.1",
            port=self.receiver.port,
            context=self.context,
            hostname="trien1",
            timeout=timeout,
        )

    def positions(self) -> list[int]:
        return positions_of(self.receiver.messages)


@dataclass
class AtDatagrams:
    folder: Path
    unix: bool
    receiver: DatagramReceiver = field(default_factory=DatagramReceiver)

    def start(self) -> None:
        if self.unix:
            self.receiver.path = self.folder / "log"
        self.receiver.start()

    def stop(self) -> None:
        self.receiver.stop()

    def restart(self) -> None:
        self.receiver.start()

    def sink(self, *, timeout: float = GENEROUS) -> AuditSink:
        address: Any = str(self.receiver.path) if self.unix else ("127.0.0.1", self.receiver.port)
        return SyslogDatagrams(address=address, hostname="trien1", timeout=timeout)

    def positions(self) -> list[int]:
        return positions_of(self.receiver.messages)


@pytest.fixture(params=["file", "tls", "tcp", "udp", "unix"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made: Any = {
        "file": lambda: AtFile(tmp_path),
        "tls": lambda: AtStream(tmp_path, tls=True),
        "tcp": lambda: AtStream(tmp_path, tls=False),
        "udp": lambda: AtDatagrams(tmp_path, unix=False),
        "unix": lambda: AtDatagrams(tmp_path, unix=True),
    }[request.param]()
    made.start()
    yield made
    if not isinstance(made, AtFile):
        made.stop()


def test_every_entry_arrives_once_and_in_order(other: Any, record_property: Any) -> None:
    sink = other.sink()
    for first in range(0, 500, 50):
        sink.write(entries(50, first=first))
    wait_until(lambda: len(other.positions()) >= 500)
    assert other.positions() == list(range(500))
    sink.close()
    sink.write(entries(1, first=500))
    wait_until(lambda: len(other.positions()) == 501)
    sink.close()
    record_property("count", f"{type(other).__name__}: entries 501")


def test_a_receiver_that_is_away_is_an_error_within_the_time_limit_and_takes_the_rest_once_it_is_back(
    other: Any,
) -> None:
    sink = other.sink(timeout=SECONDS)
    sink.write(entries(3))
    wait_until(lambda: len(other.positions()) == 3)
    other.stop()
    begun = time.monotonic()
    failures = 0
    # UDP learns of it with the datagram after the one that was lost, and a receiver takes a moment to end.
    while failures == 0 and time.monotonic() - begun < GENEROUS:
        try:
            sink.write(entries(2, first=3))
        except OSError:
            failures += 1
        else:
            time.sleep(0.05)
    assert failures == 1
    assert time.monotonic() - begun < SECONDS + GENEROUS
    other.restart()
    try:
        sink.write(entries(2, first=3))
    except OSError:  # what the receiver's end told is taken note of once more
        sink.write(entries(2, first=3))
    wait_until(lambda: other.positions()[-2:] == [3, 4])
    assert set(other.positions()) == {0, 1, 2, 3, 4}
    sink.close()


@pytest.mark.parametrize("other", ["tls", "tcp", "unix"], indirect=True)
def test_a_receiver_that_takes_nothing_holds_nobody_up_for_longer_than_the_limit(other: Any) -> None:
    sink = other.sink(timeout=SECONDS)
    sink.write(entries(1))
    other.receiver.reads.clear()
    begun = time.monotonic()
    with pytest.raises(OSError):  # noqa: PT011 - whichever
        write_often(sink, 200, entries(250, size=7000))
    assert time.monotonic() - begun < GENEROUS
    other.receiver.reads.set()
    wait_until(lambda: 0 in other.positions())
    sink.write(entries(1, first=1000))
    wait_until(lambda: 1000 in other.positions())
    sink.close()


@pytest.mark.parametrize("other", ["tls", "tcp"], indirect=True)
def test_a_connection_that_is_cut_in_the_middle_is_an_error_and_the_next_write_makes_a_new_one(other: Any) -> None:
    sink = other.sink(timeout=SECONDS)
    other.receiver.cut_after = 20_000
    with pytest.raises(OSError):  # noqa: PT011
        write_often(sink, 50, entries(100, size=2000))
    sink.write(entries(100, first=1000))
    wait_until(lambda: 1099 in other.positions())
    assert other.receiver.connections == 2
    # Whole messages only, in order on each connection.
    assert all(parsed(message).text.endswith('"}') for message in other.receiver.messages)
    assert [position for position in other.positions() if position >= 1000] == list(range(1000, 1100))
    sink.close()


@pytest.mark.parametrize("other", ["tls"], indirect=True)
def test_a_receiver_with_another_cas_certificate_or_name_is_told_nothing(other: Any, tmp_path: Path) -> None:
    (tmp_path / "foreign.pem").write_bytes(PrivateCa.create("Foreign").identity.certificate)
    foreign = ssl.create_default_context(cafile=str(tmp_path / "foreign.pem"))
    for context, host in ((foreign, "localhost"), (other.context, "127.0.0.1")):
        sink = SyslogStream(host=host, port=other.receiver.port, context=context, hostname="trien1", timeout=SECONDS)
        with pytest.raises(ssl.SSLCertVerificationError):
            sink.write(entries(1))
    assert other.positions() == []


def test_without_tls_nobody_else_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "getpeername", lambda _: ("192.0.2.1", 514))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        sink = SyslogStream(host="127.0.0.1", port=port, context=None, hostname="", timeout=SECONDS)
        with pytest.raises(PermissionError):
            sink.write(entries(1))
    with pytest.raises(PermissionError):
        SyslogDatagrams(address=("192.0.2.1", 514), hostname="", timeout=SECONDS).write(entries(1))


def test_a_file_that_was_moved_away_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonLinesFile(path)
    sink.write(entries(2))
    path.rename(tmp_path / "audit.jsonl.1")
    sink.write(entries(1, first=2))
    assert [json.loads(line)["position"] for line in path.read_bytes().splitlines()] == [2]
    assert len((tmp_path / "audit.jsonl.1").read_bytes().splitlines()) == 2
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_a_crash_left_of_a_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    sink = JsonLinesFile(path)
    sink.write(entries(3))
    whole = path.read_bytes()
    cut = 0
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        kept = whole[:length].count(b"\n")
        sink.write(entries(1, first=9))
        lines = path.read_bytes().splitlines()
        assert [json.loads(line)["position"] for line in lines] == [*range(kept), 9]
        cut += 1
    assert cut > 10


def test_a_write_that_ends_in_its_middle_leaves_whole_lines_alone(tmp_path: Path) -> None:
    """A limit on the file's size ends a write as a full disk does: in the middle."""
    path = tmp_path / "audit.jsonl"
    sink = JsonLinesFile(path)
    sink.write(entries(2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 700, hard))
    try:
        with pytest.raises(OSError, match="large"):
            sink.write(entries(5, first=2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [json.loads(line)["position"] for line in path.read_bytes().splitlines()] == [0, 1]
    sink.write(entries(5, first=2))
    assert [json.loads(line)["position"] for line in path.read_bytes().splitlines()] == [*range(7)]
