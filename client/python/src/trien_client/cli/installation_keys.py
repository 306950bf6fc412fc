"""`trien keys installation`: the server's own keys, which seal its rows and wrap its keys."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import plain

if TYPE_CHECKING:
    from trien.v1.key_service_pb2 import InstallationKey

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at the server's own keys, and give them new generations.",
)


class Purpose(StrEnum):
    """What a key of the server's is for."""

    SEALING = "sealing"
    WRAPPING = "wrapping"
    LOG = "log"


@operating.command(app, "list")
def list_installation_keys(me: Officer) -> None:
    """List all generations of the server's own keys.

    ACTIVE: new rows and keys use it. RETIRING: what it sealed or wrapped is made anew. RETIRED: nothing that changes
    needs it; it stays on the token, for what is from before.

    \b
    Examples:
      trien keys installation list
      trien keys installation list --output json | jq -r '.[] | select(.state == "RETIRING") | .name'
    """
    from trien.v1 import key_service_pb2

    request = key_service_pb2.ListInstallationKeysRequest(page_size=100)
    found = me.pages(me.client.keys.ListInstallationKeys, request, "installation_keys")
    me.show_all(found, _line, empty="There is no key.")


@operating.command(app)
def rotate(
    me: Officer,
    purpose: Annotated[
        Purpose,
        typer.Option(
            "--purpose",
            help="`sealing`: the key that seals rows. `wrapping`: the key that wraps keys. `log`: the key that signs"
            " the audit log.",
        ),
    ],
) -> None:
    """Propose a new generation of one of the server's own keys.

    Once a second operator agrees, the server goes on with it by itself, without a stop: every row is sealed anew, or
    every wrapped key is wrapped anew inside the token. `list` shows how far it is. A wrapping key that follows a
    trusted one is made on the server's host, before or after: trien-server token add-wrapping-key. The log's old key
    signs the new one's name, and what it signed stays valid.

    \b
    Examples:
      trien keys installation rotate --purpose sealing
      trien keys installation rotate --purpose wrapping
      trien keys installation rotate --purpose log
    """
    from trien.v1 import key_service_pb2

    request = key_service_pb2.RotateInstallationKeyRequest(
        purpose=key_service_pb2.InstallationKey.Purpose.Value(purpose.name)
    )
    me.propose(me.client.keys.RotateInstallationKey, request)


def _line(key: "InstallationKey") -> str:
    asked_for = operating.moment_of(key, "create_time")
    return plain(f"{operating.value_name(key, 'state'):18}  {key.name:29}  asked for {asked_for}")
