"""The gRPC channel: TLS only, bounded in time and size."""

import os
import re
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc

from trien_client._secret import Secret
from trien_client._status import error_of
from trien_client._steps import Consult, Method, Operation, Pause, Response, Send, Step, T, run

FileSource = bytes | str | os.PathLike[str]
"""The content as bytes, or the path of the file that has it."""

_LARGEST_ANSWER = 80 * 1024 * 1024
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):[0-9]{1,5}", re.ASCII)

OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _LARGEST_ANSWER),
    # Notices within 40 seconds that a mobile network lost the connection in the middle of a call. Idle connections are
    # not pinged: that empties batteries, and servers punish it.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # The SDK tries again by itself, because it knows what is safe to repeat.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]


def read(source: FileSource) -> bytes:
    """Returns the bytes of `source`."""
    if isinstance(source, bytes):
        return source
    with open(source, "rb") as file:
        return file.read()


@dataclass(frozen=True)
class Endpoint:
    """Where the server is, how it is known, and who calls. Only files are read; nothing is connected."""

    address: str
    credentials: grpc.ChannelCredentials = field(repr=False)
    metadata: tuple[tuple[str, str | bytes], ...] = field(repr=False)

    @classmethod
    def of(
        cls,
        address: str,
        *,
        ca_certificates: FileSource,
        token: str | Secret | None,
        certificate: FileSource | None,
        key: FileSource | None,
    ) -> Self:
        """Returns the endpoint. Raises `ValueError` for what cannot be one."""
        if _ADDRESS.fullmatch(address) is None:
            raise ValueError(f"expected an address such as sign.example.vn:8443, not {address!r}")
        if (certificate is None) != (key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate")
        if (token is None) == (certificate is None):
            raise ValueError("pass either token= or certificate= and key=: it says who calls")
        text = token.reveal() if isinstance(token, Secret) else token
        # gRPC would repeat a token that it cannot send in its own error.
        if text is not None and _TOKEN.fullmatch(text) is None:
            raise ValueError("the token is empty or has characters that no token has")
        roots = read(ca_certificates)
        if b"-----BEGIN CERTIFICATE-----" not in roots:
            raise ValueError("ca_certificates holds no certificate in PEM")
        return cls(
            address,
            grpc.ssl_channel_credentials(
                root_certificates=roots,
                private_key=None if key is None else read(key),
                certificate_chain=None if certificate is None else read(certificate),
            ),
            () if text is None else (("authorization", f"Bearer {text}"),),
        )


class Transport:
    """One channel to one server. Its steps block the thread that takes them."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.channel = grpc.secure_channel(endpoint.address, endpoint.credentials, options=OPTIONS)

    def run(self, operation: Operation[T]) -> T:
        """Runs `operation` to its end."""
        return run(operation, self._carry_out)

    def _carry_out(self, step: Step) -> Any:
        match step:
            case Send(method, request, seconds):
                try:
                    return method(request, timeout=seconds, metadata=self.endpoint.metadata)
                except grpc.RpcError as failure:
                    # "from None": the cause prints the call's details, which are the server's and not checked.
                    raise error_of(failure, address=self.endpoint.address) from None
            case Pause(seconds):
                return time.sleep(seconds)
            case Consult(function, argument):
                return function(argument)

    def call(self, method: Method[Any, Response], request: Any, *, timeout: float) -> Response:
        """Calls `method` once. Raises the SDK's errors only."""
        answer: Response = self._carry_out(Send(method, request, timeout))
        return answer

    def close(self) -> None:
        """Closes the channel; calls that are under way fail."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
