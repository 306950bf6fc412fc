"""Files and sockets of the server fail during one request: with EIO once, or as on a full disk from then on.

Whatever fails, no client gets a signature without its entry, and the same request is completed afterwards. A process
that ended, as it does when a write to its database failed, is started anew.

Left alone are waiting, memory, descriptors that only wake threads (eventfd, epoll), and the locks of SQLite itself
(fcntl): on a local disk Linux does not fail those.
"""

import errno
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fault.server.faulted_server import SCENARIOS, FaultedServer, faulted_server, places_of
from tests.fault.server.tracing import CALLS_THAT_CAN_FAIL, CALLS_THAT_FILL_A_DISK, Group, Seen, Tally, Target, spread
from tests.promises.history import Operation
from tests.support.postgres import postgres_fixture  # noqa: F401

Record = Callable[[str, object], None]
FATAL = 1
LONGEST = 70.0
"""How long, in seconds, a request may take whose file or socket failed: ten more than the caller gives it.

libpq waits for the answer to what it could not send, as long as the caller has time.
"""


def fail_at(server: FaultedServer, scenario: str, groups: list[Group], target: Target | None) -> tuple[Seen, Operation]:
    """Has one request served while something fails, and then again without; returns how it ended the first time."""
    server.warm_up()
    attempt = server.prepare(scenario)
    begun = time.monotonic()
    seen = server.serve(attempt, groups=groups, places=places_of(server.installation), target=target)
    assert time.monotonic() - begun < LONGEST, f"{target} took {time.monotonic() - begun} s: {seen}"
    server.recover(attempt)
    return seen, next(one for one in server.history if one.request_id == attempt.request.request_id)


def fail_each(
    server: FaultedServer, scenario: str, error: int, *, most: int | None = None
) -> tuple[Tally, Counter[str], int]:
    """Fails each call that can fail so, or `most` of a group; returns what was hit, and what the caller was told."""
    ongoing = error == errno.ENOSPC
    groups = list(CALLS_THAT_FILL_A_DISK if ongoing else CALLS_THAT_CAN_FAIL)
    counts = fail_at(server, scenario, groups, None)[0].counts
    tally, told = Tally(), Counter[str]()
    targets = [
        Target(group=group, at=at, error=error, ongoing=ongoing)
        for group, count in sorted(counts.items())
        for at in spread(count, most or count)
    ]
    for target in targets:
        seen, first = fail_at(server, scenario, groups, target)
        tally.add(seen)
        if seen.hits:
            told["answered" if first.answer else first.refusal or "nothing"] += 1
    assert server.endings <= {FATAL}
    return tally, told, len(targets)


def text(database: str, scenario: str, error: int, tally: Tally, told: Counter[str], server: FaultedServer) -> str:
    outcomes = ", ".join(f"{name} {count}" for name, count in told.most_common())
    return (
        f"{database}, {scenario}: {errno.errorcode[error]} at {tally.points} calls ({tally.names()}); "
        f"told: {outcomes}; processes ended {server.restarts}, not reached {tally.missed}, "
        f"completed after a lease {server.completed_later}"
    )


@pytest.mark.requirement("ASVS 5.0.0-16.5.3")
@pytest.mark.promise("P1", "P2", "P7", "P8")
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_an_error_of_some_system_calls_breaks_no_promise(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, error: int
) -> None:
    with faulted_server(tmp_path, "sqlite", request) as server:
        tally, told, _ = fail_each(server, "sign", error, most=2)
        server.finish(wait=False)
        record_property("count", text("sqlite", "sign", error, tally, told, server))
    assert tally.points >= 1
    assert told.total() == tally.points


@pytest.mark.slow
@pytest.mark.promise("P1", "P2", "P3", "P5", "P6", "P7", "P8")
@pytest.mark.parametrize(
    ("database", "error"),
    [("sqlite", errno.EIO), ("sqlite", errno.ENOSPC), ("postgresql", errno.EIO)],  # PostgreSQL's disk is not ours
    ids=["sqlite-EIO", "sqlite-ENOSPC", "postgresql-EIO"],
)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_error_of_any_system_call_breaks_no_promise(
    tmp_path: Path, request: pytest.FixtureRequest, record_property: Record, database: str, scenario: str, error: int
) -> None:
    with faulted_server(tmp_path, database, request) as server:
        tally, told, planned = fail_each(server, scenario, error)
        server.finish(wait=True)
        record_property("count", text(database, scenario, error, tally, told, server))
    assert tally.points >= 0.8 * planned > 1
    assert told.total() == tally.points
