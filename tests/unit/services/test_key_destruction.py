"""A key is destroyed when its time has come, once, and never one that was kept (P9)."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.world import CHAIR, OPERATOR, P256, World, digests

from trien_server.core import errors, sealing
from trien_server.core.algorithms import KeyType
from trien_server.core.records import AuditEntry, Key, KeyState, ProtectionLevel
from trien_server.services.key_destruction import LATEST, STEADY
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.wiring import UseCases

KEY = "keys/chair-p256"
WRAPPED = "keys/wrapped"


@pytest.fixture
def world() -> World:
    made = World().populate()
    made.add_credential("credentials/wrapped", KeyType.EC_P256, CHAIR, CHAIR, protection_level=ProtectionLevel.WRAPPED)
    return made


def schedule(world: World, name: str = KEY, *, days: int = 1) -> Key:
    world.agree(world.use.destroy_key(OPERATOR, name, delay_days=days, deadline=world.deadline()))
    return key_of(world, name)


def key_of(world: World, name: str = KEY) -> Key:
    key: Key = world.use.get_key(OPERATOR, name)
    return key


def look_when_due(world: World, use: UseCases | None = None, *, days: int = 1) -> int:
    """Lets the delay pass, and an hour in which the key is due; returns how many keys were destroyed then."""
    destruction = (use or world.use).key_destruction
    world.clock.advance(timedelta(days=days))
    assert destruction.look() == 0
    world.clock.advance(STEADY)
    return destruction.look()


def entries_of(world: World, name: str = KEY) -> list[str]:
    found = [row.record for row in world.store.rows(AuditEntry) if row.record.subject == name]
    return [entry.kind for entry in sorted(found, key=lambda entry: entry.subject_version or 0)]


def reported(world: World) -> list[tuple[str, str]]:
    return [(event.name, event.fields.get("key", "")) for event in world.events]


@pytest.mark.promise("P9")
def test_a_key_is_destroyed_an_hour_after_its_time_and_not_before(world: World) -> None:
    key = schedule(world)
    other = key_of(world, "keys/seal")
    looks = 0
    for wait in (timedelta(0), timedelta(days=1) - timedelta(seconds=1)):
        world.clock.advance(wait)
        assert world.use.key_destruction.look() == 0
        looks += 1
    for wait in (timedelta(seconds=1), STEADY - timedelta(seconds=1)):
        world.clock.advance(wait)
        assert world.use.key_destruction.look() == 0
        looks += 1
    assert world.hsm.public_key(key.object_id) == key.public_key
    world.clock.advance(timedelta(seconds=1))
    assert world.use.key_destruction.look() == 1
    assert world.hsm.public_key(key.object_id) is None
    assert world.hsm.public_key(other.object_id) == other.public_key
    destroyed = key_of(world)
    assert (destroyed.state, destroyed.destroy_time) == (KeyState.DESTROYED, key.destroy_time)
    assert entries_of(world)[-3:] == ["key_destruction_scheduled", "key_destruction_begun", "key_destroyed"]
    assert world.use.key_destruction.look() == 0
    assert reported(world) == [("key_destruction_due", KEY)]
    assert looks == 4


def test_of_a_wrapped_key_the_record_loses_what_the_token_could_open(world: World) -> None:
    key = schedule(world, WRAPPED)
    assert key.wrapped_key
    assert look_when_due(world) == 1
    destroyed = key_of(world, WRAPPED)
    assert (destroyed.state, destroyed.wrapped_key) == (KeyState.DESTROYED, None)
    assert entries_of(world, WRAPPED)[-1] == "key_destroyed"
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1), credential="credentials/wrapped")


class Killed(BaseException):
    """Ends a process at once: nothing of it runs any more."""


class Life:
    """A process's life: it ends at one of its steps, before the step's effect or after it."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.steps = 0
        self.over = False

    def step(self, call: Callable[[], Any]) -> Any:
        if self.over:
            raise Killed
        self.steps += 1
        ends = self.steps == self.at
        if ends and not self.after:
            self.over = True
            raise Killed
        result = call()
        if ends:
            self.over = True
            raise Killed
        return result


class Mortal:
    """A port as a process that gets killed uses it: each commit, and each destruction on the token, is a step."""

    def __init__(self, port: Any, life: Life) -> None:
        self._port = port
        self._life = life

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._port, name)
        if name not in {"transact", "destroy_key_pair"}:
            return value
        return lambda *arguments, **named: self._life.step(lambda: value(*arguments, **named))


@pytest.mark.promise("P9")
@pytest.mark.parametrize("name", [KEY, WRAPPED])
def test_a_process_killed_at_any_step_leaves_what_the_next_one_finishes(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    kills = 0
    for after in (False, True):
        at = 0
        finished = False
        while not finished:
            at += 1
            world = World().populate()
            if name == WRAPPED:
                world._add_key(WRAPPED, KeyType.EC_P256, ProtectionLevel.WRAPPED)
            key = schedule(world, name)
            life = Life(at, after=after)
            killed = world.new_process(hsm=Mortal(world.hsm, life), store=Mortal(world.store, life))
            try:
                look_when_due(world, killed)
                finished = True
            except Killed:
                kills += 1
            left = key_of(world, name)
            on_token = world.hsm.public_key(key.object_id) is not None
            if name == KEY:
                # An object is gone only when nothing can keep the key any more.
                assert on_token or left.state in {KeyState.DESTROYING, KeyState.DESTROYED}
                assert not on_token or left.state is not KeyState.DESTROYED
            else:
                assert (left.wrapped_key is None) is (left.state is KeyState.DESTROYED)
            world.clock.advance(sealing.LEASE_LIFETIME)
            later = world.new_process()
            later.key_destruction.look()
            world.clock.advance(STEADY)
            later.key_destruction.look()
            assert key_of(world, name).state is KeyState.DESTROYED
            assert world.hsm.public_key(key.object_id) is None
            assert entries_of(world, name).count("key_destroyed") == 1
    record_property("count", f"{name}: kill points {kills}")
    assert kills == (10 if name == KEY else 6)


def test_while_another_process_has_the_lease_the_key_waits(world: World) -> None:
    key = schedule(world)
    world.clock.advance(timedelta(days=1))
    world.use.key_destruction.look()
    world.clock.advance(STEADY)
    other = Leases(
        transactions=world.new_process().transactions, randomness=world.use.key_generation._randomness, report=print
    )
    with other.hold(TOKEN_OBJECTS, wait=0, stopped=threading.Event()):
        stopped, world.use.key_destruction._stopped = world.use.key_destruction._stopped, _never_waits()
        assert world.use.key_destruction.look() == 0
        world.use.key_destruction._stopped = stopped
    assert key_of(world) == key
    assert reported(world)[1:] == [("key_destruction_delayed", KEY)]
    assert world.use.key_destruction.look() == 1


def _never_waits() -> Any:
    class Event(threading.Event):
        def wait(self, _: float | None = None) -> bool:
            return False

    return Event()


@pytest.mark.promise("P9")
def test_a_process_paused_beyond_its_lease_does_no_harm_when_it_wakes(world: World) -> None:
    key = schedule(world)
    other = world.new_process()
    destroy = world.hsm.destroy_key_pair
    world.clock.advance(timedelta(days=1))
    for use in (world.use, other):
        assert use.key_destruction.look() == 0
    world.clock.advance(STEADY)

    def raced(object_id: bytes) -> None:
        world.hsm.destroy_key_pair = destroy
        world.clock.advance(sealing.LEASE_LIFETIME)
        assert other.key_destruction.look() == 1
        destroy(object_id)

    world.hsm.destroy_key_pair = raced
    before = set(world.hsm._keys)
    assert world.use.key_destruction.look() == 0
    assert before - set(world.hsm._keys) == {key.object_id}
    assert entries_of(world).count("key_destroyed") == 1
    assert key_of(world).state is KeyState.DESTROYED


@pytest.mark.promise("P8", "P9")
def test_while_the_token_is_away_the_key_waits_and_goes_when_it_is_back(world: World) -> None:
    key = schedule(world)
    world.clock.advance(timedelta(days=1))
    world.use.key_destruction.look()
    world.clock.advance(STEADY)
    world.hsm.fail_next(method="destroy_key_pair")
    assert world.use.key_destruction.look() == 0
    assert key_of(world).state is KeyState.DESTROYING
    with pytest.raises(errors.StateConflict, match="cannot be stopped"):
        world.use.cancel_key_destruction(OPERATOR, KEY, deadline=world.deadline())
    assert world.hsm.public_key(key.object_id) == key.public_key
    assert world.use.key_destruction.look() == 1
    assert world.hsm.public_key(key.object_id) is None
    assert ("key_destruction_delayed", KEY) in reported(world)


@pytest.mark.promise("P9")
def test_of_a_cancellation_and_the_destruction_exactly_one_wins(
    record_property: Callable[[str, object], None],
) -> None:
    rounds = kept = 0
    world = World().populate()
    for number in range(40):
        name = f"keys/raced-{number}"
        world._add_key(name, KeyType.EC_P256)
        key = schedule(world, name)
        use = world.new_process()
        world.clock.advance(timedelta(days=1))
        use.key_destruction.look()
        world.clock.advance(STEADY)
        barrier = threading.Barrier(2)
        outcomes: list[str] = []

        def cancel(name: str = name, barrier: threading.Barrier = barrier, outcomes: list[str] = outcomes) -> None:
            barrier.wait()
            try:
                world.use.cancel_key_destruction(OPERATOR, name, deadline=world.deadline())
                outcomes.append("kept")
            except errors.StateConflict:
                outcomes.append("too late")

        thread = threading.Thread(target=cancel)
        thread.start()
        barrier.wait()
        destroyed = use.key_destruction.look()
        thread.join()
        state, on_token = key_of(world, name).state, world.hsm.public_key(key.object_id) is not None
        assert (outcomes, destroyed, state, on_token) in (
            (["kept"], 0, KeyState.DISABLED, True),
            (["too late"], 1, KeyState.DESTROYED, False),
        )
        kept += outcomes == ["kept"]
        rounds += 1
    record_property("count", f"cancelled against destroyed: {rounds} rounds, {kept} kept")
    assert rounds == 40


@pytest.mark.promise("P9")
@pytest.mark.parametrize("step", ["before it begins", "as it begins", "before the object goes", "before it ends"])
def test_a_cancellation_at_each_step_of_the_destruction_keeps_the_key_or_says_that_it_is_too_late(
    world: World, step: str
) -> None:
    key = schedule(world)
    outcomes: list[str] = []

    def cancel() -> None:
        try:
            world.use.cancel_key_destruction(OPERATOR, KEY, deadline=world.deadline())
            outcomes.append("kept")
        except errors.StateConflict:
            outcomes.append("too late")

    commits = {"before it begins": 1, "as it begins": 2, "before it ends": 3}
    transact, destroy = world.store.transact, world.hsm.destroy_key_pair
    made = 0

    class Raced:
        def __getattr__(self, name: str) -> Any:
            return getattr(world.store, name)

        def transact(self, *arguments: Any, **named: Any) -> Any:
            nonlocal made
            made += 1
            if made == commits.get(step):
                cancel()
            return transact(*arguments, **named)

    def destroyed(object_id: bytes) -> None:
        if step == "before the object goes":
            cancel()
        destroy(object_id)

    world.hsm.destroy_key_pair = destroyed
    look_when_due(world, world.new_process(store=Raced()))  # type: ignore[arg-type]
    on_token = world.hsm.public_key(key.object_id) is not None
    if step in {"before it begins", "as it begins"}:
        assert (outcomes, key_of(world).state, on_token) == (["kept"], KeyState.DISABLED, True)
    else:
        assert (outcomes, key_of(world).state, on_token) == (["too late"], KeyState.DESTROYED, False)


@pytest.mark.promise("P8", "P9")
def test_a_clock_that_is_set_ahead_by_mistake_destroys_nothing_for_an_hour(world: World) -> None:
    key = schedule(world, days=30)
    destruction = world.use.key_destruction
    looks = 0
    assert destruction.look() == 0
    world.clock.step(timedelta(days=30))
    for _ in range(11):
        assert destruction.look() == 0
        world.clock.advance(STEADY / 12)
        looks += 1
    # Another jump begins the hour anew.
    world.clock.step(timedelta(minutes=1))
    for _ in range(12):
        assert destruction.look() == 0
        world.clock.advance(STEADY / 12)
        looks += 1
    assert looks == 23
    world.clock.step(-timedelta(days=30))
    assert destruction.look() == 0
    assert world.hsm.public_key(key.object_id) == key.public_key
    assert key_of(world) == key
    assert world.use.cancel_key_destruction(OPERATOR, KEY, deadline=world.deadline()).state is KeyState.DISABLED


@pytest.mark.promise("P8", "P9")
def test_a_clock_that_differs_from_the_databases_destroys_nothing(world: World) -> None:
    key = schedule(world)
    right = world.clock.now()
    world.store.clock = lambda: right
    world.clock.step(timedelta(days=2))
    destruction = world.use.key_destruction
    assert destruction.look() == 0
    for _ in range(3):
        world.clock.advance(STEADY)
        with pytest.raises(errors.ClockNotTrusted):
            destruction.look()
    assert key_of(world) == key
    assert world.hsm.public_key(key.object_id) == key.public_key


@pytest.mark.promise("P9")
def test_a_key_whose_time_came_long_ago_is_left_to_an_operator(world: World) -> None:
    """As after a database was set back to when the destruction of a key, kept since then, was scheduled."""
    key = schedule(world)
    world.clock.advance(timedelta(days=1) + LATEST + timedelta(seconds=1))
    for _ in range(3):
        assert world.use.key_destruction.look() == 0
        world.clock.advance(STEADY)
    assert reported(world) == [("key_destruction_overdue", KEY)]
    assert key_of(world) == key
    assert world.use.cancel_key_destruction(OPERATOR, KEY, deadline=world.deadline()).state is KeyState.DISABLED
    schedule(world)
    assert look_when_due(world) == 1


@pytest.mark.promise("P5", "P9")
def test_a_scheduled_key_put_back_after_it_was_kept_is_refused(world: World) -> None:
    schedule(world)
    row = next(row for row in world.store.rows(Key) if row.record.name == KEY)
    world.use.cancel_key_destruction(OPERATOR, KEY, deadline=world.deadline())
    world.store.overwrite(row)
    world.clock.advance(timedelta(days=1))
    for _ in range(3):
        with pytest.raises(errors.RecordNotTrusted):
            world.use.key_destruction.look()
        world.clock.advance(STEADY)
    assert world.hsm.public_key(row.record.object_id) == row.record.public_key


@pytest.mark.promise("P9")
def test_an_object_that_may_be_another_keys_is_never_destroyed(world: World) -> None:
    key, seal = schedule(world), key_of(world, "keys/seal")
    shared = Key(**{**vars(seal), "version": seal.version + 1, "object_id": key.object_id})
    assert world.use.changes.swap("test", seal, shared, kind="test", deadline=world.deadline())
    assert look_when_due(world) == 0
    assert world.hsm.public_key(key.object_id) == key.public_key
    again = Key(**{**vars(shared), "version": shared.version + 1, "object_id": seal.object_id})
    assert world.use.changes.swap("test", shared, again, kind="test", deadline=world.deadline())
    # Now the token holds another key under the id.
    world.hsm._keys[key.object_id], kept = world.hsm._keys[seal.object_id], world.hsm._keys[key.object_id]
    later = world.new_process()
    assert later.key_destruction.look() == 0
    assert key.object_id in world.hsm._keys
    assert [event.fields["because"] for event in world.events if event.name == "key_object_left"] == [
        "another record names the object",
        "the token holds another key under its id",
    ]
    world.hsm._keys[key.object_id] = kept
    assert later.key_destruction.look() == 1


def test_a_key_that_the_token_will_not_destroy_is_reported_once_and_the_others_go(world: World) -> None:
    first, second = schedule(world), schedule(world, "keys/seal")
    destroy = world.hsm.destroy_key_pair

    def refuse(object_id: bytes) -> None:
        if object_id == first.object_id:
            raise ValueError("the token refused the call")
        destroy(object_id)

    world.hsm.destroy_key_pair = refuse
    assert look_when_due(world) == 1
    assert world.use.key_destruction.look() == 0
    assert [key_of(world, key.name).state for key in (first, second)] == [KeyState.DESTROYING, KeyState.DESTROYED]
    assert reported(world)[2:] == [("key_object_left", KEY)]


def test_two_processes_that_look_at_once_destroy_each_key_once(world: World) -> None:
    keys = [schedule(world, name) for name in (KEY, WRAPPED, "keys/seal", "keys/chair-p384")]
    uses = [world.new_process() for _ in range(2)]
    world.clock.advance(timedelta(days=1))
    for use in uses:
        assert use.key_destruction.look() == 0
    world.clock.advance(STEADY)
    destroyed: list[int] = []
    threads = [threading.Thread(target=lambda use=use: destroyed.append(use.key_destruction.look())) for use in uses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(destroyed) == len(keys)
    for key in keys:
        assert key_of(world, key.name).state is KeyState.DESTROYED
        assert entries_of(world, key.name).count("key_destroyed") == 1


def test_the_thread_looks_by_itself_and_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trien_server.services.key_destruction._LOOK_SECONDS", 0.01)
    key = schedule(world)
    world.clock.advance(timedelta(days=1))
    destruction = world.new_process().key_destruction
    destruction.start()
    done = threading.Event()
    for _ in range(1000):
        if ("key_destruction_due", KEY) in reported(world):
            break
        done.wait(0.01)
    world.clock.advance(STEADY)
    for _ in range(1000):
        if key_of(world).state is KeyState.DESTROYED:
            break
        done.wait(0.01)
    destruction.stop()
    assert world.hsm.public_key(key.object_id) is None
    assert not destruction._thread.is_alive()


def test_the_credential_of_a_destroyed_key_says_that_it_is_disabled(world: World) -> None:
    schedule(world)
    assert look_when_due(world) == 1
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1), credential=P256, password=world.code())
