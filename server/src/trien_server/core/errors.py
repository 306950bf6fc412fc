"""Every refusal as a class with its reason.

The reasons are part of the API (`trien.v1.ErrorReason`, AIP-193); `rpc/status.py` alone maps them to
status codes. Messages are written for the caller: they say what to do, and never carry a secret.

    Refusal
    ├── InvalidArgument            INVALID_ARGUMENT
    │   ├── InvalidDigest          INVALID_DIGEST
    │   ├── InvalidSignedAttributes  INVALID_SIGNED_ATTRIBUTES
    │   ├── AlgorithmMismatch      ALGORITHM_MISMATCH
    │   ├── TooManyDigests         TOO_MANY_DIGESTS
    │   └── ApprovalNotValid       APPROVAL_NOT_VALID
    ├── Unauthenticated            UNAUTHENTICATED
    ├── PermissionDenied           PERMISSION_DENIED (unknown or forbidden)
    ├── AlreadyExists              ALREADY_EXISTS
    ├── NotAllowedByPolicy         NOT_ALLOWED_BY_POLICY
    ├── OneTimePasswordRejected    ONE_TIME_PASSWORD_REJECTED
    ├── SignerLocked               SIGNER_LOCKED
    ├── ActivationDataRejected     ACTIVATION_DATA_REJECTED
    ├── ActivationDataUsed         ACTIVATION_DATA_USED
    ├── AuthorizationNotPending    AUTHORIZATION_NOT_PENDING
    ├── AuthorizationNotApproved   AUTHORIZATION_NOT_APPROVED
    ├── AuthorizationExpired       AUTHORIZATION_EXPIRED
    ├── ChallengeNotPending        CHALLENGE_NOT_PENDING
    ├── DeliveryLimitReached       DELIVERY_LIMIT_REACHED
    ├── DeliveryFailed             DELIVERY_FAILED
    ├── DigestsNotAuthorized       DIGESTS_NOT_AUTHORIZED
    ├── CredentialDisabled         CREDENTIAL_DISABLED
    ├── CertificateNotValid        CERTIFICATE_NOT_VALID
    ├── CertificateRevoked         CERTIFICATE_REVOKED
    ├── CertificateStatusUnknown   CERTIFICATE_STATUS_UNKNOWN
    ├── StateConflict              STATE_CONFLICT
    ├── ProposalNotPending         PROPOSAL_NOT_PENDING
    ├── OwnProposal                OWN_PROPOSAL
    ├── LastOfRole                 LAST_OF_ROLE
    ├── NotStricter                NOT_STRICTER
    ├── EnrolmentNotPending        ENROLMENT_NOT_PENDING
    ├── RateLimitReached           RATE_LIMIT_REACHED
    ├── RequestIdReused            REQUEST_ID_REUSED
    ├── DeadlineTooShort           DEADLINE_TOO_SHORT
    ├── Busy                       BUSY
    ├── HsmUnavailable             HSM_UNAVAILABLE
    ├── StoreUnavailable           STORE_UNAVAILABLE
    ├── ClockNotTrusted            CLOCK_NOT_TRUSTED
    ├── LogNotSealed               LOG_NOT_SEALED
    ├── LogNotTrusted              LOG_NOT_TRUSTED
    └── RecordNotTrusted           RECORD_NOT_TRUSTED (a sealed row failed verification)
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a defect
    """A request that was refused, with the reason that the API documents."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after = retry_after
        self.recorded = False
        """Whether an audit entry about the refusal is part of its transaction."""


class InvalidArgument(Refusal):
    """A field of the request is missing or malformed; `field` names it in the message's own notation."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", metadata={"field": field})
        self.field = field


class InvalidDigest(InvalidArgument):
    """A digest has the wrong length for the algorithm."""

    reason = "INVALID_DIGEST"


class InvalidSignedAttributes(InvalidArgument):
    """CMS signed attributes are not DER, or not what may be signed here."""

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
    """The caller has not shown who it is."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(Refusal):
    """The resource does not exist, or the caller may not use it: the answer does not tell which (P11)."""

    reason = "PERMISSION_DENIED"

    def __init__(
        self, message: str = "The resource does not exist or you may not use it.", *, because: str = ""
    ) -> None:
        """`because` is for operators who ask what is in force (ShowAccess); the caller never sees it."""
        super().__init__(message)
        self.because = because


class AlreadyExists(Refusal):
    """A resource of that name exists."""

    reason = "ALREADY_EXISTS"


class NotAllowedByPolicy(Refusal):
    """The credential's policy forbids it."""

    reason = "NOT_ALLOWED_BY_POLICY"


class OneTimePasswordRejected(Refusal):
    """The one-time password was wrong, used before or too old: the answer does not tell which (P11)."""

    reason = "ONE_TIME_PASSWORD_REJECTED"

    def __init__(self, remaining_attempts: int) -> None:
        super().__init__(
            f"The one-time password was not accepted. Attempts that remain: {remaining_attempts}.",
            metadata={"remainingAttempts": str(remaining_attempts)},
        )


class SignerLocked(Refusal):
    """Too many wrong one-time passwords; none is evaluated until `retry_after` has passed.

    `retry_after` is None when two operators have to disable and enable the signer.
    """

    reason = "SIGNER_LOCKED"

    def __init__(self, retry_after: timedelta | None) -> None:
        when = "Two operators must disable and enable the signer." if retry_after is None else "Try again later."
        super().__init__(f"Too many wrong one-time passwords. {when}", retry_after=retry_after)


class ActivationDataRejected(Refusal):
    """The signature activation data does not belong to this authorization, client and expiry."""

    reason = "ACTIVATION_DATA_REJECTED"


class ActivationDataUsed(Refusal):
    """A position of the authorization was signed before; each opens once (P3)."""

    reason = "ACTIVATION_DATA_USED"


class AuthorizationNotPending(Refusal):
    """The authorization was approved, denied or used before."""

    reason = "AUTHORIZATION_NOT_PENDING"


class AuthorizationNotApproved(Refusal):
    """The authorization waits for its signer, or was denied."""

    reason = "AUTHORIZATION_NOT_APPROVED"


class AuthorizationExpired(Refusal):
    """The authorization's time, or a retry's, is over."""

    reason = "AUTHORIZATION_EXPIRED"


class ChallengeNotPending(Refusal):
    """The challenge was answered before, has expired, or is for another list; a new one is needed."""

    reason = "CHALLENGE_NOT_PENDING"


class DeliveryLimitReached(Refusal):
    """Too many one-time passwords were sent to the signer, or by the client, or one was sent just now."""

    reason = "DELIVERY_LIMIT_REACHED"


class DeliveryFailed(Refusal):
    """The one-time password could not be handed over to the mail server or SMS gateway, or that is not known."""

    reason = "DELIVERY_FAILED"

    def __init__(self, message: str = "The one-time password could not be delivered.") -> None:
        super().__init__(message)


class DigestsNotAuthorized(Refusal):
    """The items are not the authorized ones, in the authorized order, with the authorized algorithm (P3)."""

    reason = "DIGESTS_NOT_AUTHORIZED"


class CredentialDisabled(Refusal):
    """The credential, its key or its signer is not enabled, or the signer's organization has ended or not begun."""

    reason = "CREDENTIAL_DISABLED"


class CertificateNotValid(Refusal):
    """The credential has no certificate, or it is not yet or no longer valid."""

    reason = "CERTIFICATE_NOT_VALID"


class CertificateRevoked(Refusal):
    """A certificate of the credential is revoked, and its policy looks at that."""

    reason = "CERTIFICATE_REVOKED"


class CertificateStatusUnknown(Refusal):
    """The credential's policy asks for a known revocation status, and it is not known, or too old."""

    reason = "CERTIFICATE_STATUS_UNKNOWN"


class StateConflict(Refusal):
    """The state of the resource, or of one that it rests on, does not allow the change."""

    reason = "STATE_CONFLICT"


class ProposalNotPending(Refusal):
    """The proposal was decided, withdrawn or outdated, or its time is over."""

    reason = "PROPOSAL_NOT_PENDING"


class OwnProposal(Refusal):
    """Nobody approves or rejects their own proposal, also not through another account of the same key (P9)."""

    reason = "OWN_PROPOSAL"

    def __init__(self) -> None:
        super().__init__("The proposal is your own: another operator has to decide on it.")


class LastOfRole(Refusal):
    """The last holder of a role cannot be taken away."""

    reason = "LAST_OF_ROLE"


class NotStricter(Refusal):
    """What was asked for is not provably stricter than what is in force; a second operator has to agree (P9)."""

    reason = "NOT_STRICTER"


class EnrolmentNotPending(Refusal):
    """The enrolment cannot begin yet, was begun by somebody else, or is over."""

    reason = "ENROLMENT_NOT_PENDING"


class RateLimitReached(Refusal):
    """The client has as many calls a minute, or items at work, as it may; nothing was consumed."""

    reason = "RATE_LIMIT_REACHED"


class RequestIdReused(Refusal):
    """The `request_id` was granted for other content (P7, AIP-155)."""

    reason = "REQUEST_ID_REUSED"


class DeadlineTooShort(Refusal):
    """The call's deadline leaves too little time to finish; nothing was started."""

    reason = "DEADLINE_TOO_SHORT"


class Busy(Refusal):
    """The server sheds load, or the same request is still at work; nothing was consumed."""

    reason = "BUSY"

    def __init__(self, message: str = "The server is busy.", *, retry_after: timedelta = timedelta(seconds=1)):
        super().__init__(message, retry_after=retry_after)


class HsmUnavailable(Refusal):
    """The token cannot be used now."""

    reason = "HSM_UNAVAILABLE"

    def __init__(self, message: str = "The hardware security module cannot be used now.") -> None:
        super().__init__(message)


class StoreUnavailable(Refusal):
    """The database cannot be used now, or a commit's result is not known; nobody signs on it (P1)."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self, message: str = "The database cannot be used now.") -> None:
        super().__init__(message)


class ClockNotTrusted(Refusal):
    """The server's clock went back or differs from the store's (P8)."""

    reason = "CLOCK_NOT_TRUSTED"

    def __init__(self) -> None:
        super().__init__("The server's clock cannot be trusted now.")


class LogNotSealed(Refusal):
    """The audit log was not sealed for a minute (P8), or no checkpoint covers an entry yet."""

    reason = "LOG_NOT_SEALED"

    def __init__(self, message: str = "The audit log is not sealed now.") -> None:
        super().__init__(message, retry_after=timedelta(seconds=1))


class LogNotTrusted(Refusal):
    """The database's log is not the continuation of the last checkpoint that was published (P10).

    The caller learns no more than that; `finding` is for the operator.
    """

    reason = "LOG_NOT_TRUSTED"

    def __init__(self, finding: str) -> None:
        super().__init__("The audit log does not continue what was published of it; it was reported.")
        self.finding = finding


class RecordNotTrusted(Refusal):
    """A row that the decision rests on fails its seal, or is not the one in force (P5).

    The caller learns no more than that; the report names table and row for the operator.
    """

    reason = "RECORD_NOT_TRUSTED"

    def __init__(self, table: str, name: str, finding: str) -> None:
        super().__init__("A record that this request depends on failed verification; it was reported.")
        self.table = table
        self.name = name
        self.finding = finding


ALL_REFUSALS: tuple[type[Refusal], ...] = tuple(
    sorted(
        (
            value
            for value in globals().values()
            if isinstance(value, type) and issubclass(value, Refusal) and value is not Refusal
        ),
        key=lambda refusal: refusal.reason,
    )
)
"""Every refusal of the API: the documentation's table and the status map are compared with it."""
