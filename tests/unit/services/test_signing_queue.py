"""The token's places are shared fairly, and load is shed before anything is consumed."""

import threading
import time

import pytest

from trien_server.core.errors import Busy
from trien_server.services.signing_queue import SigningQueue


def test_clients_take_turns_whatever_each_has_queued() -> None:
    """One client queues 40 turns, then three others one each: these come next, not behind the batch."""
    queue = SigningQueue(places=1, admitted=100)
    order: list[str] = []
    waiting = 0
    lock = threading.Lock()

    def take(client: str) -> None:
        with queue.turn(client, timeout=10):
            order.append(client)

    with queue.turn("holder", timeout=1):
        threads = []
        for client in ["batch"] * 40 + ["tablet 1", "tablet 2", "tablet 3"]:
            thread = threading.Thread(target=take, args=(client,))
            thread.start()
            threads.append(thread)
            with lock:
                waiting += 1
            while sum(len(one) for one in queue._waiting.values()) < waiting:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert len(order) == 43
    assert {order.index(f"tablet {number}") for number in (1, 2, 3)} == {1, 2, 3}


def test_no_more_than_the_places_are_held_at_once() -> None:
    queue = SigningQueue(places=3, admitted=100)
    held, most, lock = 0, 0, threading.Lock()

    def take(number: int) -> None:
        nonlocal held, most
        for _ in range(50):
            with queue.turn(f"client {number}", timeout=10):
                with lock:
                    held += 1
                    most = max(most, held)
                time.sleep(0)
                with lock:
                    held -= 1

    threads = [threading.Thread(target=take, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 3
    with queue.turn("a", timeout=0.1), queue.turn("b", timeout=0.1), queue.turn("c", timeout=0.1):
        pass


def test_who_waits_too_long_is_sent_away_and_holds_nobody_up() -> None:
    queue = SigningQueue(places=1, admitted=100)
    with queue.turn("holder", timeout=1):
        for _ in range(3):
            with pytest.raises(Busy), queue.turn("late", timeout=0.01):
                pass
    with queue.turn("next", timeout=0.01):
        pass


@pytest.mark.promise("P8")
def test_more_requests_than_can_be_finished_are_shed_at_once() -> None:
    queue = SigningQueue(places=1, admitted=4)
    with queue.admit("a"), queue.admit("a"):
        with pytest.raises(Busy), queue.admit("a"):
            pass
        with queue.admit("b"), queue.admit("b"), pytest.raises(Busy), queue.admit("c"):
            pass
    with queue.admit("a"):
        pass
