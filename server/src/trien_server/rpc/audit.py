"""AuditService at the gRPC edge."""

from trien.v1 import audit_service_pb2_grpc

from trien_server.rpc.calls import Calls


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Translates between messages and use cases; holds no rule."""

    def __init__(self, *, calls: Calls) -> None:
        self._calls = calls
