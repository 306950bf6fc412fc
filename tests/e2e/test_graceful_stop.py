"""SIGTERM while calls run: what was accepted is finished, the rest can be repeated after the restart (P7, P8)."""

import signal
import threading
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest
from tests.support.administration import Administrator, Connection, Person, Refused, e_office, request_of
from tests.support.sandbox import Installation, running_sandbox

ROUNDS = 5
CALLERS = 8
NOT_ACCEPTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
"""gRPC itself cancels a call that arrives after the shutdown and before the client saw the GOAWAY."""


class Caller(threading.Thread):
    """Signs until the server is gone."""

    def __init__(self, installation: Installation, person: Person) -> None:
        super().__init__(name=person.name)
        self.person = person
        self.answered: list[tuple[object, object]] = []
        self.refused: list[tuple[object, Refused]] = []
        self._installation = installation

    def run(self) -> None:
        token = self._installation.population["client"]["token"]
        with Connection(self._installation, token=token) as connection:
            while not self.refused:
                request = request_of(self.person, *[f"{self.name} {n}".encode() for n in range(20)])
                try:
                    self.answered.append((request, connection.sign(request)))
                except Refused as refused:
                    self.refused.append((request, refused))


@pytest.mark.promise("P7", "P8")
@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_under_load_fails_no_call_that_it_began(
    tmp_path: Path, stop_signal: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    finished: Counter[str] = Counter()
    seconds: list[float] = []
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            people = [administrator.create_person(f"stop-{number}") for number in range(CALLERS)]
        for number in range(ROUNDS if stop_signal is signal.SIGTERM else 1):
            callers = [Caller(installation, person) for person in people]
            for caller in callers:
                caller.start()
            time.sleep(0.3 + 0.05 * number)
            assert installation.process is not None
            begun = time.monotonic()
            installation.process.send_signal(stop_signal)
            assert installation.wait() == 0
            seconds.append(time.monotonic() - begun)
            for caller in callers:
                caller.join(30)
                assert not caller.is_alive()
            with installation.read_database() as database:
                granted = {
                    name.rpartition("/")[2]: bool(completed)
                    for name, completed in database.execute("SELECT name, completed FROM granted_requests")
                }
            installation.start()
            with e_office(installation) as connection:
                for caller in callers:
                    for request, answer in caller.answered:
                        assert granted[request.request_id]  # type: ignore[attr-defined]
                        if request is caller.answered[-1][0]:
                            assert connection.sign(request) == answer  # type: ignore[arg-type]
                        finished["answered"] += 1
                    for request, refused in caller.refused:
                        assert refused.code in NOT_ACCEPTED, refused
                        finished[refused.code.name] += 1
                        # It was refused before it was processed, so its password is still good.
                        assert request.request_id not in granted, refused  # type: ignore[attr-defined]
                        connection.sign(request)  # type: ignore[arg-type]
                        finished["repeated"] += 1
            finished["rounds"] += 1
        log = installation.log()
        assert "Traceback" not in log
        assert '"fault"' not in log
    with capsys.disabled():
        print(f"\nstop: {dict(finished)}, slowest {max(seconds):.2f} s")  # noqa: T201 - the figures are the result
    assert finished["rounds"] == (ROUNDS if stop_signal is signal.SIGTERM else 1)
    assert finished["answered"] >= CALLERS * finished["rounds"]
    assert finished["repeated"] == CALLERS * finished["rounds"]
    assert max(seconds) < 15


@pytest.mark.promise("P8")
def test_health_says_not_serving_while_a_stopping_server_drains(tmp_path: Path) -> None:
    with (
        running_sandbox(tmp_path / "installation", "server.drain_seconds=1.5") as installation,
        Administrator(installation) as administrator,
        e_office(installation) as connection,
    ):
        person = administrator.create_person("drain")
        assert connection.serving()
        assert installation.process is not None
        installation.process.send_signal(signal.SIGTERM)
        end = time.monotonic() + 1.0
        while connection.serving() and time.monotonic() < end:
            time.sleep(0.02)
        assert not connection.serving()
        # It still answers whoever has not looked yet.
        connection.sign(request_of(person))
        assert installation.wait() == 0
