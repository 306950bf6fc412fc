"""Turns a failed gRPC call into the SDK's error: the one place that knows status codes."""

from collections.abc import Iterable
from datetime import timedelta

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from trien_client._errors import (
    REFUSALS,
    DeadlineExceeded,
    MessageTooLarge,
    Refusal,
    ServerNotTrusted,
    TransportError,
    TrienError,
    Unavailable,
)

_DOMAIN = "trien"
_DETAILS_KEY = "grpc-status-details-bin"
_HANDSHAKE_MARKS = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "hostname verification")


def error_of(failure: grpc.RpcError, *, address: str) -> TrienError:
    """Returns what to raise for `failure` of a call to `address`."""
    if not isinstance(failure, grpc.Call | grpc.aio.AioRpcError):
        return TransportError("The call failed before it was sent.")
    return refusal_of(failure.trailing_metadata() or (), failure.details() or "") or _transport_error(
        failure.code(), failure.details() or "", address
    )


def refusal_of(metadata: Iterable[tuple[str, str | bytes]], message: str) -> Refusal | None:
    """Returns the refusal in the trailing metadata (AIP-193); None when there is none of Trien's."""
    encoded = next((value for key, value in metadata if key == _DETAILS_KEY), None)
    if not isinstance(encoded, bytes):
        return None
    status = status_pb2.Status()
    info: error_details_pb2.ErrorInfo | None = None
    retry_after: timedelta | None = None
    try:
        status.ParseFromString(encoded)
        for detail in status.details:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry = error_details_pb2.RetryInfo()
                detail.Unpack(retry)
                retry_after = retry.retry_delay.ToTimedelta()
    except (DecodeError, OverflowError):
        return None
    if info is None or info.domain != _DOMAIN:
        return None
    return REFUSALS.get(info.reason, Refusal)(
        status.message or message, reason=info.reason, metadata=dict(info.metadata), retry_after=retry_after
    )


def _transport_error(code: grpc.StatusCode | None, details: str, address: str) -> TransportError:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"No answer from {address} in time.", code=code.name)
    if code is grpc.StatusCode.UNAVAILABLE:
        if any(mark in details for mark in _HANDSHAKE_MARKS):
            return ServerNotTrusted(
                f"The server at {address} showed a TLS certificate that the configured CA did not issue for this name.",
                code=code.name,
            )
        return Unavailable(f"No connection to {address}, or it was lost.", code=code.name)
    if code is grpc.StatusCode.CANCELLED:
        # The SDK cancels nothing: it is a call that reached a server in the moment when it stops.
        return Unavailable(f"The server at {address} ended the call: it stops.", code=code.name)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return MessageTooLarge("The message is larger than the server takes, or it has no room now.", code=code.name)
    name = "UNKNOWN" if code is None else code.name
    return TransportError(f"The call to {address} failed with {name}.", code=name)
