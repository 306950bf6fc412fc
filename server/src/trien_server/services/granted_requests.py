"""Retries: a granted request binds its id, and its work is done under one approval (P7)."""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from trien_server.core.encoding import encode_all
from trien_server.core.errors import AuthorizationExpired, InvalidArgument, RequestIdReused
from trien_server.core.records import GrantedRequest
from trien_server.core.sealing import KEPT_REQUEST
from trien_server.services.transactions import Ledger, next_version

COMPLETION_TIME = timedelta(minutes=15)
"""How long after the grant a retry may complete the work."""
OUTCOME_TIME = KEPT_REQUEST
"""How long an outcome is kept."""
LEASE_TIME = timedelta(seconds=30)
LEASE_TIME_PER_ITEM = timedelta(milliseconds=100)

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


def parse_request_id(value: str) -> str:
    """Returns a request id in lower case. Raises `InvalidArgument` unless it is a UUID (RFC 9562, section 4)."""
    lowered = value.lower()
    if _UUID.fullmatch(lowered) is None:
        raise InvalidArgument("request_id", "expected a UUID such as '123e4567-e89b-42d3-a456-426614174000'")
    return lowered


def granted_request_name(client: str, request_id: str) -> str:
    """Returns the name of the record that a client's request id binds: one for all methods."""
    return f"{client}/requests/{request_id}"


def content_hash(method: str, values: Sequence[object]) -> bytes:
    """Returns the hash of a request's content: never of its one-time password or activation data."""
    return hashlib.sha256(encode_all("trien/request", [method, *values])).digest()


def grant(
    ledger: Ledger,
    *,
    name: str,
    client: str,
    method: str,
    content: bytes,
    subject: str,
    audit_entry: str,
    holder: str,
    positions: Sequence[int] = (),
    completed: bool = False,
) -> GrantedRequest:
    """Binds the request id, in the transaction that grants the request. Raises `NameTaken`."""
    granted = GrantedRequest(
        name=name,
        client=client,
        method=method,
        content_hash=content,
        subject=subject,
        audit_entry=audit_entry,
        positions=tuple(map(str, positions)),
        lease_holder=holder,
        lease_expire_time=ledger.at + lease_time(len(positions)),
        completed=completed,
        create_time=ledger.at,
    )
    ledger.insert(granted)
    return granted


def assert_same(granted: GrantedRequest, content: bytes) -> None:
    """Raises `RequestIdReused` unless the id was granted for this content."""
    if granted.content_hash != content:
        raise RequestIdReused("The request_id was granted for other content.")


def assert_completable(granted: GrantedRequest, *, at: datetime) -> None:
    """Raises `AuthorizationExpired` when the work can no longer be completed without a new approval."""
    if at - granted.create_time > COMPLETION_TIME:
        raise AuthorizationExpired("The request was not completed in time; ask for a new approval.")


def assert_outcome_kept(granted: GrantedRequest, *, at: datetime) -> None:
    """Raises `AuthorizationExpired` when the outcome is no longer kept."""
    if at - granted.create_time > OUTCOME_TIME:
        raise AuthorizationExpired("The request's outcome is no longer kept.")


def take_lease(granted: GrantedRequest, *, holder: str, audit_entry: str, at: datetime) -> GrantedRequest:
    """Returns the request with the lease in another hand; replacing it is the compare-and-swap."""
    until = at + lease_time(len(granted.positions))
    return next_version(granted, lease_holder=holder, lease_expire_time=until, audit_entry=audit_entry)


def lease_time(items: int) -> timedelta:
    """Returns how long a process may sign so many items before another takes over."""
    return LEASE_TIME + items * LEASE_TIME_PER_ITEM
