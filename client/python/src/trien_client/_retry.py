"""When a call is tried again, and how long to wait before."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from trien_client._errors import (
    Busy,
    HsmUnavailable,
    LogNotSealed,
    Refusal,
    ServerNotTrusted,
    StoreUnavailable,
    TrienError,
    Unavailable,
)
from trien_client._steps import Method, Operation, Pause, Response, Send


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and how fast a call is tried again.

    Only what the server calls UNAVAILABLE is tried again, and only where a `request_id` or the nature of the call makes
    it safe; calls that are not safe to repeat only after `Busy`, with which the server did nothing of them. The waits
    grow by `multiplier`, half of each at random, and never go beyond the call's deadline.
    """

    attempts: int = 6
    first_wait: timedelta = timedelta(milliseconds=200)
    longest_wait: timedelta = timedelta(seconds=5)
    multiplier: float = 2.0

    def wait_before(self, attempt: int, retry_after: timedelta | None, jitter: float) -> float:
        """Returns the seconds to wait before `attempt` (2 is the first retry); `jitter` lies in [0, 1).

        What the server asked for is the least.
        """
        ceiling = min(
            self.first_wait.total_seconds() * self.multiplier ** (attempt - 2), self.longest_wait.total_seconds()
        )
        least = 0.0 if retry_after is None else retry_after.total_seconds()
        return least + ceiling * (0.5 + jitter / 2)


def did_nothing(error: Exception) -> bool:
    """Tells whether `error` says that the server did nothing of a call that is not repeatable: it may be sent again."""
    return isinstance(error, Busy)


def is_retried(error: Exception) -> bool:
    """Tells whether the same request may be sent again after `error`."""
    if isinstance(error, ServerNotTrusted):
        return False
    return isinstance(error, Busy | HsmUnavailable | LogNotSealed | StoreUnavailable | Unavailable)


def send(
    method: Method[Any, Response],
    request: Any,
    *,
    policy: RetryPolicy,
    retried: Callable[[Exception], bool] = is_retried,
    deadline: float,
    monotonic: Callable[[], float],
) -> Operation[Response]:
    """Calls `method` until it succeeds, fails for good, or the next wait would pass `deadline`.

    A repetition sends the same message. Raises what the last attempt raised: it says more than a deadline would.
    """
    number = 1
    while True:
        try:
            answer: Response = yield Send(method, request, max(deadline - monotonic(), 0.0))
        except TrienError as error:
            if number >= policy.attempts or not retried(error):
                raise
            number += 1
            retry_after = error.retry_after if isinstance(error, Refusal) else None
            wait = policy.wait_before(number, retry_after, random.random())  # noqa: S311 - jitter, no secret
            if monotonic() + wait >= deadline:
                raise
        else:
            return answer
        yield Pause(wait)
