"""What a check finds, and what a check is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from trien_server.cli.doctor.subject import Subject


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    ERROR = "error"
    """The server does not start or does not work with it, or a promise does not hold."""
    WARNING = "warning"
    """It works, and will not for long, or is less safe than it can be."""
    NOTE = "note"
    """Good to know; nothing has to be done."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found, and what to do about it."""

    severity: Severity
    text: str
    advice: str


def error(text: str, advice: str) -> Finding:
    return Finding(severity=Severity.ERROR, text=text, advice=advice)


def warning(text: str, advice: str) -> Finding:
    return Finding(severity=Severity.WARNING, text=text, advice=advice)


def note(text: str, advice: str) -> Finding:
    return Finding(severity=Severity.NOTE, text=text, advice=advice)


class NotLookedAt(Exception):  # noqa: N818
    """A check could not look; the message says because of what."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that is looked at. `sees` says what, as the operator's page does.

    It is left out, and that is said, when one of `needs` found an error or was left out itself.
    """

    name: str
    sees: str
    look: Callable[[Subject], Iterator[Finding]] = field(repr=False)
    needs: tuple[str, ...] = ()
    network: bool = False
    """Whether it contacts more than database and token: then it is done only when it was asked for."""
