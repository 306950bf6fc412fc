"""The use cases over PostgreSQL, with the stores and caches of two server processes."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from tests.contract.store_factories import PostgresqlDatabase, postgres_fixture  # noqa: F401
from tests.support.postgres import PostgresServer
from tests.support.world import World, digests

from trien_server.core.errors import Refusal
from trien_server.core.records import Approval, AuditEntry, Authorization, Challenge


@pytest.mark.requirement("NIST 800-63B-4 3.1.4.2 once")
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


@pytest.mark.promise("P2")
def test_of_64_callers_with_one_answer_to_a_challenge_over_two_processes_one_approves(
    postgres: PostgresServer, record_property: Callable[[str, object], None]
) -> None:
    rounds, callers = 4, 64
    database = PostgresqlDatabase(postgres)
    stores = [database.open() for _ in range(2)]
    world = World(store=stores[0]).populate()
    world.add_ocra()
    world.add_delivery()
    processes = [world.use, world.new_process(store=stores[1])]
    refusals: Counter[str] = Counter()
    with ThreadPoolExecutor(callers) as pool:
        for number in range(rounds):
            world.clock.advance(timedelta(minutes=10))
            authorization = world.authorize(digests(1, of=f"document {number}"))
            if number % 2:
                made = world.challenge(authorization)
                code = world.answer(made)
            else:
                made, delivered = world.send(authorization)
                code = delivered.code
            barrier = threading.Barrier(callers)

            def approve(
                caller: int,
                code: str = code,
                challenge: str = made.challenge.name,
                authorization: Authorization = authorization,
                barrier: threading.Barrier = barrier,
            ) -> int:
                barrier.wait(20)
                try:
                    use = processes[caller % 2]
                    return bool(world.approve(authorization, password=code, challenge=challenge, use=use))
                except Refusal as refusal:
                    refusals[refusal.reason] += 1
                    return 0

            assert sum(pool.map(approve, range(callers))) == 1
    approvals = stores[1].read(lambda snapshot: snapshot.find(Approval, limit=99))
    challenges = stores[1].read(lambda snapshot: snapshot.find(Challenge, limit=99))
    conflicts = sum(store.counts.conflicts for store in stores)
    for store in stores:
        store.close()
    assert len(approvals) == len(challenges) == rounds
    assert all(row.record.answered for row in challenges)
    assert refusals.total() == rounds * (callers - 1)
    assert set(refusals) <= {"CHALLENGE_NOT_PENDING", "AUTHORIZATION_NOT_PENDING", "BUSY"}
    assert conflicts > 0, "nobody was ever in another's way: the test proved nothing"
    record_property("count", f"PostgreSQL, one challenge's code, {callers} callers: {rounds} rounds")


@pytest.mark.promise("P2")
def test_of_16_sends_at_once_over_two_processes_one_is_delivered(postgres: PostgresServer) -> None:
    database = PostgresqlDatabase(postgres)
    stores = [database.open() for _ in range(2)]
    world = World(store=stores[0]).populate()
    world.add_delivery()
    processes = [world.new_process(store=store) for store in stores]
    authorization = world.authorize(digests(1))
    refusals: Counter[str] = Counter()
    barrier = threading.Barrier(16)

    def send(caller: int) -> int:
        barrier.wait(20)
        try:
            return bool(world.send(authorization, use=processes[caller % 2]))
        except Refusal as refusal:
            refusals[refusal.reason] += 1
            return 0

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(send, range(16))) == 1
    for store in stores:
        store.close()
    assert sum(len(carrier.taken) for carrier in world.deliveries.values()) == 1
    assert refusals.total() == 15
    assert set(refusals) <= {"DELIVERY_LIMIT_REACHED", "BUSY"}
    assert refusals["DELIVERY_LIMIT_REACHED"] > 0
