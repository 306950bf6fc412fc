"""Lists of signers on real databases: imported at once by several, and as large as a list can be."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from tests.contract.store_factories import (
    Database,
    PostgresServer,
    made_database,
    postgres_fixture,
    sqlite_template_fixture,
)
from tests.support.registry import enter
from tests.support.softhsm import open_token
from tests.support.world import OPERATOR, World, operators

from trien_server.services.import_signers import ImportResult
from trien_server.services.paging import Page
from trien_server.services.signer_lists import MOST_LINES
from trien_server.wiring import UseCases

__all__ = ["PostgresServer", "postgres_fixture", "sqlite_template_fixture"]

ROUNDS = 3
CALLERS = 4
MESSAGE_SIZE = 2 * 1024 * 1024


@pytest.fixture(name="database", params=["sqlite", "postgresql"])
def database_fixture(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    return made_database(request.param, request, tmp_path)


def populated(store: object, **parts: object) -> World:
    world = World(store=store, seconds=120, **parts)  # type: ignore[arg-type]
    world.store.now = world.clock.now
    world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
    enter(world, "commune")
    return world


@pytest.fixture
def processes(database: Database) -> Iterator[tuple[World, list[UseCases]]]:
    """Several processes' use cases, each with a store and caches of its own."""
    stores = [database.open() for _ in range(CALLERS)]
    world = populated(stores[0])
    for store in stores[1:]:
        store.now = world.clock.now  # type: ignore[method-assign]
    try:
        yield world, [world.new_process(store=store) for store in stores]
    finally:
        for store in stores:
            store.close()


def people(numbers: range, *, position: str = "Công chức Văn phòng - Thống kê") -> bytes:
    rows = (
        f"p-{number:05},Nguyễn Thị Hồng {number},commune,,{position},p{number}@phulam.example,+8491{number:07}"
        for number in numbers
    )
    return "\n".join(["id,name,organization,kind,position,email,phone", *rows]).encode()


def at_once(world: World, processes: list[UseCases], contents: list[bytes]) -> list[ImportResult]:
    barrier = Barrier(len(processes))

    def run(use: UseCases, content: bytes) -> ImportResult:
        barrier.wait(60)
        return use.import_signers(OPERATOR, content, validate_only=False, deadline=world.deadline())

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(run, processes, contents))


def listed(world: World) -> dict[str, str]:
    found: dict[str, str] = {}
    after = ""
    while True:
        signers, token = world.use.list_signers(
            OPERATOR, organization="organizations/commune", page=Page(size=100, after=after)
        )
        found |= {signer.name: signer.position for signer in signers}
        if not token:
            return found
        after = signers[-1].name


@pytest.mark.promise("P7")
def test_of_those_who_import_a_list_at_once_exactly_one_enters_it(
    processes: tuple[World, list[UseCases]], database: Database, record_property: Callable[[str, object], None]
) -> None:
    world, uses = processes
    size = 20
    for turn in range(ROUNDS):
        content = people(range(turn * size, (turn + 1) * size))
        results = at_once(world, uses, [content] * CALLERS)
        assert sorted(result.entered for result in results) == [0] * (CALLERS - 1) + [size]
        assert sorted(result.unchanged for result in results) == [0] + [size] * (CALLERS - 1)
        assert not any(result.faults for result in results)
        assert len(listed(world)) == (turn + 1) * size
    record_property("count", f"{database.name}: imports of one list at once {ROUNDS * CALLERS}")


def test_of_lists_that_contradict_each_other_one_is_entered_whole_and_the_others_not_at_all(
    processes: tuple[World, list[UseCases]], database: Database, record_property: Callable[[str, object], None]
) -> None:
    world, uses = processes
    for turn in range(ROUNDS):
        first = turn * 100
        # They overlap in ten signers, of whom each says something else.
        contents = [
            people(range(first + caller * 10, first + caller * 10 + 20), position=f"Chức vụ {caller}")
            for caller in range(CALLERS)
        ]
        results = at_once(world, uses, contents)
        found = {name: position for name, position in listed(world).items() if int(name[-5:]) // 100 == turn}
        for caller, result in enumerate(results):
            mine = [name for name, position in found.items() if position == f"Chức vụ {caller}"]
            assert (result.entered, len(result.faults) > 0) in {(20, False), (0, True)}, result
            assert len(mine) == result.entered
        assert any(result.entered for result in results)
    record_property("count", f"{database.name}: imports of contradicting lists at once {ROUNDS * CALLERS}")


def test_a_district_is_entered_in_one_call(database: Database, record_property: Callable[[str, object], None]) -> None:
    store = database.open()
    try:
        record_property("count", f"{database.name}: {imported(populated(store), 600)}")
    finally:
        store.close()


@pytest.mark.slow
def test_the_largest_list_is_entered_within_the_deadline(
    database: Database, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    store = database.open()
    with open_token(tmp_path) as (hsm, _):
        try:
            record_property("count", f"{database.name}: {imported(populated(store, hsm=hsm), MOST_LINES)}")
        finally:
            store.close()


def imported(world: World, count: int) -> str:
    """Imports a list, and again, within the world's deadline of 120 s; returns what it cost."""
    content = people(range(count))
    assert len(content) < MESSAGE_SIZE
    seconds = []
    for validate_only, expected in ((True, (count, 0)), (False, (count, 0)), (False, (0, count))):
        begun = time.monotonic()
        result = world.use.import_signers(OPERATOR, content, validate_only=validate_only, deadline=world.deadline())
        seconds.append(time.monotonic() - begun)
        assert (result.entered, result.unchanged, result.faults) == (*expected, ())
    assert len(listed(world)) == count
    return (
        f"signers imported {count} ({len(content):,} bytes; checked in {seconds[0]:.2f} s, entered in"
        f" {seconds[1]:.2f} s, again in {seconds[2]:.2f} s)"
    )
