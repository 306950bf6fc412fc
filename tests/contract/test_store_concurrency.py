"""What every adapter of `core.ports.Store` must do when many use it at once."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pytest
from tests.contract.store_factories import (  # noqa: F401
    CountingStore,
    Database,
    database_fixture,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.contract.store_records import attempts, counted, sealed

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import NameTaken, Snapshot, Store, Transaction, VersionConflict
from trien_server.core.records import SignerAttempts


@pytest.fixture
def store(database: Database) -> Iterator[CountingStore]:
    opened = database.open()
    yield opened
    opened.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as threads:
        yield threads


class Blocker:
    """A transaction that stays inside its work until it is released."""

    def __init__(self, store: Store, pool: ThreadPoolExecutor, name: str = "blocker") -> None:
        self._inside = threading.Event()
        self._go_on = threading.Event()
        self.result: Future[None] = pool.submit(store.transact, self._work(name), timeout=30)
        assert self._inside.wait(10)

    def _work(self, name: str) -> Callable[[Transaction], None]:
        def work(transaction: Transaction) -> None:
            transaction.insert(attempts(name))
            self._inside.set()
            assert self._go_on.wait(30)

        return work

    def release(self) -> None:
        self._go_on.set()
        self.result.result(30)


def insert(name: str, failures: int = 0) -> Callable[[Transaction], None]:
    return lambda transaction: transaction.insert(attempts(name, failures))


def get(store: Store, name: str) -> SignerAttempts | None:
    row = store.read(lambda snapshot: snapshot.get(SignerAttempts, name))
    return None if row is None else row.record


def test_nobody_sees_what_is_not_committed(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    blocker = Blocker(store, pool)
    looks = [get(store, "blocker") for _ in range(20)]
    blocker.release()
    assert looks == [None] * 20
    assert get(store, "blocker") is not None


def test_a_snapshot_stays_what_it_was_while_others_commit(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    store.transact(insert("s"), timeout=10)
    seen: list[tuple[int, int]] = []

    def look(snapshot: Snapshot) -> None:
        for number in range(10):
            row = snapshot.get(SignerAttempts, "s")
            assert row is not None
            seen.append((row.record.failures, len(snapshot.find(SignerAttempts, limit=99))))
            pool.submit(change, number).result(10)

    def change(number: int) -> None:
        row = store.read(lambda snapshot: snapshot.get(SignerAttempts, "s"))
        assert row is not None
        store.transact(lambda transaction: transaction.replace(counted(row)), timeout=10)
        store.transact(insert(f"new{number}"), timeout=10)

    store.read(look)
    assert seen == [(0, 1)] * 10
    changed = get(store, "s")
    assert changed is not None
    assert changed.failures == 10


@pytest.mark.promise("P1", "P2")
def test_32_threads_count_without_losing_one(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    threads, times = 32, 12
    store.transact(insert("counter"), timeout=10)
    conflicts: list[int] = []

    def count(_: int) -> None:
        done = 0
        while done < times:
            row = store.read(lambda snapshot: snapshot.get(SignerAttempts, "counter"))
            assert row is not None
            time.sleep(0.0005)  # So that others come between.
            try:
                store.transact(lambda transaction: transaction.replace(counted(row)), timeout=30)  # noqa: B023
                done += 1
            except VersionConflict:
                conflicts.append(1)

    list(pool.map(count, range(threads)))
    counter = get(store, "counter")
    assert counter is not None
    assert (counter.failures, counter.version) == (threads * times, threads * times + 1)
    assert conflicts, "nobody was ever in another's way: the test proved nothing"


@pytest.mark.promise("P2")
def test_a_decision_on_what_was_read_in_the_transaction_is_serializable(
    store: CountingStore, pool: ThreadPoolExecutor
) -> None:
    """Write skew: each takes itself off only while another stays; a mere snapshot would let both go."""
    rounds = 40
    for number in range(rounds):
        names = [f"{number}/{side}" for side in "ab"]
        for name in names:
            store.transact(insert(name), timeout=10)
        barrier = threading.Barrier(2)

        def leave(barrier: threading.Barrier, mine: str, other: str) -> bool:
            def work(transaction: Transaction) -> bool:
                rows = [transaction.get(SignerAttempts, name) for name in (mine, other)]
                assert rows[0] is not None
                assert rows[1] is not None
                if rows[1].record.failures:
                    return False
                transaction.replace(counted(rows[0]))
                return True

            barrier.wait(10)
            return store.transact(work, timeout=10)

        went = [pool.submit(leave, barrier, *pair) for pair in (names, names[::-1])]
        assert sorted(future.result(30) for future in went) == [False, True]
    assert len(store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=999, failures=1))) == rounds


@pytest.mark.promise("P2")
def test_of_64_who_take_a_name_one_wins(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    rounds, callers = 10, 64
    for number in range(rounds):
        barrier = threading.Barrier(callers)

        def take(caller: int, name: str = f"name{number}", barrier: threading.Barrier = barrier) -> int:
            barrier.wait(10)
            try:
                store.transact(insert(name, caller), timeout=30)
            except NameTaken:
                return 0
            return 1

        assert sum(pool.map(take, range(callers))) == 1
    assert len(store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=999))) == rounds


def test_32_threads_share_commits(database: Database, pool: ThreadPoolExecutor) -> None:
    store = database.open()
    threads, times = 32, 25
    start = store.counts

    def work(thread: int) -> None:
        for number in range(times):
            store.transact(insert(f"{thread}/{number}"), timeout=30)

    list(pool.map(work, range(threads)))
    end = store.counts
    found = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=9999))
    store.close()
    assert len(found) == threads * times
    assert end.works - start.works == threads * times
    if database.shares_commits:
        assert end.commits - start.commits < threads * times / 2
    else:
        assert end.commits - start.commits == threads * times


def test_in_a_shared_commit_each_stands_and_falls_alone(database: Database, pool: ThreadPoolExecutor) -> None:
    store = database.open()
    start = store.counts
    blocker = Blocker(store, pool)
    errors = [ValueError(f"number {number}") for number in range(20)]
    names: list[str] = []

    def failing(error: Exception) -> Callable[[Transaction], None]:
        def work(transaction: Transaction) -> None:
            transaction.insert(attempts(f"failing {error}"))
            with pytest.raises(NameTaken):
                transaction.insert(attempts("blocker"))
            raise error

        return work

    futures: list[Future[None]] = []
    for number, error in enumerate(errors):
        names.append(f"good{number:02}")
        futures.append(pool.submit(store.transact, insert(names[-1]), timeout=30))
        futures.append(pool.submit(store.transact, failing(error), timeout=30))
    time.sleep(0.3)  # Until all are queued behind the blocker.
    assert database.runs_side_by_side or not any(future.done() for future in futures)
    blocker.release()
    raised = [future.exception(30) for future in futures]
    end = store.counts
    found = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=999))
    store.close()

    assert [error for error in raised if error is not None] == errors
    assert [row.record.name for row in found] == ["blocker", *names]
    if database.shares_commits:
        assert (end.commits - start.commits, end.works - start.works) == (1, 41)


def test_a_later_work_of_the_same_commit_sees_the_earlier_one(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    store.transact(insert("counter"), timeout=10)
    blocker = Blocker(store, pool)

    def count(transaction: Transaction) -> int:
        row = transaction.get(SignerAttempts, "counter")
        assert row is not None
        transaction.replace(counted(row))
        return row.record.failures + 1

    futures = [pool.submit(store.transact, count, timeout=30) for _ in range(30)]
    time.sleep(0.2)
    blocker.release()
    assert sorted(future.result(30) for future in futures) == list(range(1, 31))
    counter = get(store, "counter")
    assert counter is not None
    assert counter.failures == 30


@pytest.mark.promise("P8")
def test_who_waits_too_long_is_withdrawn_and_never_runs(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    blocker = Blocker(store, pool)
    ran: list[int] = []

    def work(transaction: Transaction) -> None:
        transaction.insert(attempts("blocker"))  # Where transactions run side by side, this waits.
        ran.append(1)

    began = time.monotonic()
    futures = [pool.submit(store.transact, work, timeout=0.2) for _ in range(20)]
    refused = [future.exception(10) for future in futures]
    waited = time.monotonic() - began
    blocker.release()
    store.transact(insert("later"), timeout=10)
    assert [type(error) for error in refused] == [StoreUnavailable] * 20
    assert ran == []
    assert 0.1 <= waited < 5


@pytest.mark.promise("P1", "P8")
def test_whose_work_runs_too_long_is_not_told_that_it_committed(database: Database, pool: ThreadPoolExecutor) -> None:
    if not database.shares_commits:
        pytest.skip("this adapter runs the work in the caller's own thread")
    store = database.open()
    go_on = threading.Event()

    def work(transaction: Transaction) -> None:
        transaction.insert(attempts("slow"))
        assert go_on.wait(30)

    with pytest.raises(StoreUnavailable, match="not known"):
        store.transact(work, timeout=0.2)
    go_on.set()
    store.transact(insert("next"), timeout=10)
    assert [get(store, name) is not None for name in ("slow", "next")] == [True, True]
    store.close()


def test_closing_finishes_what_is_queued(database: Database, pool: ThreadPoolExecutor) -> None:
    if not database.shares_commits:
        pytest.skip("this adapter has no queue")
    store = database.open()
    blocker = Blocker(store, pool)
    futures = [pool.submit(store.transact, insert(f"queued{number}"), timeout=30) for number in range(20)]
    time.sleep(0.2)
    closing = pool.submit(store.close)
    time.sleep(0.1)
    with pytest.raises(StoreUnavailable):
        store.transact(insert("too late"), timeout=10)
    blocker.release()
    assert [future.exception(30) for future in futures] == [None] * 20
    closing.result(30)

    store = database.open()
    found = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=99))
    store.close()
    assert len(found) == 21


def test_readers_see_whole_transactions_only(store: CountingStore, pool: ThreadPoolExecutor) -> None:
    """Two counters that always change together are never read apart."""
    for name in ("left", "right"):
        store.transact(insert(name), timeout=10)
    stop = threading.Event()

    def both(view: Snapshot) -> list[SignerAttempts]:
        rows = [view.get(SignerAttempts, name) for name in ("left", "right")]
        return [row.record for row in rows if row is not None]

    def change(transaction: Transaction) -> None:
        for record in both(transaction):
            transaction.replace(sealed(replace(record, version=record.version + 1, failures=record.failures + 1)))

    def look() -> list[int]:
        seen = []
        while not stop.is_set():
            left, right = store.read(both)
            assert left == replace(right, name="left")
            seen.append(left.failures)
        return seen

    readers = [pool.submit(look) for _ in range(4)]
    for _ in range(100):
        store.transact(change, timeout=30)
    stop.set()
    seen = [reader.result(30) for reader in readers]
    assert all(values == sorted(values) for values in seen)
    assert sum(len(values) for values in seen) > 100
    assert [record.failures for record in store.read(both)] == [100, 100]
