"""The asynchronous gRPC channel."""

import asyncio
import inspect
from typing import Any

import grpc

from trien_client._errors import Unavailable
from trien_client._status import error_of
from trien_client._steps import Consult, Operation, Pause, Send, Step, T, run_async
from trien_client._transport import OPTIONS, Endpoint


class AsyncTransport:
    """One channel to one server, of the event loop that runs when it is made."""

    def __init__(self, endpoint: Endpoint) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("an AsyncClient belongs to an event loop: make it inside asynchronous code") from None
        self.endpoint = endpoint
        self.channel = grpc.aio.secure_channel(endpoint.address, endpoint.credentials, options=OPTIONS)

    async def run(self, operation: Operation[T]) -> T:
        """Runs `operation` to its end."""
        return await run_async(operation, self._carry_out)

    async def _carry_out(self, step: Step) -> Any:
        match step:
            case Send():
                return await self._send(step)
            case Pause(seconds):
                return await asyncio.sleep(seconds)
            case Consult(function, argument):
                answer = function(argument)
                return await answer if inspect.isawaitable(answer) else answer

    async def _send(self, step: Send) -> Any:
        try:
            return await step.method(step.request, timeout=step.seconds, metadata=self.endpoint.metadata)
        except grpc.RpcError as failure:
            # "from None": the cause prints the call's details, which are the server's and not checked.
            raise error_of(failure, address=self.endpoint.address) from None
        except grpc.aio.UsageError:
            raise Unavailable("The client is closed.", code="CANCELLED") from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody cancelled this task: it is gRPC's way to say that the channel was closed or the server stops.
            raise Unavailable(f"The call to {self.endpoint.address} was ended.", code="CANCELLED") from None

    async def close(self) -> None:
        """Closes the channel; calls that are under way fail."""
        await self.channel.close()
