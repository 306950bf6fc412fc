"""The kinds and states of records."""

from enum import StrEnum


class State(StrEnum):
    """Whether something may be used."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class SignerKind(StrEnum):
    PERSON = "PERSON"
    AGENCY = "AGENCY"


class AuthenticatorKind(StrEnum):
    """How an authenticator makes its one-time passwords (RFC 6238, RFC 4226, RFC 6287), or how it delivers them."""

    TOTP = "TOTP"
    HOTP = "HOTP"
    OCRA = "OCRA"
    SMS = "SMS"
    EMAIL = "EMAIL"


SHOWING_KINDS = frozenset({AuthenticatorKind.TOTP, AuthenticatorKind.HOTP})
"""The authenticators that show codes by themselves. The codes of all others answer a challenge."""


DELIVERED_KINDS = frozenset({AuthenticatorKind.SMS, AuthenticatorKind.EMAIL})
"""The authenticators whose codes the server makes and sends."""


class SignerState(StrEnum):
    """Whether a signer may sign; FROZEN is the signer's own word."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    FROZEN = "FROZEN"


class CredentialState(StrEnum):
    """Whether a credential may be used; what is REVOKED stays so."""

    ENABLED = "ENABLED"
    SUSPENDED = "SUSPENDED"
    REVOKED = "REVOKED"


class RevocationPolicy(StrEnum):
    """What a signature asks of the revocation status of the credential's certificates."""

    IGNORE = "IGNORE"
    REFUSE_REVOKED = "REFUSE_REVOKED"
    REQUIRE_GOOD = "REQUIRE_GOOD"


class Revocation(StrEnum):
    """What is known of a certificate."""

    UNKNOWN = "UNKNOWN"
    GOOD = "GOOD"
    REVOKED = "REVOKED"


class RevocationReason(StrEnum):
    """Why a certificate is revoked (RFC 5280, section 5.3.1)."""

    UNSPECIFIED = "UNSPECIFIED"
    KEY_COMPROMISE = "KEY_COMPROMISE"
    AFFILIATION_CHANGED = "AFFILIATION_CHANGED"
    SUPERSEDED = "SUPERSEDED"
    CESSATION_OF_OPERATION = "CESSATION_OF_OPERATION"


class KeyPurpose(StrEnum):
    """A key has one purpose for ever."""

    SIGNING = "SIGNING"
    CA = "CA"


class ProtectionLevel(StrEnum):
    """Where the private half of a key lives.

    `TOKEN` is an object on the token that cannot leave it; `WRAPPED` is kept in the record, wrapped by a key that never
    leaves the token.
    """

    TOKEN = "TOKEN"
    WRAPPED = "WRAPPED"


class KeyState(StrEnum):
    """Where a key stands; of one that is DESTROYING the private half may be gone already, and nothing keeps it."""

    PENDING_GENERATION = "PENDING_GENERATION"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    GENERATION_FAILED = "GENERATION_FAILED"
    DESTROY_SCHEDULED = "DESTROY_SCHEDULED"
    DESTROYING = "DESTROYING"
    DESTROYED = "DESTROYED"


class InstallationKeyPurpose(StrEnum):
    """What one of the installation's own keys is for. LOG is a key pair that signs checkpoints of the log."""

    WRAPPING = "WRAPPING"
    SEALING = "SEALING"
    LOG = "LOG"


class InstallationKeyState(StrEnum):
    PENDING_GENERATION = "PENDING_GENERATION"
    ACTIVE = "ACTIVE"
    RETIRING = "RETIRING"
    RETIRED = "RETIRED"


class ProposalState(StrEnum):
    """Where a proposal stands; one whose time is over stays PENDING in the store."""

    PENDING = "PENDING"
    EXECUTED = "EXECUTED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    OUTDATED = "OUTDATED"


class EnrolmentState(StrEnum):
    PENDING = "PENDING"
    BEGUN = "BEGUN"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


class IssuedCertificateState(StrEnum):
    PENDING_ISSUANCE = "PENDING_ISSUANCE"
    ISSUED = "ISSUED"
    REVOKED = "REVOKED"


class AuditErasureState(StrEnum):
    PENDING = "PENDING"
    DONE = "DONE"


class AuthorizationState(StrEnum):
    PENDING = "PENDING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    USED = "USED"


class Assurance(StrEnum):
    """By which way the signer's decision reached the server; entry and answer say it."""

    CLIENT_COLLECTED_OTP = "CLIENT_COLLECTED_OTP"


class ItemKind(StrEnum):
    """What an authorized digest is the digest of."""

    DIGEST = "DIGEST"
    SIGNED_ATTRIBUTES = "SIGNED_ATTRIBUTES"
    DATA = "DATA"
