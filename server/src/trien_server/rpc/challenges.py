"""Challenges as messages."""

from trien.v1 import authorization_service_pb2 as messages

from trien_server.core.challenges import fingerprint, question_uri
from trien_server.core.delivery_addresses import masked
from trien_server.core.names import parse_name
from trien_server.core.ocra import suite_of
from trien_server.rpc import translate
from trien_server.services.challenge_preparation import ChallengeCommand, NewChallenge


def challenge_command(
    request: messages.CreateChallengeRequest | messages.SendOneTimePasswordRequest,
) -> ChallengeCommand:
    """Returns what is asked for. Raises `InvalidArgument`."""
    return ChallengeCommand(
        signer=parse_name("signers", request.parent, field="parent"),
        names=tuple(parse_name("authorizations", name, field="authorizations") for name in request.authorizations),
        authenticator=parse_name("authenticators", request.authenticator, field="authenticator")
        if request.authenticator
        else None,
    )


def ocra_challenge_out(made: NewChallenge) -> messages.Challenge:
    """Returns a challenge with its question, as text and as what a QR code shows."""
    suite = suite_of(hash_function=made.authenticator.hash_function, digits=made.authenticator.digits)
    message = _challenge_out(made)
    message.ocra_question.suite = suite
    message.ocra_question.question = made.question.hex()
    message.ocra_question.uri = question_uri(suite=suite, question=made.question, count=len(made.authorizations))
    return message


def delivered_challenge_out(made: NewChallenge) -> messages.Challenge:
    """Returns a challenge that says where its code went, and hides most of that."""
    message = _challenge_out(made)
    message.code_delivery.masked_address = masked(made.authenticator.address)
    return message


def _challenge_out(made: NewChallenge) -> messages.Challenge:
    return messages.Challenge(
        name=made.challenge.name,
        authorizations=made.challenge.authorizations,
        authenticator=made.authenticator.name,
        expire_time=translate.time_out(made.challenge.expire_time),
        fingerprint=fingerprint(made.question),
    )
