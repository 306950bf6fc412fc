"""`trien audit erase`: personal data beside the log, erased for good."""

from typing import Annotated

import typer

from trien_client.cli import options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError
from trien_client.cli.times import parse_time


def erase(
    me: Officer,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="The entries, such as auditEntries/4f2a…, up to 500."),
    ] = None,
    resource: Annotated[
        str | None,
        typer.Option("--resource", metavar="NAME", help="All entries that name this resource, such as signers/hoang."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Of these, only the ones from before this time.")
    ] = None,
    because: Annotated[
        str,
        typer.Option("--because", metavar="TEXT", help="Why, for the log, for ever: write no personal data here."),
    ] = "",
) -> None:
    """Propose to erase the details of audit entries, for good.

    Once a second security officer agrees, the server erases them, which nothing undoes. What an entry was about is
    gone: digests, names, titles. Its time, kind and place in the log stay, and every receipt still verifies. The log
    says which entries were erased, on whose word and why. Copies elsewhere stay: backups, exports, receipts that were
    handed out.

    \b
    Examples:
      trien audit erase --resource signers/hoang --until 2027-01-01 --because 'left in 2026, request 12/2027'
      trien audit erase auditEntries/4f2a… --because 'title with a name, request 13/2027'
    """
    from trien.v1 import audit_service_pb2

    if not because:
        raise CommandError("Say why: give --because TEXT. The log keeps it for ever.")
    if bool(names) is (resource is not None):
        raise CommandError("Say which: give entries' names, or --resource NAME with --until TIME.")
    if (resource is None) is not (until is None):
        raise CommandError("--resource and --until belong together: entries that name it, from before a time.")
    request = audit_service_pb2.EraseAuditDetailsRequest(
        audit_entries=[options.full_name("auditEntries", name) for name in names or ()],
        resource=resource or "",
        justification=because,
    )
    if until is not None:
        request.end_time.FromDatetime(parse_time(until, option="--until"))
    me.propose(me.client.audit.EraseAuditDetails, request)
