"""Tells what was found: worst first, then what was looked at. As text in 80 columns, or as JSON."""

import json
import shutil
import sys
import textwrap

import typer

from trien_server.cli.doctor.examination import Examination
from trien_server.cli.doctor.findings import Severity

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_WIDEST = 80
_ORDER = list(Severity)


class Progress:
    """Says on a terminal which check is at work, on one line that it takes away; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()

    def __call__(self, check: str) -> None:
        if self._shown:
            sys.stderr.write(f"\r\033[Klooking at {check}")
            sys.stderr.flush()

    def end(self) -> None:
        if self._shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def print_json(examination: Examination) -> None:
    """Prints `findings`, `looked_at` and `not_looked_at` as one JSON object."""
    findings = [
        {"check": check, "severity": finding.severity.value, "finding": finding.text, "advice": finding.advice}
        for check, finding in examination.findings
    ]
    left_out = [{"check": check, "because": because} for check, because in examination.left_out.items()]
    content = {"findings": findings, "looked_at": list(examination.looked_at), "not_looked_at": left_out}
    typer.echo(json.dumps(content, ensure_ascii=False, indent=2))


def print_text(examination: Examination) -> None:
    """Prints for people; with colours on a terminal alone."""
    for check, finding in sorted(examination.findings, key=lambda found: _ORDER.index(found[1].severity)):
        label = finding.severity.value
        first, *rest = _wrapped(f"{label}: {finding.text} [{check}]", indent="  ")
        typer.echo(typer.style(label, fg=_COLOURS[finding.severity], bold=True) + first.removeprefix(label))
        for line in (*rest, *_wrapped(finding.advice, indent="  ", first="  ")):
            typer.echo(line)
    if examination.findings:
        typer.echo()
    if examination.looked_at:
        _tell(f"Looked at: {', '.join(examination.looked_at)}.")
    for reason in dict.fromkeys(examination.left_out.values()):
        names = [check for check, because in examination.left_out.items() if because == reason]
        _tell(f"Not looked at, because {reason}: {', '.join(names)}.")
    counts = [(examination.count(severity), severity.value) for severity in _ORDER]
    told = ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for count, name in counts if count)
    typer.echo(f"Found: {told}." if told else "Nothing was found.")


def _tell(text: str) -> None:
    for line in _wrapped(text, indent="  "):
        typer.echo(line)


def _wrapped(text: str, *, indent: str, first: str = "") -> list[str]:
    # A name may be what somebody wrote into a file or the database: it must not command the terminal.
    printable = "".join(character if character.isprintable() else "\ufffd" for character in text)
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    return textwrap.wrap(
        printable,
        width,
        initial_indent=first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
