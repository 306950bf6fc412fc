"""The token's places, handed out in small turns, fair between clients."""

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from trien_server.core.errors import Busy

TURN = 16
"""How many signatures one turn makes: a batch of 1,000 lets others in 62 times."""


class SigningQueue:
    """Lets `places` callers use the token at once, one turn each, client by client.

    Also sheds load: a request has to be admitted before its one-time password is looked at, and at most
    `admitted` are.
    """

    def __init__(self, *, places: int, admitted: int) -> None:
        self._free = places
        self._room = admitted
        self._most_of_one = max(1, admitted // 2)
        self._admitted: dict[str, int] = {}
        self._lock = threading.Lock()
        self._waiting: OrderedDict[str, deque[threading.Event]] = OrderedDict()

    @contextmanager
    def admit(self, client: str) -> Iterator[None]:
        """Holds one of the admitted requests' places, of which one client gets half at most.

        Raises `Busy` at once when there is none (P8).
        """
        with self._lock:
            of_client = self._admitted.get(client, 0)
            if self._room == 0 or of_client >= self._most_of_one:
                raise Busy("The server has as many requests at work as it can finish in time.")
            self._room -= 1
            self._admitted[client] = of_client + 1
        try:
            yield
        finally:
            with self._lock:
                self._room += 1
                self._admitted[client] -= 1
                if not self._admitted[client]:
                    del self._admitted[client]

    @contextmanager
    def turn(self, client: str, *, timeout: float) -> Iterator[None]:
        """Holds a place at the token. Raises `Busy` when none came free in `timeout` seconds."""
        self._acquire(client, timeout)
        try:
            yield
        finally:
            self._release()

    def _acquire(self, client: str, timeout: float) -> None:
        with self._lock:
            if self._free and not self._waiting:
                self._free -= 1
                return
            granted = threading.Event()
            self._waiting.setdefault(client, deque()).append(granted)
        if granted.wait(timeout):
            return
        with self._lock:
            if granted.is_set():
                return
            queue = self._waiting[client]
            queue.remove(granted)
            if not queue:
                del self._waiting[client]
        raise Busy("No place at the token came free in time.")

    def _release(self) -> None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return
            client, queue = next(iter(self._waiting.items()))
            queue.popleft().set()
            if queue:
                self._waiting.move_to_end(client)
            else:
                del self._waiting[client]
