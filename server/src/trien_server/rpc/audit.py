"""AuditService at the gRPC edge."""

import grpc
from trien.v1 import audit_service_pb2, audit_service_pb2_grpc

from trien_server.core.names import parse_name
from trien_server.core.principal import Principal
from trien_server.rpc.audit_entries import entry_out, page_out, query_in
from trien_server.rpc.calls import Calls
from trien_server.services.audit_entries import GetAuditEntry, ListAuditEntries
from trien_server.services.deadline import Deadline


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Translates between messages and use cases; holds no rule."""

    def __init__(self, *, calls: Calls, get_entry: GetAuditEntry, list_entries: ListAuditEntries) -> None:
        self._calls = calls
        self._get_entry = get_entry
        self._list_entries = list_entries

    def GetAuditEntry(  # noqa: N802 - gRPC's name
        self, request: audit_service_pb2.GetAuditEntryRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.AuditEntry:
        def work(principal: Principal, _: Deadline) -> audit_service_pb2.AuditEntry:
            return entry_out(self._get_entry(principal, parse_name("auditEntries", request.name, field="name")))

        return self._calls.run("GetAuditEntry", context, work)

    def ListAuditEntries(  # noqa: N802
        self, request: audit_service_pb2.ListAuditEntriesRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.ListAuditEntriesResponse:
        def work(principal: Principal, _: Deadline) -> audit_service_pb2.ListAuditEntriesResponse:
            return page_out(self._list_entries(principal, query_in(request)))

        return self._calls.run("ListAuditEntries", context, work)
