"""`trien authenticators`: what makes persons' one-time passwords."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.enrolments import child_name
from trien_client.cli.operating import Officer, block

if TYPE_CHECKING:
    from trien.v1.signer_service_pb2 import Authenticator

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See and end what makes persons' codes.")


class Kind(StrEnum):
    """How codes are sent."""

    EMAIL = "email"
    SMS = "sms"


Person = Annotated[str, typer.Argument(metavar="SIGNER", help="The person: hoang-trinh-don.")]


@operating.command(app, "list")
def list_authenticators(me: Officer, signer: Person) -> None:
    """List a person's authenticators.

    \b
    Example:
      trien authenticators list hoang-trinh-don
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.ListAuthenticatorsRequest(parent=options.full_name("signers", signer))
    found = me.pages(me.client.signers.ListAuthenticators, request, "authenticators")
    me.show_all(found, text, empty="The person has no authenticator.")


@operating.command(app)
def disable(
    me: Officer,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An authenticator: hoang-trinh-don/phone.")],
) -> None:
    """Disable an authenticator at once and for ever, such as a stolen phone's.

    With the last one disabled the person signs nothing until another one is enrolled.

    \b
    Example:
      trien authenticators disable hoang-trinh-don/phone
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.DisableAuthenticatorRequest(name=child_name("authenticators", name))
    me.show(me.client.call(me.client.signers.DisableAuthenticator, request), text)


@operating.command(app)
def create(
    me: Officer,
    signer: Person,
    kind: Annotated[Kind, typer.Option("--kind", help="How codes are sent.")],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="The mail address, or the number: +84912345678.")],
    identifier: Annotated[
        str, typer.Option("--id", metavar="ID", help="What its name ends in; by default the kind.")
    ] = "",
) -> None:
    """Propose that a person's codes are sent by e-mail or SMS. Apps are set up with trien enrolments.

    \b
    Example:
      trien authenticators create hoang-trinh-don --kind sms --to +84912345678
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.CreateAuthenticatorRequest(
        parent=options.full_name("signers", signer),
        authenticator_id=identifier or kind.value,
        authenticator=signer_service_pb2.Authenticator(
            kind=signer_service_pb2.Authenticator.Kind.Value(kind.name), address=to
        ),
    )
    me.propose(me.client.signers.CreateAuthenticator, request)


def text(authenticator: "Authenticator") -> str:
    """Returns an authenticator for people."""
    return block(
        authenticator.name,
        ("kind", f"{operating.value_name(authenticator, 'kind')}, {authenticator.digits} digits"),
        ("state", operating.value_name(authenticator, "state")),
        ("address", authenticator.address),
        ("made", operating.moment_of(authenticator, "create_time")),
    )
