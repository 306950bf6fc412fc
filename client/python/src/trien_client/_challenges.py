"""Challenges: what a code of an OCRA authenticator, or a delivered one, answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trien.v1 import authorization_service_pb2 as messages

from trien_client._errors import InvalidArgument, VerificationError
from trien_client._resources import parse_time
from trien_client.ocra import NotAnswered, Question


@dataclass(frozen=True, kw_only=True)
class OcraQuestion:
    """A question of RFC 6287; `uri` is what a QR code shows."""

    suite: str
    question: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """What one code answers: an exact, ordered list of authorizations, and how the person comes to the code."""

    name: str
    authorizations: tuple[str, ...]
    authenticator: str
    expire_time: datetime
    fingerprint: str
    """The same on the application's screen, in the delivered text and in the authenticator: people compare it."""
    ocra_question: OcraQuestion | None
    """For an OCRA authenticator; None for a delivered code."""
    masked_address: str | None
    """Where a delivered code went, most of it hidden; None for OCRA."""


def listed(names: Sequence[str]) -> Sequence[str]:
    """Returns the names. Raises `InvalidArgument` for a single text, or none."""
    if isinstance(names, str) or not names:
        raise InvalidArgument("names: expected a list of authorizations", metadata={"field": "names"})
    return names


def parse_challenge(
    message: messages.Challenge, asked: messages.CreateChallengeRequest | messages.SendOneTimePasswordRequest
) -> Challenge:
    """Returns the challenge. Raises `VerificationError` when it is not the one that was asked for."""
    means = message.WhichOneof("means")
    wanted = "ocra_question" if isinstance(asked, messages.CreateChallengeRequest) else "code_delivery"
    if (
        not message.name.startswith(f"{asked.parent}/challenges/")
        or list(message.authorizations) != list(asked.authorizations)
        or not message.authenticator.startswith(f"{asked.parent}/authenticators/")
        or (asked.authenticator and message.authenticator != asked.authenticator)
        or means != wanted
    ):
        raise VerificationError("The server made another challenge than the one asked for.")
    delivered = message.code_delivery.masked_address if means == "code_delivery" else None
    return Challenge(
        name=message.name,
        authorizations=tuple(message.authorizations),
        authenticator=message.authenticator,
        expire_time=parse_time(message.expire_time),
        fingerprint=message.fingerprint,
        ocra_question=_question(message) if means == "ocra_question" else None,
        masked_address=delivered,
    )


def _question(message: messages.Challenge) -> OcraQuestion:
    """Returns the question when its parts, which the person sees at three places, agree."""
    given = message.ocra_question
    try:
        shown = Question.from_uri(given.uri)
    except NotAnswered:
        raise VerificationError("The server's question is no question of OCRA.") from None
    said = Question(
        suite=given.suite,
        question=given.question,
        fingerprint=message.fingerprint,
        count=len(message.authorizations),
    )
    if shown != said:
        raise VerificationError("The server's question and what its QR code would show are two.")
    return OcraQuestion(suite=given.suite, question=given.question, uri=given.uri)
