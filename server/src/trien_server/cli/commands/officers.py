"""The way out when one officer is left."""

from pathlib import Path
from typing import Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load

operators_app = typer.Typer(
    help="The way out when one officer is left. All else about operators: trien operators.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@operators_app.command("recover")
def operators_recover(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The new operator's id, such as le-van-c.")],
    display_name: Annotated[str, typer.Option("--display-name", metavar="TEXT", help="The person's name.")],
    certificate: Annotated[
        Path,
        typer.Option("--certificate", metavar="FILE", help="The person's certificate (PEM), of server.client_ca_file."),
    ],
    role: Annotated[
        list[str],
        typer.Option("--role", metavar="ROLE", help="Such as security-officer; may be repeated."),
    ],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Propose an operator when one officer is left.

    Alone, that officer can propose a colleague and nobody can approve it. Here the host proposes, and that officer
    approves; who has only the host gets no power by it. A running server goes on. When no security officer is left,
    nothing of this kind helps: keep three.

    \b
    Example:
      trien-server operators recover --name le-van-c --display-name 'Lê Văn C' --certificate c.pem
        --role security-officer --role registration-officer
    """
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli.operators import recover

        for line in recover(loaded.config, name=name, display_name=display_name, certificate=certificate, roles=role):
            typer.echo(line)
