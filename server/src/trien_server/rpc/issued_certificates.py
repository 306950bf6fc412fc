"""Certificates of the installation's own CA as messages."""

from trien.v1 import credential_service_pb2

from trien_server.core.errors import InvalidArgument
from trien_server.core.records import RevocationReason
from trien_server.rpc import translate
from trien_server.services.issued_certificates import IssuedView

_UNSPECIFIED = credential_service_pb2.REVOCATION_REASON_UNSPECIFIED


def issued_out(view: IssuedView) -> credential_service_pb2.IssuedCertificate:
    issued = view.issued
    message = credential_service_pb2.IssuedCertificate(
        name=issued.name,
        key=issued.key,
        signer=issued.signer,
        state=credential_service_pb2.IssuedCertificate.State.Value(issued.state.value),
        certificate_chain=view.chain,
        expire_time=translate.time_out(issued.expire_time),
        revoke_reason=_reason_out(issued.revoke_reason),
    )
    translate.set_time(message.revoke_time, issued.revoke_time)
    return message


def reason_in(value: "credential_service_pb2.RevocationReason.ValueType") -> RevocationReason:
    """Returns the reason for a revocation. Raises `InvalidArgument` for a value that the contract does not know."""
    if value == _UNSPECIFIED:
        return RevocationReason.UNSPECIFIED
    try:
        return RevocationReason(credential_service_pb2.RevocationReason.Name(value))
    except ValueError as unknown:
        raise InvalidArgument("reason", "expected one of trien.v1.RevocationReason") from unknown


def _reason_out(reason: RevocationReason | None) -> "credential_service_pb2.RevocationReason.ValueType":
    if reason is None or reason is RevocationReason.UNSPECIFIED:
        return _UNSPECIFIED
    return credential_service_pb2.RevocationReason.Value(reason.value)
