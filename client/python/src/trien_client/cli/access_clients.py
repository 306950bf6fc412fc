"""`trien access clients`: applications, what they are known by and what they may ask for."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError

if TYPE_CHECKING:
    from trien.v1.access_service_pb2 import Client

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Enter, narrow, renew and disable applications.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="A client, such as e-office.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="Make a token here: it is written to this new file, for you alone to read. The server gets its SHA-256.",
    ),
]
Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="FILE", help="The certificate (PEM) that it calls with, instead of a token."),
]
Organizations = Annotated[
    list[str] | None,
    typer.Option("--organization", metavar="NAME", help="Only for signers of this one and below it; repeat it."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="SERVICE.METHOD", help="It may call this, and nothing else; repeat it."),
]
CallsPerMinute = Annotated[
    int | None,
    typer.Option("--calls-per-minute", metavar="N", min=0, help="How many of its calls each server process takes."),
]
ConcurrentItems = Annotated[
    int | None,
    typer.Option("--concurrent-items", metavar="N", min=0, help="How many items each process has at work for it."),
]


@operating.command(app)
def create(
    me: Officer,
    name: Name,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="What people call it.")],
    token_file: TokenFile = None,
    certificate: Certificate = None,
    organizations: Organizations = None,
    methods: Methods = None,
    calls_per_minute: CallsPerMinute = None,
    concurrent_items: ConcurrentItems = None,
) -> None:
    """Propose a client: an application that may call.

    It is known by a token, which is made here, or by a certificate. Credentials have to name the client besides. The
    token opens nothing until another operator approved.

    \b
    Examples:
      trien access clients create e-office --title "e-Office" \\
        --token-file e-office.token
      trien access clients create batch --title "Archive" --certificate b.pem \\
        --calls-per-minute 600 --concurrent-items 50
    """
    from trien.v1 import access_service_pb2

    with _known_by(token_file, certificate, required=True) as known_by:
        client = access_service_pb2.Client(
            display_name=title,
            organizations=_organizations(organizations),
            methods=methods or (),
            calls_per_minute=calls_per_minute or 0,
            concurrent_items=concurrent_items or 0,
            **known_by,
        )
        identifier = options.full_name("clients", name).removeprefix("clients/")
        request = access_service_pb2.CreateClientRequest(client_id=identifier, client=client)
        me.propose(me.client.access.CreateClient, request)


@operating.command(app, "list")
def list_clients(me: Officer) -> None:
    """List clients.

    \b
    Example:
      trien access clients list
    """
    from trien.v1 import access_service_pb2

    from trien_client.cli.access_texts import client_line

    found = me.pages(me.client.access.ListClients, access_service_pb2.ListClientsRequest(), "clients")
    me.show_all(found, client_line, empty="No client.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show a client's values. What is in force for it now: trien access show clients/NAME.

    \b
    Example:
      trien access clients show e-office
    """
    from trien_client.cli.access_texts import client_text

    me.show(_read(me, name), client_text)


@operating.command(app)
def update(
    me: Officer,
    name: Name,
    title: Annotated[str | None, typer.Option("--title", metavar="TEXT", help="What people call it.")] = None,
    token_file: TokenFile = None,
    certificate: Certificate = None,
    overlap_hours: Annotated[
        int,
        typer.Option(
            "--overlap-hours", metavar="N", min=0, max=720, help="How long the old token or certificate stays good."
        ),
    ] = 24,
    organizations: Organizations = None,
    all_organizations: Annotated[bool, typer.Option("--all-organizations", help="No limit to organizations.")] = False,
    methods: Methods = None,
    all_methods: Annotated[bool, typer.Option("--all-methods", help="All that clients may call.")] = False,
    calls_per_minute: CallsPerMinute = None,
    concurrent_items: ConcurrentItems = None,
) -> None:
    """Propose other values for a client; what is not given stays. 0 is no limit.

    A new token or certificate is good from the approval on, and the old one for --overlap-hours more. One that was
    stolen ends at once with `restrict --end-previous` or `disable`.

    \b
    Examples:
      trien access clients update e-office --token-file new.token
      trien access clients update e-office --all-methods --calls-per-minute 0
    """
    from trien.v1 import access_service_pb2

    with _known_by(token_file, certificate, required=False) as known_by:
        client = _read(me, name)
        wanted = access_service_pb2.Client(
            name=client.name,
            display_name=client.display_name if title is None else title,
            organizations=() if all_organizations else _organizations(organizations) or client.organizations,
            methods=() if all_methods else methods or client.methods,
            calls_per_minute=client.calls_per_minute if calls_per_minute is None else calls_per_minute,
            concurrent_items=client.concurrent_items if concurrent_items is None else concurrent_items,
            **known_by,
        )
        request = access_service_pb2.UpdateClientRequest(client=wanted, overlap_hours=overlap_hours if known_by else 0)
        me.propose(me.client.access.UpdateClient, request)


@operating.command(app)
def restrict(
    me: Officer,
    name: Name,
    organizations: Organizations = None,
    methods: Methods = None,
    calls_per_minute: CallsPerMinute = None,
    concurrent_items: ConcurrentItems = None,
    end_previous: Annotated[
        bool, typer.Option("--end-previous", help="The token or certificate before the present one ends now.")
    ] = False,
) -> None:
    """Narrow a client at once. What is not given stays; what would be wider is refused.

    \b
    Examples:
      trien access clients restrict batch --calls-per-minute 60
      trien access clients restrict e-office --end-previous
    """
    from trien.v1 import access_service_pb2

    from trien_client.cli.access_texts import client_text

    request = access_service_pb2.RestrictClientRequest(
        name=options.full_name("clients", name),
        organizations=_organizations(organizations),
        methods=methods or (),
        calls_per_minute=calls_per_minute or 0,
        concurrent_items=concurrent_items or 0,
        end_previous=end_previous,
    )
    me.show(me.client.call(me.client.access.RestrictClient, request), client_text)


@operating.command(app)
def disable(me: Officer, name: Name) -> None:
    """Shut a client out, at once and on all nodes. `enable` is a proposal.

    \b
    Example:
      trien access clients disable e-office
    """
    from trien.v1 import access_service_pb2

    from trien_client.cli.access_texts import client_line

    request = access_service_pb2.DisableClientRequest(name=options.full_name("clients", name))
    me.show(me.client.call(me.client.access.DisableClient, request), client_line)


@operating.command(app)
def enable(me: Officer, name: Name) -> None:
    """Propose to let a disabled client in again.

    Its token or certificate is the one that it had.

    \b
    Example:
      trien access clients enable e-office
    """
    from trien.v1 import access_service_pb2

    request = access_service_pb2.EnableClientRequest(name=options.full_name("clients", name))
    me.propose(me.client.access.EnableClient, request)


def _read(me: Officer, name: str) -> "Client":
    from trien.v1 import access_service_pb2

    request = access_service_pb2.GetClientRequest(name=options.full_name("clients", name))
    client: access_service_pb2.Client = me.client.call(me.client.access.GetClient, request)
    return client


def _organizations(names: list[str] | None) -> list[str]:
    return [options.full_name("organizations", name) for name in names or ()]


@contextmanager
def _known_by(token_file: Path | None, certificate: Path | None, *, required: bool) -> Iterator[dict[str, Any]]:
    """Gives what a client is to be known by; a token that was made is removed again when nothing was proposed."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from trien_client._errors import Refusal

    if token_file is not None and certificate is not None:
        raise CommandError("Give --token-file or --certificate, not both.")
    if token_file is not None:
        token = _make_token(token_file)
        try:
            yield {"token_hash": hashlib.sha256(token.encode()).digest()}
        except (CommandError, Refusal):
            # After any other failure the proposal may be there: then the token is kept.
            token_file.unlink(missing_ok=True)
            raise
    elif certificate is not None:
        try:
            found = x509.load_pem_x509_certificate(certificate.read_bytes())
        except ValueError:
            raise CommandError(f"{certificate} is not a certificate in PEM.") from None
        yield {"certificate_fingerprint": hashlib.sha256(found.public_bytes(Encoding.DER)).digest()}
    elif required:
        raise CommandError("Say what it is known by: --token-file FILE makes a token, or --certificate FILE.")
    else:
        yield {}


def _make_token(file: Path) -> str:
    """Writes 256 random bits, behind a prefix that secret scanners can find, to a new file of mode 0600."""
    import os
    import secrets

    token = f"trien_{secrets.token_urlsafe(32)}"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CommandError(f"{file} exists: give a new file, so that no token is lost.") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(f"{token}\n")
    return token
