"""Translates between messages and the core's values. Holds no rule but that of form."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import google_crc32c
from google.protobuf.timestamp_pb2 import Timestamp
from trien.v1 import (
    algorithms_pb2,
    authorization_service_pb2,
    signing_service_pb2,
)

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.encoding import prefixed
from trien_server.core.errors import InvalidArgument
from trien_server.core.items import DataItem, DigestItem, Item, SignedAttributesItem
from trien_server.core.records import (
    Assurance,
    Authorization,
    AuthorizationState,
    ItemKind,
)
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


def optional_time_in(message: Any, name: str, *, field: str) -> datetime | None:
    """Returns the time of a message's field, or None when it is absent. Raises `InvalidArgument`."""
    return time_in(getattr(message, name), field=f"{field}.{name}") if message.HasField(name) else None


def set_time(message: Timestamp, value: datetime | None) -> None:
    """Sets a message's field of type Timestamp unless the time is None."""
    if value is not None:
        message.FromDatetime(value)


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
