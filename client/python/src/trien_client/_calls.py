"""How long calls may take, and whether they are tried again."""

import time
import uuid
from collections.abc import Callable
from typing import Any

from trien_client._retry import RetryPolicy, did_nothing, is_retried, send
from trien_client._steps import Method, Operation, Response

DEFAULT_TIMEOUT = 30.0


class Calls:
    """Makes the steps of calls for one client."""

    def __init__(
        self, *, retries: RetryPolicy, timeout: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._retries = retries
        self._timeout = timeout
        self.now = monotonic
        """Seconds on a clock that never goes back."""

    def deadline(self, timeout: float | None) -> float:
        """Returns the moment that is `timeout` seconds from now; None takes the client's own."""
        return self.now() + (self._timeout if timeout is None else timeout)

    def send(
        self, method: Method[Any, Response], request: Any, *, deadline: float, repeatable: bool
    ) -> Operation[Response]:
        """Calls `method` with `request`, before `deadline`.

        More than once when it is `repeatable`, and when the server said that it did nothing.
        """
        retried = is_retried if repeatable else did_nothing
        return send(method, request, policy=self._retries, retried=retried, deadline=deadline, monotonic=self.now)


def request_id_or_new(request_id: str | None) -> str:
    """Returns the request's id, or a new one."""
    return request_id or str(uuid.uuid4())
