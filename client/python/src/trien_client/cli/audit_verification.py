"""`trien audit verify`: recomputes a whole log from its published files, without asking the server."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import options
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, is_terminal, plain, reported, show
from trien_client.cli.verify_receipt import LogKeyOption

if TYPE_CHECKING:
    from trien_client._log_folder import Progress
    from trien_client.log import VerifiedLog

_LONGEST_LINE = 8 * 1024 * 1024


def verify(
    tiles: Annotated[
        Path,
        typer.Option("--tiles", metavar="FOLDER", help="The log's published files: the server's tile folder, a copy."),
    ],
    log_key: LogKeyOption,
    since: Annotated[
        list[Path] | None,
        typer.Option(
            "--since",
            metavar="FILE",
            help="A checkpoint that you kept from earlier: the log has to continue it. May be given several times; the"
            " more of them you keep, the closer a changed entry is found.",
        ),
    ] = None,
    entries: Annotated[
        Path | None,
        typer.Option(
            "--entries", metavar="FILE", help="Exported entries (trien audit export): each is opened in the log."
        ),
    ] = None,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Tell whether the whole log is what its key signed.

    Every entry and every tile is compared with the signed checkpoint. Nothing is sent. When something was changed, the
    first wrong entry is named, or the span that it is in.

    \b
    Examples:
      trien audit verify --tiles /var/lib/trien/tiles --log-key log-keys
      trien audit verify --tiles copy --log-key log-keys --since checkpoint-2026-10 --entries entries.jsonl
    """
    with reported(output):
        from trien_client._errors import LogNotValid, ProofNotValid
        from trien_client._log_notes import LARGEST_NOTE, read_text
        from trien_client.log import read_log_keys, verify_log

        try:
            keys = read_log_keys(log_key)
        except ProofNotValid as fault:
            raise CommandError(f"--log-key: {fault}") from None
        if not (tiles / "checkpoint").is_file():
            raise CommandError(f"{tiles} is not the folder of a log: it has no file named checkpoint.")
        try:
            kept = [read_text(file, LARGEST_NOTE) for file in since or []]
            with _lines(entries) as lines, _progress(tiles) as progress:
                verified = verify_log(tiles, keys, since=kept, entries=lines, progress=progress)
        except LogNotValid as fault:
            content = {"good": False, "error": str(fault), "first_wrong": fault.first, "last_wrong": fault.last}
            show(output, f"NOT GOOD: {plain(str(fault))}", content)
            raise typer.Exit(int(ExitCode.REFUSED)) from None
        except ProofNotValid as fault:
            show(output, f"NOT GOOD: {plain(str(fault))}", {"good": False, "error": str(fault)})
            raise typer.Exit(int(ExitCode.REFUSED)) from None
        show(output, _text(verified, given=entries is not None), _content(verified))


@contextmanager
def _lines(file: Path | None) -> "Iterator[Iterator[str]]":
    if file is None:
        yield iter(())
        return
    with file.open("rb") as opened:
        yield (line.decode(errors="replace") for line in iter(lambda: opened.readline(_LONGEST_LINE), b""))


@contextmanager
def _progress(tiles: Path) -> "Iterator[Progress]":
    with (tiles / "checkpoint").open("rb") as file:
        size = file.read(1024).split(b"\n")[1:2]
    if not is_terminal() or not size or not size[0].isdigit():
        yield lambda _: None
        return
    with typer.progressbar(length=int(size[0]), label="Verifying", file=sys.stderr) as bar:
        yield bar.update


def _text(verified: "VerifiedLog", *, given: bool) -> str:
    checkpoint = verified.checkpoint
    lines = [
        "Good.",
        f"  log         {plain(checkpoint.origin)}",
        f"  entries     {checkpoint.size}, each as the signed checkpoint has it",
        f"  root        {checkpoint.root.hex()}",
    ]
    lines += [f"  continues   the checkpoint of {one.size} entries" for one in verified.continued]
    if given:
        erased = f", {verified.erased} with erased details" if verified.erased else ""
        lines.append(f"  opened      {verified.opened} exported entries{erased}")
    return "\n".join(lines)


def _content(verified: "VerifiedLog") -> dict[str, object]:
    checkpoint = verified.checkpoint
    return {
        "good": True,
        "checkpoint": {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()},
        "continues": [one.size for one in verified.continued],
        "opened_entries": verified.opened,
        "erased_entries": verified.erased,
    }
