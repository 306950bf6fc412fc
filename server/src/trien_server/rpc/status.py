"""Maps refusals to gRPC statuses: the one place where reasons meet codes (AIP-193)."""

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from trien_server.core.errors import InvalidArgument, Refusal

DOMAIN = "trien"

CODES: dict[str, "code_pb2.Code"] = {
    "ACTIVATION_DATA_REJECTED": code_pb2.PERMISSION_DENIED,
    "ACTIVATION_DATA_USED": code_pb2.FAILED_PRECONDITION,
    "ALGORITHM_MISMATCH": code_pb2.INVALID_ARGUMENT,
    "ALREADY_EXISTS": code_pb2.ALREADY_EXISTS,
    "APPROVAL_NOT_VALID": code_pb2.INVALID_ARGUMENT,
    "AUTHORIZATION_EXPIRED": code_pb2.FAILED_PRECONDITION,
    "AUTHORIZATION_NOT_APPROVED": code_pb2.FAILED_PRECONDITION,
    "AUTHORIZATION_NOT_PENDING": code_pb2.FAILED_PRECONDITION,
    "BUSY": code_pb2.UNAVAILABLE,
    "CERTIFICATE_NOT_VALID": code_pb2.FAILED_PRECONDITION,
    "CERTIFICATE_REVOKED": code_pb2.FAILED_PRECONDITION,
    "CERTIFICATE_STATUS_UNKNOWN": code_pb2.FAILED_PRECONDITION,
    "CHALLENGE_NOT_PENDING": code_pb2.FAILED_PRECONDITION,
    "CLOCK_NOT_TRUSTED": code_pb2.UNAVAILABLE,
    "LOG_NOT_SEALED": code_pb2.UNAVAILABLE,
    "LOG_NOT_TRUSTED": code_pb2.INTERNAL,
    "CREDENTIAL_DISABLED": code_pb2.FAILED_PRECONDITION,
    "DEADLINE_TOO_SHORT": code_pb2.DEADLINE_EXCEEDED,
    "DELIVERY_FAILED": code_pb2.UNAVAILABLE,
    "DELIVERY_LIMIT_REACHED": code_pb2.RESOURCE_EXHAUSTED,
    "DIGESTS_NOT_AUTHORIZED": code_pb2.FAILED_PRECONDITION,
    "ENROLMENT_NOT_PENDING": code_pb2.FAILED_PRECONDITION,
    "HSM_UNAVAILABLE": code_pb2.UNAVAILABLE,
    "INVALID_ARGUMENT": code_pb2.INVALID_ARGUMENT,
    "INVALID_DIGEST": code_pb2.INVALID_ARGUMENT,
    "INVALID_SIGNED_ATTRIBUTES": code_pb2.INVALID_ARGUMENT,
    "LAST_OF_ROLE": code_pb2.FAILED_PRECONDITION,
    "NOT_ALLOWED_BY_POLICY": code_pb2.FAILED_PRECONDITION,
    "NOT_STRICTER": code_pb2.FAILED_PRECONDITION,
    "ONE_TIME_PASSWORD_REJECTED": code_pb2.PERMISSION_DENIED,
    "OWN_PROPOSAL": code_pb2.PERMISSION_DENIED,
    "PERMISSION_DENIED": code_pb2.PERMISSION_DENIED,
    "PROPOSAL_NOT_PENDING": code_pb2.FAILED_PRECONDITION,
    "RATE_LIMIT_REACHED": code_pb2.RESOURCE_EXHAUSTED,
    "RECORD_NOT_TRUSTED": code_pb2.INTERNAL,
    "REQUEST_ID_REUSED": code_pb2.ALREADY_EXISTS,
    "SIGNER_LOCKED": code_pb2.RESOURCE_EXHAUSTED,
    "STATE_CONFLICT": code_pb2.FAILED_PRECONDITION,
    "STORE_UNAVAILABLE": code_pb2.UNAVAILABLE,
    "TOO_MANY_DIGESTS": code_pb2.INVALID_ARGUMENT,
    "UNAUTHENTICATED": code_pb2.UNAUTHENTICATED,
}
"""A reason's status code. Tests compare it with `core.errors.ALL_REFUSALS`, the proto and the docs."""


def status_of(refusal: Refusal, *, request: str) -> status_pb2.Status:
    """Returns a refusal's status with its ErrorInfo and, where it has them, RetryInfo or BadRequest."""
    details = [_info(refusal.reason, {**refusal.metadata, "requestId": request})]
    if refusal.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(refusal.retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(refusal, InvalidArgument):
        violation = error_details_pb2.BadRequest.FieldViolation(field=refusal.field, description=refusal.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    return status_pb2.Status(code=CODES[refusal.reason], message=refusal.message, details=list(map(_pack, details)))


def internal_status(*, request: str) -> status_pb2.Status:
    """Returns the status of anything unforeseen: a fixed text and the request's id, nothing else (P12)."""
    message = f"The server failed. Its log has more under the request {request}."
    details = [_pack(_info("INTERNAL", {"requestId": request}))]
    return status_pb2.Status(code=code_pb2.INTERNAL, message=message, details=details)


def _info(reason: str, metadata: dict[str, str]) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata)


def _pack(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo | error_details_pb2.BadRequest,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed
