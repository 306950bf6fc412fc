"""Lets a call in before its message is read: who calls comes first, and nobody holds a thread by saying nothing.

grpcio reads a unary call's message in a thread of the server's pool, as long as the caller likes. So every unary
method is served as one that reads a stream of one message: here the caller is identified from the metadata, its share
of the threads is counted, and a message that does not come in time ends the call.
"""

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from itertools import count
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from trien_server.core.errors import Busy, InvalidArgument
from trien_server.core.ports import Clock
from trien_server.rpc.calls import Admitted, admitted_as
from trien_server.rpc.identity import Identify
from trien_server.services.client_rates import ClientRates

MESSAGE_SECONDS = 5.0
"""How long a caller may take to send its message once the call is open."""
OPEN_MESSAGE_SECONDS = 2.0
"""The same for callers that show no identity: health and reflection."""
OPEN_CALLS = 8
"""How many of these are at work at once, of one host half."""
OPEN_MESSAGES = 100
"""How many messages a call of reflection may send."""


class Admission(grpc.ServerInterceptor):
    """Serves unary methods only to those who show who they are, in time, and within their share of the threads."""

    def __init__(self, *, identify: Identify, rates: ClientRates, clock: Clock, threads: int) -> None:
        self._identify = identify
        self._rates = rates
        self._watch = MessageWatch(clock=clock)
        self._most_of_one = max(1, threads // 2)
        self._at_work: Counter[str] = Counter()
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Ends the thread that watches for messages."""
        self._watch.stop()

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Returns the method's handler, read as a stream of one message when it is unary."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        if handler.request_streaming and handler.response_streaming:
            return self._limited_stream(handler)
        if handler.request_streaming or handler.response_streaming:
            return None  # no such method is served: the answer is UNIMPLEMENTED
        needs_identity = handler_call_details.method.startswith("/trien.v1.")
        serve = self._serve_known if needs_identity else self._serve_open

        def behaviour(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            return serve(handler, messages, context)

        return grpc.stream_unary_rpc_method_handler(
            behaviour, request_deserializer=None, response_serializer=handler.response_serializer
        )

    def _serve_known(self, handler: Any, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        request = None
        principal = refused = None
        with ExitStack() as held:
            try:
                principal = self._identify(context)
                self._rates.take_call(principal)
                held.enter_context(self._share(principal.name))
                request = self._read(handler, messages, context, MESSAGE_SECONDS)
            except grpc.RpcError:
                raise  # the caller is gone, or was too slow
            except Exception as fault:  # noqa: BLE001 - `Calls` answers it, without looking at a message
                refused = fault
            return self._run(handler, request, context, Admitted(principal=principal, refused=refused))

    def _serve_open(self, handler: Any, messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        with self._open_place(context):
            try:
                request = self._read(handler, messages, context, OPEN_MESSAGE_SECONDS)
            except InvalidArgument as refusal:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal.message)
            return handler.unary_unary(request, context)

    def _limited_stream(self, handler: Any) -> Any:
        """Returns reflection's handler with a limit on how long each message may take, and how many there are."""

        def behaviour(messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            def limited() -> Iterator[Any]:
                for _ in range(OPEN_MESSAGES):
                    with self._watch.limit(context, OPEN_MESSAGE_SECONDS):
                        message = next(messages, None)
                    if message is None:
                        return
                    yield message

            with self._open_place(context):
                yield from handler.stream_stream(limited(), context)

        return grpc.stream_stream_rpc_method_handler(
            behaviour, handler.request_deserializer, handler.response_serializer
        )

    @contextmanager
    def _open_place(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Counts the calls without identity, by host. Ends the call when there is no place."""
        host = context.peer().rpartition(":")[0]
        with self._lock:
            free = self._open.total() < OPEN_CALLS and self._open[host] < OPEN_CALLS // 2
            self._open[host] += free
        if not free:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls without identity at once")
        try:
            yield
        finally:
            with self._lock:
                self._open[host] -= 1
                if not self._open[host]:
                    del self._open[host]

    def _read(self, handler: Any, messages: Iterator[bytes], context: grpc.ServicerContext, seconds: float) -> Any:
        """Returns the call's message. Raises `InvalidArgument` when there is none or it is of another type."""
        with self._watch.limit(context, seconds):
            raw = next(messages, None)
        if raw is None:
            raise InvalidArgument("request", "the call ended without a message")
        try:
            return handler.request_deserializer(raw)
        except DecodeError:
            raise InvalidArgument("request", "these bytes are no message of the method's type") from None

    @staticmethod
    def _run(handler: Any, request: Any, context: grpc.ServicerContext, admitted: Admitted) -> Any:
        token = admitted_as.set(admitted)
        try:
            return handler.unary_unary(request, context)
        finally:
            admitted_as.reset(token)

    @contextmanager
    def _share(self, name: str) -> Iterator[None]:
        """Counts a principal's calls. Raises `Busy` when it has its share of the threads."""
        with self._lock:
            if self._at_work[name] >= self._most_of_one:
                raise Busy("You have as many calls at work as one caller may.", retry_after=timedelta(seconds=1))
            self._at_work[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._at_work[name] -= 1
                if not self._at_work[name]:
                    del self._at_work[name]


class MessageWatch:
    """Cancels calls whose message does not come in time: one thread for all of them."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._numbers = count()
        self._ends: list[tuple[float, int]] = []
        self._waiting: dict[int, grpc.ServicerContext] = {}
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="message-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    @contextmanager
    def limit(self, context: grpc.ServicerContext, seconds: float) -> Iterator[None]:
        """Cancels the call unless the block ends in time."""
        number = next(self._numbers)
        with self._changed:
            self._waiting[number] = context
            heapq.heappush(self._ends, (self._clock.monotonic() + seconds, number))
            if self._ends[0][1] == number:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._waiting.pop(number, None)

    def _run(self) -> None:
        with self._changed:
            while not self._stopped:
                while self._ends and self._ends[0][1] not in self._waiting:
                    heapq.heappop(self._ends)
                now = self._clock.monotonic()
                if self._ends and self._ends[0][0] <= now:
                    _, number = heapq.heappop(self._ends)
                    self._waiting.pop(number).cancel()
                    continue
                self._changed.wait(self._ends[0][0] - now if self._ends else None)
