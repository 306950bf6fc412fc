"""`trien signers import`: sends a list of signers, and says what the server found wrong with it."""

import csv
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, is_terminal, plain

if TYPE_CHECKING:
    from trien.v1.signer_service_pb2 import ImportFault, ImportSignersResponse

_LEAST_SECONDS = 120.0
"""A list of 10,000 lines takes some 20 s on a database that is not near."""
_LINES_AT_ONCE = 250
_MOST_SHOWN = 50
_MOST_SAID = 1000
_WIDTH = 80


def run(me: Officer, file: Path, *, dry_run: bool, faults_file: Path | None) -> None:
    """Imports a list, or checks it; ends with exit code 1 when anything is wrong with it."""
    content = file.read_bytes()
    if is_terminal() and me.output is OutputFormat.TEXT:
        _check_in_parts(me, content)
    response = _send(me, content, validate_only=dry_run, name=file.name)
    if faults_file is not None:
        _write_faults(faults_file, response.faults)
    me.show(response, lambda answered: _text(answered, file, dry_run=dry_run))
    if response.faults:
        raise typer.Exit(int(ExitCode.REFUSED))


def _send(me: Officer, content: bytes, *, validate_only: bool, name: str) -> "ImportSignersResponse":
    from trien.v1 import signer_service_pb2

    from trien_client._errors import MessageTooLarge

    request = signer_service_pb2.ImportSignersRequest(csv=content, validate_only=validate_only)
    try:
        return me.client.call(me.client.signers.ImportSigners, request, timeout=max(me.target.timeout, _LEAST_SECONDS))
    except MessageTooLarge:
        raise CommandError(
            f"{plain(name)} has {len(content):,} bytes, more than the server takes at once: by default 2 MiB, less a"
            " few bytes. Import it in parts.",
            exit_code=ExitCode.REFUSED,
        ) from None


def _check_in_parts(me: Officer, content: bytes) -> None:
    """Checks a list part by part, so that a person sees how far it is; ends early where something is wrong.

    What is wrong is not said here: the whole list is sent afterwards, and only the whole shows all.
    """
    parts = list(_parts(content))
    if len(parts) < 2:
        return
    with typer.progressbar(parts, label="Checking the list", file=sys.stderr) as bar:
        for part in bar:
            if _send(me, part, validate_only=True, name="It").faults:
                return


def _parts(content: bytes) -> Iterator[bytes]:
    """Yields parts of a list, each with its first line; nothing when a cell may go over several lines."""
    lines = content.splitlines(keepends=True)
    if any(line.count(b'"') % 2 for line in lines):
        return
    for start in range(1, len(lines), _LINES_AT_ONCE):
        part = lines[start : start + _LINES_AT_ONCE]
        if b"".join(part).strip(b",;\r\n "):
            yield b"".join([lines[0], *part])


def _text(response: "ImportSignersResponse", file: Path, *, dry_run: bool) -> str:
    if response.faults:
        return "\n".join(_fault_lines(response.faults, plain(file.name)))
    entered = f"{response.signer_count:,} {'signer' if response.signer_count == 1 else 'signers'}"
    said = f"{entered} would be entered; nothing is wrong." if dry_run else f"{entered} entered."
    if response.unchanged_count:
        said += f" {response.unchanged_count:,} were there with the same values."
    return said


def _fault_lines(faults: "Sequence[ImportFault]", name: str) -> Iterator[str]:
    count = f"{_MOST_SAID:,} or more faults" if len(faults) >= _MOST_SAID else f"{len(faults):,} faults"
    yield f"{name}: nothing was entered; {'1 fault' if len(faults) == 1 else count}:"
    yield ""
    yield f"{'line':>6}  {'column':12}  what is wrong"
    for fault in faults[:_MOST_SHOWN]:
        place = f"{fault.line or '':>6}  {plain(fault.column):12}  "
        message = plain(fault.message)
        lines = textwrap.wrap(message, _WIDTH - len(place)) or [""]
        yield f"{place}{lines[0]}"
        yield from (f"{'':{len(place)}}{line}" for line in lines[1:])
    if len(faults) > _MOST_SHOWN:
        yield f"and {len(faults) - _MOST_SHOWN:,} more: --faults-file FILE writes them all, as does --output json."


def _write_faults(file: Path, faults: "Sequence[ImportFault]") -> None:
    with file.open("w", encoding="utf-8-sig", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["line", "column", "message"])
        writer.writerows([fault.line, plain(fault.column), plain(fault.message)] for fault in faults)
