"""Audit entries as messages, and what a request for them asks."""

from trien.v1 import audit_service_pb2

from trien_server.core.audit_selection import Selection
from trien_server.rpc.translate import optional_time_in, time_out
from trien_server.services.audit_entries import EntryPage, ListQuery, PositionedEntry


def query_in(request: audit_service_pb2.ListAuditEntriesRequest) -> ListQuery:
    """Returns what is asked for. Raises `InvalidArgument`."""
    return ListQuery(
        selection=Selection(
            kinds=frozenset(request.kinds),
            resource=request.resource,
            start_time=optional_time_in(request, "start_time", field="request"),
            end_time=optional_time_in(request, "end_time", field="request"),
            reason=request.reason,
            digest=request.digest,
        ),
        first_position=request.first_position,
        newest_first=request.newest_first,
        size=request.page_size,
        token=request.page_token,
    )


def entry_out(found: PositionedEntry) -> audit_service_pb2.AuditEntry:
    entry = found.entry
    return audit_service_pb2.AuditEntry(
        name=entry.name,
        position=found.position,
        time=time_out(entry.time),
        kind=entry.kind,
        subject=entry.subject or "",
        subject_version=entry.subject_version or 0,
        details=entry.details,
        leaf=entry.leaf,
        head_salt=entry.head_salt,
        salt=entry.salt,
        items_root=entry.items_root,
    )


def page_out(page: EntryPage) -> audit_service_pb2.ListAuditEntriesResponse:
    return audit_service_pb2.ListAuditEntriesResponse(
        audit_entries=[entry_out(found) for found in page.entries],
        next_page_token=page.next_token,
        next_position=page.next_position,
        findings=[
            audit_service_pb2.AuditFinding(position=finding.position, audit_entry=finding.name, finding=finding.finding)
            for finding in page.findings
        ],
    )
