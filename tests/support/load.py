"""Callers that sign one document after the other, and repeat a request by its id until they are told how it ended."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from tests.promises.history import History
from tests.promises.recording import RecordedConnection
from tests.support.administration import Connection, Person, Refused, request_of
from tests.support.sandbox import Installation

UNKNOWN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
PASSING = {"BUSY", "HSM_UNAVAILABLE", "STORE_UNAVAILABLE"}


@dataclass(frozen=True)
class Signed:
    """A request that was answered: when its first try began, when the answer came, and how many tries it took."""

    begun: float
    ended: float
    tries: int
    request: Any
    answer: Any


@dataclass
class Caller:
    """One person with one connection of the sandbox's client. Its requests have one item each."""

    installation: Installation
    person: Person
    history: History
    stop: threading.Event
    signed: list[Signed] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)
    pause: float = 0.1

    def run(self) -> None:
        """Signs until `stop` is set and the last request is answered."""
        token = self.installation.population["client"]["token"]
        with Connection(self.installation, token=token) as connection:
            recorded = RecordedConnection(connection, self.history)
            while not self.stop.is_set():
                self.sign(recorded)
                time.sleep(self.pause)

    def sign(self, recorded: RecordedConnection, *, seconds: float = 90.0) -> None:
        """Signs one document; whatever happens, the request is the same one, and so is its code."""
        request = request_of(self.person, f"{self.person.name} {len(self.signed)}".encode())
        begun, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                answer = recorded.sign(request, right=True, timeout=4.0)
            except Refused as refused:
                self.refused[refused.reason or refused.code.name] += 1
                passing = refused.reason in PASSING or refused.code in UNKNOWN
                if passing and time.monotonic() - begun < seconds:
                    time.sleep(0.1)
                    continue
                self.unexpected.append(str(refused))
                return
            self.signed.append(Signed(begun, time.monotonic(), tries, request, answer))
            return


@contextmanager
def load(installations: Sequence[Installation], people: Sequence[Person], history: History) -> Iterator[list[Caller]]:
    """Lets each person sign through one of the servers while the block runs, and until the last request is answered."""
    stop = threading.Event()
    callers = [
        Caller(installations[number % len(installations)], person, history, stop)
        for number, person in enumerate(people)
    ]
    threads = [threading.Thread(target=caller.run, name=caller.person.name) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
    if any(thread.is_alive() for thread in threads):
        raise AssertionError("a caller did not end")


def answered_between(callers: Sequence[Caller], begin: float, end: float) -> list[Signed]:
    """Returns what was asked for and answered within a time (of the monotonic clock)."""
    return [
        signed for caller in callers for signed in list(caller.signed) if begin <= signed.begun and signed.ended <= end
    ]
