"""What it costs to take entries into a log that grows to a million (P10).

The entries' rows, positions and tiles are real, in a database of its own; keys in memory stand for the token's, for a
pass signs one checkpoint whatever it takes in. Counted is this process's time, and for PostgreSQL also that of its
processes: how long a pass takes beside other work is another question.

`TRIEN_SOAK_ENTRIES` sets how many entries there are.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.world import World

from trien_server.core.audit import make_entry
from trien_server.core.ports import Transaction
from trien_server.core.records import LogHead
from trien_server.host.randomness import SystemRandomness
from trien_server.services.identifiers import new_id
from trien_server.services.log_history import LOG_HEAD
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store

__all__ = ["postgres_fixture"]
pytestmark = [pytest.mark.soak, pytest.mark.promise("P10")]
ENTRIES = int(os.environ.get("TRIEN_SOAK_ENTRIES", "1000000"))
STEPS = 10
BATCH = 10_000
MOST_GROWTH = 3.0
"""The last step may cost this much more an entry than the first: indexes get deeper, and caches too small."""


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str, Callable[[], float]]]:
    """Yields a database's kind, its URL, and what tells the processor time of its own processes."""
    if request.param == "SQLite":
        url = f"sqlite:///{tmp_path / 'trien.db'}"
        migrate(url)
        yield request.param, url, lambda: 0.0
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    yield request.param, postgres.url(postgres.copy()), lambda: processor_time_below(postgres.postmaster)


def processor_time_below(root: int) -> float:
    """Returns the processor time of a process's children, those that ended and were waited for among them."""
    ticks = 0
    fields = Path(f"/proc/{root}/stat").read_text().rpartition(")")[2].split()
    ticks += sum(map(int, fields[11:15]))
    for child in Path(f"/proc/{root}/task/{root}/children").read_text().split():
        own = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, own[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def add_entries(world: World, count: int) -> None:
    """Writes entries that wait for their positions, with random names as all have."""
    randomness = SystemRandomness()
    at = world.clock.now()
    world.use.seals.prepare(at)
    rows = [
        world.use.seals.seal_hot(
            make_entry(
                name=f"auditEntries/{new_id(randomness)}",
                time=at,
                kind="refused",
                subject=None,
                subject_version=None,
                details={"reason": "ONE_TIME_PASSWORD_REJECTED"},
                head_salt=os.urandom(16),
                salt=os.urandom(32),
                items_root=b"",
            ),
            at=at,
        )
        for _ in range(count)
    ]

    def work(transaction: Transaction) -> None:
        for row in rows:
            transaction.insert(row)

    world.store.transact(work, timeout=300.0)


def test_sealing_costs_the_same_in_a_log_of_a_million_entries(
    database: tuple[str, str, Callable[[], float]],
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    kind, url, elsewhere = database
    store: Any = open_store(url, on_fatal=lambda _: None)
    costs: list[float] = []
    try:
        world = World(store=store).populate()
        world.use.log_keys.look()
        while world.use.log_sealing.work_off():
            pass
        first = size = head_of(world).size
        for _ in range(STEPS):
            spent = 0.0
            before = size
            for _ in range(max(1, ENTRIES // STEPS // BATCH)):
                add_entries(world, min(BATCH, ENTRIES // STEPS))
                begun, there = time.process_time(), elsewhere()
                while world.use.log_sealing.work_off():
                    pass
                spent += time.process_time() - begun + elsewhere() - there
            size = head_of(world).size
            costs.append(spent / (size - before))
            with capsys.disabled():
                print(f"soak: {kind}: {size} entries, {costs[-1] * 1e6:.0f} us an entry", flush=True)  # noqa: T201
    finally:
        store.close()
    record_property(
        "count",
        f"{kind}: entries sealed {size - first}; processor time an entry in tenths of them, in microseconds: "
        + ", ".join(f"{cost * 1e6:.0f}" for cost in costs),
    )
    assert size - first == ENTRIES // STEPS * STEPS > 0
    assert costs[-1] < MOST_GROWTH * costs[0]


def head_of(world: World) -> LogHead:
    row = world.store.read(lambda snapshot: snapshot.get(LogHead, LOG_HEAD))
    found: LogHead = row.record
    return found
