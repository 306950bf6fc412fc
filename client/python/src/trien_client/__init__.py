"""Python SDK of Trien, the remote signing server.

    from trien_client import Client, SignatureAlgorithm

    with Client.from_connection_file("sandbox/connection.json") as client:
        signed = client.sign_digests(
            "credentials/hoang-trinh-don-rsa",
            SignatureAlgorithm.RSA_PSS_SHA256,
            [digest_file("decision.pdf", HashFunction.SHA256)],
            one_time_password=lambda context: getpass(f"Code of {context.signer}: "),
        )

Documents are hashed here and never sent. Every signature is verified here before it is handed out. For PDFs see
`trien_client.pyhanko`, for other files `trien_client.cms`, for code that wants a private key `trien_client.keys`; in
asynchronous code take `AsyncClient`. Names are loaded when they are first used, so that the command line starts fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trien_client._algorithms import HashFunction, KeyType, SignatureAlgorithm
    from trien_client._async_client import AsyncClient
    from trien_client._authority import (
        ActivationData,
        AsyncOneTimePasswordCallback,
        OneTimePasswordCallback,
        OneTimePasswordContext,
    )
    from trien_client._challenges import Challenge, OcraQuestion
    from trien_client._client import Client
    from trien_client._connection import ConnectionFile
    from trien_client._errors import (
        ActivationDataRejected,
        ActivationDataUsed,
        AlgorithmMismatch,
        AlreadyExists,
        AuthorizationDenied,
        AuthorizationExpired,
        AuthorizationNotApproved,
        AuthorizationNotPending,
        Busy,
        CertificateNotValid,
        ChallengeNotPending,
        ClockNotTrusted,
        ConnectionFileError,
        CredentialDisabled,
        DeadlineExceeded,
        DeadlineTooShort,
        DeliveryFailed,
        DeliveryLimitReached,
        DigestsNotAuthorized,
        HsmUnavailable,
        InternalError,
        InvalidArgument,
        InvalidDigest,
        InvalidSignedAttributes,
        MessageTooLarge,
        NotAllowedByPolicy,
        NotDecidedInTime,
        OneTimePasswordRejected,
        PermissionDenied,
        RecordNotTrusted,
        Refusal,
        RequestIdReused,
        ServerNotTrusted,
        SignerLocked,
        StoreUnavailable,
        TooManyDigests,
        TransportError,
        TrienError,
        TrustNotConfigured,
        Unauthenticated,
        Unavailable,
        VerificationError,
    )
    from trien_client._items import Data, SignedAttributes, digest_bytes, digest_file
    from trien_client._pending import AsyncPendingSignature, PendingSignature
    from trien_client._resources import (
        Activator,
        Approval,
        Assurance,
        Authorization,
        AuthorizationState,
        AuthorizedItem,
        Credential,
        CredentialState,
        SigningResult,
    )
    from trien_client._retry import RetryPolicy
    from trien_client._two_phases import AsyncOnPending, OnPending
    from trien_client._verification import verify_signature

_HOMES: dict[str, tuple[str, ...]] = {
    "_algorithms": ("HashFunction", "KeyType", "SignatureAlgorithm"),
    "_async_client": ("AsyncClient",),
    "_authority": (
        "ActivationData",
        "AsyncOneTimePasswordCallback",
        "OneTimePasswordCallback",
        "OneTimePasswordContext",
    ),
    "_challenges": ("Challenge", "OcraQuestion"),
    "_client": ("Client",),
    "_connection": ("ConnectionFile",),
    "_errors": (
        "ActivationDataRejected",
        "ActivationDataUsed",
        "AlgorithmMismatch",
        "AlreadyExists",
        "AuthorizationDenied",
        "AuthorizationExpired",
        "AuthorizationNotApproved",
        "AuthorizationNotPending",
        "Busy",
        "CertificateNotValid",
        "ChallengeNotPending",
        "ClockNotTrusted",
        "ConnectionFileError",
        "CredentialDisabled",
        "DeadlineExceeded",
        "DeadlineTooShort",
        "DeliveryFailed",
        "DeliveryLimitReached",
        "DigestsNotAuthorized",
        "HsmUnavailable",
        "InternalError",
        "InvalidArgument",
        "InvalidDigest",
        "InvalidSignedAttributes",
        "MessageTooLarge",
        "NotAllowedByPolicy",
        "NotDecidedInTime",
        "OneTimePasswordRejected",
        "PermissionDenied",
        "RecordNotTrusted",
        "Refusal",
        "RequestIdReused",
        "ServerNotTrusted",
        "SignerLocked",
        "StoreUnavailable",
        "TooManyDigests",
        "TransportError",
        "TrienError",
        "TrustNotConfigured",
        "Unauthenticated",
        "Unavailable",
        "VerificationError",
    ),
    "_items": ("Data", "SignedAttributes", "digest_bytes", "digest_file"),
    "_pending": ("AsyncPendingSignature", "PendingSignature"),
    "_resources": (
        "Activator",
        "Approval",
        "Assurance",
        "Authorization",
        "AuthorizationState",
        "AuthorizedItem",
        "Credential",
        "CredentialState",
        "SigningResult",
    ),
    "_retry": ("RetryPolicy",),
    "_two_phases": ("AsyncOnPending", "OnPending"),
    "_verification": ("verify_signature",),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "ActivationData",
    "ActivationDataRejected",
    "ActivationDataUsed",
    "Activator",
    "AlgorithmMismatch",
    "AlreadyExists",
    "Approval",
    "Assurance",
    "AsyncClient",
    "AsyncOnPending",
    "AsyncOneTimePasswordCallback",
    "AsyncPendingSignature",
    "Authorization",
    "AuthorizationDenied",
    "AuthorizationExpired",
    "AuthorizationNotApproved",
    "AuthorizationNotPending",
    "AuthorizationState",
    "AuthorizedItem",
    "Busy",
    "CertificateNotValid",
    "Challenge",
    "ChallengeNotPending",
    "Client",
    "ClockNotTrusted",
    "ConnectionFile",
    "ConnectionFileError",
    "Credential",
    "CredentialDisabled",
    "CredentialState",
    "Data",
    "DeadlineExceeded",
    "DeadlineTooShort",
    "DeliveryFailed",
    "DeliveryLimitReached",
    "DigestsNotAuthorized",
    "HashFunction",
    "HsmUnavailable",
    "InternalError",
    "InvalidArgument",
    "InvalidDigest",
    "InvalidSignedAttributes",
    "KeyType",
    "MessageTooLarge",
    "NotAllowedByPolicy",
    "NotDecidedInTime",
    "OcraQuestion",
    "OnPending",
    "OneTimePasswordCallback",
    "OneTimePasswordContext",
    "OneTimePasswordRejected",
    "PendingSignature",
    "PermissionDenied",
    "RecordNotTrusted",
    "Refusal",
    "RequestIdReused",
    "RetryPolicy",
    "ServerNotTrusted",
    "SignatureAlgorithm",
    "SignedAttributes",
    "SignerLocked",
    "SigningResult",
    "StoreUnavailable",
    "TooManyDigests",
    "TransportError",
    "TrienError",
    "TrustNotConfigured",
    "Unauthenticated",
    "Unavailable",
    "VerificationError",
    "digest_bytes",
    "digest_file",
    "verify_signature",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
