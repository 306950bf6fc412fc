"""AuditService at the gRPC edge."""

import grpc
from trien.v1 import audit_service_pb2, audit_service_pb2_grpc, proposal_service_pb2

from trien_server.core.names import parse_name
from trien_server.core.principal import Principal
from trien_server.rpc.audit_entries import entry_out, page_out, query_in
from trien_server.rpc.calls import Calls
from trien_server.rpc.evidence import evidence_out
from trien_server.rpc.proposals import proposal_out
from trien_server.rpc.receipts import ProofUseCases, checkpoint_out, consistency_out, log_keys_out, receipt_out
from trien_server.rpc.translate import optional_time_in
from trien_server.services.audit_entries import GetAuditEntry, ListAuditEntries
from trien_server.services.audit_erasures import EraseAuditDetails, ErasureQuery
from trien_server.services.deadline import Deadline
from trien_server.services.evidence import GetEvidence


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Translates between messages and use cases; holds no rule."""

    def __init__(
        self,
        *,
        calls: Calls,
        get_entry: GetAuditEntry,
        list_entries: ListAuditEntries,
        get_evidence: GetEvidence,
        erase: EraseAuditDetails,
        proofs: ProofUseCases,
    ) -> None:
        self._calls = calls
        self._get_evidence = get_evidence
        self._proofs = proofs
        self._get_entry = get_entry
        self._list_entries = list_entries
        self._erase = erase

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

    def GetReceipt(  # noqa: N802
        self, request: audit_service_pb2.GetReceiptRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.Receipt:
        def work(principal: Principal, deadline: Deadline) -> audit_service_pb2.Receipt:
            entry = parse_name("auditEntries", request.audit_entry, field="audit_entry")
            item = request.item if request.HasField("item") else None
            return receipt_out(self._proofs.get_receipt(principal, entry, item=item, deadline=deadline))

        return self._calls.run("GetReceipt", context, work)

    def GetEvidence(  # noqa: N802
        self, request: audit_service_pb2.GetEvidenceRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.Evidence:
        def work(principal: Principal, _: Deadline) -> audit_service_pb2.Evidence:
            entry = parse_name("auditEntries", request.audit_entry, field="audit_entry")
            return evidence_out(self._get_evidence(principal, entry))

        return self._calls.run("GetEvidence", context, work)

    def GetCheckpoint(  # noqa: N802
        self, _request: audit_service_pb2.GetCheckpointRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.Checkpoint:
        def work(principal: Principal, _: Deadline) -> audit_service_pb2.Checkpoint:
            return checkpoint_out(self._proofs.get_checkpoint(principal))

        return self._calls.run("GetCheckpoint", context, work)

    def GetConsistencyProof(  # noqa: N802
        self, request: audit_service_pb2.GetConsistencyProofRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.ConsistencyProof:
        def work(principal: Principal, _: Deadline) -> audit_service_pb2.ConsistencyProof:
            proven = self._proofs.get_consistency_proof(
                principal, first_size=request.first_size, second_size=request.second_size
            )
            return consistency_out(proven)

        return self._calls.run("GetConsistencyProof", context, work)

    def GetLogKeys(  # noqa: N802
        self, _request: audit_service_pb2.GetLogKeysRequest, context: grpc.ServicerContext
    ) -> audit_service_pb2.LogKeys:
        def work(principal: Principal, _: Deadline) -> audit_service_pb2.LogKeys:
            return log_keys_out(self._proofs.get_log_keys(principal))

        return self._calls.run("GetLogKeys", context, work)

    def EraseAuditDetails(  # noqa: N802
        self, request: audit_service_pb2.EraseAuditDetailsRequest, context: grpc.ServicerContext
    ) -> proposal_service_pb2.Proposal:
        def work(principal: Principal, deadline: Deadline) -> proposal_service_pb2.Proposal:
            names = [parse_name("auditEntries", name, field="audit_entries") for name in request.audit_entries]
            query = ErasureQuery(
                audit_entries=tuple(names),
                resource=request.resource,
                end_time=optional_time_in(request, "end_time", field="request"),
                justification=request.justification,
            )
            return proposal_out(self._erase(principal, query, deadline=deadline))

        return self._calls.run("EraseAuditDetails", context, work)
