"""`trien-server`: everything that is done on the server's own machine.

Exit codes: 0 done; 1 it failed or was refused; 2 wrong usage or configuration; 3 the token refused the PIN: do not
start again before an operator looked at it, for tokens lock after a few wrong ones.
"""

import os
from typing import Annotated

import typer

from trien_server.cli.commands import authorities, backups, making, officers, serving, settings, tokens, upkeep

app = typer.Typer(
    name="trien-server",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(settings.config_app, name="config")
app.add_typer(tokens.token_app, name="token")
app.add_typer(settings.delivery_app, name="delivery")
app.add_typer(authorities.ca_app, name="ca")
app.add_typer(backups.backup_app, name="backup")
app.add_typer(officers.operators_app, name="operators")

app.command()(making.init)
app.command()(making.ceremony)
app.command()(serving.run)
app.command(hidden=True)(serving.worker)
app.command()(serving.sandbox)
app.command()(upkeep.migrate)
app.command()(upkeep.fsck)
app.command()(upkeep.doctor)
app.command()(backups.restore)
app.command("client-certificate")(making.client_certificate)


def main() -> None:
    """Runs the command line."""
    # gRPC writes lines of its own amid the log; what matters is said in ours. An operator may set it to see them.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trien-server {version('trien-server')}")
        raise typer.Exit


@app.callback()
def trien_server(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Remote signing server: keys stay in an HSM, every signature is authorized by a one-time password."""
