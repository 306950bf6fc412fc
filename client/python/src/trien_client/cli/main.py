"""The command `trien`: everything that it imports late keeps `--help` fast."""

import os
import sys
from typing import Annotated

import typer

from trien_client.cli import (
    access,
    audit,
    authenticators,
    authorizations,
    bench,
    certificates,
    credential_administration,
    enrol,
    enrolments,
    keys,
    organizations,
    otp,
    proposals,
    sign,
    signer_decisions,
    verify,
    verify_receipt,
)
from trien_client.cli.group import Group
from trien_client.cli.outcome import EXIT_CODES


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trien {version('trien-client')}")
        raise typer.Exit


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
      export TRIEN_CONNECTION=$PWD/sandbox/connection.json
      trien credentials list
      trien sign pdf decision.pdf decision-signed.pdf --credential hoang-trinh-don-rsa
      trien verify decision-signed.pdf
    """


def build_app(*, completion: bool) -> typer.Typer:
    """Makes the command, with or without the options that install shell completion."""
    app = typer.Typer(
        name="trien",
        cls=Group,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=completion,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EXIT_CODES,
        callback=trien,
    )
    app.add_typer(sign.app, name="sign", cls=Group)
    app.add_typer(credential_administration.app, name="credentials", cls=Group)
    app.add_typer(authorizations.app, name="authorizations", cls=Group)
    app.add_typer(certificates.app, name="certificates", cls=Group)
    app.add_typer(keys.app, name="keys", cls=Group)
    app.add_typer(organizations.app, name="organizations", cls=Group)
    app.add_typer(access.app, name="access", cls=Group)
    app.add_typer(audit.app, name="audit", cls=Group)
    app.add_typer(proposals.app, name="proposals", cls=Group)
    app.add_typer(signer_decisions.app, name="signers", cls=Group)
    app.add_typer(authenticators.app, name="authenticators", cls=Group)
    app.add_typer(enrolments.app, name="enrolments", cls=Group)
    app.command("enrol", epilog=EXIT_CODES)(enrol.enrol)
    app.command("verify", epilog=EXIT_CODES)(verify.verify)
    app.command("verify receipt", epilog=EXIT_CODES)(verify_receipt.verify_receipt)
    app.command("otp", epilog=EXIT_CODES)(otp.otp)
    app.command("bench", epilog=bench.BENCH_EXIT_CODES)(bench.bench)
    return app


def main() -> None:
    """Runs the command."""
    # gRPC writes lines of its own to the standard error; what matters is said in one line of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # The completion options, which have no value either, are there only where they can be used.
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    build_app(completion=first.startswith("-") or "_TRIEN_COMPLETE" in os.environ)()
