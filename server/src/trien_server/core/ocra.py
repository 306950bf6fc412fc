"""OCRA: one-time passwords that answer a question (RFC 6287).

A password for a question that is the digest of what is approved opens that and nothing else.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote, urlencode

from trien_server.core.secret import Secret

_HASHES = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512}
_SUITE = re.compile(
    r"OCRA-1:HOTP-(?P<hash>SHA1|SHA256|SHA512)-(?P<digits>[4-9]|10):"
    r"(?P<counter>C-)?Q(?P<kind>[ANH])(?P<length>0[4-9]|[1-5][0-9]|6[0-4])"
    r"(?:-P(?P<pin>SHA1|SHA256|SHA512))?(?:-S(?P<session>[0-9]{3}))?(?:-T(?P<time>[1-9][0-9]?[SMH]))?",
    re.ASCII,
)
_QUESTION_SIZE = 128


@dataclass(frozen=True, kw_only=True)
class OcraSuite:
    """A parsed suite (RFC 6287, section 6)."""

    text: str
    hash_function: str
    digits: int
    has_counter: bool
    question_kind: str
    question_length: int
    pin_hash: str | None
    session_size: int | None
    has_time: bool

    @classmethod
    def parse(cls, text: str) -> Self:
        """Returns the suite. Raises `ValueError` for one that RFC 6287 does not know, or truncation to no digits."""
        found = _SUITE.fullmatch(text)
        if found is None:
            raise ValueError(f"not an OCRA suite: {text!r}")
        return cls(
            text=text,
            hash_function=found["hash"],
            digits=int(found["digits"]),
            has_counter=found["counter"] is not None,
            question_kind=found["kind"],
            question_length=int(found["length"]),
            pin_hash=found["pin"],
            session_size=None if found["session"] is None else int(found["session"]),
            has_time=found["time"] is not None,
        )


def ocra(
    secret: Secret,
    suite: OcraSuite,
    question: str,
    *,
    counter: int | None = None,
    pin_digest: bytes | None = None,
    session: bytes | None = None,
    time_step: int | None = None,
) -> str:
    """Returns the password for a question (RFC 6287, section 5.1).

    `pin_digest` is the PIN hashed as the suite says, `session` its session information, `time_step` the number
    of steps since 1970. Raises `ValueError` unless exactly what the suite asks for is given.
    """
    given = (counter is not None, pin_digest is not None, session is not None, time_step is not None)
    asked = (suite.has_counter, suite.pin_hash is not None, suite.session_size is not None, suite.has_time)
    if given != asked:
        raise ValueError(f"{suite.text} asks for other inputs")
    message = suite.text.encode("ascii") + b"\x00"
    if counter is not None:
        message += counter.to_bytes(8, "big")
    message += _question(suite, question)
    if pin_digest is not None and suite.pin_hash is not None:
        if len(pin_digest) != _HASHES[suite.pin_hash]().digest_size:
            raise ValueError("the PIN's digest has another length")
        message += pin_digest
    if session is not None and suite.session_size is not None:
        if len(session) > suite.session_size:
            raise ValueError("the session information is too long")
        message += session.rjust(suite.session_size, b"\x00")
    if time_step is not None:
        message += time_step.to_bytes(8, "big")
    mac = hmac.new(secret.reveal(), message, _HASHES[suite.hash_function]).digest()
    offset = mac[-1] & 0x0F
    truncated = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{truncated % 10**suite.digits:0{suite.digits}d}"


def suite_of(*, hash_function: str, digits: int) -> str:
    """Returns the suite of an authenticator, such as `OCRA-1:HOTP-SHA256-8:QH64`.

    A SHA-256 digest in hexadecimal is one question of 64 digits, so whatever the hash of the passwords is, the
    question stands for the whole list.
    """
    return f"OCRA-1:HOTP-{hash_function}-{digits}:QH64"


def ocra_uri(secret: Secret, *, suite: str, account: str, issuer: str) -> Secret:
    """Returns the URI by which apps take up an OCRA authenticator, in the manner of the Key Uri Format."""
    values = {"secret": base64.b32encode(secret.reveal()).decode().rstrip("="), "issuer": issuer, "ocrasuite": suite}
    label = f"{quote(issuer, safe='')}:{quote(account, safe='')}"
    return Secret(f"otpauth://ocra/{label}?{urlencode(values, quote_via=quote, safe=':')}".encode())


def _question(suite: OcraSuite, question: str) -> bytes:
    """Returns the question's 128 bytes: its kind decides how it is written, zeros fill it up behind."""
    if not 1 <= len(question) <= 2 * suite.question_length:
        raise ValueError("the question has another length")
    match suite.question_kind:
        case "N":
            if re.fullmatch(r"[0-9]+", question, re.ASCII) is None:
                raise ValueError("the question is not decimal")
            digits = f"{int(question):x}"
        case "H":
            if re.fullmatch(r"[0-9a-fA-F]+", question, re.ASCII) is None:
                raise ValueError("the question is not hexadecimal")
            digits = question
        case _:
            digits = question.encode("ascii").hex()
    # The reference implementation pads the hexadecimal digits, so an odd number of them is no fault.
    return bytes.fromhex(digits.ljust(2 * _QUESTION_SIZE, "0"))
