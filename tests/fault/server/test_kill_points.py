"""The server is killed at system calls of one request, from its first read to its answer; then asked again.

The n-th call is the n-th of all threads (see tracer.py): whatever its name, it is counted in one of the groups of
`EVERY_CALL`, and the long run takes each call of each group.
"""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fault.server.faulted_server import DATABASES, SCENARIOS, FaultedServer, faulted_server, places_of
from tests.fault.server.tracing import EVERY_CALL, Seen, Tally, Target, spread
from tests.support.postgres import postgres_fixture  # noqa: F401

Record = Callable[[str, object], None]


def killed_at(server: FaultedServer, scenario: str, target: Target | None, *, warm: bool = True) -> Seen:
    """Has one request served, killed at the target; without one only looks."""
    if warm:
        server.warm_up()
    attempt = server.prepare(scenario)
    places = places_of(server.installation)
    seen = server.serve(attempt, groups=EVERY_CALL, places=places, target=target)
    server.recover(attempt)
    return seen


def kill_at(server: FaultedServer, scenario: str, targets: list[Target], *, warm: bool = True) -> Tally:
    """Kills at each of the targets, each in a request of its own; only a `warm` process has answered one before."""
    tally = Tally()
    before = server.restarts
    for target in targets:
        if not warm:
            server.restart()
        tally.add(killed_at(server, scenario, target, warm=warm))
    assert server.endings <= {-signal.SIGKILL}
    assert tally.points <= server.restarts - before <= tally.points + (0 if warm else len(targets))
    return tally


def told(database: str, scenario: str, tally: Tally, server: FaultedServer, left_out: int) -> str:
    return (
        f"{database}, {scenario}: kill points {tally.points} ({tally.names()}); left out {left_out}, "
        f"not reached {tally.missed}; calls {len(server.history)}, completed after a lease {server.completed_later}"
    )


@pytest.mark.promise("P1", "P2", "P3", "P5", "P6", "P7", "P8")
@pytest.mark.parametrize(("database", "most"), [("sqlite", 5), ("postgresql", 2)])
def test_a_kill_at_some_system_calls_breaks_no_promise(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, database: str, most: int
) -> None:
    with faulted_server(tmp_path, database, request) as server:
        counts = killed_at(server, "sign", None).counts
        targets = [Target(group="rest", at=at) for at in spread(counts["rest"], most)]
        tally = kill_at(server, "sign", targets)
        server.finish(wait=False)
        record_property("count", told(database, "sign", tally, server, sum(counts.values()) - len(targets)))
    assert tally.points >= most - 1 > 0


@pytest.mark.slow
@pytest.mark.promise("P1", "P2", "P3", "P5", "P6", "P7", "P8")
@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("database", DATABASES)
def test_a_kill_at_any_system_call_breaks_no_promise(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, database: str, scenario: str
) -> None:
    with faulted_server(tmp_path, database, request) as server:
        counts = killed_at(server, scenario, None).counts
        targets = [Target(group=group, at=at) for group in sorted(counts) for at in range(1, counts[group] + 1)]
        tally = kill_at(server, scenario, targets)
        server.finish(wait=True)
        record_property("count", told(database, scenario, tally, server, 0))
    assert tally.points >= 0.8 * len(targets) > 50
    assert server.completed_later > 0 or scenario == "approve"


@pytest.mark.soak
@pytest.mark.promise("P1", "P2", "P3", "P5", "P6", "P7", "P8")
@pytest.mark.parametrize("database", DATABASES)
def test_a_kill_in_the_first_request_of_a_process_breaks_no_promise(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, database: str
) -> None:
    """A process that knows no row yet asks its token about each: many calls, of which some are taken."""
    with faulted_server(tmp_path, database, request) as server:
        server.restart()
        counts = killed_at(server, "sign", None, warm=False).counts
        targets = [Target(group=group, at=at) for group in sorted(counts) for at in spread(counts[group], 60)]
        server.restart()
        tally = kill_at(server, "sign", targets, warm=False)
        server.finish(wait=True)
        record_property("count", told(database, "first request", tally, server, sum(counts.values()) - len(targets)))
    assert tally.points >= 0.8 * len(targets) > 50
