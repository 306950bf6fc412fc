"""The standard health service (grpc.health.v1), `Check` alone.

`Watch` is not served: grpcio's own servicer sends to every watcher under one lock, so that a single watcher that does
not read would hold up every probe and the server's stop.
"""

import threading
from collections.abc import Iterable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers for the whole server ("") and for each service by its full name."""

    def __init__(self, services: Iterable[str]) -> None:
        self._names = frozenset(["", *services])
        self._lock = threading.Lock()
        self._serving = False
        self._over = False

    def set_serving(self, serving: bool) -> None:
        """Says whether calls can be answered now; after `stop` it stays with no."""
        with self._lock:
            self._serving = serving and not self._over

    def stop(self) -> None:
        """Says NOT_SERVING for good."""
        with self._lock:
            self._serving, self._over = False, True

    def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no such service")
        return health_pb2.HealthCheckResponse(status=_SERVING if self._serving else _NOT_SERVING)
