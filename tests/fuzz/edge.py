"""The gRPC edge without a network: every servicer behind `Admission`, called with raw bytes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.fakes.clock import ManualClock
from tests.support.world import World, operators

from trien_server.core.secret import Secret
from trien_server.host.randomness import SystemRandomness
from trien_server.rpc.server import Limits, TlsIdentity
from trien_server.services.authenticate import hash_token
from trien_server.wiring import edges


class Aborted(Exception):  # noqa: N818
    """What `context.abort` raises."""


class Context:
    """A call's context, of a caller with a token or a certificate."""

    def __init__(self, *, token: str | None = None, certificate: bytes | None = None) -> None:
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        self._certificate = certificate
        self.status: Any = None

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def auth_context(self) -> dict[str, list[bytes]]:
        return {} if self._certificate is None else {"x509_pem_cert": [self._certificate]}

    def time_remaining(self) -> float:
        return 30.0

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def cancel(self) -> None:
        raise AssertionError("the call was cancelled")

    def abort_with_status(self, status: Any) -> None:
        self.status = status
        raise Aborted

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise AssertionError(f"ended without a reason: {code} {details}")


@dataclass(frozen=True)
class Answered:
    """OK or a reason, with the status code, and whether the log says that something unforeseen happened."""

    reason: str
    code: grpc.StatusCode
    text: str = ""
    metadata: dict[str, str] | None = None
    faults: tuple[str, ...] = ()


class Edge:
    """Takes the place of `GrpcServer`: keeps the handlers."""

    def __init__(self, world: World, token: str, operator: bytes) -> None:
        self.world = world
        self.token = token
        self.operator = operator
        self.handlers: dict[str, Any] = {}
        self.admission: Any = None
        self.log: list[dict[str, Any]] = []

    def take(self, *, register: list[Callable[[Any], None]], admission: Any, **_: object) -> "Edge":
        self.admission = admission
        for add in register:
            add(self)
        return self

    def add_generic_rpc_handlers(self, _: object) -> None:
        """Is what older generated code calls too; `add_registered_method_handlers` says the same."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers |= {f"/{service}/{method}": handler for method, handler in handlers.items()}

    def call(self, method: MethodDescriptor, content: bytes, *, as_operator: bool) -> Answered:
        """Sends one message's bytes, and returns how it was answered."""
        path = f"/{method.containing_service.full_name}/{method.name}"
        served = self.admission.intercept_service(
            lambda _: self.handlers[path], SimpleNamespace(method=path, invocation_metadata=())
        )
        context = Context(certificate=self.operator) if as_operator else Context(token=self.token)
        self.log.clear()
        try:
            answer = served.stream_unary(iter([content]), context)
            served.response_serializer(answer)
        except Aborted:
            return self._refused(context.status)
        return Answered("OK", grpc.StatusCode.OK, faults=self._faults())

    def _refused(self, status: Any) -> Answered:
        reason, metadata = "", {}
        for detail in rpc_status.from_call(_Call(status)).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
        return Answered(reason, status.code, status.details, metadata, self._faults())

    def _faults(self) -> tuple[str, ...]:
        return tuple(str(line["fault"]) for line in self.log if line.get("fault"))


class _Call:
    """What `rpc_status.from_call` reads."""

    def __init__(self, status: Any) -> None:
        self.code = lambda: status.code
        self.details = lambda: status.details
        self.trailing_metadata = lambda: status.trailing_metadata


def open_edge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    """Builds the real servicers over fakes, as `wiring` does, with an operator who shows a certificate."""
    world = World(clock=ManualClock()).populate()
    world.use.wait_authorization.stop()  # a clock that stands still would let it wait for ever
    edge = Edge(world, world.tokens["clients/office"], operators()["second"].certificate)
    monkeypatch.setattr(edges, "GrpcServer", edge.take)
    edges.build_grpc_server(
        world.use,
        clock=world.clock,
        randomness=SystemRandomness(),
        log=lambda **line: edge.log.append(line),
        tls=TlsIdentity(certificate_chain=b"", private_key=b"", client_ca=b""),
        limits=Limits(threads=8, concurrent_calls=8, message_size=1 << 23),
        token_address="",
        certificate_address="",
        reflect=False,
    )
    yield edge
    edge.admission.stop()


def _fingerprint(encoded: bytes) -> bytes:
    return hash_token(Secret(encoded))
