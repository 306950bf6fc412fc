"""`trien credentials`: what this application may ask signatures of, and what officers do with credentials.

The officers' commands are in `credential_administration`.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.outcome import EXIT_CODES, OutputFormat, plain, reported, show

if TYPE_CHECKING:
    from trien_client._resources import Credential

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See credentials; make and change them.")


@app.command("list", epilog=EXIT_CODES)
def list_credentials(
    operator: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="NAME", help="As this operator of the connection file: lists all, and what officers see."
        ),
    ] = None,
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """List the credentials that you may use, or see.

    An application sees those that it may use; with --as an operator sees all.

    \b
    Examples:
      trien credentials list --connection sandbox/connection.json
      trien credentials list --as first
    """
    with reported(output, officer=operator is not None):
        if operator is not None:
            from trien_client.cli.credential_texts import list_all

            list_all(
                operating.Target(
                    connection=connection,
                    operator=operator,
                    address=address,
                    ca_file=ca_file,
                    certificate_file=certificate_file,
                    key_file=key_file,
                    timeout=timeout,
                ),
                output,
            )
            return
        target = options.Target(
            connection=connection,
            address=address,
            ca_file=ca_file,
            token_file=token_file,
            certificate_file=certificate_file,
            key_file=key_file,
            trust_anchors=None,
            timeout=timeout,
        )
        with target.connect() as client:
            found = list(client.list_credentials())
        show(output, _table(found), [_content(credential) for credential in found])


def _table(credentials: "list[Credential]") -> str:
    if not credentials:
        return "There is no credential that this application may use."
    lines = []
    for credential in credentials:
        # One block each: names have up to 63 characters, and a table of them is wider than a terminal.
        lines += [
            credential.name,
            f"  title: {_shortened(plain(credential.display_name))}",
            f"  key:   {credential.key_type or 'unknown'}, {credential.state}",
            *([f"  until: {_end(credential.valid_until)}"] if credential.valid_until is not None else []),
            *(
                f"  {'when:' if position == 0 else '     '}  {plain(each)}"
                for position, each in enumerate(credential.hours)
            ),
            *(
                f"  {'who:' if position == 0 else '    '}   {activator.signer}"
                for position, activator in enumerate(credential.activators)
            ),
        ]
    return "\n".join(lines)


def _end(time: datetime) -> str:
    from trien_client.cli.credential_texts import expiry

    return expiry(time, now=datetime.now(UTC))


def _shortened(text: str, longest: int = 71) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _content(credential: "Credential") -> dict[str, object]:
    return {
        "name": credential.name,
        "display_name": credential.display_name,
        "signer": credential.signer,
        "activators": [activator.signer for activator in credential.activators],
        "key_type": credential.key_type,
        "algorithms": list(credential.algorithms),
        "state": credential.state,
        "max_items": credential.max_items,
        "authenticator_kinds": list(credential.authenticator_kinds),
        "hours": list(credential.hours),
        "valid_until": None if credential.valid_until is None else credential.valid_until.isoformat(),
    }
