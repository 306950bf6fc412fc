"""The gRPC server: two ports, limits, health, and a stop that loses no call."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from trien.v1 import (
    access_service_pb2,
    audit_service_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    proposal_service_pb2,
    signer_service_pb2,
    signing_service_pb2,
)

from trien_server.core.tls import TlsIdentity
from trien_server.rpc.admission import Admission
from trien_server.rpc.health import Health
from trien_server.rpc.tls import PortCertificate

_LARGEST_ANSWER = 2 * 1024 * 1024
"""A proposal's statement has up to 1 MiB (services/proposals.py), also where requests have to be smaller."""
_OUTCOME_SECONDS = 5.0
"""How long a stop waits for calls that were cancelled when their time was over."""

SERVICES: tuple[str, ...] = tuple(
    service.full_name
    for module in (
        signing_service_pb2,
        authorization_service_pb2,
        credential_service_pb2,
        key_service_pb2,
        signer_service_pb2,
        organization_service_pb2,
        access_service_pb2,
        proposal_service_pb2,
        audit_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The full names of Trien's services."""
HEALTH = "grpc.health.v1.Health"
MOST_CONNECTIONS = 2_000
PORTS = 2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server process takes on. Sizes in bytes, times in seconds."""

    threads: int
    concurrent_calls: int
    message_size: int
    metadata_size: int = 16 * 1024
    streams_per_connection: int = 128
    connections: int = MOST_CONNECTIONS
    """Of each of the two ports."""
    connection_age: int = 3_600
    connection_idle: int = 300
    handshake: int = 10


class GrpcServer:
    """One process's gRPC server.

    The same services answer on two ports, for grpcio cannot ask for a certificate without demanding one:
    `certificate_address` demands a client certificate, `token_address` takes bearer tokens.
    """

    def __init__(
        self,
        *,
        register: Iterable[Callable[[grpc.Server], None]],
        admission: Admission,
        tls: TlsIdentity,
        limits: Limits,
        token_address: str,
        certificate_address: str,
        reflect: bool,
        shared_ports: bool,
    ) -> None:
        """Binds both ports, together with other processes when `shared_ports`. Raises `OSError` when one is taken."""
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="rpc")
        self._server = grpc.server(
            self._pool,
            interceptors=[admission],
            options=_options(limits, shared_ports=shared_ports),
            maximum_concurrent_rpcs=limits.concurrent_calls,
        )
        self._admission = admission
        self._health = Health(SERVICES)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for add in register:
            add(self._server)
        if reflect:
            names = (*SERVICES, HEALTH, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        token, certificate = PortCertificate(tls, demand=False), PortCertificate(tls, demand=True)
        self._certificates = (token, certificate)
        self.token_port = self._bind(token_address, token.credentials)
        self.certificate_port = self._bind(certificate_address, certificate.credentials)
        self.set_serving(False)

    def _bind(self, address: str, credentials: grpc.ServerCredentials) -> int:
        try:
            port = self._server.add_secure_port(address, credentials)
        except RuntimeError as fault:
            raise OSError(f"cannot listen on {address}: is the port taken?") from fault
        if port == 0:
            raise OSError(f"cannot listen on {address}: is the port taken?")
        return port

    def replace_tls(self, tls: TlsIdentity) -> None:
        """Makes new connections with another identity, which was checked. Those that are there stay."""
        for certificate in self._certificates:
            certificate.replace(tls)

    def start(self) -> None:
        """Begins to answer; health says NOT_SERVING until `set_serving`."""
        self._server.start()

    def set_serving(self, serving: bool) -> None:
        """Says by the standard health service whether calls can be answered now."""
        self._health.set_serving(serving)

    def stop(self, *, drain: float, grace: float) -> None:
        """Says NOT_SERVING, goes on answering for `drain` seconds, takes no new call, and finishes for `grace`."""
        self._health.stop()
        threading.Event().wait(drain)
        self._server.stop(grace).wait()
        self._admission.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)
        # What was cancelled above may be about to write its outcome; a call that hangs in the token never ends.
        finishing = threading.Thread(target=self._pool.shutdown, daemon=True)
        finishing.start()
        finishing.join(_OUTCOME_SECONDS)


def _options(limits: Limits, *, shared_ports: bool) -> list[tuple[str, int]]:
    return [
        # A second server on the same port has to fail, not to share it silently. With several workers the parent
        # process has reserved the ports, and saw that nobody else has them.
        ("grpc.so_reuseport", int(shared_ports)),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.max_receive_message_length", limits.message_size),
        ("grpc.max_send_message_length", max(limits.message_size, _LARGEST_ANSWER)),
        ("grpc.max_metadata_size", limits.metadata_size),
        ("grpc.max_connection_age_ms", limits.connection_age * 1000),
        ("grpc.max_connection_age_grace_ms", 120_000),
        ("grpc.max_connection_idle_ms", limits.connection_idle * 1000),
        ("grpc.server_handshake_timeout_ms", limits.handshake * 1000),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.max_ping_strikes", 3),
        # Calls that no thread took in yet. Those whose headers are too large wait here too, with all that was read of
        # them: by default up to 3,000, 75 MB a connection that sends nothing else. From the first of the two on some
        # are cancelled at random, from the second on all.
        ("grpc.server.max_pending_requests", limits.concurrent_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * limits.concurrent_calls),
    ]
