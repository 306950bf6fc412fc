"""One-time passwords: which are accepted, and how each is accepted once (RFC 4226, RFC 6238).

The replay memory is the next time step or counter that may be accepted, never the typed string:
replay memories keyed on the string are what others got CVEs for.
"""

import base64
import dataclasses
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import pyotp

from trien_server.core.encoding import microseconds
from trien_server.core.errors import InvalidArgument
from trien_server.core.records import AuthenticatorKind, AuthenticatorState
from trien_server.core.secret import Secret

TOTP_PERIOD = 30
TOTP_WINDOW = 1
HOTP_LOOK_AHEAD = 10
HOTP_RESYNCHRONIZATION = 100

_PASSWORD = re.compile(r"[0-9]{6,8}", re.ASCII)
_HASHES = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512}


def parse_one_time_password(value: str, *, field_name: str) -> Secret:
    """Returns the password when it is 6 to 8 ASCII digits.

    Raises `InvalidArgument` for anything else, unread: it is no guess, so it is not counted.
    """
    if _PASSWORD.fullmatch(value) is None:
        raise InvalidArgument(field_name, "a one-time password is 6 to 8 ASCII digits")
    return Secret(value.encode("ascii"))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A password that an authenticator shows for one time step or counter."""

    value: int
    password: Secret = field(repr=False)


def candidates(
    secret: Secret,
    *,
    kind: AuthenticatorKind,
    digits: int,
    hash_function: str,
    at: datetime,
    state: AuthenticatorState,
    password: Secret,
) -> list[Candidate]:
    """Returns the passwords to compare with, for the time and the replay memory read before.

    TOTP: the present step and one either side. HOTP: from the next counter on, the look-ahead and, when
    `password` is none of these or none of them is believed alone, the counters behind it that can begin or end a
    resynchronization.
    """
    generator = pyotp.HOTP(base64.b32encode(secret.reveal()).decode(), digits=digits, digest=_HASHES[hash_function])

    def shown(values: range) -> list[Candidate]:
        return [Candidate(value=value, password=Secret(generator.at(value).encode())) for value in values]

    if kind is AuthenticatorKind.TOTP:
        step = microseconds(at) // (TOTP_PERIOD * 1_000_000)
        return shown(range(step - TOTP_WINDOW, step + TOTP_WINDOW + 1))
    behind = state.next_value + HOTP_LOOK_AHEAD + 1
    near = shown(range(state.next_value, behind))
    matched = any([candidate.password == password for candidate in near])  # noqa: C419 - all are compared
    if matched and not state.out_of_step:
        return near
    return near + shown(range(behind, behind + HOTP_RESYNCHRONIZATION))


def still_shown(among: Iterable[Candidate], *, kind: AuthenticatorKind, at: datetime) -> list[Candidate]:
    """Returns the candidates that are inside the window at a later time than they were computed for."""
    if kind is not AuthenticatorKind.TOTP:
        return list(among)
    step = microseconds(at) // (TOTP_PERIOD * 1_000_000)
    return [candidate for candidate in among if abs(candidate.value - step) <= TOTP_WINDOW]


def accept(
    password: Secret, *, among: Iterable[Candidate], kind: AuthenticatorKind, state: AuthenticatorState
) -> tuple[int | None, AuthenticatorState]:
    """Returns the accepted value, or None, and the replay memory as it has to be kept afterwards.

    A value below `state.next_value` is never accepted, so a password is accepted once (P2). All
    candidates are compared, each in constant time. A counter behind the look-ahead, and any counter of an
    authenticator that is out of step, is remembered and accepted only when the next password is its successor
    (RFC 4226, section 7.4).
    """
    matched = [candidate.value for candidate in among if candidate.password == password]
    fresh = [value for value in matched if value >= state.next_value]
    version = state.version + 1
    if not fresh:
        if state.resynchronization is None:
            return None, state
        return None, dataclasses.replace(state, version=version, resynchronization=None)
    value = fresh[0]
    if kind is AuthenticatorKind.HOTP and (state.out_of_step or value > state.next_value + HOTP_LOOK_AHEAD):
        if state.resynchronization is None or state.resynchronization + 1 not in fresh:
            return None, dataclasses.replace(state, version=version, resynchronization=value)
        value = state.resynchronization + 1
    return value, AuthenticatorState(name=state.name, version=version, next_value=value + 1)


def otpauth_uri(
    secret: Secret, *, kind: AuthenticatorKind, digits: int, hash_function: str, account: str, issuer: str
) -> Secret:
    """Returns the URI by which apps take up an authenticator (the Key Uri Format of Google Authenticator)."""
    key = base64.b32encode(secret.reveal()).decode()
    digest = _HASHES[hash_function]
    if kind is AuthenticatorKind.TOTP:
        uri = pyotp.TOTP(key, digits=digits, digest=digest, interval=TOTP_PERIOD).provisioning_uri(
            name=account, issuer_name=issuer
        )
    else:
        uri = pyotp.HOTP(key, digits=digits, digest=digest).provisioning_uri(
            name=account, initial_count=0, issuer_name=issuer
        )
    return Secret(uri.encode())
