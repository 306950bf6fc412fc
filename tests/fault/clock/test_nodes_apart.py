"""Two nodes on one database, their clocks 60 s apart: who is wrong refuses, who is right goes on (P2, P8)."""

import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.fault.clock.test_clock_steps import outcome, start_is_refused, wait_for_health
from tests.promises.history import History
from tests.promises.installation import judge_of
from tests.promises.recording import RecordedConnection
from tests.support.administration import Administrator, Connection, Person, Refused, TimeAuthenticator, request_of
from tests.support.fake_clock import FakeClock
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401
from tests.support.sandbox import Installation, running_sandbox

from trien_server.hsm.softhsm import write_softhsm_configuration

APART = 60


def sign(client: RecordedConnection, person: Person, code: str, *, right: bool) -> str:
    try:
        client.sign(request_of(person, code=code), right=right)
    except Refused as refused:
        return refused.reason or refused.code.name
    return "OK"


@pytest.mark.promise("P1", "P2", "P8")
@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)], ids=["4", "60"])
def test_of_two_nodes_60_seconds_apart_only_the_right_one_decides(
    postgres: PostgresServer, tmp_path: Path, rounds: int, record_property: Any
) -> None:
    url = postgres.url(postgres.copy())
    history = History()
    outcomes: Counter[str] = Counter()
    with ExitStack() as held:
        right, wrong, person, timer = two_nodes(held, tmp_path, url)
        clock = FakeClock(tmp_path / "wrong-clock")
        wrong.environment = clock.environment
        for node in (right, wrong):
            held.callback(node.kill)
            node.start()
        token = right.population["client"]["token"]
        of_right, of_wrong = (
            RecordedConnection(held.enter_context(Connection(node, token=token)), history) for node in (right, wrong)
        )
        pool = held.enter_context(ThreadPoolExecutor(2))
        assert sign(of_wrong, person, person.authenticator.take(), right=True) == "OK"
        for number in range(rounds):
            clock.set(APART if number % 2 else -APART)
            # The same code at both at once, by turns a counter's and the time's at the wrong node.
            code = person.authenticator.take()
            at_wrong = pool.submit(sign, of_wrong, person, code, right=True)
            at_right = pool.submit(sign, of_right, person, code, right=True)
            assert at_right.result() == "OK"
            outcomes[at_wrong.result()] += 1
            # A code of the wrong node's time, which was never used: neither takes it.
            step = int(time.time() + clock.offset) // 30
            outcomes[outcome(of_wrong.connection, person, timer.at(step))] += 1
        wait_for_health(of_wrong.connection, serving=False)
        assert of_right.connection.serving()
        assert start_is_refused(wrong)
        clock.set(0)
        wait_for_health(of_wrong.connection, serving=True)
        code = person.authenticator.take()
        assert sign(of_wrong, person, code, right=True) == "OK"
        assert sign(of_right, person, code, right=False) == "ONE_TIME_PASSWORD_REJECTED"
        assert {line["event"] for line in wrong.lines()} >= {"clock_jumped", "clock_not_trusted", "serving_again"}
        assert right.stop() == wrong.stop() == 0
    accepted = [operation for operation in history if operation.answer is not None]
    record_property("count", f"two nodes {APART} s apart: rounds {rounds}, at the wrong one {dict(outcomes)}")
    assert outcomes == {"CLOCK_NOT_TRUSTED": 2 * rounds}
    assert len(accepted) == rounds + 2
    with judge_of(right.directory, url=url) as judge:
        judge.check(history, settled=False)  # what the wrong node refused was not asked again


def two_nodes(held: ExitStack, folder: Path, url: str) -> tuple[Installation, Installation, Person, TimeAuthenticator]:
    """Makes a person by one server, then moves its rows to PostgreSQL and copies its folder for a second node."""
    (folder / "wrong-clock").mkdir()
    with running_sandbox(folder / "right") as first:
        with Administrator(first) as administrator:
            person = administrator.create_person("apart")
            timer = administrator.create_timer(person.name)
        assert first.stop() == 0
    move_to_postgresql(first.database, url)
    shutil.copytree(first.directory, folder / "wrong")
    write_softhsm_configuration(folder / "wrong" / "token")
    right, wrong = (Installation(folder / name, f"store.url={url}") for name in ("right", "wrong"))
    return right, wrong, person, timer
