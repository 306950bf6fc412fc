"""What one process does at a time: the lease under which objects on the token are created and destroyed."""

import threading
from datetime import timedelta

import pytest
from tests.support.world import OPERATOR, Event, World

from trien_server.core import errors, sealing
from trien_server.core.algorithms import KeyType
from trien_server.core.records import KeyState, Lease
from trien_server.host.randomness import SystemRandomness
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.wiring import UseCases


@pytest.fixture
def world() -> World:
    return World().populate()


def leases_of(world: World, process: UseCases) -> Leases:
    return Leases(
        transactions=process.transactions,
        randomness=SystemRandomness(),
        report=lambda name, fields: world.events.append(Event(name, fields)),
    )


def held(world: World) -> Lease:
    (row,) = world.store.rows(Lease)
    assert isinstance(row.record, Lease)
    return row.record


def test_one_process_at_a_time_holds_a_lease_and_gives_it_back(world: World) -> None:
    one, two = leases_of(world, world.use), leases_of(world, world.new_process())
    never = threading.Event()
    with one.hold(TOKEN_OBJECTS, wait=0, stopped=never) as lease:
        assert held(world) == lease
        assert lease.expire_time == world.clock.now() + sealing.LEASE_LIFETIME
        with pytest.raises(errors.Busy), two.hold(TOKEN_OBJECTS, wait=0.3, stopped=never):
            raise AssertionError("two hold it")
        assert held(world) == lease
    with two.hold(TOKEN_OBJECTS, wait=0, stopped=never) as next_one:
        assert next_one.version == lease.version + 2, "taken, given back, taken"


def test_a_lease_is_waited_for_until_its_holder_gives_it_back(world: World) -> None:
    one, two = leases_of(world, world.use), leases_of(world, world.new_process())
    taken = threading.Event()

    def other() -> None:
        with two.hold(TOKEN_OBJECTS, wait=30, stopped=threading.Event()):
            taken.set()

    with one.hold(TOKEN_OBJECTS, wait=0, stopped=threading.Event()):
        waiting = threading.Thread(target=other)
        waiting.start()
        assert not taken.wait(0.5)
    waiting.join(timeout=30)
    assert taken.is_set()


def test_a_server_that_stops_waits_for_no_lease(world: World) -> None:
    one, two = leases_of(world, world.use), leases_of(world, world.new_process())
    stopped = threading.Event()
    stopped.set()
    with (
        one.hold(TOKEN_OBJECTS, wait=0, stopped=threading.Event()),
        pytest.raises(errors.Busy),
        two.hold(TOKEN_OBJECTS, wait=3600, stopped=stopped),
    ):
        raise AssertionError("two hold it")


def test_what_a_crashed_holder_leaves_lapses(world: World) -> None:
    one, two = leases_of(world, world.use), leases_of(world, world.new_process())
    never = threading.Event()
    with one.hold(TOKEN_OBJECTS, wait=0, stopped=never):
        world.clock.advance(sealing.LEASE_LIFETIME - timedelta(microseconds=1))
        with pytest.raises(errors.Busy), two.hold(TOKEN_OBJECTS, wait=0, stopped=never):
            raise AssertionError("two hold it")
        world.clock.advance(timedelta(microseconds=1))
        with two.hold(TOKEN_OBJECTS, wait=0, stopped=never) as lease:
            assert held(world) == lease
    assert held(world).holder == lease.holder, "who lost it gives back nothing"


def test_a_process_whose_commit_was_not_answered_takes_its_own_lease(world: World) -> None:
    one = leases_of(world, world.use)
    never = threading.Event()
    with one.hold(TOKEN_OBJECTS, wait=0, stopped=never) as first, one.hold(TOKEN_OBJECTS, wait=0, stopped=never) as two:
        assert (first.holder, first.version + 1) == (two.holder, two.version)


@pytest.mark.promise("P8")
def test_a_key_is_generated_under_the_lease_and_stays_pending_while_another_process_has_it(world: World) -> None:
    world.use.create_key(OPERATOR, name="keys/later", key_type=KeyType.EC_P256, deadline=world.deadline())
    other = leases_of(world, world.new_process())
    generate = world.hsm.generate_key_pair
    holders: list[tuple[str, bool]] = []

    def watched(object_id: bytes, key_type: KeyType) -> bytes:
        lease = held(world)
        holders.append((lease.holder, lease.expire_time > world.clock.now()))
        return generate(object_id, key_type)

    world.hsm.generate_key_pair = watched
    generation = world.use.key_generation
    with other.hold(TOKEN_OBJECTS, wait=0, stopped=threading.Event()) as lease:
        generation._stopped.set()  # So that it does not wait.
        with pytest.raises(errors.Busy):
            generation.generate("keys/later")
        assert holders == []
    generation._stopped.clear()
    generation.generate("keys/later")
    assert world.use.get_key(OPERATOR, "keys/later").state is KeyState.ENABLED
    assert [valid for _, valid in holders] == [True]
    assert holders[0][0] != lease.holder
    assert held(world).expire_time == world.clock.now(), "given back"


@pytest.mark.promise("P5")
def test_a_lease_fits_the_day_that_its_seal_names() -> None:
    noon = World().clock.now().replace(hour=12)
    today, tomorrow = (sealing.day_seal_key(noon + timedelta(days=days)) for days in (0, 1))
    midnight = noon.replace(hour=0) + timedelta(days=1)
    fits = 0
    for end, key, expected in (
        (noon, today, True),
        (noon, tomorrow, False),
        (midnight + sealing.LEASE_LIFETIME / 2, today, True),
        (midnight + sealing.LEASE_LIFETIME / 2, tomorrow, True),
        (midnight + 2 * sealing.LEASE_LIFETIME, today, False),
    ):
        assert sealing.seal_day_fits(Lease(name=TOKEN_OBJECTS, holder="one", expire_time=end), key) is expected
        fits += 1
    assert fits == 5
