"""What the store keeps: one frozen class a table.

A field is a `str`, `int`, `bool`, `bytes`, aware `datetime`, `StrEnum`, a tuple of `str` or of
`bytes`, or one of these or None. Records are never changed: a new version replaces the old one.

Slow records change by an operator's act; each change is an audit entry that names the record and its
version (P5). Hot records change with requests; they are sealed with a day key.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from trien_server.core.algorithms import KeyType, SignatureAlgorithm


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every record has. `name` is unique in its table; `version` counts from 1, one by one."""

    table: ClassVar[str]
    hot: ClassVar[bool] = False

    name: str
    version: int = 1


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


@dataclass(frozen=True, kw_only=True)
class Installation(Record):
    """The one installation that this database belongs to; its seal proves that the token is the right one."""

    table: ClassVar[str] = "installations"

    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Organization(Record):
    """An agency. It exists from `start_time` until before `end_time`, for agencies merge."""

    table: ClassVar[str] = "organizations"

    display_name: str
    parent: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    successor: str | None = None
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Signer(Record):
    """A person who signs, or an agency for its seal.

    `email` and `phone` are where the person is told of what concerns the person; with `signature_notices` also of each
    signature.
    """

    table: ClassVar[str] = "signers"

    display_name: str
    kind: SignerKind
    organization: str
    position: str = ""
    email: str = ""
    phone: str = ""
    signature_notices: bool = False
    state: SignerState = SignerState.ENABLED
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Authenticator(Record):
    """What makes a person's one-time passwords. The secret is encrypted by the token, bound to `name`.

    SMS and EMAIL have no secret: each code is made for one challenge and delivered to `address`.
    """

    table: ClassVar[str] = "authenticators"

    signer: str
    kind: AuthenticatorKind
    digits: int
    hash_function: str
    period: int
    encrypted_secret: bytes
    address: str = ""
    state: State = State.ENABLED
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Enrolment(Record):
    """A person's way to a new authenticator of the same id.

    The enrolment code has two halves, of which the SHA-256 is kept, None until they were made: one operator alone never
    has both. `address` is where the whole code is sent, a mail address or telephone number; empty when the two
    operators hand the halves over. `encrypted_secret` is empty until it began, and then bound to the authenticator's
    name; `confirmation_hash` is the SHA-256 of what binds the end of the enrolment to its beginning.
    """

    table: ClassVar[str] = "enrolments"

    signer: str
    kind: AuthenticatorKind
    digits: int
    hash_function: str
    replaces: str | None = None
    address: str = ""
    proposer: str
    approver: str
    first_half_hash: bytes | None = None
    second_half_hash: bytes | None = None
    encrypted_secret: bytes = b""
    confirmation_hash: bytes | None = None
    failures: int = 0
    state: EnrolmentState = EnrolmentState.PENDING
    start_time: datetime
    expire_time: datetime
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class InstallationKey(Record):
    """A generation of one of the installation's own keys on the token. The first ones are made by `init`.

    It is in its state since `state_time`: what a RETIRED sealing key sealed is taken only if it is from before.
    """

    table: ClassVar[str] = "installation_keys"

    purpose: InstallationKeyPurpose
    generation: int
    state: InstallationKeyState
    state_time: datetime
    create_time: datetime
    key_type: KeyType | None = None
    object_id: bytes | None = None
    public_key: bytes | None = None
    origin: str | None = None
    succession: str | None = None


@dataclass(frozen=True, kw_only=True)
class Key(Record):
    """A key pair in the token; `object_id` is its CKA_ID, `public_key` a DER SubjectPublicKeyInfo.

    A WRAPPED key has `wrapped_key`, by the wrapping key of `wrapping_generation`, and no object on the token.
    """

    table: ClassVar[str] = "keys"

    key_type: KeyType
    purpose: KeyPurpose
    protection_level: ProtectionLevel
    object_id: bytes
    public_key: bytes
    wrapped_key: bytes | None = None
    wrapping_generation: int = 0
    destroy_time: datetime | None = None
    state: KeyState
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Credential(Record):
    """A key, its certificate chain (DER, the signer's first) and its policy.

    Empty `authenticator_kinds` are all kinds, empty `hours` are always.
    """

    table: ClassVar[str] = "credentials"

    key: str
    signer: str
    display_name: str
    certificate_chain: tuple[bytes, ...]
    max_items: int
    client_collected_otp: bool
    authenticator_kinds: tuple[str, ...] = ()
    hours: tuple[str, ...] = ()
    revocation_policy: RevocationPolicy = RevocationPolicy.IGNORE
    state: CredentialState = CredentialState.ENABLED
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Activator(Record):
    """A person who may activate a credential from `start_time` until before `end_time`."""

    table: ClassVar[str] = "activators"

    credential: str
    signer: str
    start_time: datetime | None = None
    end_time: datetime | None = None
    state: State = State.ENABLED


@dataclass(frozen=True, kw_only=True)
class CredentialClient(Record):
    """A client that may ask for a credential's signatures."""

    table: ClassVar[str] = "credential_clients"

    credential: str
    client: str
    state: State = State.ENABLED


@dataclass(frozen=True, kw_only=True)
class Client(Record):
    """A calling application, known by a bearer token (stored as SHA-256) or a certificate (SHA-256 of its DER).

    The ones before the present ones are good until `previous_expire_time`. Empty `organizations` and `methods` do not
    limit; nor does 0.
    """

    table: ClassVar[str] = "clients"

    display_name: str
    token_hash: bytes | None = None
    certificate_fingerprint: bytes | None = None
    previous_token_hash: bytes | None = None
    previous_certificate_fingerprint: bytes | None = None
    previous_expire_time: datetime | None = None
    organizations: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    concurrent_items: int = 0
    state: State = State.ENABLED
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Operator(Record):
    """A person who administers, known by a certificate (DER).

    The SHA-256 of the certificate, and of its public key, are searched for.
    `roles` are values of `core.roles.Role`. Empty `organizations` do not limit.
    """

    table: ClassVar[str] = "operators"

    display_name: str
    certificate: bytes
    certificate_fingerprint: bytes
    public_key_hash: bytes
    roles: tuple[str, ...]
    organizations: tuple[str, ...] = ()
    state: State = State.ENABLED
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Proposal(Record):
    """A change that needs a second operator. Only its state changes; `digest` is SHA-256 over `statement` (JSON).

    `content` is the command that the method's plan is made from (JSON). `proposer_key_hash` is the SHA-256 of the
    proposer's public key at the time.
    """

    table: ClassVar[str] = "proposals"

    method: str
    content: str
    statement: str
    digest: bytes
    proposer: str
    proposer_key_hash: bytes
    resources: tuple[str, ...]
    state: ProposalState = ProposalState.PENDING
    decider: str | None = None
    decide_time: datetime | None = None
    approval_signature: bytes | None = None
    approval_certificate: bytes | None = None
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class CertificateAuthority(Record):
    """A CA of the installation's own, with its key in the token. Its certificate is the first of the chain (DER).

    `next_crl_number` counts the lists that were made of it (RFC 5280, section 5.2.3).
    """

    table: ClassVar[str] = "certificate_authorities"

    key: str
    certificate_chain: tuple[bytes, ...]
    next_crl_number: int = 1
    state: State = State.ENABLED
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class IssuedCertificate(Record):
    """A certificate of the installation's own CA; `to_be_signed` (DER) is fixed before the token signs it."""

    table: ClassVar[str] = "issued_certificates"

    authority: str
    key: str
    signer: str
    to_be_signed: bytes
    certificate: bytes = b""
    state: IssuedCertificateState = IssuedCertificateState.PENDING_ISSUANCE
    expire_time: datetime
    revoke_time: datetime | None = None
    revoke_reason: RevocationReason | None = None
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class CertificateStatus(Record):
    """What was learnt of the revocation of a credential's chain; `name` is `{credential}/certificateStatus`.

    `chain_hash` is the SHA-256 of the chain that was asked about; the status is good until `valid_until`.
    """

    table: ClassVar[str] = "certificate_statuses"
    hot: ClassVar[bool] = True

    credential: str
    chain_hash: bytes
    revocation: Revocation
    revoke_time: datetime | None = None
    source: str
    check_time: datetime
    valid_until: datetime


@dataclass(frozen=True, kw_only=True)
class RequestPurge(Record):
    """Up to which time request records were removed, the one row `requestPurge`: what is older may be missing."""

    table: ClassVar[str] = "request_purges"

    purged_before: datetime
    time: datetime


@dataclass(frozen=True, kw_only=True)
class AuditErasure(Record):
    """Which audit entries lose their details, as two operators agreed: `audit_entries` by name, in the log's order.

    `resource` is what they were looked for by, or empty; `erased` counts those that lost them once it is DONE.
    """

    table: ClassVar[str] = "audit_erasures"

    audit_entries: tuple[str, ...]
    resource: str = ""
    justification: str
    erased: int = 0
    state: AuditErasureState = AuditErasureState.PENDING
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Notice(Record):
    """That something was told once, such as that a certificate expires: `{credential}/notices/{what}`."""

    table: ClassVar[str] = "notices"
    hot: ClassVar[bool] = True

    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class AuthenticatorState(Record):
    """The replay memory: the next time step or counter that may be accepted, never the typed string (P2).

    `resynchronization` is a counter outside the window that matched last (RFC 4226, section 7.4). With
    `out_of_step` no single counter is believed: what was accepted last is not known, and two in a row have to tell.
    """

    table: ClassVar[str] = "authenticator_states"
    hot: ClassVar[bool] = True

    next_value: int
    resynchronization: int | None = None
    out_of_step: bool = False


@dataclass(frozen=True, kw_only=True)
class SignerAttempts(Record):
    """Wrong one-time passwords of one signer in a row, over all authenticators and clients.

    `failures` are all of them; `lock_failures` those that count towards the lock: the first few of each client.
    """

    table: ClassVar[str] = "signer_attempts"
    hot: ClassVar[bool] = True

    failures: int
    lock_failures: int = 0
    locked_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ClientAttempts(Record):
    """Wrong one-time passwords in a row for one signer that came through one client."""

    table: ClassVar[str] = "client_attempts"
    hot: ClassVar[bool] = True

    failures: int
    blocks: int
    blocked_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Authorization(Record):
    """A signer's decision to let one credential sign one ordered list of digests.

    `digests` are in order; `used` has a byte a position, 0 or 1; `signed_digests` holds for each used
    position the digest that was signed (the attributes' for SIGNED_ATTRIBUTES), empty before. `title` is
    what the client calls it: shown to the person as the client's words, and no more. `key` is the credential's when it
    was asked for: a decision is one about signatures of this key, and ends when the credential gets another.
    """

    table: ClassVar[str] = "authorizations"
    hot: ClassVar[bool] = True

    credential: str
    key: str
    client: str
    approver: str | None
    algorithm: SignatureAlgorithm
    pss_salt_length: int | None
    item_kind: ItemKind
    digests: tuple[bytes, ...]
    used: bytes
    signed_digests: tuple[bytes, ...]
    title: str = ""
    state: AuthorizationState
    approval: str | None
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class Challenge(Record):
    """What one code answers: an exact, ordered list of authorizations that waits for one person's decision.

    For OCRA the code answers a question made of the name, `nonce` and the list's digests. For a delivered code
    `code_mac` is the token's HMAC over name, nonce and code. `answered` once a code approved the list (P2).
    """

    table: ClassVar[str] = "challenges"
    hot: ClassVar[bool] = True

    signer: str
    client: str
    authenticator: str
    authorizations: tuple[str, ...]
    nonce: bytes
    code_mac: bytes | None = None
    answered: bool = False
    create_time: datetime
    expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class DeliveryCount(Record):
    """How many codes were sent on `day` (`2026-11-24`, UTC) to a signer, for a client, or by a client to a signer."""

    table: ClassVar[str] = "delivery_counts"
    hot: ClassVar[bool] = True

    day: str
    sent: int
    last_time: datetime


@dataclass(frozen=True, kw_only=True)
class Approval(Record):
    """One person's decision on an exact, ordered list of authorizations, by one one-time password.

    `accepted_value` is the password's time step or counter; 0 for one that answered a challenge, which was made for
    this list alone: the audit entry names it.
    """

    table: ClassVar[str] = "approvals"
    hot: ClassVar[bool] = True

    signer: str
    client: str
    authenticator: str
    accepted_value: int
    assurance: Assurance
    authorizations: tuple[str, ...]
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class SignatureUse(Record):
    """That a signer's credential was used: written with the grant, for the signer to see.

    Its name begins with the signer's and counts time backwards, so that the newest comes first.
    """

    table: ClassVar[str] = "signature_uses"
    hot: ClassVar[bool] = True

    signer: str
    credential: str
    client: str
    approver: str
    audit_entry: str
    items: int
    fingerprint: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class GrantedRequest(Record):
    """A request that was granted and so bound its `request_id` (P7); `name` is made of client, method and id.

    `lease_holder` signs until `lease_expire_time`; who takes over raises the version by compare-and-swap.
    """

    table: ClassVar[str] = "granted_requests"
    hot: ClassVar[bool] = True

    client: str
    method: str
    content_hash: bytes
    subject: str
    audit_entry: str
    positions: tuple[str, ...]
    lease_holder: str
    lease_expire_time: datetime
    completed: bool
    create_time: datetime


@dataclass(frozen=True, kw_only=True)
class Lease(Record):
    """What one process does at a time: `holder` until `expire_time`, then whoever raises the version."""

    table: ClassVar[str] = "leases"
    hot: ClassVar[bool] = True

    holder: str
    expire_time: datetime


@dataclass(frozen=True, kw_only=True)
class AuditEntry(Record):
    """What happened, written before its effect.

    `leaf` is what the log commits to: random name, salted commitments to the head (time, kind, subject and its version)
    and to `details` (JSON text), and the root over the digests of a call, `items_root` (b"" without). Version 2 has its
    details and their `salt` (b"") erased, which breaks nothing in the log. `subject` and `subject_version` name the
    slow record that the entry puts in force.
    """

    table: ClassVar[str] = "audit_entries"
    hot: ClassVar[bool] = True

    time: datetime
    kind: str
    subject: str | None
    subject_version: int | None
    leaf: bytes
    head_salt: bytes
    salt: bytes
    details: str
    items_root: bytes = b""


@dataclass(frozen=True, kw_only=True)
class LogHead(Record):
    """The log as its positions are assigned (RFC 6962): `root` over `size` entries; `frontier` grows it.

    The one row is `log`. It is replaced in the transaction that assigns positions, or they are not assigned.
    """

    table: ClassVar[str] = "log_heads"
    hot: ClassVar[bool] = True

    origin: str
    size: int
    root: bytes
    frontier: tuple[bytes, ...]
    time: datetime


@dataclass(frozen=True, kw_only=True)
class LogTile(Record):
    """Up to 256 hashes of complete subtrees of the log, 32 bytes each (C2SP tlog-tiles): `logTiles/LEVEL/INDEX`."""

    table: ClassVar[str] = "log_tiles"
    hot: ClassVar[bool] = True

    hashes: bytes
    time: datetime


@dataclass(frozen=True, kw_only=True)
class LogCheckpoint(Record):
    """The newest signed checkpoint, the one row `checkpoint`: `note` is a signed note (C2SP)."""

    table: ClassVar[str] = "log_checkpoints"
    hot: ClassVar[bool] = True

    origin: str
    size: int
    root: bytes
    note: str
    time: datetime


@dataclass(frozen=True, kw_only=True)
class AuditExport(Record):
    """How far the log was handed to a sink (`auditExports/SINK`): entries before `position` were."""

    table: ClassVar[str] = "audit_exports"
    hot: ClassVar[bool] = True

    position: int
    time: datetime


@dataclass(frozen=True, kw_only=True)
class LogPosition:
    """Where an audit entry stands in the log. It needs no seal: the log's root says it."""

    position: int
    entry: str


@dataclass(frozen=True, kw_only=True)
class UnsealedEntry:
    """An audit entry that has no position yet."""

    entry: str


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A granted request's signatures, in order. It needs no seal: each signature verifies (section 5)."""

    request: str
    signatures: tuple[bytes, ...]
    create_time: datetime


SLOW_RECORDS: tuple[type[Record], ...] = (
    Installation,
    Organization,
    Signer,
    Authenticator,
    Enrolment,
    InstallationKey,
    Key,
    Credential,
    Activator,
    CredentialClient,
    Client,
    Operator,
    Proposal,
    CertificateAuthority,
    IssuedCertificate,
    RequestPurge,
    AuditErasure,
)
HOT_RECORDS: tuple[type[Record], ...] = (
    AuthenticatorState,
    SignerAttempts,
    ClientAttempts,
    Authorization,
    Challenge,
    DeliveryCount,
    Approval,
    SignatureUse,
    GrantedRequest,
    Lease,
    CertificateStatus,
    Notice,
    AuditEntry,
    LogHead,
    LogTile,
    LogCheckpoint,
    AuditExport,
)
