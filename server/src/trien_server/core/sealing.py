"""What a seal covers (P5).

A seal is an HMAC over (label, encoding version, seal key, table, name, row version, fields). Fields
carry their names and those that are None are left out, so that a migration can add optional fields
without touching old seals, and rows of two tables cannot be confused.
"""

import dataclasses
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache

from trien_server.core.encoding import encode_all, encode_value
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    Approval,
    AuditEntry,
    AuditExport,
    Authorization,
    CertificateStatus,
    Challenge,
    DeliveryCount,
    GrantedRequest,
    Lease,
    LogCheckpoint,
    LogHead,
    LogTile,
    Notice,
    Record,
    SignatureUse,
)

ENCODING_VERSION = 1
FIRST_GENERATION = 1
HANDOVER = timedelta(minutes=2)
"""How long every process has to learn of a new sealing or wrapping key, before the one before retires."""
LONGEST_AUTHORIZATION = timedelta(hours=24)
"""How long an authorization can be approved and used."""
LONGEST_CHALLENGE = timedelta(minutes=5)
"""How long a challenge can be answered (NIST SP 800-63B-4, section 3.1.3.2: at most 10 minutes)."""
CLOCK_TOLERANCE = timedelta(seconds=5)
"""How far clocks may be apart."""
KEPT_REQUEST = timedelta(days=7)
"""How long a granted request's outcome is kept."""
LEASE_LIFETIME = timedelta(minutes=1)
"""How long a process holds what it does alone, unless it gives it back."""


_SEAL_KEY = re.compile(r"(?P<generation>[1-9][0-9]{0,3})(?:/(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2}))?", re.ASCII)
_FIELD_NAMES: dict[type[Record], tuple[tuple[str, bytes], ...]] = {
    kind: tuple(
        (field.name, encode_value(field.name))
        for field in dataclasses.fields(kind)
        if field.name not in {"name", "version"}
    )
    for kind in (*SLOW_RECORDS, *HOT_RECORDS)
}
"""The fields that a seal covers, each with its encoded name: a request encodes some thirty rows."""


def encode_row(record: Record, seal_key: str) -> bytes:
    """Returns the bytes that the seal of `record` under `seal_key` covers."""
    parts = [encode_all("trien/row", [ENCODING_VERSION, seal_key, record.table, record.name, record.version])]
    for name, encoded_name in _FIELD_NAMES[type(record)]:
        value = getattr(record, name)
        if value is not None:
            parts += (encoded_name, encode_value(value))
    return b"".join(parts)


@dataclass(frozen=True)
class Generations:
    """The generations of the token's sealing key: which one seals, and which ones seal no more since when."""

    active: int = FIRST_GENERATION
    others: frozenset[int] = frozenset()
    """Those before that still verify what they sealed."""
    retired: Mapping[int, datetime] = field(default_factory=dict)
    """Those that verify only what is from before a time."""

    def of(self, made: datetime) -> list[int]:
        """Returns the generations that may have made something at a time, the newest first."""
        late = {generation for generation, end in self.retired.items() if made < end}
        return sorted({self.active, *self.others, *late}, reverse=True)

    def follows(self, earlier: "Generations") -> bool:
        """Tells whether this can have come after another one: what is retired stays retired, since the same time."""
        return self.active >= earlier.active and earlier.retired.items() <= self.retired.items()


def slow_seal_key(generation: int = FIRST_GENERATION) -> str:
    """Returns the name of a generation of the token's sealing key, which seals slow records itself: `1`."""
    return str(generation)


def day_seal_key(at: datetime, generation: int = FIRST_GENERATION) -> str:
    """Returns the name of the day key that seals hot records at a time: `1/2026-11-24`."""
    return f"{generation}/{at.date().isoformat()}"


def day_key_message(seal_key: str) -> bytes:
    """Returns what the token authenticates to derive a day key."""
    return encode_all("trien/day-key", [seal_key])


def generation_of(seal_key: str, *, hot: bool) -> int | None:
    """Returns the generation that a name of a hot or a slow record's seal key has; None when it is no such name."""
    generation, day = _parts_of(seal_key)
    return generation if hot is (day is not None) else None


@lru_cache(maxsize=256)
def _parts_of(seal_key: str) -> tuple[int | None, date | None]:
    """Returns the generation and the day of a seal key's name; (None, None) when it is no such name.

    A request verifies a dozen rows, nearly all sealed today: without the cache, reading that date takes longer than
    the HMACs.
    """
    found = _SEAL_KEY.fullmatch(seal_key)
    if found is None:
        return None, None
    try:
        day = datetime.strptime(found["day"], "%Y-%m-%d").date() if found["day"] is not None else None
    except ValueError:
        return None, None
    return int(found["generation"]), day


def seal_day_fits(record: Record, seal_key: str) -> bool:
    """Tells whether a hot record can have been sealed on the day of its seal key.

    A day key that leaked must not make records of later days: what is written once is sealed on the day that it
    names, an authorization within its life, a granted request while its outcome is kept, a lease while it is held.
    """
    _, sealed_on = _parts_of(seal_key)
    if sealed_on is None:
        return False
    match record:
        case AuditEntry(time=at):
            # Erased later, or not at all.
            return sealed_on == at.date() if record.version == 1 else sealed_on >= at.date() and record.salt == b""
        case (
            Approval(create_time=at)
            | SignatureUse(time=at)
            | Notice(create_time=at)
            | CertificateStatus(check_time=at)
            | LogHead(time=at)
            | LogTile(time=at)
            | LogCheckpoint(time=at)
            | AuditExport(time=at)
        ):
            return sealed_on == at.date()
        case Authorization(create_time=at, expire_time=end):
            return _within(at, sealed_on, end) and end - at <= LONGEST_AUTHORIZATION
        case Challenge(create_time=at, expire_time=end):
            return _within(at, sealed_on, end) and end - at <= LONGEST_CHALLENGE
        case DeliveryCount(day=day):
            return day == f"{sealed_on:%Y-%m-%d}"
        case GrantedRequest(create_time=at):
            return _within(at, sealed_on, at + KEPT_REQUEST)
        case Lease(expire_time=end):
            return _within(end - LEASE_LIFETIME, sealed_on, end)
    return True


def is_from_before(record: Record, end: datetime) -> bool:
    """Tells whether a hot record is dated before a time: what a retired sealing key may have sealed.

    What has no date of its own is sealed anew before the key retires.
    """
    match record:
        case (
            Approval(create_time=at)
            | AuditEntry(time=at)
            | Notice(create_time=at)
            | CertificateStatus(check_time=at)
            | Authorization(create_time=at)
            | Challenge(create_time=at)
            | GrantedRequest(create_time=at)
            | SignatureUse(time=at)
            | DeliveryCount(last_time=at)
            | LogHead(time=at)
            | LogTile(time=at)
            | LogCheckpoint(time=at)
            | AuditExport(time=at)
        ):
            return at < end
        case Lease(expire_time=at):
            return at - LEASE_LIFETIME < end
    return False


def _within(begin: datetime, day: date, end: datetime) -> bool:
    """Tells whether a day lies in a time, for a clock that may be a little behind or ahead of the one that began it."""
    return (begin - CLOCK_TOLERANCE).date() <= day <= (end + CLOCK_TOLERANCE).date()


def day_seal(key: bytes, record: Record, seal_key: str) -> bytes:
    """Returns the seal of a hot record by a day key: HMAC-SHA256, 32 bytes (RFC 2104)."""
    return hmac.digest(key, encode_row(record, seal_key), hashlib.sha256)


def activation_data_message(authorization: Authorization) -> bytes:
    """Returns what the token authenticates to derive the secret that opens an authorization (32 bytes)."""
    parts = [authorization.name, authorization.client, authorization.expire_time]
    return encode_all("trien/signature-activation-data", parts)
