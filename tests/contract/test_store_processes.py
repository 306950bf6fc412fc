"""What every database that several processes share must do; each store here lives in a process of its own."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.contract.store_factories import (  # noqa: F401
    Database,
    made_database,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.contract.store_records import attempts

from trien_server.core.errors import StoreUnavailable
from trien_server.core.records import SignerAttempts

ROOT = Path(__file__).parents[2]


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
def database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return made_database(request.param, request, tmp_path)


def child(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.contract.store_child", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def names(database: Database) -> list[str]:
    store = database.open()
    rows = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=1_000_000))
    store.close()
    return [row.record.name for row in rows]


@pytest.mark.promise("P1", "P2")
def test_processes_count_together_without_losing_one(database: Database) -> None:
    processes, threads, times = 3, 4, 40
    store = database.open()
    store.transact(lambda transaction: transaction.insert(attempts("counter")), timeout=10)
    running = [child("increment", database.url, "counter", threads, times) for _ in range(processes)]
    outputs = [process.communicate(timeout=60)[0] for process in running]
    row = store.read(lambda snapshot: snapshot.get(SignerAttempts, "counter"))
    store.close()

    assert [process.returncode for process in running] == [0] * processes
    assert row is not None
    assert row.record.failures == processes * threads * times
    tries = sum(int(output.split()[-1]) for output in outputs)
    assert tries > processes * threads * times, "nobody was ever in another's way: the test proved nothing"


def test_no_process_starves_another(database: Database) -> None:
    """Two processes write as fast as they can until one is through; the other is then well on its way."""
    times = 2500 if database.name == "sqlite" else 600
    running = [child("insert", database.url, f"p{number}", 4, times) for number in range(2)]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
    acknowledged: list[list[str]] = [[], []]
    first_done = threading.Event()

    def listen(number: int) -> None:
        output = running[number].stdout
        assert output is not None
        for line in output:
            if line.startswith("done"):
                first_done.set()
            elif not first_done.is_set():
                acknowledged[number].append(line)

    listeners = [threading.Thread(target=listen, args=(number,)) for number in range(2)]
    for listener in listeners:
        listener.start()
    for listener in listeners:
        listener.join(120)
    assert [process.wait(10) for process in running] == [0, 0]
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    fewer, more = sorted(map(len, acknowledged))
    assert more >= 4 * times - 100
    assert fewer > more / 10
    assert len(names(database)) == 2 * 2 * 4 * times


@pytest.mark.promise("P1")
def test_a_kill_never_loses_an_acknowledged_commit(database: Database) -> None:
    source = random.Random(20261124)
    rounds = 12 if database.name == "sqlite" else 6
    acknowledged: list[str] = []
    for number in range(rounds):
        process = child("insert", database.url, f"round{number}", 8, 100_000)
        assert process.stdout is not None
        assert process.stdout.readline() == "opened\n"
        time.sleep(source.uniform(0.02, 0.25))
        process.send_signal(signal.SIGKILL)
        output = process.communicate(timeout=10)[0]
        assert process.returncode == -signal.SIGKILL
        acknowledged += [line.split()[1] for line in output.splitlines() if line.startswith("ack ")]

    found = set(names(database))
    lost = [name for name in acknowledged if not {f"{name}/first", f"{name}/second"} <= found]
    assert lost == []
    halves = {name.rpartition("/")[0] for name in found}
    assert len(found) == 2 * len(halves), "a transaction is there by half"
    assert len(acknowledged) > 100 * rounds


@pytest.mark.promise("P8")
def test_a_stopped_process_in_a_transaction_blocks_others_no_longer_than_their_time(database: Database) -> None:
    store = database.open()
    store.transact(lambda transaction: transaction.insert(attempts("before")), timeout=10)
    holder = child("hold", database.url)
    assert holder.stdout is not None
    assert [holder.stdout.readline() for _ in range(2)] == ["opened\n", "holding\n"]
    holder.send_signal(signal.SIGSTOP)

    refused = 0
    began = time.monotonic()
    for _ in range(5):
        with pytest.raises(StoreUnavailable):
            store.transact(lambda transaction: transaction.insert(attempts("held")), timeout=0.1)
        refused += 1
    waited = time.monotonic() - began
    assert store.read(lambda snapshot: snapshot.get(SignerAttempts, "before")) is not None

    holder.kill()
    holder.communicate(timeout=10)
    store.transact(lambda transaction: transaction.insert(attempts("held")), timeout=10)
    store.close()
    assert refused == 5
    assert 0.2 <= waited < 5
    assert names(database) == ["before", "held"]
