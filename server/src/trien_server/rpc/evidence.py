"""Evidence as a message."""

from trien.v1 import audit_service_pb2

from trien_server.rpc.audit_entries import entry_out
from trien_server.rpc.receipts import log_keys_out, receipt_out
from trien_server.rpc.translate import algorithm_out, set_time
from trien_server.services.evidence import Evidence


def evidence_out(found: Evidence) -> audit_service_pb2.Evidence:
    message = audit_service_pb2.Evidence(
        audit_entry=entry_out(found.entry),
        assurance=found.assurance,
        credential=found.credential,
        certificate_chain=found.certificate_chain,
        digests=found.digests,
        signatures=found.signatures,
        receipts=[receipt_out(made) for made in found.receipts],
        later_entries=[entry_out(entry) for entry in found.later_entries],
    )
    if found.algorithm is not None:
        message.algorithm = algorithm_out(found.algorithm)
    if found.log_keys is not None:
        message.log_keys.CopyFrom(log_keys_out(found.log_keys))
    set_time(message.approve_time, found.approve_time)
    _name_people(message, found)
    return message


def _name_people(message: audit_service_pb2.Evidence, found: Evidence) -> None:
    if found.signer is not None:
        message.signer = found.signer.name
        message.signer_display_name = found.signer.display_name
    if found.organization is not None:
        message.organization = found.organization.name
        message.organization_display_name = found.organization.display_name
    if found.approver is not None:
        message.approver = found.approver.name
        message.approver_display_name = found.approver.display_name
    if found.authenticator is not None:
        message.authenticator = found.authenticator.name
        message.authenticator_kind = found.authenticator.kind.value
    if found.client is not None:
        message.client = found.client.name
        message.client_display_name = found.client.display_name
