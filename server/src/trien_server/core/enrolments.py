"""Enrolment codes and what an enrolment may do when.

An enrolment code is `trien-enrol-` and two halves of 80 random bits each; what is kept of a half is its SHA-256.
"""

import base64
import hashlib
import re
from datetime import datetime, timedelta

from trien_server.core.encoding import encode_all
from trien_server.core.errors import EnrolmentNotPending
from trien_server.core.ports import Randomness
from trien_server.core.records import Enrolment, EnrolmentState
from trien_server.core.secret import Secret

LIFETIME = timedelta(days=14)
"""How long an enrolment can be completed."""
MOST_FAILURES = 5
"""How many wrong first codes end an enrolment."""
SECRET_SIZES = {"SHA1": 20, "SHA256": 32, "SHA512": 64}
"""The secret is as long as the hash (RFC 4226, section 4, R6; RFC 6238, section 5.1)."""

_PREFIX = "trien-enrol-"
_CODE = re.compile(r"[a-z2-7]{32}", re.ASCII)
_HALF_BYTES = 10
_HALF_LENGTH = 16
_LONGEST_TYPED = 100


def new_half(randomness: Randomness) -> Secret:
    """Returns a half of an enrolment code."""
    return Secret(base64.b32encode(randomness.bytes(_HALF_BYTES)).lower())


def enrolment_code(first: Secret, second: Secret) -> Secret:
    """Returns the enrolment code of two halves, as people see it."""
    return Secret(b"-".join((_PREFIX.rstrip("-").encode(), first.reveal(), second.reveal())))


def parse_code(value: str) -> tuple[bytes, bytes] | None:
    """Returns the SHA-256 of the two halves of an enrolment code; None for what is none. Hyphens and case are free."""
    if len(value) > _LONGEST_TYPED or not value.lower().startswith(_PREFIX):
        return None
    code = value.lower().removeprefix(_PREFIX).replace("-", "")
    if _CODE.fullmatch(code) is None:
        return None
    return hash_of(code[:_HALF_LENGTH]), hash_of(code[_HALF_LENGTH:])


def hash_of(text: str) -> bytes:
    """Returns what is kept of a half or a key of 80 random bits and more: its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def authenticator_of(enrolment: str) -> str:
    """Returns the name of the authenticator that an enrolment makes."""
    return enrolment.replace("/enrolments/", "/authenticators/")


def question_of(enrolment: Enrolment) -> bytes:
    """Returns the question that an OCRA authenticator answers first: SHA-256 over the enrolment's name."""
    return hashlib.sha256(encode_all("trien/enrolment", [enrolment.name])).digest()


def assert_open(enrolment: Enrolment, *, at: datetime) -> None:
    """Raises `EnrolmentNotPending` for an enrolment that is completed, withdrawn or too old."""
    if enrolment.state not in (EnrolmentState.PENDING, EnrolmentState.BEGUN) or at >= enrolment.expire_time:
        raise EnrolmentNotPending("The enrolment is over.")


def assert_begins(enrolment: Enrolment, *, at: datetime) -> None:
    """Raises `EnrolmentNotPending` before the time from which it can begin."""
    if at < enrolment.start_time:
        raise EnrolmentNotPending(
            f"The enrolment can begin from {enrolment.start_time:%Y-%m-%d %H:%M} UTC on, or at once with a code of an "
            "authenticator that the person has.",
            metadata={"startTime": enrolment.start_time.isoformat()},
        )
