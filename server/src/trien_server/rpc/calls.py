"""What every call goes through: identity, deadline, and one way for errors to leave."""

import traceback
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc
from google.rpc import status_pb2
from grpc_status import rpc_status

from trien_server.core.errors import Refusal, Unauthenticated
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import Principal
from trien_server.rpc.status import internal_status, status_of
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id

M = TypeVar("M")


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """Who calls, if that is known, and why the call is refused, if it is: found out before the message was read."""

    principal: Principal | None = None
    refused: Exception | None = None


admitted_as: ContextVar[Admitted] = ContextVar("admitted_as", default=Admitted())  # noqa: B039 - it is frozen
"""Set by `Admission`. Deny by default."""


class CallLog(Protocol):
    """Writes one line a call. Never a message: `str(message)` prints one-time passwords (P12)."""

    def __call__(self, *, event: str, **fields: str | float | None) -> None: ...


class Calls:
    """Runs a method's work for an authenticated principal. May be used from any thread."""

    def __init__(self, *, clock: Clock, randomness: Randomness, log: CallLog) -> None:
        self._clock = clock
        self._randomness = randomness
        self._log = log

    def run(self, method: str, context: grpc.ServicerContext, work: Callable[[Principal, Deadline], M]) -> M:
        """Returns what `work` returns, or ends the call with the status of its refusal.

        Anything unforeseen becomes INTERNAL with a fixed text: its kind and place go to the log, its message
        does not, for it may hold what the caller sent.
        """
        request = new_id(self._randomness)
        begun = self._clock.monotonic()
        admitted = admitted_as.get()
        principal = admitted.principal
        outcome = "OK"
        status: status_pb2.Status
        where = None
        try:
            if admitted.refused is not None:
                raise admitted.refused
            if principal is None:
                raise Unauthenticated("The call was not let in.")
            return work(principal, Deadline(self._clock, context.time_remaining()))
        except Refusal as refusal:
            outcome, status = refusal.reason, status_of(refusal, request=request)
            _forget_frames(refusal)
        except Exception as fault:  # noqa: BLE001 - the edge is where everything unforeseen ends
            outcome, status = "INTERNAL", internal_status(request=request)
            where = _place(fault)
            _forget_frames(fault)
        finally:
            self._log(
                event="call",
                method=method,
                principal=None if principal is None else principal.name,
                outcome=outcome,
                request=request,
                seconds=round(self._clock.monotonic() - begun, 4),
                fault=where,
            )
        context.abort_with_status(rpc_status.to_status(status))
        raise AssertionError("abort returns by raising")


def _forget_frames(fault: BaseException) -> None:
    """Drops the tracebacks of an exception and its causes.

    They hold frames, and so the call. Where a frame holds its exception too, only the garbage collector would
    free the call, and gRPC refuses new calls on a connection while too many old ones are not freed.
    """
    current: BaseException | None = fault
    while current is not None:
        current.__traceback__ = None
        current = current.__cause__ or current.__context__


def _place(fault: BaseException) -> str:
    """Returns the kinds of an exception and its causes, and where they were raised: no message."""
    lines = []
    current: BaseException | None = fault
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)
        where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
        lines.append(f"{type(current).__module__}.{type(current).__qualname__} at {where}")
        current = current.__cause__ or current.__context__
    return " | ".join(lines)
