"""Everything that this SDK raises.

    TrienError
    ├── Refusal                        the server refused: `reason`, `metadata`, `retry_after`
    │   ├── InvalidArgument            INVALID_ARGUMENT
    │   │   ├── InvalidDigest          INVALID_DIGEST
    │   │   ├── InvalidSignedAttributes  INVALID_SIGNED_ATTRIBUTES
    │   │   ├── AlgorithmMismatch      ALGORITHM_MISMATCH
    │   │   ├── TooManyDigests         TOO_MANY_DIGESTS
    │   │   └── ApprovalNotValid       APPROVAL_NOT_VALID
    │   ├── Unauthenticated            UNAUTHENTICATED
    │   ├── PermissionDenied           PERMISSION_DENIED
    │   ├── AlreadyExists              ALREADY_EXISTS
    │   ├── NotAllowedByPolicy         NOT_ALLOWED_BY_POLICY
    │   ├── OneTimePasswordRejected    ONE_TIME_PASSWORD_REJECTED: `remaining_attempts`
    │   ├── SignerLocked               SIGNER_LOCKED
    │   ├── ActivationDataRejected     ACTIVATION_DATA_REJECTED
    │   ├── ActivationDataUsed         ACTIVATION_DATA_USED
    │   ├── AuthorizationNotPending    AUTHORIZATION_NOT_PENDING
    │   ├── AuthorizationNotApproved   AUTHORIZATION_NOT_APPROVED
    │   │   └── AuthorizationDenied    the signer said no, while this SDK waited for the decision
    │   ├── AuthorizationExpired       AUTHORIZATION_EXPIRED
    │   ├── ChallengeNotPending        CHALLENGE_NOT_PENDING
    │   ├── DeliveryLimitReached       DELIVERY_LIMIT_REACHED
    │   ├── DeliveryFailed             DELIVERY_FAILED
    │   ├── DigestsNotAuthorized       DIGESTS_NOT_AUTHORIZED
    │   ├── CredentialDisabled         CREDENTIAL_DISABLED
    │   ├── CertificateNotValid        CERTIFICATE_NOT_VALID
    │   ├── StateConflict              STATE_CONFLICT
    │   ├── ProposalNotPending         PROPOSAL_NOT_PENDING
    │   ├── OwnProposal                OWN_PROPOSAL
    │   ├── LastOfRole                 LAST_OF_ROLE
    │   ├── NotStricter                NOT_STRICTER
    │   ├── CertificateRevoked         CERTIFICATE_REVOKED
    │   ├── CertificateStatusUnknown   CERTIFICATE_STATUS_UNKNOWN
    │   ├── RateLimitReached           RATE_LIMIT_REACHED
    │   ├── EnrolmentNotPending        ENROLMENT_NOT_PENDING
    │   ├── RequestIdReused            REQUEST_ID_REUSED
    │   ├── DeadlineTooShort           DEADLINE_TOO_SHORT
    │   ├── Busy                       BUSY (retried)
    │   ├── HsmUnavailable             HSM_UNAVAILABLE (retried)
    │   ├── StoreUnavailable           STORE_UNAVAILABLE (retried)
    │   ├── ClockNotTrusted            CLOCK_NOT_TRUSTED
    │   ├── LogNotSealed               LOG_NOT_SEALED (retried)
    │   ├── LogNotTrusted              LOG_NOT_TRUSTED
    │   ├── RecordNotTrusted           RECORD_NOT_TRUSTED
    │   └── InternalError              INTERNAL
    ├── TransportError                 gRPC failed without an answer of the server: `code`
    │   ├── DeadlineExceeded           no answer in time
    │   ├── Unavailable                no connection, or it was lost (retried)
    │   │   └── ServerNotTrusted       the server's TLS certificate is not of the CA (not retried)
    │   └── MessageTooLarge            the message is larger than the server takes
    ├── VerificationError              the server's answer is not what was asked for: nothing is handed out
    ├── ProofNotValid                  a receipt, a checkpoint or a log does not prove what it should
    │   └── LogNotValid                an entry of the log is not what it was: `first`, `last`
    ├── NotDecidedInTime               nobody decided while this SDK waited: `authorization`
    ├── TrustNotConfigured             neither trust anchors nor a pinned certificate were given
    └── ConnectionFileError            a connection file cannot be read

A refusal that this SDK can foresee (a digest of the wrong length, too many items) is raised as the same class, without
asking the server. No message carries a one-time password, activation data or a token.
"""

# ruff: noqa: N818 - a refusal is an answer, not a defect, and has the name that the API gives it

from collections.abc import Mapping
from datetime import timedelta


class TrienError(Exception):
    """The base of everything that this SDK raises."""

    request_id: str | None = None
    """The request's id. A retry with the same id and content is safe; None when the request has none."""


class Refusal(TrienError):
    """The server refused. A reason that this SDK does not know is raised as this class itself."""

    reason: str = "ERROR_REASON_UNSPECIFIED"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        """When to try again, if the server said so."""


class InvalidArgument(Refusal):
    """A field of the request is missing or malformed; `metadata["field"]` names it."""

    reason = "INVALID_ARGUMENT"

    @property
    def field(self) -> str | None:
        """The field, in the message's own notation."""
        return self.metadata.get("field")


class InvalidDigest(InvalidArgument):
    """A digest has the wrong length for the algorithm."""

    reason = "INVALID_DIGEST"


class InvalidSignedAttributes(InvalidArgument):
    """CMS signed attributes are not DER, or not what may be signed."""

    reason = "INVALID_SIGNED_ATTRIBUTES"


class AlgorithmMismatch(InvalidArgument):
    """The credential's key cannot make signatures of the algorithm, or an item is of another kind."""

    reason = "ALGORITHM_MISMATCH"


class TooManyDigests(InvalidArgument):
    """More items than a request or the credential's policy allows."""

    reason = "TOO_MANY_DIGESTS"


class ApprovalNotValid(InvalidArgument):
    """The digest is not the proposal's, or the signature is not the caller's over it."""

    reason = "APPROVAL_NOT_VALID"


class Unauthenticated(Refusal):
    """The server does not know this client: the token or the client certificate is missing or wrong."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(Refusal):
    """The resource does not exist, or this client may not use it: the server does not tell which."""

    reason = "PERMISSION_DENIED"


class AlreadyExists(Refusal):
    """A resource of that name exists."""

    reason = "ALREADY_EXISTS"


class NotAllowedByPolicy(Refusal):
    """The credential's policy forbids it."""

    reason = "NOT_ALLOWED_BY_POLICY"


class OneTimePasswordRejected(Refusal):
    """The one-time password was wrong, used before or too old. It is never sent again by the SDK.

    Another one may follow in a new call with the same `request_id`.
    """

    reason = "ONE_TIME_PASSWORD_REJECTED"

    @property
    def remaining_attempts(self) -> int | None:
        """How many tries are left before the signer is locked; None when the server did not say."""
        text = self.metadata.get("remainingAttempts", "")
        return int(text) if text.isascii() and text.isdecimal() else None


class SignerLocked(Refusal):
    """Too many wrong one-time passwords. `retry_after` is None when only an operator can unlock the signer."""

    reason = "SIGNER_LOCKED"


class ActivationDataRejected(Refusal):
    """The signature activation data does not belong to this authorization and client."""

    reason = "ACTIVATION_DATA_REJECTED"


class ActivationDataUsed(Refusal):
    """A position of the authorization was signed before; each opens once."""

    reason = "ACTIVATION_DATA_USED"


class AuthorizationNotPending(Refusal):
    """The authorization was approved, denied or used before."""

    reason = "AUTHORIZATION_NOT_PENDING"


class AuthorizationNotApproved(Refusal):
    """The authorization waits for its signer, or was denied."""

    reason = "AUTHORIZATION_NOT_APPROVED"


class AuthorizationDenied(AuthorizationNotApproved):
    """The authorization was denied while this SDK waited for the decision; it stays denied."""


class AuthorizationExpired(Refusal):
    """The authorization's time, or a retry's, is over."""

    reason = "AUTHORIZATION_EXPIRED"


class ChallengeNotPending(Refusal):
    """The challenge was answered before, has expired, or is for another list."""

    reason = "CHALLENGE_NOT_PENDING"


class DeliveryLimitReached(Refusal):
    """Too many one-time passwords were sent; `retry_after` says when the next one can be."""

    reason = "DELIVERY_LIMIT_REACHED"


class DeliveryFailed(Refusal):
    """The one-time password could not be handed over for delivery, or that is not known."""

    reason = "DELIVERY_FAILED"


class DigestsNotAuthorized(Refusal):
    """The items are not the authorized ones, in the authorized order, with the authorized algorithm."""

    reason = "DIGESTS_NOT_AUTHORIZED"


class CredentialDisabled(Refusal):
    """The credential, its key or its signer is not enabled, or the signer's organization has ended or not begun."""

    reason = "CREDENTIAL_DISABLED"


class CertificateNotValid(Refusal):
    """The credential has no certificate, or it is not yet or no longer valid."""

    reason = "CERTIFICATE_NOT_VALID"


class StateConflict(Refusal):
    """The resource's state, or that of one it rests on, does not allow it."""

    reason = "STATE_CONFLICT"


class ProposalNotPending(Refusal):
    """The proposal was decided, withdrawn or outdated, or its time is over."""

    reason = "PROPOSAL_NOT_PENDING"


class OwnProposal(Refusal):
    """The proposal is the caller's own: another operator has to decide on it."""

    reason = "OWN_PROPOSAL"


class LastOfRole(Refusal):
    """The last holder of a role cannot be taken away."""

    reason = "LAST_OF_ROLE"


class NotStricter(Refusal):
    """What was asked for is not provably stricter: a second operator has to agree."""

    reason = "NOT_STRICTER"


class CertificateRevoked(Refusal):
    """A certificate of the credential is revoked."""

    reason = "CERTIFICATE_REVOKED"


class CertificateStatusUnknown(Refusal):
    """The credential's policy asks for a known revocation status, and it is not known."""

    reason = "CERTIFICATE_STATUS_UNKNOWN"


class RateLimitReached(Refusal):
    """This client has as many calls a minute, or items at work, as it may; `retry_after` says when to try again."""

    reason = "RATE_LIMIT_REACHED"


class EnrolmentNotPending(Refusal):
    """The enrolment has not begun, is over, or is another's."""

    reason = "ENROLMENT_NOT_PENDING"


class RequestIdReused(Refusal):
    """The `request_id` was granted for other content."""

    reason = "REQUEST_ID_REUSED"


class DeadlineTooShort(Refusal):
    """Too little time was left to finish; nothing was started."""

    reason = "DEADLINE_TOO_SHORT"


class Busy(Refusal):
    """The server sheds load, or the same request is still at work."""

    reason = "BUSY"


class HsmUnavailable(Refusal):
    """The server's hardware security module cannot be used now."""

    reason = "HSM_UNAVAILABLE"


class StoreUnavailable(Refusal):
    """The server's database cannot be used now."""

    reason = "STORE_UNAVAILABLE"


class ClockNotTrusted(Refusal):
    """The server's clock cannot be trusted now; an operator has to look."""

    reason = "CLOCK_NOT_TRUSTED"


class LogNotSealed(Refusal):
    """The server's audit log is not sealed now, or no checkpoint covers the entry yet."""

    reason = "LOG_NOT_SEALED"


class LogNotTrusted(Refusal):
    """The server's audit log does not continue what was published of it; an operator has to look."""

    reason = "LOG_NOT_TRUSTED"


class RecordNotTrusted(Refusal):
    """A record of the server failed verification; it was reported to its operators."""

    reason = "RECORD_NOT_TRUSTED"


class InternalError(Refusal):
    """Anything else; `metadata["requestId"]` finds it in the server's log."""

    reason = "INTERNAL"


class TransportError(TrienError):
    """gRPC failed without an answer of the server. Whether the server did the work is not known."""

    def __init__(self, message: str, *, code: str = "UNKNOWN") -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        """The name of the gRPC status code."""


class DeadlineExceeded(TransportError):
    """No answer came in time. The same call with the same `request_id` tells what became of it."""


class Unavailable(TransportError):
    """There is no connection to the server, or it was lost."""


class ServerNotTrusted(Unavailable):
    """The server's TLS certificate was not issued by the configured CA, or is for another name."""


class MessageTooLarge(TransportError):
    """The message is larger than the server takes, or the server is out of resources."""


class VerificationError(TrienError):
    """The server's answer is not what was asked for, or a signature does not verify: nothing is handed out."""


class ProofNotValid(TrienError):
    """A receipt, a checkpoint or a log does not prove what it should; the message says what does not hold."""


class LogNotValid(ProofNotValid):
    """An entry of a log is not what it was when the log's key signed it, or not what is told of it."""

    def __init__(self, message: str, *, first: int, last: int | None = None) -> None:
        super().__init__(message)
        self.first = first
        """The position of the first wrong entry; the lowest that it can be when that is not known exactly."""
        self.last = first if last is None else last
        """The highest that it can be."""


class NotDecidedInTime(TrienError):
    """Nobody decided while this SDK waited. The authorization still waits: wait again, or deny it."""

    def __init__(self, message: str, *, authorization: str) -> None:
        super().__init__(message)
        self.authorization = authorization
        """The authorization's name."""


class TrustNotConfigured(TrienError):
    """Neither trust anchors nor a pinned certificate were given, so that no signature could be verified."""


class ConnectionFileError(TrienError):
    """A connection file is missing, malformed, or does not hold what was asked for."""


REFUSALS: dict[str, type[Refusal]] = {
    refusal.reason: refusal
    for refusal in globals().values()
    if isinstance(refusal, type)
    and issubclass(refusal, Refusal)
    and refusal is not Refusal
    # A class of the SDK's own, which is a closer name for a reason, does not stand for it.
    and "reason" in vars(refusal)
}
"""The class of every reason (`trien.v1.ErrorReason`)."""
