"""Callers that begin together with one one-time password, and the judge of who won."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.support.administration import Connection, Refused

CALLERS = 64
LOSSES = {"ONE_TIME_PASSWORD_REJECTED", "SIGNER_LOCKED", "BUSY"}


@dataclass(frozen=True)
class Call:
    """How a call of a round went, and when."""

    outcome: str
    begun: float
    ended: float
    answer: Any = None


class Racers:
    """Callers that begin together, round by round."""

    def __init__(self, channels: list[Connection]) -> None:
        self._channels = channels
        self._barrier = threading.Barrier(CALLERS)
        self._pool = ThreadPoolExecutor(CALLERS)

    def race(self, requests: list[Any], *, approve: bool = False) -> list[Call]:
        def run(position: int) -> Call:
            connection = self._channels[position % len(self._channels)]
            method = connection.authorizations.ApproveAuthorizations if approve else connection.signing.SignDigests
            self._barrier.wait(30)
            begun = time.monotonic()
            try:
                answer = connection.call(method, requests[position])
            except Refused as refused:
                return Call(refused.reason or refused.code.name, begun, time.monotonic(), str(refused))
            return Call("OK", begun, time.monotonic(), answer)

        return list(self._pool.map(run, range(len(requests))))

    def close(self) -> None:
        self._pool.shutdown()


def at_once(calls: list[Call]) -> int:
    """Returns how many calls were open at the moment at which most were."""
    moments = sorted([(call.begun, 1) for call in calls] + [(call.ended, -1) for call in calls])
    most = now = 0
    for _, change in moments:
        now += change
        most = max(most, now)
    return most


def at_once_on_both(calls: list[Call]) -> int:
    """Returns how many calls were open on the less busy of two servers when it had most; they take turns in `calls`."""
    moments = sorted(
        (moment, change, position % 2)
        for position, call in enumerate(calls)
        for moment, change in ((call.begun, 1), (call.ended, -1))
    )
    most, now = 0, [0, 0]
    for _, change, server in moments:
        now[server] += change
        most = max(most, min(now))
    return most


def check_round(calls: list[Call]) -> Counter[str]:
    """Returns the outcomes of a round that exactly one caller won."""
    outcomes = Counter(call.outcome for call in calls)
    assert len(calls) == CALLERS
    assert outcomes["OK"] == 1, outcomes
    strange = {str(call.answer) for call in calls if call.outcome not in {"OK", *LOSSES}}
    assert not strange, (outcomes, strange)
    return outcomes
