"""The command `trien`: everything that it imports late keeps `--help` fast."""

from typing import Annotated

import typer

from trien_client.cli import credentials, otp, sign, verify
from trien_client.cli.outcome import EXIT_CODES

app = typer.Typer(
    name="trien",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
app.add_typer(sign.app, name="sign")
app.add_typer(credentials.app, name="credentials")
app.command("verify", epilog=EXIT_CODES)(verify.verify)
app.command("otp", epilog=EXIT_CODES)(otp.otp)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trien {version('trien-client')}")
        raise typer.Exit


@app.callback()
def trien(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Sign documents with keys that never leave the server's hardware security module.

    The document stays here: only its digest is sent. The signer approves with a one-time password, and every signature
    is verified here before it is written.

    \b
    Try it with a sandbox:
      trien-server sandbox --dir sandbox
      export TRIEN_CONNECTION=sandbox/connection.json
      trien credentials list
      trien sign pdf decision.pdf decision-signed.pdf --credential hoang-trinh-don-rsa
      trien verify decision-signed.pdf
    """


def main() -> None:
    """Runs the command."""
    app()
