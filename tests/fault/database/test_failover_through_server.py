"""A standby takes the primary's place under a real server: it is followed, or refused when it lacks what was told."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fault.clock.test_clock_steps import wait_for_health
from tests.fault.persistent_callers import under_load
from tests.promises.history import History
from tests.promises.installation import judge_of
from tests.promises.recording import RecordedConnection
from tests.support.administration import Administrator, Refused, e_office, request_of
from tests.support.moving import running_on_postgresql
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.slow

CALLERS = 4


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.set_up()
    yield server
    server.stop()


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    server = primary.standby("two")
    primary.wait_until("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'", seconds=30)
    yield server
    server.stop()


def url_of_both(primary: PostgresServer, standby: PostgresServer) -> str:
    return f"postgresql://trien_server@/trien?host={primary.folder},{standby.folder}"


@pytest.mark.promise("P1", "P2", "P7", "P8")
def test_a_synchronous_standby_is_followed_and_no_code_opens_twice(
    primary: PostgresServer, standby: PostgresServer, tmp_path: Path, record_property: Any
) -> None:
    primary.set({"synchronous_standby_names": "'two'"})
    primary.reload()
    primary.wait_until("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'", seconds=30)
    history = History()
    with running_on_postgresql(tmp_path / "installation", url_of_both(primary, standby)) as installation:
        with Administrator(installation) as administrator:
            people = [administrator.create_person(f"followed-{number}") for number in range(CALLERS)]
        with under_load(installation, people, history) as load:
            load.wait_for_more(10 * CALLERS)
            primary.stop("immediate")
            standby.promote()
            seconds = load.wait_for_more(10 * CALLERS)
        assert installation.stop() == 0
    assert load.settled()
    for caller in load.callers:
        sql = "SELECT accepted_value FROM approvals WHERE signer = $1"
        values = sorted(value for (value,) in standby.admin(sql, caller.person.name, database="trien"))
        assert values == list(range(caller.told.signed))
    record_property("count", f"failover followed: signed {load.signed()}, 40 more after {seconds:.1f} s")
    with judge_of(installation.directory, url=standby.url("trien")) as judge:
        judge.check(history)


@pytest.mark.promise("P1", "P2", "P8")
def test_a_standby_that_lacks_an_acknowledged_signature_is_refused(
    primary: PostgresServer, standby: PostgresServer, tmp_path: Path, record_property: Any
) -> None:
    """The code whose use the standby does not know of stays closed, and so does every other one."""
    rounds = 10
    with running_on_postgresql(tmp_path / "installation", url_of_both(primary, standby)) as installation:
        with Administrator(installation) as administrator:
            person = administrator.create_person("lagging")
        with e_office(installation) as connection:
            client = RecordedConnection(connection, History())
            client.sign(request_of(person, b"replicated"))
            caught_up = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) = 0 FROM pg_stat_replication"
            primary.wait_until(caught_up, seconds=30)
            standby.set({"primary_conninfo": "''"})
            standby.reload()
            primary.wait_until("SELECT count(*) = 0 FROM pg_stat_replication", seconds=30)
            used = person.authenticator.take()
            client.sign(request_of(person, b"lost", code=used))
            primary.stop("immediate")
            standby.promote()
            refused = 0
            for number in range(rounds):
                code = used if number % 2 else person.authenticator.at(2)
                begun = time.monotonic()
                with pytest.raises(Refused) as caught:
                    client.sign(request_of(person, b"again", code=code), timeout=6)
                assert caught.value.reason == "STORE_UNAVAILABLE" or caught.value.code.name == "DEADLINE_EXCEEDED"
                assert time.monotonic() - begun < 10
                refused += 1
            wait_for_health(connection, serving=False)
        assert installation.stop() == 0
    accepted = standby.admin("SELECT accepted_value FROM approvals WHERE signer = $1", person.name, database="trien")
    record_property("count", f"lagging standby refused {refused} times")
    assert accepted == [(0,)]
    assert refused == rounds
