"""A rotation on real databases, carried out by one process while another one signs."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.world import CHAIR, OPERATOR, World, digests

from trien_server.core import errors
from trien_server.core.ports import R, Sealed
from trien_server.core.records import SLOW_RECORDS, AuditEntry, InstallationKeyPurpose, InstallationKeyState
from trien_server.core.sealing import HANDOVER
from trien_server.services.paging import Page
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store

__all__ = ["postgres_fixture"]


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        made = postgres.url(postgres.copy())
    else:
        made = f"sqlite:///{tmp_path / 'trien.db'}"
        migrate(made)
    return made


@pytest.fixture
def worlds(url: str) -> Iterator[tuple[World, World]]:
    """Two processes of two nodes: each with a connection of its own to the database, and caches of its own."""
    first = World(store=open_store(url, on_fatal=lambda reason: pytest.fail(reason)))
    first.store.now = first.clock.now
    first.populate()
    second = World(clock=first.clock, hsm=first.hsm, store=open_store(url, on_fatal=lambda reason: pytest.fail(reason)))
    second.store.now = first.clock.now
    second.otp = first.otp
    yield first, second
    for world in (first, second):
        world.store.close()


def states(world: World) -> dict[int, InstallationKeyState]:
    keys, _ = world.use.list_installation_keys(OPERATOR, page=Page(size=10, after=""))
    return {key.generation: key.state for key in keys if key.purpose is InstallationKeyPurpose.SEALING}


def sealed_by_the_first(world: World) -> int:
    """Counts the slow rows that wait to be sealed anew."""
    rows = [row for kind in SLOW_RECORDS for row in _rows(world, kind)]
    return sum(row.seal_key == "1" for row in rows)


def _rows(world: World, kind: type[R]) -> list[Sealed[R]]:
    found: list[Sealed[R]] = world.store.read(lambda snapshot: snapshot.find(kind, limit=10_000))
    return found


@pytest.mark.promise("P5")
def test_a_process_signs_on_while_another_one_replaces_the_sealing_key(
    worlds: tuple[World, World], record_property: Callable[[str, object], None]
) -> None:
    rotating, signing = worlds
    rotating.agree(
        rotating.use.rotate_installation_key(OPERATOR, InstallationKeyPurpose.SEALING, deadline=rotating.deadline())
    )
    ended = threading.Event()
    failures: list[BaseException] = []

    def replace() -> None:
        try:
            while sealed_by_the_first(rotating):
                # The manual clock runs away from deadlines and leases: as the worker does, it tries again.
                with suppress(errors.Busy, errors.StoreUnavailable):
                    rotating.use.key_rotation.look()
        except BaseException as failure:  # noqa: BLE001 - told by the test
            failures.append(failure)
        finally:
            ended.set()

    thread = threading.Thread(target=replace)
    thread.start()
    signed = refused = 0
    while not (ended.is_set() and signed >= 4):
        signing.clock.advance(timedelta(seconds=30))
        try:
            signed += len(signing.sign(digests(1), password=signing.code(CHAIR)).signatures)
        except errors.Busy:
            refused += 1
            assert refused < 100
    thread.join()
    assert failures == []
    for _ in range(3):
        signing.clock.advance(HANDOVER)
        signing.use.key_rotation.look()
        signing.next_step()
        signed += len(signing.sign(digests(1)).signatures)
    assert states(rotating) == {1: InstallationKeyState.RETIRED, 2: InstallationKeyState.ACTIVE}
    resealed = sum(row.record.kind == "resealed" for row in _rows(rotating, AuditEntry))
    assert resealed > 30
    assert [event for world in worlds for event in world.events if event.name == "record_not_trusted"] == []
    record_property("count", f"signed while the sealing key is replaced: {signed}, busy {refused}; rows {resealed}")
