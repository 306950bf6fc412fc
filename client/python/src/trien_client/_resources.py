"""The API's resources as values of Python; parsed from messages here and nowhere else."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from trien.v1 import algorithms_pb2, authorization_service_pb2, credential_service_pb2, signer_service_pb2

from trien_client._algorithms import KeyType, SignatureAlgorithm
from trien_client._errors import VerificationError

E = TypeVar("E", bound=StrEnum)


class Assurance(StrEnum):
    """By which way a signer's decision reached the server."""

    UNSPECIFIED = "ASSURANCE_UNSPECIFIED"
    CLIENT_COLLECTED_OTP = "CLIENT_COLLECTED_OTP"
    UNKNOWN = "UNKNOWN"
    """A newer server named one that this SDK does not know."""


class CredentialState(StrEnum):
    """Whether a credential may be used; what is REVOKED stays so."""

    ENABLED = "ENABLED"
    SUSPENDED = "SUSPENDED"
    REVOKED = "REVOKED"
    UNKNOWN = "UNKNOWN"


class RevocationPolicy(StrEnum):
    """What a signature asks of the revocation status of the credential's certificates."""

    IGNORE = "IGNORE"
    REFUSE_REVOKED = "REFUSE_REVOKED"
    REQUIRE_GOOD = "REQUIRE_GOOD"
    UNKNOWN = "UNKNOWN"


class Revocation(StrEnum):
    """What the server knows of the revocation of a credential's certificates."""

    UNKNOWN = "UNKNOWN"
    GOOD = "GOOD"
    REVOKED = "REVOKED"


class AuthorizationState(StrEnum):
    """Where an authorization stands. Whether it has expired is told by its `expire_time`."""

    PENDING = "PENDING"
    APPROVED = "APPROVED"
    DENIED = "DENIED"
    USED = "USED"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class Activator:
    """A person who may activate a credential, and from when until before when."""

    signer: str
    start_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True, kw_only=True)
class Credential:
    """A key, its certificate chain and its policy."""

    name: str
    key: str
    signer: str
    display_name: str
    certificate_chain: tuple[bytes, ...]
    """DER, the signer's own first. Only `Client.trusted_certificate` says that it is trusted."""
    activators: tuple[Activator, ...]
    max_items: int
    client_collected_otp_allowed: bool
    state: CredentialState
    key_type: KeyType | None
    algorithms: tuple[SignatureAlgorithm, ...]
    create_time: datetime | None
    authenticator_kinds: tuple[str, ...] = ()
    """Whose codes approve, such as `OCRA`; empty: those of all."""
    hours: tuple[str, ...] = ()
    """When it may be approved and used, by the server's time zone; empty: always."""
    revocation_policy: RevocationPolicy = RevocationPolicy.IGNORE
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    """The earliest end of the chain's certificates."""
    revocation: Revocation = Revocation.UNKNOWN


@dataclass(frozen=True, kw_only=True)
class AuthorizedItem:
    """One position of an authorization: `kind` is digest, document_digest or data_digest."""

    kind: str
    digest: bytes
    used: bool


@dataclass(frozen=True, kw_only=True)
class Authorization:
    """A signer's decision to let one credential sign one ordered list of digests."""

    name: str
    algorithm: SignatureAlgorithm | None
    pss_salt_length: int | None
    items: tuple[AuthorizedItem, ...]
    approver: str | None
    state: AuthorizationState
    client: str
    approved_by: str | None
    assurance: Assurance
    create_time: datetime | None
    expire_time: datetime | None
    title: str = ""
    """What the client calls it: the client's words, and no more."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits by which people recognize what would be signed; too few to prove anything.

        Of one digest they are its beginning; of several the beginning of SHA-256 over all of them, in their order.
        """
        digests = [item.digest for item in self.items]
        whole = digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()
        return whole[:8].hex()


@dataclass(frozen=True, kw_only=True)
class Approval:
    """One person's decision on an exact, ordered list of authorizations, by one one-time password."""

    signer: str
    authorizations: tuple[str, ...]
    assurance: Assurance
    create_time: datetime | None
    audit_entry: str
    leaf_hash: bytes


@dataclass(frozen=True, kw_only=True)
class SigningResult:
    """Signatures, each verified with `certificate_chain[0]` over what this SDK computed itself."""

    credential: str
    algorithm: SignatureAlgorithm
    pss_salt_length: int | None
    signatures: tuple[bytes, ...]
    """In the items' order; ECDSA as DER."""
    certificate_chain: tuple[bytes, ...]
    authorization: str
    approved_by: str
    assurance: Assurance
    audit_entry: str
    leaf_hash: bytes
    request_id: str
    digests: tuple[bytes, ...]
    """What was authorized, in the items' order, as this SDK computed it: documents' digests (SHA-512 of data)."""


def algorithm_message(algorithm: SignatureAlgorithm) -> "algorithms_pb2.SignatureAlgorithm.ValueType":
    """Returns the enum's value of `algorithm`."""
    return algorithms_pb2.SignatureAlgorithm.Value(algorithm.value)


def parse_algorithm(value: int) -> SignatureAlgorithm | None:
    """Returns the algorithm; None for one that this SDK does not know."""
    name = algorithms_pb2.SignatureAlgorithm.DESCRIPTOR.values_by_number.get(value)
    return SignatureAlgorithm(name.name) if name is not None and name.name in set(SignatureAlgorithm) else None


def parse_assurance(value: int) -> Assurance:
    """Returns the assurance."""
    name = authorization_service_pb2.Assurance.DESCRIPTOR.values_by_number.get(value)
    return Assurance(name.name) if name is not None and name.name in set(Assurance) else Assurance.UNKNOWN


def parse_credential(message: credential_service_pb2.Credential) -> Credential:
    """Returns the credential."""
    known = (parse_algorithm(value) for value in message.algorithms)
    key_type = algorithms_pb2.KeyType.DESCRIPTOR.values_by_number.get(message.key_type)
    kinds = signer_service_pb2.Authenticator.Kind.DESCRIPTOR.values_by_number
    status = message.certificate_status
    # Not said is IGNORE, as the contract has it.
    policy = message.revocation_policy or credential_service_pb2.Credential.IGNORE
    return Credential(
        name=message.name,
        key=message.key,
        signer=message.signer,
        display_name=message.display_name,
        certificate_chain=tuple(message.certificate_chain),
        activators=tuple(
            Activator(
                signer=activator.signer,
                start_time=_time(activator.start_time) if activator.HasField("start_time") else None,
                end_time=_time(activator.end_time) if activator.HasField("end_time") else None,
            )
            for activator in message.activators
        ),
        max_items=message.max_items or 1000,
        client_collected_otp_allowed=message.client_collected_otp_allowed,
        state=_known(CredentialState, credential_service_pb2.Credential.State, message.state),
        key_type=KeyType(key_type.name) if key_type is not None and key_type.name in set(KeyType) else None,
        algorithms=tuple(algorithm for algorithm in known if algorithm is not None),
        create_time=_time(message.create_time) if message.HasField("create_time") else None,
        authenticator_kinds=tuple(
            kind.name if (kind := kinds.get(value)) is not None else str(value) for value in message.authenticator_kinds
        ),
        hours=tuple(message.hours),
        revocation_policy=_known(RevocationPolicy, credential_service_pb2.Credential.RevocationPolicy, policy),
        valid_from=_time(status.not_before) if status.HasField("not_before") else None,
        valid_until=_time(status.not_after) if status.HasField("not_after") else None,
        revocation=_known(Revocation, credential_service_pb2.CertificateStatus.Revocation, status.revocation),
    )


def parse_authorization(message: authorization_service_pb2.Authorization) -> Authorization:
    """Returns the authorization."""
    state = authorization_service_pb2.Authorization.State.DESCRIPTOR.values_by_number.get(message.state)
    return Authorization(
        name=message.name,
        algorithm=parse_algorithm(message.algorithm),
        pss_salt_length=message.pss_salt_length if message.HasField("pss_salt_length") else None,
        items=_authorized_items(message.items),
        approver=message.approver or None,
        state=AuthorizationState(state.name)
        if state is not None and state.name in set(AuthorizationState)
        else AuthorizationState.UNKNOWN,
        client=message.client,
        approved_by=message.approved_by or None,
        assurance=parse_assurance(message.assurance),
        create_time=_time(message.create_time) if message.HasField("create_time") else None,
        expire_time=_time(message.expire_time) if message.HasField("expire_time") else None,
        title=message.title,
    )


def parse_approval(message: authorization_service_pb2.Approval) -> Approval:
    """Returns the approval."""
    return Approval(
        signer=message.signer,
        authorizations=tuple(message.authorizations),
        assurance=parse_assurance(message.assurance),
        create_time=_time(message.create_time) if message.HasField("create_time") else None,
        audit_entry=message.audit_entry,
        leaf_hash=message.leaf_hash,
    )


def parse_time(message: Timestamp) -> datetime:
    """Returns the time, in UTC."""
    return _time(message)


def _authorized_items(
    items: Sequence[authorization_service_pb2.AuthorizedItem],
) -> tuple[AuthorizedItem, ...]:
    parsed: list[AuthorizedItem] = []
    for item in items:
        kind = item.WhichOneof("item")
        if kind is None:
            raise VerificationError("The server named an item of a kind that this SDK does not know.")
        parsed.append(AuthorizedItem(kind=kind, digest=getattr(item, kind), used=item.used))
    return tuple(parsed)


def _known(kind: type[E], enum: Any, number: int) -> E:
    """Returns an enum's value by its number; UNKNOWN for one that this SDK does not know."""
    value = enum.DESCRIPTOR.values_by_number.get(number)
    return kind(value.name if value is not None and value.name in set(kind) else "UNKNOWN")


def _time(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise VerificationError("The server named a time that is no time.") from None
