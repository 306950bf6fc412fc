"""A process that signs too late, for it was paused or its token slow, changes nothing: one outcome (P7)."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.promises.history import History
from tests.promises.recording import RecordedConnection
from tests.support.administration import Connection, Refused, request_of
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.sandbox import Installation
from tests.support.shim import Order, Shim
from tests.support.workers import beside, copy_people, judge, running

__all__ = ["postgres_fixture"]
LEASE = 30.0


@pytest.mark.slow
@pytest.mark.promise("P1", "P2", "P7")
@pytest.mark.parametrize("how", ["paused", "slow token"])
@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_a_late_result_is_thrown_away_and_all_are_told_one_outcome(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    database: str,
    how: str,
    record_property: Callable[[str, object], None],
) -> None:
    """Two servers, neither under a supervisor, so that nobody ends the late one."""
    peopled = copy_people(tmp_path / "installation")
    shim = Shim(tmp_path / "shim")
    settings, url = [shim.setting], None
    if database == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
        move_to_postgresql(peopled.directory / "trien.db", url)
        settings.append(f"store.url={url}")
    late = Installation(peopled.directory, *settings, **shim.environment)
    other = beside(late, *settings, **shim.environment)
    history, told = History(), []
    with running(late, other):
        assert late.process is not None
        token = late.population["client"]["token"]
        with Connection(late, token=token) as to_late, Connection(other, token=token) as to_other:
            wanted = request_of(peopled.people[0], b"a document")
            sleep = 1000 if how == "paused" else int(1000 * LEASE) + 8000
            shim.order(Order("C_Sign/signer", "sleep", sleep, pid=late.process.pid, once=True))

            def ask_late() -> None:
                try:
                    told.append(RecordedConnection(to_late, history).sign(wanted, right=True, timeout=115.0))
                except Refused as refused:
                    told.append(refused.reason)

            asking = threading.Thread(target=ask_late)
            asking.start()
            assert shim.wait_for("C_Sign", "sleep") == late.process.pid
            begun = time.monotonic()
            if how == "paused":
                os.kill(late.process.pid, signal.SIGSTOP)
            repeated = RecordedConnection(to_other, history)
            answer = repeated.sign(wanted, right=True, timeout=90.0)
            completed = time.monotonic() - begun
            assert told == [], "the first is still at it"
            if how == "paused":
                os.kill(late.process.pid, signal.SIGCONT)
            asking.join(60)
            assert told in (["BUSY"], [answer]), told
            assert repeated.sign(wanted, right=True) == answer
            assert RecordedConnection(to_late, history).sign(wanted, right=True) == answer
        made = shim.counted()["C_Sign", "sleep"]
        assert (late.stop(), other.stop()) == (0, 0)
    with judge(late, url=url) as check:
        check(history)
    record_property(
        "count", f"{database}, {how}: completed by the other server after {completed:.1f} s, late told {told}"
    )
    assert made == 1
    assert completed > LEASE - 10
    assert len(history) == 4
