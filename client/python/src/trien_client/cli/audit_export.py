"""`trien audit export`: the log, or what is new of it, in a file."""

import os
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from trien_client.cli import audit_reading
from trien_client.cli.files import require_writable
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, OutputFormat, show

if TYPE_CHECKING:
    from trien.v1.audit_service_pb2 import AuditEntry, AuditFinding

_TAIL = 1 << 20
_JSON_POSITION = re.compile(rb'^\{"name":"auditEntries/[a-z0-9-]+","position":([0-9]+),')
_SYSLOG_POSITION = re.compile(rb'^<[0-9]+>1 [^\[]*\[trienAudit@32473 position="([0-9]+)"')


class Format(StrEnum):
    """How entries are written."""

    JSONL = "jsonl"
    RFC5424 = "rfc5424"


def export(
    me: Officer,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    since_position: Annotated[
        int, typer.Option("--since-position", metavar="N", min=0, help="From this position on; without it all.")
    ] = 0,
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="`jsonl`: a line of JSON each, which `verify` reads. `rfc5424`: syslog messages."
        ),
    ] = Format.JSONL,
    force: Annotated[bool, typer.Option("--force", help="Replace the file.")] = False,
) -> None:
    """Write audit entries to a file, in the log's order.

    The file appears when it is whole. Until then it is FILE.part, and when the command is interrupted the same command
    goes on where it stopped. It says from where the next export goes on.

    \b
    Examples:
      trien audit export --out log.jsonl
      trien audit export --out new.jsonl --since-position 20480
    """
    require_writable(out, overwrite=force)
    part = out.with_name(f"{out.name}.part")
    findings: list[AuditFinding] = []
    with part.open("a+b") as file:
        begin = _resume(file, part, form, since_position)
        count, end = _write(me, file, form, begin, findings)
        file.flush()
        os.fsync(file.fileno())
    require_writable(out, overwrite=force)
    part.replace(out)
    _sync_folder(out.parent)
    resumed = f" It went on at position {begin}." if begin > since_position else ""
    show(
        me.output if me.output is OutputFormat.JSON else OutputFormat.TEXT,
        f"Wrote {out}: positions {since_position} to {end - 1}, {count} entries now.{resumed}\n"
        f"The next export goes on with --since-position {end}."
        if end > since_position
        else f"Wrote {out}: there is no entry from position {since_position} on.",
        {"file": str(out), "entries": count, "since_position": since_position, "next_position": end},
    )
    audit_reading.tell_of(findings)


def _write(me: Officer, file: BinaryIO, form: Format, begin: int, findings: "list[AuditFinding]") -> tuple[int, int]:
    """Writes the entries from a position on, a page at a time; returns how many, and the position behind the last."""
    request = audit_reading.request_of()
    request.first_position, request.page_size = begin, 500
    make = _maker(form)
    count, end = 0, begin
    for page in audit_reading.pages(me, request):
        findings += page.findings
        file.write(b"".join(make(entry) for entry in page.audit_entries))
        count += len(page.audit_entries)
        end = page.next_position
    return count, end


def _maker(form: Format) -> "Callable[[AuditEntry], bytes]":
    from trien_client import audit_lines

    if form is Format.JSONL:
        return audit_lines.json_line
    return lambda entry: audit_lines.syslog_message(entry) + b"\n"


def _resume(file: BinaryIO, part: Path, form: Format, since_position: int) -> int:
    """Cuts what an interrupted export left to whole lines, and returns the position to go on at.

    Raises `CommandError` when it is not the beginning of the same export.
    """
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return since_position
    pattern = _JSON_POSITION if form is Format.JSONL else _SYSLOG_POSITION
    file.seek(0)
    first = pattern.match(file.readline(_TAIL))
    file.seek(max(0, size - _TAIL))
    tail = file.read()
    whole = tail.rpartition(b"\n")[0]
    last = pattern.match(whole.rpartition(b"\n")[2])
    if not whole:
        file.truncate(0)
        return since_position
    if first is None or last is None or int(first[1]) != since_position:
        raise CommandError(f"{part} is not what such an export left: remove it, and try again.")
    file.truncate(size - len(tail) + len(whole) + 1)
    file.seek(0, os.SEEK_END)
    return int(last[1]) + 1


def _sync_folder(folder: Path) -> None:
    """Makes the new name durable, where the system lets folders be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
