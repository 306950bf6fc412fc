"""Connections that are cut, and calls that are given up, at each step of a signing (P1, P2, P7).

Whatever the step: the work is finished and recorded, and a retry with the same id gets it; or nothing was consumed, and
the same code works. The retry brings the same code, so that either way it is answered.
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.fault.network.cutting_proxy import CuttingProxy
from tests.promises.history import History
from tests.promises.installation import judge_of
from tests.promises.recording import RecordedConnection
from tests.support import http2
from tests.support.administration import Administrator, Connection, Person, Refused, e_office, request_of
from tests.support.http2 import Http2
from tests.support.sandbox import Installation, running_sandbox

pytestmark = pytest.mark.promise("P1", "P2", "P3", "P7")


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_sandbox(tmp_path_factory.mktemp("disconnects") / "installation") as running:
        yield running
        assert running.stop() == 0


def new_person(installation: Installation, name: str) -> Person:
    with Administrator(installation) as administrator:
        return administrator.create_person(name)


def granted(installation: Installation, person: Person) -> int:
    """Returns how many approvals a person gave so far."""
    with installation.read_database() as database:
        (count,) = database.execute("SELECT COUNT(*) FROM approvals WHERE signer = ?", (person.name,)).fetchone()
    return int(count)


def complete(client: RecordedConnection, request: Any) -> None:
    """Repeats a request with its own code until it is answered; what is still at work is waited for."""
    end = time.monotonic() + 60
    while True:
        try:
            client.sign(request, right=True)
        except Refused as refused:
            if refused.reason != "BUSY" or time.monotonic() > end:
                raise
        else:
            return


def check(installation: Installation, person: Person, history: History, requests: int) -> None:
    """Every code was accepted once, for its own request, and all promises hold."""
    with installation.read_database() as database:
        rows = database.execute("SELECT accepted_value FROM approvals WHERE signer = ?", (person.name,)).fetchall()
    assert sorted(value for (value,) in rows) == list(range(1, 1 + requests))
    with judge_of(installation.directory) as judge:
        judge.check(history)


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.slow)], ids=["2", "40"])
def test_a_connection_that_is_cut_before_the_message_is_complete_consumes_nothing(
    office: Installation, rounds: int, record_property: Any
) -> None:
    person = new_person(office, f"before-{rounds}")
    history = History()
    token = office.population["client"]["token"]
    block = http2.header_block(http2.grpc_headers(http2.SIGN, token=token))
    cuts: Counter[str] = Counter()
    requests = 0
    with e_office(office) as connection:
        client = RecordedConnection(connection, history)
        for _ in range(rounds):
            for step in ("before the message", "after half of the message", "before its last byte", "reset"):
                request = request_of(person, step.encode())
                message = http2.grpc_message(request.SerializeToString())
                lengths = {"before the message": 0, "before its last byte": len(message) - 1}
                with Http2(office) as raw:
                    raw.send(http2.headers_frame(1, block))
                    raw.send(http2.data_frame(1, message[: lengths.get(step, len(message) // 2)]))
                    if step == "reset":
                        raw.send(http2.reset_frame(1))
                cuts[step] += 1
                assert granted(office, person) == requests
                complete(client, request)
                requests += 1
                assert granted(office, person) == requests
    check(office, person, history, requests)
    record_property("count", f"cut before the message was complete {cuts.total()}: {dict(cuts)}")
    assert min(cuts.values()) == rounds
    assert len(cuts) == 4


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)], ids=["4", "60"])
def test_an_answer_that_is_cut_off_after_the_commit_is_given_to_the_retry(
    office: Installation, rounds: int, record_property: Any
) -> None:
    """The proxy swallows what the server says, and cuts when the server has logged that it answered."""
    person = new_person(office, f"after-{rounds}")
    history = History()
    token = office.population["client"]["token"]
    cut = 0
    with e_office(office) as direct, CuttingProxy(office.token_port) as proxy:
        client = RecordedConnection(direct, history)
        for number in range(rounds):
            request = request_of(person, f"document {number}".encode())
            offset = office.log_path.stat().st_size
            with Connection(office, token=token, address=f"localhost:{proxy.port}") as connection:
                grpc.channel_ready_future(connection.channel).result(timeout=20)
                proxy.swallow_answers()
                call = connection.signing.SignDigests.future(request, timeout=60, metadata=connection.metadata)
                wait_for_answer(office, offset)
                assert granted(office, person) == number + 1
                proxy.cut()
                with pytest.raises(grpc.RpcError):
                    call.result(timeout=60)
                cut += 1
            complete(client, request)
    check(office, person, history, rounds)
    record_property("count", f"answers cut off after the commit {cut}")
    assert cut == rounds


def wait_for_answer(installation: Installation, offset: int) -> None:
    end = time.monotonic() + 30
    while not any(line.get("method") == "SignDigests" for line in installation.lines(offset)):
        assert time.monotonic() < end, "the server never answered"
        time.sleep(0.005)


@pytest.mark.parametrize("way", ["cut", "cancel", "deadline"])
@pytest.mark.parametrize("rounds", [12, pytest.param(150, marks=pytest.mark.slow)], ids=["12", "150"])
def test_whenever_a_call_is_given_up_its_retry_is_answered(
    office: Installation, way: str, rounds: int, record_property: Any
) -> None:
    """Swept over one and a half times what a request takes: by a cut connection, by cancelling, or by a deadline."""
    person = new_person(office, f"swept-{way}-{rounds}")
    history = History()
    token = office.population["client"]["token"]
    states: Counter[str] = Counter()
    with e_office(office) as direct, CuttingProxy(office.token_port) as proxy:
        client = RecordedConnection(direct, history)
        begun = time.monotonic()
        complete(client, request_of(person, b"measured"))
        whole = time.monotonic() - begun
        for number in range(rounds):
            request = request_of(person, f"document {number}".encode())
            delay = 1.5 * whole * number / rounds
            before = granted(office, person)
            with Connection(office, token=token, address=f"localhost:{proxy.port}") as connection:
                grpc.channel_ready_future(connection.channel).result(timeout=20)
                # The server refuses deadlines below half a second unread: so it is the rest of a longer one that ends.
                timeout = 0.5 + delay if way == "deadline" else 60.0
                call = connection.signing.SignDigests.future(request, timeout=timeout, metadata=connection.metadata)
                if way == "deadline":
                    call.exception(timeout=60)
                else:
                    time.sleep(delay)
                    proxy.cut() if way == "cut" else call.cancel()
                ended = "answered" if not call.cancelled() and call.exception(timeout=60) is None else "given up"
            now = granted(office, person) - before
            states[f"{ended}, {'granted' if now else 'not granted yet'}"] += 1
            complete(client, request)
    check(office, person, history, rounds + 1)
    record_property("count", f"given up by {way} {rounds}: {dict(states)}")
    assert states.total() == rounds
