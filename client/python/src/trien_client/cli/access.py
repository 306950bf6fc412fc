"""`trien access`: who may call, and what is in force for anyone."""

from typing import Annotated

import typer

from trien_client.cli import access_clients, access_operators, operating
from trien_client.cli.group import Group
from trien_client.cli.operating import Officer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Say who may call: applications (clients) and operators."
)
app.add_typer(access_clients.app, name="clients", cls=Group)
app.add_typer(access_operators.app, name="operators", cls=Group)


@operating.command(app)
def show(
    me: Officer,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="clients/…, operators/… or signers/…; without it: you yourself."),
    ] = "",
) -> None:
    """Show what is in force for a client, operator or signer.

    Each credential is tried by the same functions that decide when a signature is asked for; beside one that cannot be
    used now stands the reason.

    \b
    Examples:
      trien access show
      trien access show clients/e-office
      trien access show signers/hoang-trinh-don --output json
    """
    from trien.v1 import access_service_pb2

    from trien_client.cli.access_texts import in_force

    request = access_service_pb2.ShowAccessRequest(name=name)
    me.show(me.client.call(me.client.access.ShowAccess, request), in_force)
