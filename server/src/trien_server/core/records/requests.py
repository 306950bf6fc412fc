"""Hot records: what requests write."""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.records.record import Record
from trien_server.core.records.states import Assurance, AuthorizationState, ItemKind, Revocation


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
class Outcome:
    """A granted request's signatures, in order. It needs no seal: each signature verifies (section 5)."""

    request: str
    signatures: tuple[bytes, ...]
    create_time: datetime
