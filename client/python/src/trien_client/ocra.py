"""OCRA (RFC 6287), and an authenticator of it for tests.

In real life the secret is on the signer's own device and no application ever has it: whoever has it can approve in the
signer's name.

    authenticator = TestAuthenticator.from_uri(created.otpauth_uri)
    challenge = client.create_challenge([authorization.name], signer=signer)
    code = authenticator.answer(challenge.ocra_question.uri)
    client.approve_authorizations([authorization.name], signer=signer, one_time_password=code, challenge=challenge)
"""

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from trien_client._secret import Secret

_HASHES = {"SHA1": hashlib.sha1, "SHA256": hashlib.sha256, "SHA512": hashlib.sha512}
_SUITE = re.compile(
    r"OCRA-1:HOTP-(?P<hash>SHA1|SHA256|SHA512)-(?P<digits>[4-9]|10):"
    r"(?P<counter>C-)?Q(?P<kind>[ANH])(?P<length>0[4-9]|[1-5][0-9]|6[0-4])"
    r"(?:-P(?P<pin>SHA1|SHA256|SHA512))?(?:-S(?P<session>[0-9]{3}))?(?:-T(?P<time>[1-9][0-9]?[SMH]))?",
    re.ASCII,
)
_QUESTION_SIZE = 128


class NotAnswered(ValueError):  # noqa: N818 - like a refusal: nothing was computed
    """The URI holds no question of the authenticator's suite, or its parts contradict each other."""


def ocra(
    secret: bytes,
    suite: str,
    question: str,
    *,
    counter: int | None = None,
    pin_digest: bytes | None = None,
    session: bytes | None = None,
    time_step: int | None = None,
) -> str:
    """Returns the code that answers a question (RFC 6287, section 5.1).

    Raises `ValueError` for a suite that the RFC does not know, or unless exactly what it asks for is given.
    """
    found = _SUITE.fullmatch(suite)
    if found is None:
        raise ValueError(f"not an OCRA suite: {suite!r}")
    given = (counter, pin_digest, session, time_step)
    asked = (found["counter"], found["pin"], found["session"], found["time"])
    if [value is not None for value in given] != [value is not None for value in asked]:
        raise ValueError(f"{suite} asks for other inputs")
    parts = [suite.encode("ascii"), b"\x00"]
    if counter is not None:
        parts.append(counter.to_bytes(8, "big"))
    parts.append(_question(found["kind"], int(found["length"]), question))
    if pin_digest is not None:
        if len(pin_digest) != _HASHES[found["pin"]]().digest_size:
            raise ValueError("the PIN's digest has another length")
        parts.append(pin_digest)
    if session is not None:
        if len(session) > int(found["session"]):
            raise ValueError("the session information is too long")
        parts.append(session.rjust(int(found["session"]), b"\x00"))
    if time_step is not None:
        parts.append(time_step.to_bytes(8, "big"))
    mac = hmac.digest(secret, b"".join(parts), _HASHES[found["hash"]])
    offset = mac[-1] & 0x0F
    truncated = int.from_bytes(mac[offset : offset + 4], "big") & 0x7FFFFFFF
    digits = int(found["digits"])
    return f"{truncated % 10**digits:0{digits}d}"


def _question(kind: str, length: int, question: str) -> bytes:
    if not 1 <= len(question) <= 2 * length:
        raise ValueError("the question has another length")
    match kind:
        case "N" if re.fullmatch(r"[0-9]+", question, re.ASCII):
            digits = f"{int(question):x}"
        case "H" if re.fullmatch(r"[0-9a-fA-F]+", question, re.ASCII):
            digits = question
        case "A":
            digits = question.encode("ascii").hex()
        case _:
            raise ValueError("the question is not of the suite's kind")
    # The reference implementation pads the hexadecimal digits, so an odd number of them is no fault.
    return bytes.fromhex(digits.ljust(2 * _QUESTION_SIZE, "0"))


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a question's URI says: `ocra:?suite=…&question=…&fingerprint=…&count=…`."""

    suite: str
    question: str
    fingerprint: str
    count: int

    @classmethod
    def from_uri(cls, uri: str) -> Self:
        """Returns the question. Raises `NotAnswered` when a part is missing, twice, or contradicts the question."""
        parts = urlsplit(uri)
        pairs = parse_qsl(parts.query, keep_blank_values=True)
        values = dict(pairs)
        if parts.scheme != "ocra" or parts.netloc or parts.path or len(values) != len(pairs):
            raise NotAnswered("This is no question of OCRA.")
        try:
            found = cls(
                suite=values["suite"],
                question=values["question"],
                fingerprint=values["fingerprint"],
                count=int(values["count"]),
            )
        except (KeyError, ValueError):
            raise NotAnswered("The question lacks a part.") from None
        if found.fingerprint != fingerprint(found.question):
            raise NotAnswered("The fingerprint is another question's.")
        return found


def fingerprint(question: str) -> str:
    """Returns the beginning of a question in hexadecimal digits as people compare it: `4f2a 91c3`."""
    return f"{question[:4]} {question[4:8]}"


class TestAuthenticator:
    """Answers questions as the signer's device does. For tests and for trying out: it holds the signer's secret."""

    __test__: ClassVar[bool] = False
    """Applications' tests import it: it is no test class."""

    def __init__(self, secret: bytes, suite: str) -> None:
        self._secret = Secret(secret.hex())
        """In hexadecimal digits."""
        self.suite = suite

    @classmethod
    def from_uri(cls, otpauth_uri: str | Secret) -> Self:
        """Makes it from the URI that an enrolment returned. Raises `ValueError`, which does not tell the URI."""
        parts = urlsplit(otpauth_uri if isinstance(otpauth_uri, str) else otpauth_uri.reveal())
        values = dict(parse_qsl(parts.query))
        if (parts.scheme, parts.netloc) != ("otpauth", "ocra") or _SUITE.fullmatch(values.get("ocrasuite", "")) is None:
            raise ValueError("this is no otpauth URI of an OCRA authenticator")
        padded = values.get("secret", "") + "=" * (-len(values.get("secret", "")) % 8)
        try:
            secret = base64.b32decode(padded)
        except binascii.Error:
            raise ValueError("the otpauth URI's secret is not base32") from None
        return cls(secret, values["ocrasuite"])

    def __repr__(self) -> str:
        return f"TestAuthenticator({self.suite!r})"

    def answer(self, uri: str) -> str:
        """Returns the code for a question's URI, as a QR code shows it. Raises `NotAnswered` for another suite's."""
        asked = Question.from_uri(uri)
        if asked.suite != self.suite:
            raise NotAnswered(f"The question is for {asked.suite}, this authenticator is {self.suite}.")
        return self._answer(asked.question)

    def answer_question(self, question: bytes) -> str:
        """Returns the code for an enrolment's question, 32 bytes."""
        return self._answer(question.hex())

    def _answer(self, question: str) -> str:
        try:
            return ocra(bytes.fromhex(self._secret.reveal()), self.suite, question)
        except ValueError as fault:
            raise NotAnswered(str(fault)) from None
