"""The gRPC channel: TLS only, bounded in time and size."""

import os
import re
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc

from trien_client._retry import NO_RETRY, RetryPolicy, call_with_retries
from trien_client._secret import Secret
from trien_client._status import error_of

Request = TypeVar("Request", contravariant=True)
Response = TypeVar("Response", covariant=True)

FileSource = bytes | str | os.PathLike[str]
"""The content as bytes, or the path of the file that has it."""

_LARGEST_ANSWER = 80 * 1024 * 1024
_TOKEN = re.compile(r"[!-~]+", re.ASCII)
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]@]+):[0-9]{1,5}", re.ASCII)

_OPTIONS: list[tuple[str, int]] = [
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


class Method(Protocol[Request, Response]):
    """A unary method of a stub."""

    def __call__(
        self, request: Request, /, *, timeout: float | None, metadata: tuple[tuple[str, str | bytes], ...]
    ) -> Response: ...


def read(source: FileSource) -> bytes:
    """Returns the bytes of `source`."""
    if isinstance(source, bytes):
        return source
    with open(source, "rb") as file:
        return file.read()


class Transport:
    """One channel to one server, and who calls on it."""

    def __init__(
        self,
        address: str,
        *,
        ca_certificates: FileSource,
        token: Secret | None,
        certificate: FileSource | None,
        key: FileSource | None,
        retries: RetryPolicy,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if _ADDRESS.fullmatch(address) is None:
            raise ValueError(f"expected an address such as sign.example.vn:8443, not {address!r}")
        if (certificate is None) != (key is None):
            raise ValueError("a client certificate needs its key, and a key its certificate")
        if (token is None) == (certificate is None):
            raise ValueError("pass either token= or certificate= and key=: it says who calls")
        # gRPC would repeat a token that it cannot send in its own error.
        if token is not None and _TOKEN.fullmatch(token.reveal()) is None:
            raise ValueError("the token is empty or has characters that no token has")
        roots = read(ca_certificates)
        if b"-----BEGIN CERTIFICATE-----" not in roots:
            raise ValueError("ca_certificates holds no certificate in PEM")
        self.address = address
        self.retries = retries
        self._token = token
        self._monotonic = monotonic
        self._sleep = sleep
        credentials = grpc.ssl_channel_credentials(
            root_certificates=roots,
            private_key=None if key is None else read(key),
            certificate_chain=None if certificate is None else read(certificate),
        )
        self.channel = grpc.secure_channel(address, credentials, options=_OPTIONS)

    def deadline(self, timeout: float) -> float:
        """Returns the moment that is `timeout` seconds from now, on this transport's clock."""
        return self._monotonic() + timeout

    def call(
        self, method: Method[Request, Response], request: Request, *, deadline: float, repeatable: bool
    ) -> Response:
        """Calls `method` with `request`, before `deadline`; more than once only when it is `repeatable`.

        A repetition sends the same bytes. Raises the SDK's errors only.
        """
        metadata = () if self._token is None else (("authorization", f"Bearer {self._token.reveal()}"),)

        def attempt(remaining: float) -> Response:
            try:
                return method(request, timeout=remaining, metadata=metadata)
            except grpc.RpcError as failure:
                # "from None": the cause prints the call's details, which are the server's and not checked.
                raise error_of(failure, address=self.address) from None

        return call_with_retries(
            attempt,
            policy=self.retries if repeatable else NO_RETRY,
            deadline=deadline,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )

    def close(self) -> None:
        """Closes the channel; calls that are under way fail."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
