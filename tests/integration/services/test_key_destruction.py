"""Keys are destroyed on a SoftHSM token, with real databases under the records (P9)."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.softhsm import SoftHsmToken, open_token
from tests.support.world import OPERATOR, World, operators

from trien_server.core import errors
from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.ports import KeyMismatch, Store
from trien_server.core.records import Key, KeyState, ProtectionLevel
from trien_server.hsm import Pkcs11Hsm
from trien_server.hsm.keys import find_key_pair
from trien_server.services.access import reference_of
from trien_server.services.key_destruction import STEADY
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store
from trien_server.wiring import UseCases

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P9")


@dataclass
class Office:
    """Two officers, a token, and two processes' use cases over one database."""

    world: World
    other: UseCases
    token: SoftHsmToken
    hsm: Pkcs11Hsm

    def make(self, name: str, level: ProtectionLevel = ProtectionLevel.TOKEN) -> Key:
        self.world._add_key(name, KeyType.EC_P256, level)
        return self.key(name)

    def key(self, name: str) -> Key:
        key: Key = self.world.use.get_key(OPERATOR, name)
        return key

    def schedule(self, name: str) -> None:
        self.world.agree(self.world.use.destroy_key(OPERATOR, name, delay_days=1, deadline=self.world.deadline()))

    def let_time_pass(self, *processes: UseCases) -> None:
        """Lets the delay pass, and the hour in which the processes see the keys due."""
        self.world.clock.advance(timedelta(days=1))
        for use in processes:
            assert use.key_destruction.look() == 0
        self.world.clock.advance(STEADY)

    def signs(self, key: Key) -> bool:
        """Tells whether the token still makes signatures with what the record named."""
        try:
            self.hsm.prepare(reference_of(key))
            made = self.hsm.sign(
                reference_of(key), SignatureAlgorithm.ECDSA_P256_SHA256, [bytes(32)], pss_salt_length=None
            )
        except KeyMismatch:
            return False
        return len(made) == 1


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def office(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Office]:
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
    else:
        url = f"sqlite:///{tmp_path / 'trien.db'}"
        migrate(url)
    stores: list[Store] = []
    with open_token(tmp_path / "token") as (hsm, token):
        world = World(hsm=hsm, store=_open(url, stores))
        world.store.now = world.clock.now
        world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
        other: Any = _open(url, stores)
        other.now = world.clock.now
        yield Office(world, world.new_process(store=other), token, hsm)
        for store in stores:
            store.close()


def _open(url: str, stores: list[Store]) -> Any:
    store = open_store(url, on_fatal=lambda reason: pytest.fail(reason))
    stores.append(store)
    return store


def test_the_objects_go_from_the_token_and_the_others_stay(office: Office) -> None:
    gone, stays = office.make("keys/gone"), office.make("keys/stays")
    wrapped = office.make("keys/wrapped", ProtectionLevel.WRAPPED)
    assert all(office.signs(key) for key in (gone, stays, wrapped))
    for name in ("keys/gone", "keys/wrapped"):
        office.schedule(name)
    office.let_time_pass(office.world.use)
    assert office.world.use.key_destruction.look() == 2
    assert not office.signs(gone)
    assert office.signs(stays)
    assert office.hsm._write(lambda session: find_key_pair(session.session, gone.object_id), attempts=1) == ([], [])
    assert (office.key("keys/wrapped").state, office.key("keys/wrapped").wrapped_key) == (KeyState.DESTROYED, None)
    assert office.key("keys/gone").state is KeyState.DESTROYED


def test_half_a_key_that_a_crash_left_on_the_token_goes_too(office: Office) -> None:
    """The private object goes first: a process that is killed then leaves the public one."""
    key = office.make("keys/half")
    office.schedule("keys/half")
    office.let_time_pass(office.world.use)
    destroy = office.hsm.destroy_key_pair

    class Killed(BaseException):
        pass

    def killed(object_id: bytes) -> None:
        office.hsm._write(lambda session: find_key_pair(session.session, object_id)[0][0].destroy(), attempts=1)
        raise Killed

    office.hsm.destroy_key_pair = killed  # type: ignore[method-assign]
    with pytest.raises(Killed):
        office.world.use.key_destruction.look()
    office.hsm.destroy_key_pair = destroy  # type: ignore[method-assign]
    assert office.key("keys/half").state is KeyState.DESTROYING
    assert office.other.key_destruction.look() == 1
    assert office.hsm._write(lambda session: find_key_pair(session.session, key.object_id), attempts=1) == ([], [])
    assert office.key("keys/half").state is KeyState.DESTROYED


@pytest.mark.promise("P8")
def test_while_the_token_is_away_a_key_waits(office: Office) -> None:
    key = office.make("keys/waits")
    office.schedule("keys/waits")
    office.let_time_pass(office.world.use)
    office.token.remove()
    with pytest.raises(errors.HsmUnavailable):
        office.hsm.probe()
    assert office.world.use.key_destruction.look() == 0
    assert office.key("keys/waits").state is KeyState.DESTROY_SCHEDULED
    office.token.bring_back()
    waited = threading.Event()
    for _ in range(600):
        if office.hsm.ready():
            break
        waited.wait(0.1)
    assert office.world.use.key_destruction.look() == 1
    assert not office.signs(key)


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_of_two_nodes_that_destroy_and_an_officer_who_cancels_exactly_one_wins(
    office: Office, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    ends: Counter[str] = Counter()
    for number in range(rounds):
        name = f"keys/raced-{number}"
        key = office.make(name)
        office.schedule(name)
        office.let_time_pass(office.world.use, office.other)
        barrier = threading.Barrier(3)
        destroyed: list[int] = []
        kept: list[bool] = []

        def look(use: UseCases, barrier: threading.Barrier = barrier, destroyed: list[int] = destroyed) -> None:
            barrier.wait()
            destroyed.append(use.key_destruction.look())

        # Destroying takes its lease first: the officer comes now before it begins, now when it has.
        late = 0.01 * (number % 6)

        def cancel(
            name: str = name, barrier: threading.Barrier = barrier, kept: list[bool] = kept, late: float = late
        ) -> None:
            barrier.wait()
            time.sleep(late)
            try:
                office.other.cancel_key_destruction(OPERATOR, name, deadline=office.world.deadline())
                kept.append(True)
            except errors.StateConflict:
                kept.append(False)

        threads = [threading.Thread(target=look, args=(use,)) for use in (office.world.use, office.other)]
        threads.append(threading.Thread(target=cancel))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        state = office.key(name).state
        assert (kept, sum(destroyed), state, office.signs(key)) in (
            ([True], 0, KeyState.DISABLED, True),
            ([False], 1, KeyState.DESTROYED, False),
        )
        ends[state.value] += 1
    record_property("count", f"two nodes and an officer, {rounds} rounds: {dict(sorted(ends.items()))}")
    assert sum(ends.values()) == rounds
