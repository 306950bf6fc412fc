"""Bytes that are no message."""

from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from trien_server.core.errors import InvalidArgument
from trien_server.core.principal import Principal
from trien_server.rpc.calls import Calls
from trien_server.services.deadline import Deadline

_MALFORMED = object()


class RefuseMalformed(grpc.ServerInterceptor):
    """Answers them with INVALID_ARGUMENT; by itself gRPC says INTERNAL and writes a stack trace."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Returns the handler, with a parser that does not fail."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or handler.request_deserializer is None:
            return handler
        parse, answer = handler.request_deserializer, handler.unary_unary
        method = handler_call_details.method.rpartition("/")[2]

        def parse_or_mark(content: bytes) -> Any:
            try:
                return parse(content)
            except DecodeError:
                return _MALFORMED

        def answer_or_refuse(request: Any, context: grpc.ServicerContext) -> Any:
            return self._calls.run(method, context, _refuse) if request is _MALFORMED else answer(request, context)

        return grpc.unary_unary_rpc_method_handler(answer_or_refuse, parse_or_mark, handler.response_serializer)


def _refuse(_: Principal, __: Deadline) -> None:
    raise InvalidArgument("request", "these bytes are no message of the method's type")
