"""The policy of a credential: how many items, by which codes, when, and with what revocation status."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import lru_cache
from typing import Any

from trien_server.core.errors import InvalidArgument
from trien_server.core.items import MOST_ITEMS
from trien_server.core.records import AuthenticatorKind, Credential, RevocationPolicy

MOST_HOURS = 28
"""How many alternatives of hours a credential has at most: four a day."""

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_DAY = f"(?:{'|'.join(_DAYS)})"
_TIME = r"[0-9]{2}:[0-9]{2}"
_ALTERNATIVE = re.compile(rf"({_DAY}(?:[,-]{_DAY})*) ({_TIME})-({_TIME})", re.ASCII)
_WHOLE_WEEK = (1 << 7 * _DAY_MINUTES) - 1
_STRICTNESS = (RevocationPolicy.IGNORE, RevocationPolicy.REFUSE_REVOKED, RevocationPolicy.REQUIRE_GOOD)


@dataclass(frozen=True)
class Hours:
    """A set of minutes of the week, by the clock on the wall: bit 0 is Monday 00:00.

    Where clocks are set forward, the minutes that are left out never come; where they are set back, those that come
    twice are both within or both without.
    """

    minutes: int

    @classmethod
    def parse(cls, alternatives: Iterable[str], *, field: str) -> "Hours":
        """Returns the hours of alternatives such as `mon-fri 07:00-17:30` or `sat,sun 08:00-12:00`; none are always.

        The end is not within; the last is `24:00`. Raises `InvalidArgument` that names the first that is something
        else.
        """
        wanted = tuple(alternatives)
        if len(wanted) > MOST_HOURS:
            raise InvalidArgument(field, f"expected at most {MOST_HOURS} alternatives")
        minutes = 0
        for position, alternative in enumerate(wanted):
            try:
                minutes |= _minutes_of(alternative)
            except ValueError as fault:
                raise InvalidArgument(f"{field}[{position}]", str(fault)) from fault
        return cls(minutes if wanted else _WHOLE_WEEK)

    def include(self, at: datetime, zone: tzinfo) -> bool:
        """Tells whether a time is within, by a zone's clock."""
        local = at.astimezone(zone)
        minute = (local.weekday() * 24 + local.hour) * 60 + local.minute
        return bool(self.minutes >> minute & 1)

    def within(self, other: "Hours") -> bool:
        """Tells whether every minute is one of the other's too."""
        return self.minutes & ~other.minutes == 0


@lru_cache(maxsize=1024)
def hours_of(alternatives: tuple[str, ...]) -> Hours:
    """Returns the hours of a credential's record, which were parsed before they were written."""
    return Hours.parse(alternatives, field="hours")


def allowed_kinds(kinds: Iterable[str]) -> frozenset[AuthenticatorKind]:
    """Returns the kinds of authenticator that a credential's policy allows: all when it names none."""
    return frozenset(AuthenticatorKind(kind) for kind in kinds) or frozenset(AuthenticatorKind)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a credential's owner allows, checked: it cannot be wrong.

    Empty `authenticator_kinds` are all kinds, also ones that a later version knows; empty `hours` are always.
    """

    max_items: int
    client_collected_otp: bool
    authenticator_kinds: tuple[AuthenticatorKind, ...]
    hours: tuple[str, ...]
    revocation_policy: RevocationPolicy

    @classmethod
    def parse(
        cls,
        *,
        max_items: int,
        client_collected_otp: bool,
        authenticator_kinds: Iterable[AuthenticatorKind],
        hours: Iterable[str],
        revocation_policy: RevocationPolicy,
    ) -> "Policy":
        """Returns the policy that a request asks for. Raises `InvalidArgument` that names the first fault."""
        if not 0 <= max_items <= MOST_ITEMS:
            raise InvalidArgument("credential.max_items", f"expected 0 to {MOST_ITEMS}")
        alternatives = tuple(hours)
        Hours.parse(alternatives, field="credential.hours")
        return cls(
            max_items=max_items or MOST_ITEMS,
            client_collected_otp=client_collected_otp,
            authenticator_kinds=tuple(sorted(set(authenticator_kinds))),
            hours=alternatives,
            revocation_policy=revocation_policy,
        )

    @classmethod
    def of(cls, credential: Credential) -> "Policy":
        """Returns the policy of a credential's record."""
        return cls(
            max_items=credential.max_items,
            client_collected_otp=credential.client_collected_otp,
            authenticator_kinds=tuple(AuthenticatorKind(kind) for kind in credential.authenticator_kinds),
            hours=credential.hours,
            revocation_policy=credential.revocation_policy,
        )

    def values(self) -> dict[str, Any]:
        """Returns the fields of a credential's record that hold the policy."""
        return {
            "max_items": self.max_items,
            "client_collected_otp": self.client_collected_otp,
            "authenticator_kinds": tuple(kind.value for kind in self.authenticator_kinds),
            "hours": self.hours,
            "revocation_policy": self.revocation_policy,
        }

    def looser_than(self, other: "Policy") -> list[str]:
        """Returns in what this policy allows anything that the other does not: nothing when it is as strict."""
        findings = []
        if self.max_items > other.max_items:
            findings.append(f"max_items: {self.max_items} is more than {other.max_items}")
        if self.client_collected_otp and not other.client_collected_otp:
            findings.append("client_collected_otp_allowed: the application may not collect one-time passwords now")
        if other.authenticator_kinds and not (
            self.authenticator_kinds and set(self.authenticator_kinds) <= set(other.authenticator_kinds)
        ):
            findings.append(f"authenticator_kinds: only {', '.join(other.authenticator_kinds)} may approve now")
        if not hours_of(self.hours).within(hours_of(other.hours)):
            findings.append(f"hours: there are minutes outside of {'; '.join(other.hours)}")
        if _STRICTNESS.index(self.revocation_policy) < _STRICTNESS.index(other.revocation_policy):
            findings.append(f"revocation_policy: {self.revocation_policy} asks for less than {other.revocation_policy}")
        return findings


def _minutes_of(alternative: str) -> int:
    found = _ALTERNATIVE.fullmatch(alternative)
    if found is None:
        raise ValueError("expected days and hours such as 'mon-fri 07:00-17:30' or 'sat,sun 08:00-12:00'")
    begin, end = _minute_of(found[2]), _minute_of(found[3])
    if begin >= end:
        raise ValueError("hours end later than they begin, on the same day: make two of what goes over midnight")
    day = ((1 << end - begin) - 1) << begin
    return sum(day << number * _DAY_MINUTES for number in _days_of(found[1]))


def _days_of(text: str) -> frozenset[int]:
    days: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if "-" in last:
            raise ValueError("expected days such as 'mon', 'mon-fri' or 'mon,wed,fri'")
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        if begin > end:
            raise ValueError("days go from Monday to Sunday: make two of what goes over the week's end")
        days.update(range(begin, end + 1))
    return frozenset(days)


def _minute_of(text: str) -> int:
    hour, minute = int(text[:2]), int(text[3:])
    if minute >= 60 or hour * 60 + minute > _DAY_MINUTES:
        raise ValueError(f"{text} is no time of day from 00:00 to 24:00")
    return hour * 60 + minute
