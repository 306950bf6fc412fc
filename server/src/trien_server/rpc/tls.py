"""TLS of one port, with a certificate that can be replaced while the server runs."""

import threading

import grpc

from trien_server.core.tls import TlsIdentity


class PortCertificate:
    """What new connections of one port are made with. May be replaced from any thread.

    gRPC asks at each handshake whether there is something new; connections that are there stay as they are.
    """

    def __init__(self, identity: TlsIdentity, *, demand: bool) -> None:
        """`demand` says whether callers have to show a certificate of one of the client CAs."""
        self._demand = demand
        self._lock = threading.Lock()
        self._next: TlsIdentity | None = None
        self.credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(identity),
            self._fetch,  # type: ignore[arg-type]  # the types say that it never returns None; gRPC's manual that it may
            require_client_authentication=demand,
        )

    def replace(self, identity: TlsIdentity) -> None:
        """Makes the connections that begin from now on with another identity, which was checked."""
        with self._lock:
            self._next = identity

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Returns what is new since the last handshake, or None."""
        with self._lock:
            identity, self._next = self._next, None
        return None if identity is None else self._configuration(identity)

    def _configuration(self, identity: TlsIdentity) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(identity.private_key, identity.certificate_chain)],
            root_certificates=identity.client_ca if self._demand else None,
        )
