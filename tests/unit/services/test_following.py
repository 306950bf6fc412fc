"""What a process knows of the sealing key is read anew now and then; a store that hangs makes nobody wait twice."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import pytest
from tests.support.world import World

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Snapshot

T = TypeVar("T")

CALLERS = 8


class Hanging:
    """A store whose reads wait until all callers are in one, and then fail; a lone reader would wait in vain."""

    def __init__(self, store: object) -> None:
        self._store = store
        self.together = threading.Barrier(CALLERS)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def read(self, _: Callable[[Snapshot], T]) -> T:
        self.together.wait(timeout=20)
        raise StoreUnavailable


@pytest.mark.promise("P8")
def test_callers_of_a_store_that_hangs_wait_for_it_side_by_side_and_not_one_after_another() -> None:
    world = World().populate()
    transactions = world.use.transactions
    transactions.read(lambda _: None)
    world.clock.advance(timedelta(minutes=1))
    hanging = Hanging(world.store)
    transactions._store = hanging  # type: ignore[assignment]

    def refused(_: int) -> str:
        with pytest.raises(StoreUnavailable):
            transactions.read(lambda _: None)
        return "refused"

    with ThreadPoolExecutor(CALLERS) as pool:
        assert list(pool.map(refused, range(CALLERS))) == ["refused"] * CALLERS
    assert not hanging.together.broken


def test_while_one_reads_it_anew_the_others_go_on_with_what_is_known_lately() -> None:
    world = World().populate()
    transactions = world.use.transactions
    transactions.read(lambda _: None)
    world.clock.advance(timedelta(seconds=6))
    with transactions._following:
        known = transactions._followed
        assert transactions.read(lambda _: "read") == "read"
        assert transactions._followed == known
        world.clock.advance(timedelta(seconds=5))
        assert transactions.read(lambda _: "read") == "read"
        assert transactions._followed != known
