"""What an operation of the SDK consists of, apart from who carries it out.

An operation is a generator. It yields the steps for which it needs the world: a call, a pause, a question to the
application's own code. What came of a step is sent back into it. `Transport` carries steps out by blocking,
`AsyncTransport` by awaiting; what is asked, checked and tried again is said once, in the operations.
"""

from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)
T = TypeVar("T")


class Method(Protocol[Request, Response]):
    """A unary method of a stub; that of an asynchronous channel answers with something to await."""

    def __call__(
        self, request: Request, /, *, timeout: float | None, metadata: tuple[tuple[str, str | bytes], ...]
    ) -> Response: ...


@dataclass(frozen=True)
class Send:
    """Call `method` once, for at most `seconds`; it fails with the SDK's errors only."""

    method: Method[Any, Any]
    request: Any = field(repr=False)
    seconds: float


@dataclass(frozen=True)
class Pause:
    """Do nothing for `seconds`."""

    seconds: float


@dataclass(frozen=True)
class Consult:
    """Call the application's own code."""

    function: Callable[[Any], Any]
    argument: Any


Step: TypeAlias = Send | Pause | Consult
Operation: TypeAlias = Generator[Step, Any, T]


def run(operation: Operation[T], carry_out: Callable[[Step], Any]) -> T:
    """Runs `operation` to its end; returns what it returns, raises what it raises."""
    try:
        step = next(operation)
        while True:
            try:
                outcome = carry_out(step)
            except Exception as error:  # noqa: BLE001 - the operation decides what becomes of it
                step = operation.throw(error)
            else:
                step = operation.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        operation.close()


async def run_async(operation: Operation[T], carry_out: Callable[[Step], Awaitable[Any]]) -> T:
    """Does what `run` does, by awaiting. When it is cancelled, the operation ends where it is."""
    try:
        step = next(operation)
        while True:
            try:
                outcome = await carry_out(step)
            except Exception as error:  # noqa: BLE001 - the operation decides what becomes of it
                step = operation.throw(error)
            else:
                step = operation.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        operation.close()
