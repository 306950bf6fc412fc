"""What is kept for ever, and what is removed after which time: the one table of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from trien_server.core import records
from trien_server.core.records import Record
from trien_server.core.sealing import LONGEST_AUTHORIZATION

DEFAULT_DAYS = 400
"""A year and a month: what a yearly inspection asks about is still there, with a month to ask.

The law names no time for these records. What proves a signature, the audit entry with its digests and the place in the
log, is kept for ever; here are the copies that make answers quick: outcomes, lists of uses, states of decisions.
"""
LEAST_DAYS = 30
"""P7 asks for 7 days, an authorization lives for 1, and whoever looks at the uses once a month sees all of them."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How long a kind of record is kept: for ever, or until `request_days` after its `end`. `why` is for people."""

    why: str
    end: Callable[[Any], datetime] | None = None
    end_words: str = ""

    def is_due(self, record: Record, before: datetime) -> bool:
        """Tells whether a record ended before a time."""
        return self.end is not None and self.end(record) < before


_AFTERWARDS = timedelta(hours=1)
"""What a retry may still write of what is over: it completes work for 15 minutes."""
_REPLAY = "a code or a count of failures must not be forgotten (P2)"
_SLOW = "an operator's decision, named by the log (P5)"
_LOG = "the evidence (P10)"

# Removed in this order. What names another one ends no later than that: who finds a request finds its authorization,
# and who finds an authorization its approval.
RETENTION: Mapping[type[Record], Kept] = {
    records.GrantedRequest: Kept(
        why="with its outcome; P7 keeps both 7 days",
        end=lambda record: record.create_time + _AFTERWARDS,
        end_words="an hour after it was granted",
    ),
    records.SignatureUse: Kept(
        why="persons look at the uses of their credentials",
        end=lambda record: record.time,
        end_words="the use",
    ),
    records.Challenge: Kept(
        why="it is answered within 5 minutes or never", end=lambda record: record.expire_time, end_words="its expiry"
    ),
    records.Authorization: Kept(
        why="requests name it",
        end=lambda record: record.expire_time + _AFTERWARDS,
        end_words="an hour after its expiry",
    ),
    records.Approval: Kept(
        why="authorizations name it",
        end=lambda record: record.create_time + LONGEST_AUTHORIZATION + _AFTERWARDS,
        end_words="25 hours after it was given",
    ),
    records.DeliveryCount: Kept(
        why="the limits count one day",
        end=lambda record: _end_of_day(record.day),
        end_words="the end of its day",
    ),
    records.Notice: Kept(
        why="so that something is told once; what still holds then is told again",
        end=lambda record: record.create_time,
        end_words="the notice",
    ),
    records.AuthenticatorState: Kept(why=_REPLAY),
    records.SignerAttempts: Kept(why=_REPLAY),
    records.ClientAttempts: Kept(why=_REPLAY),
    records.Lease: Kept(why="one for each thing that one process does at a time"),
    records.CertificateStatus: Kept(why="one a credential, replaced"),
    records.AuditEntry: Kept(why=f"{_LOG}; details can be erased"),
    records.LogHead: Kept(why=_LOG),
    records.LogTile: Kept(why=_LOG),
    records.LogCheckpoint: Kept(why=_LOG),
    records.AuditExport: Kept(why="one a sink, replaced"),
    **dict.fromkeys(records.SLOW_RECORDS, Kept(why=_SLOW)),
}

REMOVED: tuple[type[Record], ...] = tuple(kind for kind, kept in RETENTION.items() if kept.end is not None)
"""The kinds that are removed, in the order in which that is done."""


def is_due(record: Record, before: datetime) -> bool:
    """Tells whether a record may be removed once everything from before a time is to go."""
    return RETENTION[type(record)].is_due(record, before)


def _end_of_day(day: str) -> datetime:
    return datetime.combine(datetime.fromisoformat(day).date(), time.min, tzinfo=UTC) + timedelta(days=1)
