"""A process that uses a store until it is told to stop, killed, or its disk fails.

    python -m tests.contract.store_child increment URL NAME THREADS TIMES
    python -m tests.contract.store_child insert URL PREFIX THREADS TIMES
    python -m tests.contract.store_child hold URL

Each line that it prints is one event: `opened`, `ack NAME`, `refused NAME`, `fatal REASON`, `done …`.
A line is one write: what was printed before a kill arrives.
"""

import os
import sys
import threading
from collections.abc import Callable

from tests.contract.store_records import attempts, counted

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Store, Transaction, VersionConflict
from trien_server.core.records import SignerAttempts
from trien_server.store.urls import open_store

FATAL = threading.Event()


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def on_fatal(reason: str) -> None:
    say(f"fatal {reason}")
    FATAL.set()


def increment(store: Store, name: str) -> int:
    """Adds one to a counter that other processes change too; returns how many tries it took."""
    tries = 0
    while True:
        tries += 1
        row = store.read(lambda snapshot: snapshot.get(SignerAttempts, name))
        assert row is not None
        try:
            store.transact(lambda transaction: transaction.replace(counted(row)), timeout=30)  # noqa: B023
        except VersionConflict:
            continue
        return tries


def insert_pair(name: str) -> Callable[[Transaction], None]:
    """Two rows that are there together or not at all."""

    def work(transaction: Transaction) -> None:
        transaction.insert(attempts(f"{name}/first"))
        transaction.insert(attempts(f"{name}/second"))

    return work


def insert(store: Store, name: str) -> int:
    try:
        store.transact(insert_pair(name), timeout=30)
    except StoreUnavailable:
        say(f"refused {name}")
        return 0
    say(f"ack {name}")
    return 1


def hold(store: Store) -> None:
    """Stays inside a transaction that wrote a row, and has the writers' lock if any, until the process ends."""

    def work(transaction: Transaction) -> None:
        transaction.insert(attempts("held"))
        say("holding")
        threading.Event().wait()

    store.transact(work, timeout=600)


def main(act: str, url: str, name: str = "", threads: str = "0", times: str = "0") -> int:
    store = open_store(url, on_fatal=on_fatal)
    say("opened")
    if act == "hold":
        hold(store)
    done: list[int] = []

    def run(thread: int) -> None:
        for number in range(int(times)):
            if act == "increment":
                done.append(increment(store, name))
            else:
                done.append(insert(store, f"{name}/{thread}/{number}"))

    running = [threading.Thread(target=run, args=(thread,)) for thread in range(int(threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    say(f"done {len(done)} {sum(done)}")
    # Callers are answered before the process is told: give the writer's thread its time.
    if act == "insert" and sum(done) < len(done) and FATAL.wait(10):
        after_fatal(store)
        os._exit(3)
    store.close()
    return 0


def after_fatal(store: Store) -> None:
    for _ in range(3):
        insert(store, "after-fatal")
    try:
        store.read(lambda snapshot: snapshot.get(SignerAttempts, "any"))
        say("read after fatal")
    except StoreUnavailable:
        say("refused read")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
