"""`trien authorizations`: what waits for a signer's decision, and the decisions."""

from pathlib import Path
from typing import Annotated

import typer

from trien_client.cli import options
from trien_client.cli.outcome import (
    EXIT_CODES,
    CommandError,
    ExitCode,
    OutputFormat,
    fail,
    reported,
    show,
    still_waiting,
)

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See what waits for a signer, and decide on it.")

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="An authorization: credentials/…/authorizations/…, as `list` shows it.")
]


@app.command("list", epilog=EXIT_CODES)
def list_authorizations(
    credential: Annotated[
        str | None,
        typer.Option("--credential", metavar="NAME", help="Only this credential's; without it those of all."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what was decided on, was used or has expired.")
    ] = False,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """List what this application asked for and waits for.

    The fingerprint tells what would be signed: of one digest it is the beginning, of several the beginning of SHA-256
    over all of them, in their order. The title is what the application calls it, and proves nothing.

    \b
    Examples:
      trien authorizations list
      trien authorizations list --credential hoang-trinh-don-rsa --all
    """
    with reported(output):
        from trien_client.cli.decisions import is_open, listing, listing_content

        name = None if credential is None else options.full_name("credentials", credential)
        target = _target(connection, address, ca_file, token_file, certificate_file, key_file, timeout)
        with target.connect() as client:
            names = [name] if name is not None else [found.name for found in client.list_credentials()]
            found = [one for each in names for one in client.list_authorizations(each)]
        shown = [one for one in found if everything or is_open(one)]
        show(output, listing(shown, everything=everything), [listing_content(one) for one in shown])


@app.command(epilog=EXIT_CODES)
def approve(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Authorizations: credentials/…/authorizations/…, as `list` shows them."),
    ],
    signer: Annotated[
        str | None,
        typer.Option(
            "--signer",
            metavar="NAME",
            help="Whose decision it is. Needed when the authorizations name nobody and several people may decide.",
        ),
    ] = None,
    by: Annotated[
        options.Means | None,
        typer.Option(
            "--by",
            help="Ask for a code that is for these authorizations alone: `ocra` shows a question as a QR code,"
            " `delivery` has a code sent by SMS or e-mail. Without it: the code that the person's app shows now.",
        ),
    ] = None,
    authenticator: Annotated[
        str | None,
        typer.Option(
            "--authenticator", metavar="NAME", help="With --by: which one, when the person has several of the kind."
        ),
    ] = None,
    otp_file: options.OneTimePasswordFile = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Approve with one one-time password: all or none.

    The password approves exactly these authorizations, at most 100.

    \b
    Examples:
      trien authorizations approve credentials/hoang-trinh-don-rsa/authorizations/8f0c…
      trien authorizations approve $(trien authorizations list --output json |
        jq -r '.[].name')
      trien authorizations approve --by ocra credentials/hoang-trinh-don-rsa/authorizations/8f0c…
    """
    with reported(output):
        from trien_client.cli.challenges import made, shown
        from trien_client.cli.decisions import (
            approval_content,
            approval_line,
            decider,
            require_names,
            require_pending,
            summary,
        )
        from trien_client.cli.password import PasswordSource

        if authenticator is not None and by is None:
            raise CommandError("--authenticator is for --by: the code of an app is looked for among all of a person's.")
        require_names(names)
        person = None if signer is None else options.full_name("signers", signer)
        target = _target(connection, address, ca_file, token_file, certificate_file, key_file, timeout)
        source = PasswordSource(otp_file, what="")
        with target.connect() as client:
            authorizations = require_pending(client, names)
            who = decider(client, authorizations, person)
            source.what = summary(authorizations)
            if not source.can_ask_again and output is OutputFormat.TEXT:
                # Nobody is asked, but whoever reads the log sees what the code was for.
                typer.echo(f"To be approved:{source.what}", err=True)
            challenge = None
            if by is not None:
                challenge = made(client, names, signer=who, means=by, authenticator=authenticator)
                source.instruct(shown(challenge), by)
            approval = source.until_accepted(
                lambda password, request_id: client.approve_authorizations(
                    names, signer=who, one_time_password=password, challenge=challenge, request_id=request_id
                )
            )
        show(output, approval_line(approval), approval_content(approval))


@app.command(epilog=EXIT_CODES)
def deny(
    name: Name,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Deny an authorization for good.

    It takes no password: nothing can be signed by it any more.

    \b
    Example:
      trien authorizations deny credentials/hoang-trinh-don-rsa/authorizations/8f0c…
    """
    with reported(output):
        from trien_client.cli.decisions import denial, listing_content, named, require_names

        require_names([name])
        target = _target(connection, address, ca_file, token_file, certificate_file, key_file, timeout)
        with target.connect() as client, named(name):
            denied = client.deny_authorization(name)
        show(output, denial(denied), listing_content(denied))


@app.command(epilog=EXIT_CODES)
def wait(
    name: Name,
    at_most: Annotated[
        float, typer.Option("--for", metavar="SECONDS", min=0, help="How long to wait for the decision.")
    ] = 600.0,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Wait until an authorization is decided on.

    It ends with 0 when it was approved, with 1 when it was denied or has expired, and with 6 when it still waits.

    \b
    Example:
      trien authorizations wait credentials/hoang-trinh-don-rsa/authorizations/8f0c… --for 300
    """
    with reported(output):
        from trien_client.cli.decisions import is_approved, is_open, listing, listing_content, named, require_names

        require_names([name])
        target = _target(connection, address, ca_file, token_file, certificate_file, key_file, 30.0)
        with target.connect() as client, named(name):
            found = client.wait_authorization(name, timeout=at_most)
        show(output, listing([found], everything=True), listing_content(found))
        if is_open(found):
            fail(output, still_waiting(name, at_most))
        if not is_approved(found):
            raise typer.Exit(int(ExitCode.REFUSED))


def _target(
    connection: Path | None,
    address: str | None,
    ca_file: Path | None,
    token_file: Path | None,
    certificate_file: Path | None,
    key_file: Path | None,
    timeout: float,
) -> options.Target:
    # Nothing is signed by these commands: they need no trust anchors.
    return options.Target(
        connection=connection,
        address=address,
        ca_file=ca_file,
        token_file=token_file,
        certificate_file=certificate_file,
        key_file=key_file,
        trust_anchors=None,
        timeout=timeout,
    )
