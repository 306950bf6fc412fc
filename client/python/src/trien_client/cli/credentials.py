"""`trien credentials`: what this application may ask signatures of."""

from typing import TYPE_CHECKING

import typer

from trien_client.cli import options
from trien_client.cli.outcome import EXIT_CODES, OutputFormat, plain, reported, show

if TYPE_CHECKING:
    from trien_client._resources import Credential

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="See the credentials that you may use.")


@app.command("list", epilog=EXIT_CODES)
def list_credentials(
    connection: options.Connection = None,
    address: options.Address = None,
    ca_file: options.CaFile = None,
    token_file: options.TokenFile = None,
    certificate_file: options.CertificateFile = None,
    key_file: options.KeyFile = None,
    timeout: options.Timeout = 30.0,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """List the credentials that this application may use.

    \b
    Example:
      trien credentials list --connection sandbox/connection.json
    """
    with reported(output):
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
            *(
                f"  {'who:' if position == 0 else '    '}   {activator.signer}"
                for position, activator in enumerate(credential.activators)
            ),
        ]
    return "\n".join(lines)


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
    }
