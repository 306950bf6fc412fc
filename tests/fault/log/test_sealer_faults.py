"""The process that seals the log is stopped, or killed, in a pass: there is one history, and nothing is lost (P10).

Requests are served by the other process meanwhile, so that what the sealer writes to the database is sealing alone.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from tests.fault.log.sealing_pair import CALLS, Pair, sealing_pair, signal_at
from tests.support.load import load
from tests.support.postgres import postgres_fixture
from tests.support.sandbox import Installation
from tests.support.workers import wait_until

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P1", "P3", "P8", "P10")
Record = Callable[[str, object], None]
CALLERS = 2


def fault_the_sealer(pair: Pair, sealer: Installation, sent: str, at: int) -> bool:
    """Stops or kills the process that seals at its `at`-th lasting call."""
    assert sealer.process is not None
    file = sealer.database if pair.database == "sqlite" else None
    return signal_at(sealer.process.pid, sent, CALLS[sent, pair.database], at, file=file, seconds=8.0)


def run_rounds(pair: Pair, sent: str, moments: list[int]) -> Counter[str]:
    """Takes the sealer away at each moment; the other process takes over, and the first one comes back."""
    counted: Counter[str] = Counter()
    wait_until(lambda: pair.state().holder != "", "one of them seals")
    sealer, other = pair.nodes
    for at in moments:
        with load([other], pair.people[:CALLERS], pair.history) as callers:
            wait_until(lambda: any(caller.signed for caller in callers), "the other one serves")
            before = pair.state().holder
            reached = fault_the_sealer(pair, sealer, sent, at)
            assert sealer.process is not None
            if not reached:
                counted["not reached"] += 1
                continue
            if sent == "KILL":
                assert sealer.wait() == -signal.SIGKILL
            else:
                os.kill(sealer.process.pid, signal.SIGSTOP)
            counted["faults"] += 1
            size = _watch(pair, sealer, sent, before, counted)
            wait_until(partial(_has_grown, pair, size), "the log grows", seconds=90.0)
        assert not [text for caller in callers for text in caller.unexpected]
        counted["signed"] += sum(len(caller.signed) for caller in callers)
        if pair.state().holder != before:
            sealer, other = other, sealer
    counted["checkpoints"] = pair.judge()
    return counted


def _watch(pair: Pair, sealer: Installation, sent: str, before: str, counted: Counter[str]) -> int:
    """Looks at what was left and who goes on with it, and brings the sealer back; returns the log's size then."""
    assert sealer.process is None or sent == "STOP"
    try:
        found = pair.state()
        counted["held the lease"] += found.holder == before
        counted["committed and not signed"] += found.size > found.signed
        counted["taken over"] += _taken_over(pair, before, found.size)
    finally:
        if sealer.process is not None:
            os.kill(sealer.process.pid, signal.SIGCONT)
        else:
            sealer.start()
    return found.size


def _has_grown(pair: Pair, size: int) -> bool:
    return pair.state().size > size


def _taken_over(pair: Pair, before: str, size: int) -> bool:
    """Waits for another holder; a process that is stopped with the database's write lock keeps it."""
    end = time.monotonic() + 25
    while time.monotonic() < end:
        found = pair.state()
        if found.holder != before and found.size > size:
            return True
        time.sleep(0.2)
    return False


def told(pair: Pair, sent: str, counted: Counter[str]) -> str:
    return f"{pair.database}: sealer, SIG{sent}: " + ", ".join(f"{name} {count}" for name, count in counted.items())


@pytest.mark.slow
@pytest.mark.parametrize(("database", "sent"), [("sqlite", "STOP"), ("sqlite", "KILL"), ("postgresql", "STOP")])
def test_another_process_continues_the_history_of_one_that_is_taken_away(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, database: str, sent: str
) -> None:
    with sealing_pair(tmp_path, database, request) as pair:
        counted = run_rounds(pair, sent, [9])
        record_property("count", told(pair, sent, counted))
    assert counted["faults"] == 1
    assert counted["checkpoints"] > 1
