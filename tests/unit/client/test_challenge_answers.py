"""The SDK takes no other challenge than the one that was asked for."""

from collections.abc import Callable

import pytest
from trien.v1 import authorization_service_pb2 as messages

from trien_client import InvalidArgument, VerificationError
from trien_client._challenges import listed, parse_challenge

SIGNER = "signers/don"
NAMES = ["credentials/c/authorizations/a", "credentials/c/authorizations/b"]
QUESTION = "4f2a91c3" + "5e" * 28
SUITE = "OCRA-1:HOTP-SHA256-8:QH64"


def asked() -> messages.CreateChallengeRequest:
    return messages.CreateChallengeRequest(parent=SIGNER, authorizations=NAMES)


def answered() -> messages.Challenge:
    uri = f"ocra:?suite={SUITE}&question={QUESTION}&fingerprint=4f2a%2091c3&count=2"
    message = messages.Challenge(
        name=f"{SIGNER}/challenges/x",
        authorizations=NAMES,
        authenticator=f"{SIGNER}/authenticators/ocra",
        fingerprint="4f2a 91c3",
        ocra_question=messages.OcraQuestion(suite=SUITE, question=QUESTION, uri=uri),
    )
    message.expire_time.GetCurrentTime()
    return message


def test_what_was_asked_for_is_taken() -> None:
    challenge = parse_challenge(answered(), asked())
    assert challenge.authorizations == tuple(NAMES)
    assert challenge.ocra_question is not None
    assert challenge.ocra_question.question == QUESTION
    assert challenge.masked_address is None
    sent = answered()
    sent.code_delivery.masked_address = "•••••••••678"
    request = messages.SendOneTimePasswordRequest(parent=SIGNER, authorizations=NAMES)
    assert parse_challenge(sent, request).masked_address == "•••••••••678"


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.authorizations.reverse(),
        lambda m: m.authorizations.pop(),
        lambda m: m.authorizations.append("credentials/c/authorizations/z"),
        lambda m: setattr(m, "name", "signers/other/challenges/x"),
        lambda m: setattr(m, "authenticator", "signers/other/authenticators/ocra"),
        lambda m: setattr(m, "fingerprint", "4f2a 91c4"),
        lambda m: setattr(m.ocra_question, "question", "5" * 64),
        lambda m: setattr(m.ocra_question, "suite", SUITE.replace("8:", "6:")),
        lambda m: setattr(m.ocra_question, "uri", m.ocra_question.uri.replace("count=2", "count=1")),
        lambda m: setattr(m.ocra_question, "uri", m.ocra_question.uri.replace("5e5e", "5e5f")),
        lambda m: setattr(m.ocra_question, "uri", "https://example.vn/?question=1"),
        lambda m: m.ClearField("ocra_question"),
        lambda m: setattr(m.code_delivery, "masked_address", "•••"),
    ],
)
def test_any_other_is_refused(change: Callable[[messages.Challenge], object]) -> None:
    message = answered()
    change(message)
    with pytest.raises(VerificationError):
        parse_challenge(message, asked())


def test_a_wanted_authenticator_is_the_one_that_is_asked() -> None:
    request = asked()
    request.authenticator = f"{SIGNER}/authenticators/second"
    with pytest.raises(VerificationError):
        parse_challenge(answered(), request)


def test_a_single_name_is_no_list() -> None:
    for wrong in ("credentials/c/authorizations/a", []):
        with pytest.raises(InvalidArgument):
            listed(wrong)
