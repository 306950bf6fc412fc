"""By what a request is authorized: a one-time password, or activation data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from trien_client._algorithms import SignatureAlgorithm
from trien_client._challenges import Challenge
from trien_client._errors import InvalidArgument
from trien_client._steps import Consult, Operation

_FIELD = {"field": "one_time_password"}


@dataclass(frozen=True, kw_only=True)
class OneTimePasswordContext:
    """What a person has to know before giving a one-time password."""

    credential: str
    algorithm: SignatureAlgorithm | None
    """None when authorizations are approved, each of which has its own."""
    digests: tuple[bytes, ...]
    """The documents' digests, in order; empty when authorizations are approved."""
    authorizations: tuple[str, ...] = ()
    signer: str | None
    """The person whose password is asked for; None when exactly one person may activate the credential."""
    request_id: str
    challenge: Challenge | None = None
    """What the password answers; None when it is one that an authenticator shows by itself."""


OneTimePasswordCallback = Callable[[OneTimePasswordContext], str]
"""Asks the person. It is called once per request, never again for a retry."""

AsyncOneTimePasswordCallback = Callable[[OneTimePasswordContext], str | Awaitable[str]]
"""The same for an `AsyncClient`, which awaits the answer if there is something to await."""


@dataclass(frozen=True, kw_only=True)
class ActivationData:
    """The secret that opens an approved authorization; `repr` hides it."""

    authorization: str
    value: bytes = field(repr=False)
    expire_time: datetime


def ask_once(source: str | AsyncOneTimePasswordCallback | None, context: OneTimePasswordContext) -> Operation[str]:
    """Returns the code from `source`, without the blanks that people type into it.

    Raises `InvalidArgument` when there is no source or the answer cannot be a one-time password; the text never
    carries it.
    """
    if source is None:
        raise InvalidArgument(
            "A one-time password is needed: pass one_time_password=, as a text or as a callback.", metadata=_FIELD
        )
    code: str = source if isinstance(source, str) else (yield Consult(source, context))
    code = code.replace(" ", "")
    # A wrong shape is refused here, so that a slip of the finger costs the signer no attempt.
    if not (6 <= len(code) <= 8 and code.isascii() and code.isdecimal()):
        raise InvalidArgument("A one-time password has 6 to 8 digits; nothing was sent.", metadata=_FIELD)
    return code
