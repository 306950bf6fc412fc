"""When and how long to wait, with a clock that only moves when told to."""

from datetime import timedelta

import pytest

from trien_client import (
    Busy,
    HsmUnavailable,
    OneTimePasswordRejected,
    RetryPolicy,
    ServerNotTrusted,
    StoreUnavailable,
    TrienError,
    Unavailable,
)
from trien_client._calls import Calls
from trien_client._steps import Pause, Send, Step
from trien_client._steps import run as run_operation

POLICY = RetryPolicy(attempts=5, first_wait=timedelta(seconds=1), longest_wait=timedelta(seconds=4))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


class Fails:
    def __init__(self, *errors: TrienError) -> None:
        self.errors = list(errors)
        self.timeouts: list[float] = []

    def __call__(self, timeout: float) -> str:
        self.timeouts.append(timeout)
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def no_method(*_: object, **__: object) -> str:
    raise AssertionError


def run(attempt: Fails, clock: Clock, seconds: float = 60.0, *, repeatable: bool = True) -> str:
    def carry_out(step: Step) -> str | None:
        match step:
            case Send(_, _, timeout):
                return attempt(timeout)
            case Pause(wait):
                return clock.sleep(wait)
        raise AssertionError(step)

    calls = Calls(retries=POLICY, timeout=seconds, monotonic=clock)
    sending = calls.send(no_method, None, deadline=calls.deadline(None), repeatable=repeatable)
    return str(run_operation(sending, carry_out))


def test_waits_grow_up_to_the_longest_and_the_deadline_is_shared() -> None:
    clock, attempt = Clock(), Fails(*[Unavailable("gone") for _ in range(4)])
    assert run(attempt, clock) == "done"
    assert len(clock.waits) == 4
    for wait, ceiling in zip(clock.waits, [1, 2, 4, 4], strict=True):
        assert ceiling / 2 <= wait <= ceiling
    assert attempt.timeouts == sorted(attempt.timeouts, reverse=True)
    assert attempt.timeouts[-1] == pytest.approx(60 - sum(clock.waits))


def test_the_server_s_wait_is_the_least() -> None:
    clock, attempt = Clock(), Fails(Busy("busy", retry_after=timedelta(seconds=7)))
    assert run(attempt, clock) == "done"
    assert 7 <= clock.waits[0] <= 8


def test_a_wait_beyond_the_deadline_is_not_begun() -> None:
    clock, attempt = Clock(), Fails(Busy("busy", retry_after=timedelta(seconds=7)))
    with pytest.raises(Busy):
        run(attempt, clock, seconds=7)
    assert clock.waits == []


def test_the_last_error_is_raised_when_attempts_are_used_up() -> None:
    clock, attempt = Clock(), Fails(*[Unavailable(str(number)) for number in range(9)])
    with pytest.raises(Unavailable, match="4"):
        run(attempt, clock)
    assert len(attempt.timeouts) == 5


@pytest.mark.parametrize("error", [OneTimePasswordRejected("no"), ServerNotTrusted("no"), TrienError("no")])
def test_what_will_not_pass_is_not_tried_again(error: TrienError) -> None:
    clock, attempt = Clock(), Fails(error)
    with pytest.raises(type(error)):
        run(attempt, clock)
    assert len(attempt.timeouts) == 1
    assert clock.waits == []


def test_what_must_not_be_done_twice_is_tried_again_only_when_nothing_was_done() -> None:
    clock, attempt = Clock(), Fails(Busy("busy"), Busy("busy"))
    assert run(attempt, clock, repeatable=False) == "done"
    assert len(attempt.timeouts) == 3
    for error in (Unavailable("gone"), StoreUnavailable("unknown"), HsmUnavailable("away")):
        attempt = Fails(error)
        with pytest.raises(type(error)):
            run(attempt, clock, repeatable=False)
        assert len(attempt.timeouts) == 1
