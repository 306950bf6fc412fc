"""Translates between messages and the core's values. Holds no rule but that of form."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import google_crc32c
from google.protobuf.timestamp_pb2 import Timestamp
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    signer_service_pb2,
    signing_service_pb2,
)

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.encoding import prefixed
from trien_server.core.errors import InvalidArgument
from trien_server.core.items import DataItem, DigestItem, Item, SignedAttributesItem
from trien_server.core.records import (
    Assurance,
    Authenticator,
    Authorization,
    AuthorizationState,
    Client,
    ItemKind,
    Key,
    KeyState,
    Organization,
    ProtectionLevel,
    Signer,
    SignerKind,
    State,
)
from trien_server.services.credentials import CredentialView
from trien_server.services.read_authorizations import AuthorizationView


def algorithm_in(value: "algorithms_pb2.SignatureAlgorithm.ValueType", *, field: str) -> SignatureAlgorithm:
    """Returns the algorithm. Raises `InvalidArgument` for one that is not said or not known."""
    try:
        return SignatureAlgorithm(algorithms_pb2.SignatureAlgorithm.Name(value))
    except ValueError as unknown:
        raise InvalidArgument(field, "required, one of trien.v1.SignatureAlgorithm") from unknown


def algorithm_out(value: SignatureAlgorithm) -> "algorithms_pb2.SignatureAlgorithm.ValueType":
    return algorithms_pb2.SignatureAlgorithm.Value(value.value)


def key_type_in(value: "algorithms_pb2.KeyType.ValueType", *, field: str) -> KeyType:
    """Returns the key type. Raises `InvalidArgument` for one that is not said or not known."""
    try:
        return KeyType(algorithms_pb2.KeyType.Name(value))
    except ValueError as unknown:
        raise InvalidArgument(field, "required, one of trien.v1.KeyType") from unknown


def key_type_out(value: KeyType) -> "algorithms_pb2.KeyType.ValueType":
    return algorithms_pb2.KeyType.Value(value.value)


def items_in(items: Iterable[signing_service_pb2.SignItem]) -> tuple[Item, ...]:
    """Returns the items. Raises `InvalidArgument` for an empty one."""
    result: list[Item] = []
    for position, item in enumerate(items):
        match item.WhichOneof("item"):
            case "digest":
                result.append(DigestItem(digest=item.digest))
            case "signed_attributes":
                attributes = item.signed_attributes
                result.append(SignedAttributesItem(document_digest=attributes.document_digest, encoded=attributes.der))
            case "data":
                result.append(DataItem(data=item.data))
            case _:
                raise InvalidArgument(f"items[{position}]", "expected a digest, signed attributes or data")
    return tuple(result)


def items_crc32c(items: Sequence[Item]) -> int:
    """Returns the CRC32C that a request's `items_crc32c` has to equal."""
    checksum = 0
    for item in items:
        match item:
            case DigestItem(digest=value) | SignedAttributesItem(encoded=value) | DataItem(data=value):
                checksum = google_crc32c.extend(checksum, prefixed(value))
    return checksum


def authorized_items_in(
    items: Sequence[authorization_service_pb2.AuthorizedItem],
) -> tuple[ItemKind, tuple[bytes, ...]]:
    """Returns what kind the items are of, and their digests. Raises `InvalidArgument` for mixed or empty ones."""
    kinds = {"digest": ItemKind.DIGEST, "document_digest": ItemKind.SIGNED_ATTRIBUTES, "data_digest": ItemKind.DATA}
    found = [item.WhichOneof("item") for item in items]
    if not found:
        raise InvalidArgument("authorization.items", "at least one item is required")
    first = found[0]
    if first is None or any(which != first for which in found):
        raise InvalidArgument("authorization.items", "expected digests, all of one kind")
    return kinds[first], tuple(getattr(item, first) for item in items)


def time_in(message: Timestamp, *, field: str) -> datetime:
    """Returns the time. Raises `InvalidArgument` for one out of range."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as fault:
        raise InvalidArgument(field, "a time out of range") from fault


def time_out(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message


def assurance_out(value: Assurance) -> "authorization_service_pb2.Assurance.ValueType":
    return authorization_service_pb2.Assurance.Value(value.value)


def authorization_out(view: AuthorizationView) -> authorization_service_pb2.Authorization:
    authorization = view.authorization
    message = authorization_service_pb2.Authorization(
        name=authorization.name,
        algorithm=algorithm_out(authorization.algorithm),
        pss_salt_length=authorization.pss_salt_length,
        items=_authorized_items_out(authorization),
        approver=authorization.approver or "",
        state=_AUTHORIZATION_STATES[authorization.state],
        client=authorization.client,
        title=authorization.title,
        create_time=time_out(authorization.create_time),
        expire_time=time_out(authorization.expire_time),
    )
    if view.approval is not None:
        message.approved_by = view.approval.signer
        message.assurance = assurance_out(view.approval.assurance)
    return message


_AUTHORIZATION_STATES = {
    AuthorizationState.PENDING: authorization_service_pb2.Authorization.PENDING,
    AuthorizationState.APPROVED: authorization_service_pb2.Authorization.APPROVED,
    AuthorizationState.DENIED: authorization_service_pb2.Authorization.DENIED,
    AuthorizationState.USED: authorization_service_pb2.Authorization.USED,
}


def _authorized_items_out(authorization: Authorization) -> list[authorization_service_pb2.AuthorizedItem]:
    make: Callable[[bytes, bool], authorization_service_pb2.AuthorizedItem]
    match authorization.item_kind:
        case ItemKind.DIGEST:
            make = lambda digest, used: authorization_service_pb2.AuthorizedItem(digest=digest, used=used)  # noqa: E731
        case ItemKind.SIGNED_ATTRIBUTES:
            make = lambda digest, used: authorization_service_pb2.AuthorizedItem(  # noqa: E731
                document_digest=digest, used=used
            )
        case ItemKind.DATA:
            make = lambda digest, used: authorization_service_pb2.AuthorizedItem(  # noqa: E731
                data_digest=digest, used=used
            )
    return [make(digest, bool(used)) for digest, used in zip(authorization.digests, authorization.used, strict=True)]


def credential_out(view: CredentialView) -> credential_service_pb2.Credential:
    credential = view.credential
    activators = []
    for activator in view.activators:
        message = credential_service_pb2.Activator(signer=activator.signer)
        if activator.start_time is not None:
            message.start_time.CopyFrom(time_out(activator.start_time))
        if activator.end_time is not None:
            message.end_time.CopyFrom(time_out(activator.end_time))
        activators.append(message)
    states = {
        State.ENABLED: credential_service_pb2.Credential.ENABLED,
        State.DISABLED: credential_service_pb2.Credential.DISABLED,
    }
    return credential_service_pb2.Credential(
        name=credential.name,
        key=credential.key,
        signer=credential.signer,
        display_name=credential.display_name,
        certificate_chain=credential.certificate_chain,
        activators=activators,
        clients=view.clients,
        max_items=credential.max_items,
        client_collected_otp_allowed=credential.client_collected_otp,
        state=states[credential.state],
        key_type=key_type_out(view.key.key_type),
        algorithms=[algorithm_out(found) for found in SignatureAlgorithm if found.fits(view.key.key_type)],
        create_time=time_out(credential.create_time),
    )


def key_out(key: Key) -> key_service_pb2.Key:
    states = {
        KeyState.PENDING_GENERATION: key_service_pb2.Key.PENDING_GENERATION,
        KeyState.ENABLED: key_service_pb2.Key.ENABLED,
        KeyState.DISABLED: key_service_pb2.Key.DISABLED,
        KeyState.GENERATION_FAILED: key_service_pb2.Key.GENERATION_FAILED,
    }
    levels = {ProtectionLevel.TOKEN: key_service_pb2.TOKEN}
    return key_service_pb2.Key(
        name=key.name,
        key_type=key_type_out(key.key_type),
        protection_level=levels[key.protection_level],
        state=states[key.state],
        public_key=key.public_key,
        create_time=time_out(key.create_time),
    )


def organization_out(organization: Organization) -> organization_service_pb2.Organization:
    message = organization_service_pb2.Organization(
        name=organization.name,
        display_name=organization.display_name,
        parent=organization.parent or "",
        create_time=time_out(organization.create_time),
    )
    if organization.start_time is not None:
        message.start_time.CopyFrom(time_out(organization.start_time))
    if organization.end_time is not None:
        message.end_time.CopyFrom(time_out(organization.end_time))
    return message


def signer_out(signer: Signer) -> signer_service_pb2.Signer:
    kinds = {
        SignerKind.PERSON: signer_service_pb2.Signer.PERSON,
        SignerKind.AGENCY: signer_service_pb2.Signer.AGENCY,
    }
    states = {
        State.ENABLED: signer_service_pb2.Signer.ENABLED,
        State.DISABLED: signer_service_pb2.Signer.DISABLED,
    }
    return signer_service_pb2.Signer(
        name=signer.name,
        display_name=signer.display_name,
        kind=kinds[signer.kind],
        organization=signer.organization,
        position=signer.position,
        state=states[signer.state],
        create_time=time_out(signer.create_time),
    )


def authenticator_out(authenticator: Authenticator) -> signer_service_pb2.Authenticator:
    return signer_service_pb2.Authenticator(
        name=authenticator.name,
        kind=signer_service_pb2.Authenticator.Kind.Value(authenticator.kind.value),
        digits=authenticator.digits,
        hash=signer_service_pb2.Authenticator.Hash.Value(authenticator.hash_function or "HASH_UNSPECIFIED"),
        address=authenticator.address,
        create_time=time_out(authenticator.create_time),
    )


def client_out(client: Client) -> access_service_pb2.Client:
    states = {
        State.ENABLED: access_service_pb2.Client.ENABLED,
        State.DISABLED: access_service_pb2.Client.DISABLED,
    }
    return access_service_pb2.Client(
        name=client.name,
        display_name=client.display_name,
        certificate_fingerprint=client.certificate_fingerprint or b"",
        state=states[client.state],
        create_time=time_out(client.create_time),
    )
