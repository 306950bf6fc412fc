"""Slow records: what officers enter and change."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from trien_server.core.algorithms import KeyType
from trien_server.core.records.record import Record
from trien_server.core.records.states import (
    AuditErasureState,
    AuthenticatorKind,
    CredentialState,
    EnrolmentState,
    InstallationKeyPurpose,
    InstallationKeyState,
    IssuedCertificateState,
    KeyPurpose,
    KeyState,
    ProposalState,
    ProtectionLevel,
    RevocationPolicy,
    RevocationReason,
    SignerKind,
    SignerState,
    State,
)


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
