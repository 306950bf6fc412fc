"""The use cases over PostgreSQL, with the stores and caches of two server processes."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.contract.store_factories import PostgresqlDatabase, postgres_fixture  # noqa: F401
from tests.support.postgres import PostgresServer
from tests.support.world import World, digests

from trien_server.core.errors import Refusal
from trien_server.core.records import Approval, AuditEntry


@pytest.mark.promise("P1", "P2")
def test_of_64_callers_with_one_one_time_password_over_two_processes_one_signs(postgres: PostgresServer) -> None:
    rounds, callers = 4, 64
    database = PostgresqlDatabase(postgres)
    stores = [database.open() for _ in range(2)]
    world = World(store=stores[0]).populate()
    processes = [world.use, world.new_process(store=stores[1])]
    refusals: Counter[str] = Counter()
    with ThreadPoolExecutor(callers) as pool:
        for number in range(rounds):
            world.clock.advance(timedelta(hours=6))  # The failures of the last round lock the signer no more.
            code, barrier = world.code(), threading.Barrier(callers)

            def sign(caller: int, code: str = code, barrier: threading.Barrier = barrier, number: int = number) -> int:
                items = digests(1, of=f"document {number} of {caller}")
                barrier.wait(20)
                try:
                    return len(world.sign(items, password=code, use=processes[caller % 2]).signatures)
                except Refusal as refusal:
                    refusals[refusal.reason] += 1
                    return 0

            assert sum(pool.map(sign, range(callers))) == 1
    approvals = stores[1].read(lambda snapshot: snapshot.find(Approval, limit=99))
    entries = stores[1].read(lambda snapshot: snapshot.find(AuditEntry, limit=9999))
    conflicts = sum(store.counts.conflicts for store in stores)
    for store in stores:
        store.close()
    assert len(approvals) == rounds
    assert refusals.total() == rounds * (callers - 1)
    assert set(refusals) <= {"ONE_TIME_PASSWORD_REJECTED", "SIGNER_LOCKED", "BUSY"}
    assert len(entries) > rounds * callers, "decisions are missing in the log"
    assert conflicts > 0, "nobody was ever in another's way: the test proved nothing"
