"""Callers who repeat a request, with the same code and the same id, until they are told how it ended."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from tests.promises.history import History
from tests.promises.recording import RecordedConnection
from tests.support.administration import Connection, Person, Refused, request_of
from tests.support.sandbox import Installation

UNDECIDED = {"STORE_UNAVAILABLE", "BUSY", "CLOCK_NOT_TRUSTED", "HSM_UNAVAILABLE", "UNAVAILABLE", "DEADLINE_EXCEEDED"}
TIMEOUT = 6.0
"""The deadline of each call."""


@dataclass
class Told:
    """What a caller was told."""

    signed: int = 0
    signed_after_refusal: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    slowest: float = 0.0
    settled: bool = True


class PersistentCaller(threading.Thread):
    """Signs one document after the other with a person's next code."""

    def __init__(self, installation: Installation, person: Person, history: History, stop: threading.Event) -> None:
        super().__init__(name=person.name)
        self.person = person
        self.told = Told()
        self.give_up = float("inf")
        self._installation = installation
        self._history = history
        self._stopping = stop

    def run(self) -> None:
        token = self._installation.population["client"]["token"]
        with Connection(self._installation, token=token) as connection:
            recorded = RecordedConnection(connection, self._history)
            while not self._stopping.is_set():
                self._sign(recorded)

    def _sign(self, recorded: RecordedConnection) -> None:
        counter = self.person.authenticator.counter
        request = request_of(self.person, f"{self.name} {counter}".encode())
        refused_before = False
        while True:
            begun = time.monotonic()
            try:
                recorded.sign(request, right=True, timeout=TIMEOUT)
            except Refused as refused:
                self.told.slowest = max(self.told.slowest, time.monotonic() - begun)
                reason = refused.reason or refused.code.name
                self.told.refused[reason] += 1
                if reason not in UNDECIDED or refused.code is grpc.StatusCode.INTERNAL:
                    self.told.unexpected.append(str(refused))
                    self._stopping.set()
                    return
                refused_before = True
                if time.monotonic() > self.give_up:
                    self.told.settled = False
                    return
                time.sleep(0.05)
                continue
            self.told.signed += 1
            self.told.signed_after_refusal += refused_before
            return


class Load:
    """All callers together."""

    def __init__(self, installation: Installation, people: Sequence[Person], history: History) -> None:
        self._stop = threading.Event()
        self.callers = [PersistentCaller(installation, person, history, self._stop) for person in people]

    def signed(self) -> int:
        return sum(caller.told.signed for caller in self.callers)

    def refused(self) -> Counter[str]:
        return sum((caller.told.refused for caller in self.callers), Counter[str]())

    def signed_after_refusal(self) -> int:
        return sum(caller.told.signed_after_refusal for caller in self.callers)

    def slowest_refusal(self) -> float:
        return max(caller.told.slowest for caller in self.callers)

    def settled(self) -> bool:
        return all(caller.told.settled for caller in self.callers)

    def wait_for_more(self, signed: int, *, seconds: float = 60.0) -> float:
        """Waits until so many more requests were signed; returns after how many seconds."""
        begun, wanted = time.monotonic(), self.signed() + signed
        while self.signed() < wanted:
            assert not self._stop.is_set(), [caller.told.unexpected for caller in self.callers]
            if time.monotonic() - begun > seconds:
                raise AssertionError(f"nothing is signed any more: {dict(self.refused())}")
            time.sleep(0.02)
        return time.monotonic() - begun

    def wait_for_refusals(self, more: int, *, seconds: float = 30.0) -> None:
        """Waits until so many more calls were refused."""
        wanted, end = self.refused().total() + more, time.monotonic() + seconds
        while self.refused().total() < wanted:
            assert not self._stop.is_set(), [caller.told.unexpected for caller in self.callers]
            assert time.monotonic() < end, "nobody was refused"
            time.sleep(0.02)

    def finish(self, patience: float) -> None:
        """Lets every caller end what it began; those that are refused for longer than `patience` give up."""
        for caller in self.callers:
            caller.give_up = time.monotonic() + patience
        self._stop.set()
        for caller in self.callers:
            caller.join(patience + TIMEOUT + 30)
        assert not any(caller.is_alive() for caller in self.callers)
        assert [caller.told.unexpected for caller in self.callers if caller.told.unexpected] == []


@contextmanager
def under_load(
    installation: Installation, people: Sequence[Person], history: History, *, patience: float = 40.0
) -> Iterator[Load]:
    """Signs with all people while the block runs. A granted request whose process lost it is at work for 30 s."""
    load = Load(installation, people, history)
    for caller in load.callers:
        caller.start()
    try:
        yield load
    finally:
        load.finish(patience)
