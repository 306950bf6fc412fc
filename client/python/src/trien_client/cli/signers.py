"""`trien signers`: the persons and agencies that sign."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import plain

if TYPE_CHECKING:
    from trien.v1.signer_service_pb2 import Signer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Enter signers, one by one or by a list.")


class Kind(StrEnum):
    """What a signer is."""

    PERSON = "person"
    AGENCY = "agency"


Name = Annotated[str, typer.Argument(metavar="NAME", help="A signer: hoang-trinh-don.")]
FullName = Annotated[str | None, typer.Option("--name", metavar="TEXT", help="The full name, or the agency's title.")]
Organization = Annotated[
    str | None, typer.Option("--organization", metavar="NAME", help="The organization that the signer belongs to.")
]
Position = Annotated[str | None, typer.Option("--position", metavar="TEXT", help="The post.")]
Email = Annotated[
    str | None, typer.Option("--email", metavar="ADDRESS", help="Where the signer is told what concerns the signer.")
]
Phone = Annotated[str | None, typer.Option("--phone", metavar="NUMBER", help="The same by SMS: +84912345678.")]


@operating.command(app)
def create(
    me: Officer,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits and hyphens.")],
    name: Annotated[str, typer.Option("--name", metavar="TEXT", help="The full name, or the agency's title.")],
    organization: Annotated[
        str, typer.Option("--organization", metavar="NAME", help="The organization that the signer belongs to.")
    ],
    kind: Annotated[Kind, typer.Option("--kind", help="A person, or an agency for its seal.")] = Kind.PERSON,
    position: Position = None,
    email: Email = None,
    phone: Phone = None,
) -> None:
    """Enter a signer.

    \b
    Examples:
      trien signers create don --name "Hoàng Trịnh Đôn" --organization ubnd-xa \\
        --position "Chủ tịch" --phone +84912345678
      trien signers create seal --kind agency --name "UBND xã" --organization ubnd-xa
    """
    from trien.v1 import signer_service_pb2

    signer = signer_service_pb2.Signer(
        name=options.full_name("signers", identifier), kind=signer_service_pb2.Signer.Kind.Value(kind.name)
    )
    _change(signer, name, organization, position, email, phone)
    request = signer_service_pb2.CreateSignerRequest(signer_id=signer.name.partition("/")[2], signer=signer)
    me.show(me.client.call(me.client.signers.CreateSigner, request), text)


@operating.command(app, "list")
def list_signers(
    me: Officer,
    organization: Annotated[
        str | None, typer.Option("--organization", metavar="NAME", help="Only this one's, not of those below it.")
    ] = None,
) -> None:
    """List signers by name.

    \b
    Examples:
      trien signers list --organization ubnd-xa-phu-lam
      trien signers list --output json
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.ListSignersRequest(page_size=100)
    if organization is not None:
        request.organization = options.full_name("organizations", organization)
    found = me.pages(me.client.signers.ListSigners, request, "signers")
    me.show_all(found, _line, empty="There is no signer.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show a signer.

    \b
    Example:
      trien signers show hoang-trinh-don
    """
    me.show(_read(me, name), text)


@operating.command(app)
def update(
    me: Officer,
    name: Name,
    full_name: FullName = None,
    organization: Organization = None,
    position: Position = None,
    email: Email = None,
    phone: Phone = None,
) -> None:
    """Propose other values for a signer.

    What is not given stays as it is; an empty value takes one away.

    \b
    Examples:
      trien signers update hoang-trinh-don --organization ubnd-xa-tan-chi
      trien signers update hoang-trinh-don --email don@phulam.example --phone ""
    """
    from trien.v1 import signer_service_pb2

    signer = _read(me, name)
    _change(signer, full_name, organization, position, email, phone)
    me.propose(me.client.signers.UpdateSigner, signer_service_pb2.UpdateSignerRequest(signer=signer))


@operating.command(app)
def disable(me: Officer, name: Name) -> None:
    """Disable a signer at once.

    Nothing of the signer's is signed from then on, and the signer approves nothing.

    \b
    Example:
      trien signers disable hoang-trinh-don
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.DisableSignerRequest(name=options.full_name("signers", name))
    me.show(me.client.call(me.client.signers.DisableSigner, request), text)


@operating.command(app)
def enable(me: Officer, name: Name) -> None:
    """Propose to enable a disabled or frozen signer.

    \b
    Example:
      trien signers enable hoang-trinh-don
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.EnableSignerRequest(name=options.full_name("signers", name))
    me.propose(me.client.signers.EnableSigner, request)


@operating.command(app)
def unlock(me: Officer, name: Name) -> None:
    """End a lock that wrong one-time passwords brought about.

    After a hundred of them in a row it takes two officers: `disable` the signer, `enable`, and have that approved.

    \b
    Example:
      trien signers unlock hoang-trinh-don
    """
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.UnlockSignerRequest(name=options.full_name("signers", name))
    me.show(me.client.call(me.client.signers.UnlockSigner, request), text)


@operating.command(app, "import")
def import_signers(
    me: Officer,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The list: CSV in UTF-8 (docs/signers-csv.md).")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be entered, and what is wrong.")] = (
        False
    ),
    faults_file: Annotated[
        Path | None,
        typer.Option("--faults-file", metavar="FILE", help="Write all that is wrong to a file, as CSV."),
    ] = None,
) -> None:
    """Enter the signers of a list, all of them or none.

    The first line names the columns: id, name and organization, and as wanted kind, position, email and phone. Signers
    who are there with the same values stay as they are, so a list can be imported again.

    \b
    Examples:
      trien signers import signers.csv --dry-run
      trien signers import signers.csv --faults-file faults.csv
    """
    from trien_client.cli import signer_import

    signer_import.run(me, file, dry_run=dry_run, faults_file=faults_file)


def text(signer: "Signer") -> str:
    """Returns a signer for people."""
    kind = operating.value_name(signer, "kind").lower()
    return operating.block(
        signer.name,
        ("name", signer.display_name),
        ("kind", kind),
        ("organization", signer.organization),
        ("position", signer.position),
        ("email", signer.email),
        ("phone", signer.phone),
        ("state", operating.value_name(signer, "state")),
        ("notices", "of each signature" if signer.signature_notices else ""),
    )


def _line(signer: "Signer") -> str:
    state = operating.value_name(signer, "state")
    mark = "" if state == "ENABLED" else f" ({state.lower()})"
    post = f", {signer.position}" if signer.position else ""
    return f"{plain(signer.name)}{mark}\n  {plain(signer.display_name + post)}"


def _read(me: Officer, name: str) -> "Signer":
    from trien.v1 import signer_service_pb2

    request = signer_service_pb2.GetSignerRequest(name=options.full_name("signers", name))
    signer: signer_service_pb2.Signer = me.client.call(me.client.signers.GetSigner, request)
    return signer


def _change(
    signer: "Signer",
    name: str | None,
    organization: str | None,
    position: str | None,
    email: str | None,
    phone: str | None,
) -> None:
    """Puts what was given into the message."""
    if name is not None:
        signer.display_name = name
    if organization is not None:
        signer.organization = options.full_name("organizations", organization)
    if position is not None:
        signer.position = position
    if email is not None:
        signer.email = email
    if phone is not None:
        signer.phone = phone
