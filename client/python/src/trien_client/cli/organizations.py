"""`trien organizations`: the agencies, as a tree with dates."""

from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import OutputFormat, plain
from trien_client.cli.times import parse_time

if TYPE_CHECKING:
    from trien.v1.organization_service_pb2 import Organization
    from trien.v1.signer_service_pb2 import Signer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Enter agencies, and change them as they merge.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="An organization: ubnd-xa-phu-lam.")]
Title = Annotated[str | None, typer.Option("--title", metavar="TEXT", help="The official title.")]
Parent = Annotated[str | None, typer.Option("--parent", metavar="NAME", help="The organization above it.")]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="TIME", help="From when it exists: 2027-07-01, or 2027-07-01T08:00+07:00."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", help="Until before when it exists. Behind that it signs nothing."),
]
Successor = Annotated[
    str | None,
    typer.Option("--successor", metavar="NAME", help="The organization that it becomes part of at its end."),
]


@operating.command(app)
def create(
    me: Officer,
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Lower-case letters, digits and hyphens.")],
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="The official title.")],
    parent: Parent = None,
    start: From = None,
    until: Until = None,
    successor: Successor = None,
) -> None:
    """Enter an organization.

    \b
    Examples:
      trien organizations create ubnd-tinh --title "Ủy ban nhân dân tỉnh"
      trien organizations create ubnd-xa --title "Ủy ban nhân dân xã" \\
        --parent ubnd-tinh --from 2025-07-01
    """
    from trien.v1 import organization_service_pb2

    organization = organization_service_pb2.Organization(
        name=options.full_name("organizations", identifier), display_name=title
    )
    _change(organization, parent, start, until, successor)
    request = organization_service_pb2.CreateOrganizationRequest(
        organization_id=organization.name.partition("/")[2], organization=organization
    )
    me.show(me.client.call(me.client.organizations.CreateOrganization, request), _text)


@operating.command(app, "list")
def list_organizations(me: Officer) -> None:
    """List all organizations, as a tree.

    \b
    Examples:
      trien organizations list
      trien organizations list --output json
    """
    from trien_client.cli.organization_tree import tree

    found = _all(me)
    if me.output is OutputFormat.JSON:
        me.show_all(found, lambda _: "", empty="")
    else:
        typer.echo("\n".join(tree(found)) if found else "There is no organization.")


@operating.command(app)
def show(me: Officer, name: Name) -> None:
    """Show an organization and who is left in it.

    You see its dates, what is below it, and its signers. Nothing is signed for those of an organization that has ended:
    give them to another one, each with `trien signers update NAME --organization NAME`, or disable them.

    \b
    Example:
      trien organizations show ubnd-xa-phu-lam
    """
    from trien_client.cli.organization_tree import has_ended, tree

    organization = _read(me, name)
    found = _all(me)
    below = [one for one in found if one.parent == organization.name]
    signers = _signers(me, organization.name)
    if me.output is OutputFormat.JSON:
        shown = operating.content(organization)
        shown["below"] = [one.name for one in below]
        shown["signers"] = None if signers is None else [signer.name for signer in signers]
        typer.echo(operating.as_json(shown))
        return
    lines = [_text(organization)]
    if below:
        lines += ["", "Below it:", *(f"  {line}" for line in tree(found, below=organization.name))]
    if signers:
        behind = "Left behind; their credentials sign nothing" if has_ended(organization) else "Signers"
        lines += ["", f"{behind} ({len(signers)}):"]
        lines += [f"  {signer.name:32} {_who(signer)}" for signer in signers[:_MOST_SHOWN]]
        if len(signers) > _MOST_SHOWN:
            lines.append(f"  and {len(signers) - _MOST_SHOWN:,} more: trien signers list --organization {name}")
    typer.echo("\n".join(lines))


@operating.command(app)
def update(
    me: Officer,
    name: Name,
    title: Title = None,
    parent: Parent = None,
    start: From = None,
    until: Until = None,
    successor: Successor = None,
) -> None:
    """Propose another title, parent, dates or successor.

    What is not given stays as it is; an empty value takes one away.

    \b
    Examples:
      trien organizations update ubnd-xa-a --title "Ủy ban nhân dân phường A"
      trien organizations update ubnd-xa-a --until 2027-07-01 --successor ubnd-xa-b
      trien organizations update ubnd-xa-a --until "" --successor ""
    """
    from trien.v1 import organization_service_pb2

    organization = _read(me, name)
    if title is not None:
        organization.display_name = title
    _change(organization, parent, start, until, successor)
    request = organization_service_pb2.UpdateOrganizationRequest(organization=organization)
    me.propose(me.client.organizations.UpdateOrganization, request)


_MOST_SHOWN = 20


def _change(
    organization: "Organization", parent: str | None, start: str | None, until: str | None, successor: str | None
) -> None:
    """Puts what was given into the message; an empty text takes away."""
    if parent is not None:
        organization.parent = options.full_name("organizations", parent) if parent else ""
    if successor is not None:
        organization.successor = options.full_name("organizations", successor) if successor else ""
    for field, option, given in (("start_time", "--from", start), ("end_time", "--until", until)):
        if given is not None:
            organization.ClearField(field)  # type: ignore[arg-type]
            if given:
                getattr(organization, field).FromDatetime(parse_time(given, option=option))


def _read(me: Officer, name: str) -> "Organization":
    from trien.v1 import organization_service_pb2

    request = organization_service_pb2.GetOrganizationRequest(name=options.full_name("organizations", name))
    organization: organization_service_pb2.Organization = me.client.call(
        me.client.organizations.GetOrganization, request
    )
    return organization


def _all(me: Officer) -> "list[Organization]":
    from trien.v1 import organization_service_pb2

    request = organization_service_pb2.ListOrganizationsRequest(page_size=100)
    return list(me.pages(me.client.organizations.ListOrganizations, request, "organizations"))


def _signers(me: Officer, organization: str) -> "list[Signer] | None":
    """Returns an organization's signers; None when they are not shown to this operator."""
    from trien.v1 import signer_service_pb2

    from trien_client._errors import PermissionDenied

    request = signer_service_pb2.ListSignersRequest(page_size=100, organization=organization)
    try:
        return list(me.pages(me.client.signers.ListSigners, request, "signers"))
    except PermissionDenied:
        return None


def _who(signer: "Signer") -> str:
    state = operating.value_name(signer, "state")
    title = plain(signer.display_name)
    return title if state == "ENABLED" else f"{title} ({state.lower()})"


def _text(organization: "Organization") -> str:
    from trien_client.cli.organization_tree import has_ended

    return operating.block(
        organization.name,
        ("title", organization.display_name),
        ("parent", organization.parent),
        ("from", operating.moment_of(organization, "start_time")),
        ("has ended" if has_ended(organization) else "until", operating.moment_of(organization, "end_time")),
        ("successor", organization.successor),
    )
