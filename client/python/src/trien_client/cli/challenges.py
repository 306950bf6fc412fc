"""How a person at the terminal comes to a code that answers a challenge."""

from collections.abc import Sequence

from trien_client import qr
from trien_client._challenges import Challenge
from trien_client._client import Client
from trien_client.cli.options import Means


def made(client: Client, names: Sequence[str], *, signer: str, means: Means, authenticator: str | None) -> Challenge:
    """Makes the challenge; for a delivered code it is sent with it."""
    make = client.create_challenge if means is Means.OCRA else client.send_one_time_password
    return make(names, signer=signer, authenticator=authenticator)


def shown(challenge: Challenge) -> str:
    """What the person has to do, with the fingerprint to compare, and for OCRA the QR code."""
    until = f"until {challenge.expire_time.astimezone():%H:%M:%S}"
    if challenge.ocra_question is None:
        return (
            f"\nA code was sent to {challenge.masked_address}. Its text has to show {challenge.fingerprint}."
            f"\nIt can be given {until}, once."
        )
    return (
        f"\nScan this with {challenge.authenticator}:\n\n{qr.terminal(challenge.ocra_question.uri)}\n\n"
        f"or give it the question as text:\n{challenge.ocra_question.uri}\n\n"
        f"It has to show {challenge.fingerprint}. Its answer can be given {until}, once."
    )
