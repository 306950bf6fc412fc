"""What a request to sign says, and what is answered."""

from dataclasses import dataclass, field

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.items import Item, PreparedItems, SignatureScheme
from trien_server.core.receipts import ItemsCommitment
from trien_server.core.records import Approval, Assurance, Authorization, GrantedRequest
from trien_server.core.secret import Secret
from trien_server.services.access import UsableCredential


@dataclass(frozen=True, kw_only=True)
class WithOneTimePassword:
    """One round trip: the request is authorized by a person's one-time password."""

    password: Secret
    signer: str | None


@dataclass(frozen=True, kw_only=True)
class WithActivationData:
    """Two phases: the request is authorized by an authorization that was approved before."""

    authorization: str
    activation_data: Secret


@dataclass(frozen=True, kw_only=True)
class SignDigestsCommand:
    """A request to sign."""

    credential: str
    algorithm: SignatureAlgorithm
    pss_salt_length: int | None
    items: tuple[Item, ...] = field(repr=False)
    request_id: str
    authority: WithOneTimePassword | WithActivationData


@dataclass(frozen=True, kw_only=True)
class SignDigestsResult:
    """Signatures, in the items' order, and what they rest on."""

    credential: str
    scheme: SignatureScheme
    signatures: tuple[bytes, ...]
    authorization: str
    approved_by: str
    assurance: Assurance
    audit_entry: str
    leaf_hash: bytes


@dataclass(frozen=True, kw_only=True)
class CheckedRequest:
    """A request whose items were checked, for a credential that may sign now. An audit entry has its `commitment`."""

    client: str
    usable: UsableCredential
    scheme: SignatureScheme
    items: PreparedItems
    commitment: ItemsCommitment
    granted_request: str
    content: bytes


@dataclass(frozen=True, kw_only=True)
class GrantedWork:
    """What was granted and is durable: the key may now be used for exactly these items."""

    request: CheckedRequest
    granted: GrantedRequest
    authorization: Authorization
    approval: Approval
    leaf_hash: bytes
