"""`trien audit follow`: new entries as they get their place in the log."""

import sys
import time
from typing import Annotated

import typer

from trien_client.cli import audit_reading, audit_texts
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import OutputFormat, describe, plain

_LONGEST_PAUSE = 15.0
_TRANSIENT = {"BUSY", "HSM_UNAVAILABLE", "STORE_UNAVAILABLE", "CLOCK_NOT_TRUSTED", "LOG_NOT_SEALED", "LOG_NOT_TRUSTED"}


def follow(
    me: Officer,
    kind: audit_reading.Kinds = None,
    resource: audit_reading.Resource = None,
    reason: audit_reading.Reason = None,
    since_position: Annotated[
        int | None,
        typer.Option(
            "--since-position", metavar="N", min=0, help="From this position on; without it only what is new."
        ),
    ] = None,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="How often to ask.")] = 1.0,
) -> None:
    """Show new audit entries as they come, until Ctrl-C.

    When the server cannot be reached it says so, goes on trying, and misses no entry. With --output json every entry is
    a line.

    \b
    Examples:
      trien audit follow
      trien audit follow --kind refused --output json | jq -r .details
    """
    try:
        _follow(me, kind, resource, reason, since_position, interval)
    except KeyboardInterrupt:
        # How it is meant to end. The prompt begins in a line of its own behind the terminal's ^C.
        if me.output is OutputFormat.TEXT and sys.stderr.isatty():
            typer.echo("", err=True)
    except BrokenPipeError:
        # Nobody reads any more; what is still in the buffer has nowhere to go.
        sys.stdout = None


def _follow(
    me: Officer,
    kind: list[str] | None,
    resource: str | None,
    reason: str | None,
    since_position: int | None,
    interval: float,
) -> None:
    from trien.v1 import audit_service_pb2

    from trien_client._errors import Refusal, ServerNotTrusted, TransportError

    position, pause, told = since_position, interval, False
    begun = False
    while True:
        try:
            if position is None:
                newest = audit_service_pb2.ListAuditEntriesRequest(page_size=1, newest_first=True)
                position = me.client.call(me.client.audit.ListAuditEntries, newest).next_position
            request = audit_reading.request_of(kind=kind, resource=resource, reason=reason)
            request.first_position, request.page_size = position, 500
            page = me.client.call(me.client.audit.ListAuditEntries, request)
        except (Refusal, TransportError) as error:
            lost = isinstance(error, TransportError) and not isinstance(error, ServerNotTrusted)
            if not (lost or (isinstance(error, Refusal) and error.reason in _TRANSIENT)) or not begun:
                raise
            if not told:
                failure = describe(error)
                typer.echo(plain(f"trien: {failure.message} Trying again. [{failure.reason}]"), err=True)
            told, pause = True, min(_LONGEST_PAUSE, pause * 2)
            time.sleep(pause)
            continue
        if told:
            typer.echo("trien: Going on.", err=True)
        begun, told, pause = True, False, interval
        for entry in page.audit_entries:
            typer.echo(audit_texts.json_line(entry) if me.output is OutputFormat.JSON else audit_texts.lines(entry))
        for finding in page.findings:
            message = f"trien: position {finding.position} cannot be trusted: {finding.finding}. [NOT_TRUSTED]"
            typer.echo(plain(message), err=True)
        position = page.next_position
        if not page.next_page_token:
            time.sleep(interval)
