"""Two servers on one database and one token, and many callers with one one-time password: exactly one wins (P2)."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.support.administration import Administrator, Connection, Person, request_of
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.racing import CALLERS, Racers, at_once_on_both, check_round
from tests.support.sandbox import Installation
from tests.support.workers import beside, copy_people, running

__all__ = ["postgres_fixture"]
CHANNELS = 8
LIMITS = ("server.threads=160", "server.signing_requests=128", "token.sessions=4")


class Pair:
    """Two servers, and who raced there."""

    def __init__(self, directory: Path, url: str | None) -> None:
        peopled = copy_people(directory)
        self.person: Person = peopled.people[0]
        self.url = url
        settings = (*LIMITS, f"store.url={url}") if url is not None else LIMITS
        self.first = Installation(directory, *settings)
        self.second = beside(self.first, *settings)
        if url is not None:
            move_to_postgresql(self.first.database, url)
            self.first.database.unlink()

    def accepted(self) -> list[int]:
        """Returns the counters that were accepted, in order."""
        query = f"SELECT accepted_value FROM approvals WHERE signer = '{self.person.name}' ORDER BY 1"
        if self.url is not None:
            with psycopg.connect(self.url) as database:
                return [value for (value,) in database.execute(query).fetchall()]
        with self.first.read_database() as database:
            return [value for (value,) in database.execute(query).fetchall()]


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    url = None
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
    made = Pair(tmp_path / "installation", url)
    with running(made.first, made.second):
        yield made


@pytest.mark.promise("P2")
@pytest.mark.parametrize("rounds", [24, pytest.param(256, marks=pytest.mark.slow)])
def test_of_64_callers_on_two_servers_exactly_one_signs(
    pair: Pair, rounds: int, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    token = pair.first.population["client"]["token"]
    # They take turns: callers with an even number ask the first server.
    channels = [Connection((pair.first, pair.second)[number % 2], token=token) for number in range(CHANNELS)]
    racers = Racers(channels)
    totals: Counter[str] = Counter()
    winners: Counter[str] = Counter()
    widths: list[int] = []
    begun = time.monotonic()
    try:
        with Administrator(pair.first) as administrator:
            for number in range(rounds):
                code = pair.person.authenticator.take()
                requests = [
                    request_of(pair.person, f"{number}/{caller}".encode(), code=code) for caller in range(CALLERS)
                ]
                calls = racers.race(requests)
                totals += check_round(calls)
                winner = [call.outcome for call in calls].index("OK")
                winners[("first", "second")[winner % 2]] += 1
                widths.append(at_once_on_both(calls))
                administrator.unlock(pair.person.name)
    finally:
        racers.close()
        for connection in channels:
            connection.channel.close()
    record_property(
        "count",
        f"{request.node.callspec.params['pair']}: {len(widths)} rounds of {CALLERS} callers on two servers in"
        f" {time.monotonic() - begun:.0f} s, winners {dict(winners)}, {dict(totals)}, open on both at once: median"
        f" {statistics.median(widths)}, least {min(widths)}",
    )
    assert len(widths) == rounds == totals["OK"]
    assert totals.total() == rounds * CALLERS
    assert min(winners["first"], winners["second"]) >= 1, winners
    assert sum(width >= 2 for width in widths) >= rounds * 9 // 10, widths
    assert pair.accepted() == list(range(1, rounds + 1))
