"""`trien audit list` and `show`: entries of the log, for people and for programs."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import audit_texts, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat
from trien_client.cli.times import parse_time

if TYPE_CHECKING:
    from trien.v1.audit_service_pb2 import AuditFinding, ListAuditEntriesRequest, ListAuditEntriesResponse

Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind", metavar="KIND", help="Only entries of this kind, such as signing_granted; several may be given."
    ),
]
Resource = Annotated[
    str | None,
    typer.Option(
        "--resource",
        metavar="NAME",
        help="Only entries that name this resource or a part of it, such as signers/hoang.",
    ),
]
Since = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only from this time on: 2027-07-01 or 2027-07-01T08:00.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only from before this time.")]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="REASON", help="Only refusals with this reason, such as SIGNER_LOCKED."),
]
DigestOption = Annotated[
    str | None, typer.Option("--digest", metavar="HEX", help="Only entries about a document with this digest.")
]
_HEXADECIMAL = re.compile(r"(?:[0-9a-fA-F]{2}){16,64}")


def list_entries(
    me: Officer,
    kind: Kinds = None,
    resource: Resource = None,
    since: Since = None,
    until: Until = None,
    reason: Reason = None,
    digest: DigestOption = None,
    since_position: Annotated[
        int, typer.Option("--since-position", metavar="N", min=0, help="Only entries at this position or later.")
    ] = 0,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", min=0, help="How many at most; 0 for all that match.")
    ] = 50,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In the log's order.")] = False,
) -> None:
    """List audit entries, the newest first.

    An entry is in the list once it has its position in the log, a second or two after it was written. The server hands
    out only entries whose seal verifies; a position without one is told of, and the command ends with 5.

    \b
    Examples:
      trien audit list
      trien audit list --kind refused --since 2027-07-01 --limit 0
      trien audit list --resource signers/hoang-trinh-don --output json
    """
    request = request_of(kind=kind, resource=resource, since=since, until=until, reason=reason, digest=digest)
    request.first_position, request.newest_first = since_position, not oldest_first
    request.page_size = min(limit or 500, 500)
    findings: list[AuditFinding] = []
    left = limit
    shown = []
    for page in pages(me, request):
        findings += page.findings
        for entry in page.audit_entries:
            if me.output is OutputFormat.JSON:
                shown.append(audit_texts.fields(entry))
            else:
                typer.echo(audit_texts.lines(entry))
            left -= 1
            if limit and left <= 0:
                break
        if limit and left <= 0:
            break
    if me.output is OutputFormat.JSON:
        typer.echo(audit_texts.as_json(shown))
    elif left == limit:
        typer.echo("No entry matches.")
    tell_of(findings)


def show(
    me: Officer,
    name: Annotated[str, typer.Argument(metavar="ENTRY", help="An entry: auditEntries/…, as `list` shows it.")],
) -> None:
    """Show one audit entry whole.

    \b
    Examples:
      trien audit show auditEntries/k7m2…
      trien audit show auditEntries/k7m2… --output json
    """
    from trien.v1 import audit_service_pb2

    request = audit_service_pb2.GetAuditEntryRequest(name=options.full_name("auditEntries", name))
    entry = me.client.call(me.client.audit.GetAuditEntry, request)
    if me.output is OutputFormat.JSON:
        typer.echo(audit_texts.as_json(audit_texts.fields(entry)))
    else:
        typer.echo(audit_texts.whole(entry))


def request_of(
    *,
    kind: list[str] | None = None,
    resource: str | None = None,
    since: str | None = None,
    until: str | None = None,
    reason: str | None = None,
    digest: str | None = None,
) -> "ListAuditEntriesRequest":
    """Returns the request that options say. Raises `CommandError` for what is no time or no digest."""
    from trien.v1 import audit_service_pb2

    request = audit_service_pb2.ListAuditEntriesRequest(
        kinds=kind or [],
        resource=resource or "",
        reason=reason or "",
        digest=b"" if digest is None else _digest(digest),
    )
    if since is not None:
        request.start_time.FromDatetime(parse_time(since, option="--since"))
    if until is not None:
        request.end_time.FromDatetime(parse_time(until, option="--until"))
    return request


def pages(me: Officer, request: "ListAuditEntriesRequest") -> Iterator["ListAuditEntriesResponse"]:
    """Yields the list's pages to its end."""
    while True:
        page = me.client.call(me.client.audit.ListAuditEntries, request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def tell_of(findings: "list[AuditFinding]") -> None:
    """Raises `CommandError` that names the positions without an entry that can be trusted, when there are any."""
    if not findings:
        return
    places = sorted((finding.position, finding.finding) for finding in findings)
    shown = "; ".join(f"position {position}: {finding}" for position, finding in places[:5])
    more = f"; and {len(places) - 5} more" if len(places) > 5 else ""
    raise CommandError(
        f"Not every entry can be trusted, and what cannot was left out: {shown}{more}. Tell your security officer.",
        exit_code=ExitCode.NOT_TRUSTED,
    )


def _digest(text: str) -> bytes:
    if _HEXADECIMAL.fullmatch(text) is None:
        raise CommandError(f"--digest: {text!r} is no digest in hexadecimal digits.")
    return bytes.fromhex(text)
