"""PostgreSQL when answers are lost, the server crashes, hangs, deadlocks, or another one takes its place."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from tests.contract.store_factories import PostgresqlDatabase, postgres_fixture  # noqa: F401
from tests.contract.store_records import attempts, counted, entry
from tests.support.postgres import PostgresServer
from tests.support.proxy import Fate, PostgresProxy

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Store, Transaction
from trien_server.core.records import AuditEntry, SignerAttempts
from trien_server.store.postgresql.lineage import Witness
from trien_server.store.postgresql.store import PostgresqlStore
from trien_server.store.urls import postgresql_conninfo


@pytest.fixture
def database(postgres: PostgresServer) -> PostgresqlDatabase:
    return PostgresqlDatabase(postgres)


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server for one test, to be hurt."""
    server = PostgresServer()
    server.set_up()
    yield server
    server.stop()


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[PostgresProxy]:
    opened = PostgresProxy(postgres.folder)
    yield opened
    opened.close()


def insert_pair(name: str) -> Callable[[Transaction], None]:
    """An audit entry and a row that are there together or not at all."""

    def work(transaction: Transaction) -> None:
        transaction.latest_time()
        transaction.insert(attempts(name))
        transaction.insert(entry(name))

    return work


def stored(server: PostgresServer, database: str) -> set[str]:
    """Returns the names of the pairs, read by a connection of its own; fails when half of one is there."""
    names = {name for (name,) in server.admin("SELECT name FROM signer_attempts", database=database)}
    assert names == {name for (name,) in server.admin("SELECT name FROM audit_entries", database=database)}
    return names


@dataclass
class Load:
    """Threads that write pairs until told to stop, and what they were told."""

    store: Store
    threads: int
    times: int = 1_000_000
    timeout: float = 10
    acknowledged: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._running = [threading.Thread(target=self._run, args=(number,)) for number in range(self.threads)]
        for thread in self._running:
            thread.start()

    def _run(self, thread: int) -> None:
        for number in range(self.times):
            if self.stop.is_set():
                return
            name, began = f"{thread}/{number}", time.monotonic()
            try:
                self.store.transact(insert_pair(name), timeout=self.timeout)
                self.acknowledged.add(name)
            except StoreUnavailable as refusal:
                self.refused[name] = refusal.message
                self.stop.wait(0.01)
            self.slowest = max(self.slowest, time.monotonic() - began)

    def wait_for_more(self, count: int) -> None:
        """Waits until that many more were acknowledged."""
        wanted, end = len(self.acknowledged) + count, time.monotonic() + 30
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < end, f"nothing is acknowledged any more: {list(self.refused.values())[-3:]}"
            time.sleep(0.005)

    def finish(self) -> None:
        self.stop.set()
        self.join()

    def join(self) -> None:
        for thread in self._running:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.promise("P1")
def test_when_commits_or_their_answers_are_lost_what_is_acknowledged_is_what_is_stored(
    database: PostgresqlDatabase, proxy: PostgresProxy
) -> None:
    """Every third COMMIT is lost, half of them before and half of them after the server made it durable."""
    threads, times = 8, 40
    store = PostgresqlStore(postgresql_conninfo(proxy.url(database.database)))
    fates = itertools.cycle([Fate.ARRIVES, Fate.ARRIVES, Fate.IS_LOST, Fate.ARRIVES, Fate.ARRIVES, Fate.ANSWER_IS_LOST])
    proxy.fate_of = lambda: next(fates)
    load = Load(store, threads, times, timeout=20)
    load.join()
    proxy.fate_of = lambda: Fate.ARRIVES
    found = stored(database.server, database.database)
    looked_up = store.counts.looked_up
    store.close()

    assert load.acknowledged == found
    assert len(load.acknowledged) + len(load.refused) == threads * times
    assert {message.partition(":")[0] for message in load.refused.values()} == {"The database did not commit"}
    assert proxy.fates.count(Fate.IS_LOST) > 40
    assert proxy.fates.count(Fate.ANSWER_IS_LOST) > 40
    assert looked_up > 40
    assert len(load.refused) > 30


@pytest.mark.promise("P1", "P8")
@pytest.mark.parametrize("fate", [Fate.IS_LOST, Fate.ANSWER_IS_LOST, Fate.ANSWER_HANGS])
def test_a_commit_that_cannot_be_looked_up_is_refused_in_time(
    database: PostgresqlDatabase, proxy: PostgresProxy, fate: Fate
) -> None:
    rounds = 3
    store = PostgresqlStore(postgresql_conninfo(proxy.url(database.database)))
    for number in range(rounds):
        store.transact(insert_pair(f"before{number}"), timeout=10)

        def cut() -> Fate:
            proxy.refuses = True
            return fate

        proxy.fate_of = cut
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="not known"):
            store.transact(insert_pair(f"unknown{number}"), timeout=0.6)
        assert 0.5 < time.monotonic() - began < 2
        proxy.refuses, proxy.fate_of = False, lambda: Fate.ARRIVES
    store.transact(insert_pair("after"), timeout=10)
    found = stored(database.server, database.database)
    store.close()
    certain = {"after", *(f"before{number}" for number in range(rounds))}
    unknown = {f"unknown{number}" for number in range(rounds)}
    assert found == (certain if fate is Fate.IS_LOST else certain | unknown)


@pytest.mark.promise("P1")
def test_a_transaction_of_another_is_not_taken_for_the_lost_one(
    database: PostgresqlDatabase, proxy: PostgresProxy
) -> None:
    """After a crash an identifier may be given anew: the row must be there, written by that very transaction."""
    store = PostgresqlStore(postgresql_conninfo(proxy.url(database.database)))
    server, attempts_made = database.server, 0
    for changed in (
        "UPDATE audit_entries SET kind = kind",  # The row is another transaction's now.
        "DELETE FROM audit_entries",
    ):

        def meddle(changed: str = changed) -> Fate:
            proxy.fate_of = lambda: Fate.ARRIVES
            proxy.refuses = True
            threading.Thread(target=change, args=(changed,)).start()
            return Fate.ANSWER_IS_LOST

        def change(changed: str) -> None:
            server.wait_until("SELECT count(*) = 1 FROM audit_entries", database=database.database)
            server.admin(changed, database=database.database)
            proxy.refuses = False

        server.admin("DELETE FROM audit_entries; DELETE FROM signer_attempts", database=database.database)
        proxy.fate_of = meddle
        with pytest.raises(StoreUnavailable, match="did not commit"):
            store.transact(insert_pair("n"), timeout=10)
        attempts_made += 1
    store.close()
    assert attempts_made == 2


@pytest.mark.promise("P1", "P8")
def test_crashes_under_load_lose_nothing_acknowledged_and_the_store_recovers_by_itself(
    own_server: PostgresServer,
) -> None:
    rounds = 3
    store = PostgresqlStore(postgresql_conninfo(own_server.url("trien")))
    load = Load(store, 8, timeout=5)
    for _ in range(rounds):
        load.wait_for_more(150)
        own_server.stop("immediate")
        refused = len(load.refused)
        time.sleep(0.3)
        assert len(load.refused) > refused, "with the server away nobody was refused"
        own_server.start()
        load.wait_for_more(50)
    load.finish()
    found = stored(own_server, "trien")
    store.close()
    assert load.acknowledged <= found
    assert len(load.acknowledged) >= rounds * 200
    unknown = found - load.acknowledged
    assert all("not known" in load.refused[name] or "did not commit" in load.refused[name] for name in unknown)
    assert load.slowest < 7


@pytest.mark.promise("P8")
def test_a_database_that_is_away_is_refused_at_once_and_used_again_when_it_is_back(own_server: PostgresServer) -> None:
    store = PostgresqlStore(postgresql_conninfo(own_server.url("trien")))
    store.transact(insert_pair("before"), timeout=10)
    own_server.stop("fast")
    refused, began = 0, time.monotonic()
    calls: list[Callable[[], object]] = [
        lambda: store.transact(insert_pair("meanwhile"), timeout=5),
        lambda: store.read(lambda snapshot: snapshot.latest_time()),
        store.now,
    ]
    for call in calls * 5:
        with pytest.raises(StoreUnavailable, match="reached") as refusal:
            call()
        assert str(own_server.folder) not in refusal.value.message, "callers are told where the database is"
        refused += 1
    assert time.monotonic() - began < 3
    own_server.start()
    for call in calls:
        call()
    assert stored(own_server, "trien") == {"before", "meanwhile"}
    store.close()
    assert refused == 15


@pytest.mark.promise("P8")
def test_a_stopped_server_is_waited_for_no_longer_than_asked(own_server: PostgresServer) -> None:
    store = PostgresqlStore(postgresql_conninfo(own_server.url("trien")), read_patience=0.5)
    store.transact(insert_pair("before"), timeout=10)
    postmaster = own_server.postmaster
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    family = [postmaster, *map(int, children)]
    for process in family:
        os.kill(process, signal.SIGSTOP)
    try:
        waits = []
        calls: list[Callable[[], object]] = [
            lambda: store.transact(insert_pair("meanwhile"), timeout=0.5),
            lambda: store.read(lambda snapshot: snapshot.latest_time()),
            store.now,
        ]
        for call in calls * 2:
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                call()
            waits.append(time.monotonic() - began)
    finally:
        for process in reversed(family):
            os.kill(process, signal.SIGCONT)
    assert max(waits) < 1
    assert len(waits) == 6
    store.transact(insert_pair("after"), timeout=15)
    found = stored(own_server, "trien")
    store.close()
    assert {"before", "after"} <= found
    assert len(family) > 4


@pytest.mark.promise("P2")
def test_a_deadlock_is_dissolved_and_the_whole_transaction_runs_again(database: PostgresqlDatabase) -> None:
    rounds = 2
    store = database.open()
    runs: list[str] = []
    for number in range(rounds):
        names = [f"{number}/{side}" for side in "ab"]
        for name in names:
            store.transact(lambda transaction, name=name: transaction.insert(attempts(name)), timeout=10)  # type: ignore[misc]
        barrier = threading.Barrier(2)

        def raise_both(transaction: Transaction, order: list[str], barrier: threading.Barrier) -> None:
            first = order[0] not in runs
            runs.append(order[0])
            for name in order:
                row = transaction.get(SignerAttempts, name)
                assert row is not None
                transaction.replace(counted(row))
                if name is order[0] and first:
                    barrier.wait(10)

        with ThreadPoolExecutor(2) as pool:
            futures = [
                pool.submit(store.transact, lambda t, o=order, b=barrier: raise_both(t, o, b), timeout=20)  # type: ignore[misc]
                for order in (names, names[::-1])
            ]
            assert [future.exception(30) for future in futures] == [None, None]
    rows = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=99))
    conflicts = store.counts.conflicts
    store.close()
    assert [row.record.failures for row in rows] == [2] * 2 * rounds
    assert conflicts >= rounds
    assert len(runs) >= 3 * rounds
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = $1"
    database.server.wait_until(f"SELECT ({deadlocks}) >= 1", database.database)


@pytest.fixture
def lonely(own_server: PostgresServer) -> PostgresServer:
    """A server whose commits wait for a standby that is not there."""
    own_server.set({"synchronous_standby_names": "'nobody'"})
    own_server.reload()
    own_server.wait_until("SELECT current_setting('synchronous_standby_names') = 'nobody'")
    return own_server


@pytest.mark.promise("P1", "P8")
def test_a_commit_that_no_standby_has_is_refused_in_time_also_when_its_wait_is_cancelled(
    lonely: PostgresServer,
) -> None:
    store = PostgresqlStore(postgresql_conninfo(lonely.url("trien")))
    with pytest.raises(StoreUnavailable, match="not known"):
        store.transact(insert_pair("late"), timeout=0.4)

    # The administrator cancels the wait, or ends the session: PostgreSQL then says COMMIT, with a warning.
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    for name, act in (("cancelled", "pg_cancel_backend"), ("terminated", "pg_terminate_backend")):
        lonely.admin(f"SELECT pg_terminate_backend(pid) {waiting}")
        lonely.wait_until(f"SELECT count(*) = 0 {waiting}")
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(store.transact, insert_pair(name), timeout=2)
            lonely.wait_until(f"SELECT count(*) = 1 {waiting}")
            lonely.admin(f"SELECT {act}(pid) {waiting}")
            error = result.exception(10)
        assert isinstance(error, StoreUnavailable)
        assert "not known" in error.message

    lonely.set({"synchronous_standby_names": "''"})
    lonely.reload()
    store.transact(insert_pair("after"), timeout=10)
    found = stored(lonely, "trien")
    store.close()
    assert found == {"late", "cancelled", "terminated", "after"}, "what is unknown to the caller may well be there"


@pytest.mark.promise("P1")
def test_a_lookup_waits_for_the_standby_that_the_lost_commit_was_to_wait_for(lonely: PostgresServer) -> None:
    """The lost commit is durable on the primary alone: found, but no standby has it."""
    proxy = PostgresProxy(lonely.folder)
    store = PostgresqlStore(postgresql_conninfo(proxy.url("trien")))
    waiting = "FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(store.transact, insert_pair("n"), timeout=2)
        lonely.wait_until(f"SELECT count(*) = 1 {waiting}")
        proxy.cut_all()
        lonely.admin(f"SELECT pg_terminate_backend(pid) {waiting}")
        lonely.wait_until("SELECT count(*) = 1 FROM audit_entries", database="trien")
        error = result.exception(10)
    store.close()
    proxy.close()
    assert isinstance(error, StoreUnavailable)
    assert stored(lonely, "trien") == {"n"}


def failover_url(primary: PostgresServer, standby: PostgresServer) -> str:
    return f"postgresql://trien_server@/trien?host={primary.folder},{standby.folder}"


@pytest.fixture
def standby(own_server: PostgresServer) -> Iterator[PostgresServer]:
    server = own_server.standby("two")
    own_server.wait_until("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.promise("P1", "P2", "P8")
def test_a_promoted_standby_that_commits_waited_for_is_followed(
    own_server: PostgresServer, standby: PostgresServer
) -> None:
    own_server.set({"synchronous_standby_names": "'two'"})
    own_server.reload()
    own_server.wait_until("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
    store = PostgresqlStore(postgresql_conninfo(failover_url(own_server, standby)))
    load = Load(store, 8, timeout=5)
    load.wait_for_more(300)
    own_server.stop("immediate")
    standby.promote()
    load.wait_for_more(300)
    load.finish()
    found = stored(standby, "trien")

    # The old primary comes back beside the new one, and is not used, although it comes first.
    own_server.start()
    store.transact(insert_pair("later"), timeout=10)
    assert "later" in stored(standby, "trien")
    store.close()
    assert load.acknowledged <= found
    assert len(load.acknowledged) >= 600


@pytest.mark.slow
@pytest.mark.promise("P1", "P2", "P8")
def test_a_promoted_standby_that_commits_did_not_wait_for_is_refused_until_a_restart(
    own_server: PostgresServer, standby: PostgresServer
) -> None:
    store = PostgresqlStore(postgresql_conninfo(failover_url(own_server, standby)))
    store.transact(insert_pair("replicated"), timeout=10)
    own_server.wait_until("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn) = 0 FROM pg_stat_replication")
    standby.set({"primary_conninfo": "''"})
    standby.reload()
    own_server.wait_until("SELECT count(*) = 0 FROM pg_stat_replication")
    store.transact(insert_pair("lost"), timeout=10)
    own_server.stop("immediate")
    standby.promote()

    refused = 0
    for _ in range(5):
        with pytest.raises(StoreUnavailable, match="promoted"):
            store.transact(insert_pair("after"), timeout=2)
        with pytest.raises(StoreUnavailable, match="promoted"):
            store.read(lambda snapshot: snapshot.latest_time())
        refused += 2
    store.close()
    assert stored(standby, "trien") == {"replicated"}
    assert refused == 10
    # An operator who knows what was lost starts it anew.
    store = PostgresqlStore(postgresql_conninfo(failover_url(own_server, standby)))
    store.transact(insert_pair("restarted"), timeout=10)
    store.close()


@pytest.mark.slow
@pytest.mark.promise("P1", "P8")
def test_a_promoted_standby_that_lacks_an_acknowledged_commit_and_another_database_are_refused(
    own_server: PostgresServer, standby: PostgresServer
) -> None:
    """Commits waited for some standby; promoted was one that lacks one of them."""
    own_server.set({"synchronous_standby_names": "'two'"})
    own_server.reload()
    own_server.wait_until("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
    proxy = PostgresProxy(own_server.folder)
    stores = [PostgresqlStore(postgresql_conninfo(proxy.url("trien"))) for _ in range(2)]
    for number, store in enumerate(stores):
        store.transact(insert_pair(f"n{number}"), timeout=10)
    stores[1]._lineage.acknowledged(Witness(AuditEntry.table, "name", "on the other standby", 1))
    own_server.stop("immediate")
    standby.promote()
    proxy.server = standby.folder
    stores[0].transact(insert_pair("followed"), timeout=10)
    with pytest.raises(StoreUnavailable, match="lacks 1 of the last"):
        stores[1].transact(insert_pair("refused"), timeout=10)

    other = PostgresServer()
    other.set_up()
    proxy.server = other.folder
    proxy.cut_all()
    for message, store in zip(["another database", "lacks 1 of the last"], stores, strict=True):
        with pytest.raises(StoreUnavailable, match=message):
            store.transact(insert_pair("refused"), timeout=10)
        store.close()
    assert stored(other, "trien") == set()
    assert stored(standby, "trien") == {"n0", "n1", "followed"}
    other.stop()
    proxy.close()


def test_the_proxy_loses_what_it_is_told_to_lose(database: PostgresqlDatabase, proxy: PostgresProxy) -> None:
    """Without the store: so that the tests above prove what they say."""
    found: dict[Fate, bool] = {}
    for fate in (Fate.ARRIVES, Fate.IS_LOST, Fate.ANSWER_IS_LOST):
        proxy.fate_of = lambda fate=fate: fate  # type: ignore[misc]
        connection = psycopg.connect(proxy.url(database.database), autocommit=True)
        connection.execute("BEGIN")
        connection.execute("INSERT INTO outcomes VALUES (%s, '', 0)", (fate.name,))
        answered = True
        try:
            connection.execute("COMMIT")
        except psycopg.OperationalError:
            answered = False
        connection.close()
        assert answered is (fate is Fate.ARRIVES)
        rows = database.server.admin("SELECT 1 FROM outcomes WHERE request = $1", fate.name, database=database.database)
        found[fate] = bool(rows)
    assert found == {Fate.ARRIVES: True, Fate.IS_LOST: False, Fate.ANSWER_IS_LOST: True}
