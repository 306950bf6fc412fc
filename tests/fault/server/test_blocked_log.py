"""A log that nobody reads, or whose disk is full, keeps no signature waiting."""

import fcntl
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import grpc
import pytest
from tests.promises.history import History
from tests.promises.installation import judge_of
from tests.promises.recording import RecordedConnection
from tests.support.administration import Administrator, Connection, e_office, request_of
from tests.support.sandbox import TRIEN_SERVER, Installation, copy_sandbox, environment

_PAGE = 4096
CALLS = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def logging_to(directory: Path, log: int | IO[Any]) -> Iterator[tuple[Installation, subprocess.Popen[bytes]]]:
    """Runs a server on a copy of the sandbox with its log on a descriptor."""
    installation = Installation(copy_sandbox(directory / "installation"))
    installation.token_port, installation.certificate_port = free_port(), free_port()
    addresses = {"token_address": installation.address, "certificate_address": installation.certificate_address}
    command = [TRIEN_SERVER, "run", "--config", str(installation.directory / "trien.toml")]
    for setting in [
        *(f"server.{name}={value}" for name, value in addresses.items()),
        "server.drain_seconds=0",
        "log.format=json",
    ]:
        command += ["--set", setting]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment())
    try:
        yield installation, process
    finally:
        process.kill()
        process.wait()


def sign_many(installation: Installation) -> None:
    """Signs, one request after the other, each within its time, and judges."""
    history = History()
    with Administrator(installation) as administrator:
        grpc.channel_ready_future(administrator.connection.channel).result(timeout=60)
        person = administrator.create_person("reader")
    with e_office(installation) as connection, judge_of(installation.directory) as judge:
        office = RecordedConnection(connection, history)
        for _ in range(CALLS):
            office.sign(request_of(person), right=True, timeout=20)
        judge.check(history)


@pytest.mark.promise("P8")
def test_a_log_that_nobody_reads_keeps_no_signature_waiting(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PAGE)
    with open(reading, "rb") as reader, logging_to(tmp_path, writing) as (installation, process):
        os.close(writing)
        sign_many(installation)
        with Connection(installation, token=installation.population["client"]["token"]) as connection:
            assert connection.serving()
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in reader]
        assert process.wait(60) == 0
    calls = sum(line["event"] == "call" and line["method"].endswith("SignDigests") for line in lines)
    assert calls == CALLS, "lines that had a place in the queue are written once somebody reads"
    record_property("count", f"SQLite: signatures while the log was blocked {calls}")


@pytest.mark.promise("P8")
def test_a_server_stops_although_nobody_reads_its_log(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PAGE)
    os.write(writing, b"x" * _PAGE)
    with open(reading, "rb"), logging_to(tmp_path, writing) as (installation, process):
        os.close(writing)
        with Administrator(installation) as administrator:
            grpc.channel_ready_future(administrator.connection.channel).result(timeout=60)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.promise("P8")
def test_a_full_disk_under_the_log_keeps_no_signature_waiting(tmp_path: Path) -> None:
    with open("/dev/full", "wb", buffering=0) as full, logging_to(tmp_path, full) as (installation, process):
        sign_many(installation)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
