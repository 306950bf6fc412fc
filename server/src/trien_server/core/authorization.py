"""The life of an authorization: pending, approved or denied, used position by position (P2, P3)."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from trien_server.core.errors import (
    ActivationDataUsed,
    AuthorizationExpired,
    AuthorizationNotApproved,
    AuthorizationNotPending,
    DigestsNotAuthorized,
)
from trien_server.core.items import PreparedItems, SignatureScheme
from trien_server.core.records import Authorization, AuthorizationState


def approve(authorization: Authorization, *, approval: str, at: datetime) -> Authorization:
    """Returns the authorization as approved.

    Raises `AuthorizationNotPending` or `AuthorizationExpired`, with its name.
    """
    assert_pending(authorization, at=at)
    return dataclasses.replace(
        authorization, version=authorization.version + 1, state=AuthorizationState.APPROVED, approval=approval
    )


def assert_pending(authorization: Authorization, *, at: datetime) -> None:
    """Raises `AuthorizationNotPending` or `AuthorizationExpired` unless it can be decided on now."""
    details = {"authorization": authorization.name, "state": str(authorization.state)}
    if authorization.state is not AuthorizationState.PENDING:
        message = f"{authorization.name} is {authorization.state}, not pending."
        raise AuthorizationNotPending(message, metadata=details)
    if at >= authorization.expire_time:
        raise AuthorizationExpired(f"{authorization.name} has expired.", metadata=details)


def assert_key(authorization: Authorization, key: str) -> None:
    """Raises `AuthorizationExpired`, with its name, unless it is about the key that the credential has now.

    A person decided on signatures of one key: when the credential is renewed with another, nothing goes over to it.
    """
    if authorization.key != key:
        message = f"{authorization.name} ended: the credential was renewed with another key."
        details = {"authorization": authorization.name, "state": str(authorization.state)}
        raise AuthorizationExpired(message, metadata=details)


def deny(authorization: Authorization, *, at: datetime) -> Authorization:
    """Returns the authorization as denied. Raises as `approve`."""
    assert_pending(authorization, at=at)
    return dataclasses.replace(authorization, version=authorization.version + 1, state=AuthorizationState.DENIED)


def match_positions(
    authorization: Authorization, scheme: SignatureScheme, items: PreparedItems, *, at: datetime
) -> tuple[int, ...]:
    """Returns the authorized position of each item.

    The items have to be unused positions in the authorized order; some may be left for a later call.
    Raises `AuthorizationNotApproved`, `AuthorizationExpired`, `ActivationDataUsed` or
    `DigestsNotAuthorized`.
    """
    match authorization.state:
        case AuthorizationState.USED:
            raise ActivationDataUsed("Every position of the authorization was signed before.")
        case AuthorizationState.PENDING | AuthorizationState.DENIED:
            raise AuthorizationNotApproved(f"The authorization is {authorization.state}, not approved.")
    if at >= authorization.expire_time:
        raise AuthorizationExpired("The authorization has expired.")
    authorized_scheme = (authorization.algorithm, authorization.pss_salt_length, authorization.item_kind)
    if (scheme.algorithm, scheme.pss_salt_length, items.kind) != authorized_scheme:
        raise DigestsNotAuthorized("The algorithm or the kind of items is not the authorized one.")
    return _positions(authorization.digests, authorization.used, items.authorized)


def _positions(authorized: Sequence[bytes], used: bytes, wanted: Sequence[bytes]) -> tuple[int, ...]:
    positions: list[int] = []
    start = 0
    for index, digest in enumerate(wanted):
        found = next((at for at in range(start, len(authorized)) if authorized[at] == digest and not used[at]), None)
        if found is None:
            if any(authorized[at] == digest and used[at] for at in range(start, len(authorized))):
                raise ActivationDataUsed(f"items[{index}] was signed before.")
            raise DigestsNotAuthorized(f"items[{index}] is not authorized, or not in this order.")
        positions.append(found)
        start = found + 1
    return tuple(positions)


def use(authorization: Authorization, positions: Sequence[int], signed_digests: Sequence[bytes]) -> Authorization:
    """Returns the authorization with the positions used and their signed digests written down."""
    used, signed = bytearray(authorization.used), list(authorization.signed_digests)
    for position, digest in zip(positions, signed_digests, strict=True):
        if used[position]:
            raise ActivationDataUsed(f"Position {position} was signed before.")
        used[position], signed[position] = 1, digest
    state = AuthorizationState.USED if all(used) else authorization.state
    return dataclasses.replace(
        authorization,
        version=authorization.version + 1,
        used=bytes(used),
        signed_digests=tuple(signed),
        state=state,
    )
