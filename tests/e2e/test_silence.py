"""Callers that open calls and say nothing hold nobody else up (P8)."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.administration import Connection, Refused, e_office
from tests.support.sandbox import running_sandbox
from trien.v1 import credential_service_pb2

pytestmark = pytest.mark.promise("P8")

LIST = "/trien.v1.CredentialService/ListCredentials"
CHECK = "/grpc.health.v1.Health/Check"
SILENT = 64


class SilentCalls:
    """Calls whose headers are sent and whose message never comes."""

    def __init__(self, channel: grpc.Channel, method: str, metadata: tuple[tuple[str, str], ...]) -> None:
        self._ended = threading.Event()
        open_call: Any = channel.stream_unary(method)
        self.calls = [open_call.future(self._nothing(), metadata=metadata, timeout=60) for _ in range(SILENT)]

    def _nothing(self) -> Iterator[bytes]:
        self._ended.wait(60)
        yield from ()

    def codes(self, seconds: float) -> Counter[str]:
        """Returns how the calls ended within `seconds`; OPEN for those that did not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not all(call.done() for call in self.calls):
            time.sleep(0.05)
        return Counter(call.code().name if call.done() else "OPEN" for call in self.calls)

    def end(self) -> None:
        self._ended.set()
        for call in self.calls:
            call.cancel()


def serves_again(honest: Connection, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            return honest.serving()
        except Refused as refused:
            if refused.code is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > end:
                raise
            time.sleep(0.1)


WATCH = "/grpc.health.v1.Health/Watch"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def test_streams_without_identity_hold_nobody_up(tmp_path: Path) -> None:
    """`Watch` is not served, and reflection ends those who say nothing."""
    with (
        running_sandbox(tmp_path / "installation", "server.reflection=true") as installation,
        e_office(installation) as honest,
    ):
        roots = grpc.ssl_channel_credentials((installation.directory / "tls" / "ca.pem").read_bytes())
        answered = 0
        for method, expected in (
            (WATCH, {"UNIMPLEMENTED"}),
            (REFLECT, {"RESOURCE_EXHAUSTED", "CANCELLED", "UNKNOWN"}),
        ):
            with grpc.secure_channel(installation.address, roots) as channel:
                open_call: Any = channel.stream_stream(method)
                ended = threading.Event()

                def nothing(ended: threading.Event = ended) -> Iterator[bytes]:
                    ended.wait(60)
                    yield from ()

                calls = [open_call(nothing(), timeout=60) for _ in range(SILENT)]
                time.sleep(0.5)
                request = credential_service_pb2.ListCredentialsRequest()
                assert honest.call(honest.credentials.ListCredentials, request, timeout=10).credentials
                codes = Counter(call.code().name for call in calls)  # waits for each to end
                ended.set()
            assert set(codes) <= expected, codes
            answered += sum(codes.values())
        assert answered == 2 * SILENT
        # The server hears a moment later than the callers that their calls have ended.
        assert serves_again(honest)


def test_silent_callers_of_every_kind_leave_the_others_their_threads(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "installation") as installation, e_office(installation) as honest:
        request = credential_service_pb2.ListCredentialsRequest()
        token = installation.population["client"]["token"]
        known = (("authorization", f"Bearer {token}"),)
        answered = 0
        for method, metadata, expected in (
            (LIST, (), {"UNAUTHENTICATED"}),
            (CHECK, (), {"RESOURCE_EXHAUSTED", "CANCELLED", "UNKNOWN"}),
            (LIST, known, {"UNAVAILABLE", "CANCELLED", "UNKNOWN"}),
        ):
            roots = grpc.ssl_channel_credentials((installation.directory / "tls" / "ca.pem").read_bytes())
            with grpc.secure_channel(installation.address, roots) as channel:
                silent = SilentCalls(channel, method, metadata)
                time.sleep(0.5)
                if metadata:
                    # The silent ones have the token's share; somebody else's calls are answered meanwhile.
                    assert honest.serving()
                else:
                    assert honest.call(honest.credentials.ListCredentials, request, timeout=10).credentials
                answered += 1
                codes = silent.codes(seconds=20)
                silent.end()
            assert set(codes) <= expected, codes
            assert sum(codes.values()) == SILENT
        assert honest.call(honest.credentials.ListCredentials, request, timeout=10).credentials
        assert answered == 3
