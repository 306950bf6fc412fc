"""A real server whose PostgreSQL is away, slow, hung, locked, or loses commits: P1 and P2 hold, and it comes back."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.fault.persistent_callers import TIMEOUT, Load, under_load
from tests.promises.history import History
from tests.promises.installation import judge_of
from tests.promises.recording import RecordedConnection
from tests.support.administration import Administrator, Person, Refused, e_office, request_of
from tests.support.moving import running_on_postgresql
from tests.support.postgres import PostgresServer
from tests.support.proxy import Fate, PostgresProxy
from tests.support.sandbox import Installation

CALLERS = 4
WAIT = 8.0
"""No call takes longer: its deadline, and what a loaded machine adds."""


@dataclass
class Service:
    """A server process, its database, and what is between."""

    postgres: PostgresServer
    proxy: PostgresProxy
    installation: Installation

    def values(self, person: Person) -> list[int]:
        """Returns which counters were accepted, as the database says."""
        sql = "SELECT accepted_value FROM approvals WHERE signer = $1"
        return sorted(value for (value,) in self.postgres.admin(sql, person.name, database="trien"))

    def wait_until_sealed(self) -> None:
        """Waits until nothing but requests makes the server commit: the next COMMIT is a request's then."""
        sql = (
            "SELECT NOT EXISTS (SELECT FROM unsealed_entries)"
            " AND (SELECT size FROM log_checkpoints) = (SELECT count(*) FROM log_positions)"
        )
        end = time.monotonic() + WAIT
        while self.postgres.admin(sql, database="trien") != [(True,)]:
            assert time.monotonic() < end, "the log is never sealed"
            time.sleep(0.02)

    def people(self, prefix: str, count: int = CALLERS) -> list[Person]:
        with Administrator(self.installation) as administrator:
            return [administrator.create_person(f"{prefix}-{number}") for number in range(count)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with ExitStack() as held:
        postgres = PostgresServer()
        held.callback(postgres.stop)
        postgres.set_up()
        proxy = PostgresProxy(postgres.folder)
        proxy.only_writers = True
        held.callback(proxy.close)
        directory = tmp_path_factory.mktemp("database") / "installation"
        installation = held.enter_context(running_on_postgresql(directory, proxy.url("trien")))
        yield Service(postgres, proxy, installation)
        assert installation.stop() == 0


@contextmanager
def away(service: Service) -> Iterator[None]:
    service.postgres.stop("immediate")
    try:
        yield
    finally:
        service.postgres.start()


@contextmanager
def slow(service: Service) -> Iterator[None]:
    service.proxy.delay = 1.0
    try:
        yield
    finally:
        service.proxy.delay = 0.0


@contextmanager
def hung(service: Service) -> Iterator[None]:
    postmaster = service.postgres.postmaster
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    family = [postmaster, *map(int, children)]
    for process in family:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(family):
            os.kill(process, signal.SIGCONT)


@contextmanager
def rows_locked(service: Service) -> Iterator[None]:
    """Somebody's session holds the rows that every approval changes, and the tables that it adds to."""
    url = service.postgres.url("trien", "postgres")
    with psycopg.connect(url) as connection:
        connection.execute("SELECT * FROM authenticator_states FOR UPDATE")
        connection.execute("LOCK TABLE approvals IN SHARE MODE")
        yield
        connection.rollback()


@contextmanager
def unreachable(service: Service) -> Iterator[None]:
    """The network between server and database is cut."""
    service.proxy.refuses = True
    service.proxy.cut_all()
    try:
        yield
    finally:
        service.proxy.refuses = False


@contextmanager
def commits_lost(service: Service) -> Iterator[None]:
    fates = itertools.cycle([Fate.ARRIVES, Fate.IS_LOST, Fate.ARRIVES, Fate.ANSWER_IS_LOST])
    service.proxy.fate_of = lambda: next(fates)
    try:
        yield
    finally:
        service.proxy.fate_of = lambda: Fate.ARRIVES


FAULTS = (away, slow, hung, rows_locked, unreachable, commits_lost)


def hurt(service: Service, load: Load, fault: Callable[[Service], Any], *, seconds: float) -> float:
    """Brings a fault under load; returns how many seconds later all are signing again."""
    load.wait_for_more(CALLERS)
    with fault(service):
        if fault is not commits_lost:
            load.wait_for_refusals(2)
        time.sleep(seconds)
    return load.wait_for_more(CALLERS)


def judge(service: Service, history: History, load: Load, people: list[Person], *, settled: bool) -> None:
    """Every code was accepted once, for what it was given for; all promises hold."""
    for caller, person in zip(load.callers, people, strict=True):
        used = service.values(person)
        assert used == list(range(1, 1 + len(used)))
        assert len(used) in {caller.told.signed, caller.told.signed + (not caller.told.settled)}
    with judge_of(service.installation.directory, url=service.postgres.url("trien")) as judge_:
        judge_.check(history, settled=settled)


@pytest.mark.promise("P1", "P2", "P3", "P6", "P7", "P8")
@pytest.mark.parametrize("rounds", [1, pytest.param(6, marks=pytest.mark.slow)], ids=["1", "6"])
def test_a_database_that_fails_under_load_breaks_no_promise_and_the_server_recovers(
    service: Service, rounds: int, record_property: Any
) -> None:
    """Refused calls are repeated with the same code and id: each code is accepted in the end, exactly once."""
    people = service.people(f"fault-{rounds}")
    history = History()
    done = 0
    recovered: dict[str, float] = {}
    # What is granted and not signed is another process's work for 30 s: the short variant does not wait for that.
    with under_load(service.installation, people, history, patience=2.0 if rounds == 1 else 40.0) as load:
        for _ in range(rounds):
            for fault in FAULTS:
                back = hurt(service, load, fault, seconds=0.3)
                recovered[fault.__name__] = max(back, recovered.get(fault.__name__, 0.0))
                done += 1
    record_property("count", f"database faults {done}, signed {load.signed()}, refused {dict(load.refused())}")
    record_property(
        "count",
        f"refused, then accepted {load.signed_after_refusal()}, slowest refusal {load.slowest_refusal():.1f} s,"
        " signing again after at most " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in recovered.items()),
    )
    judge(service, history, load, people, settled=load.settled())
    assert done == rounds * len(FAULTS)
    assert load.refused()["STORE_UNAVAILABLE"] > 0
    assert load.signed_after_refusal() >= 3
    assert load.slowest_refusal() < WAIT
    assert service.proxy.fates.count(Fate.IS_LOST) >= rounds
    assert service.proxy.fates.count(Fate.ANSWER_IS_LOST) >= rounds


@pytest.mark.promise("P1", "P2", "P7", "P8")
@pytest.mark.parametrize("completed", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "completed"])
@pytest.mark.parametrize("fate", [Fate.IS_LOST, Fate.ANSWER_IS_LOST, Fate.ANSWER_HANGS])
def test_a_commit_whose_answer_nobody_gets_is_never_taken_for_granted(
    service: Service, fate: Fate, completed: bool
) -> None:
    """The database is out of reach from the grant's COMMIT on, so that it cannot be looked up either.

    `completed` waits for 30 s, until the lease of the granted work is over, and completes it by a retry.
    """
    (person,) = service.people(f"{fate.name.lower().replace('_', '-')}-{completed}".lower(), 1)
    history = History()
    with e_office(service.installation) as connection:
        client = RecordedConnection(connection, history)
        client.sign(request_of(person, b"before"), right=True)
        request = request_of(person, b"lost")

        def cut() -> Fate:
            service.proxy.refuses = True
            service.proxy.fate_of = lambda: Fate.ARRIVES
            return fate

        service.wait_until_sealed()
        service.proxy.fate_of = cut
        begun = time.monotonic()
        with pytest.raises(Refused) as caught:
            client.sign(request, right=True, timeout=1.5)
        took = time.monotonic() - begun
        service.proxy.refuses = False
        assert took < WAIT
        assert caught.value.reason == "STORE_UNAVAILABLE" or caught.value.code.name == "DEADLINE_EXCEEDED"
        if fate is Fate.IS_LOST:
            assert service.values(person) == [1]
            settle(client, request)
        else:
            assert service.values(person) == [1, 2]
            another = request_of(person, b"another", code=request.one_time_password.code)
            with pytest.raises(Refused, match="ONE_TIME_PASSWORD_REJECTED"):
                until_decided(client, another)
            if completed:
                settle(client, request)
        assert service.values(person) == [1, 2]
    with judge_of(service.installation.directory, url=service.postgres.url("trien")) as judge_:
        judge_.check(history, settled=completed or fate is Fate.IS_LOST)


def until_decided(client: RecordedConnection, request: Any) -> None:
    """Asks for a signature with a code that is used; the database may need a moment to be found again."""
    while True:
        try:
            client.sign(request, right=False, timeout=TIMEOUT)
        except Refused as refused:
            if refused.reason != "STORE_UNAVAILABLE":
                raise
            time.sleep(0.05)


def settle(client: RecordedConnection, request: Any, *, seconds: float = 60.0) -> None:
    """Repeats a request, with the same code, until it is signed."""
    end = time.monotonic() + seconds
    while True:
        try:
            client.sign(request, right=True, timeout=TIMEOUT)
        except Refused as refused:
            undecided = refused.reason in {"STORE_UNAVAILABLE", "BUSY"} or refused.code.name == "DEADLINE_EXCEEDED"
            if not undecided or time.monotonic() > end:
                raise
            time.sleep(0.1)
        else:
            return
