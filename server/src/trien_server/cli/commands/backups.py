"""Backups and restores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load, require_none

if TYPE_CHECKING:
    from collections.abc import Iterable


backup_app = typer.Typer(
    help="Write the whole database into one encrypted file.", invoke_without_command=True, rich_markup_mode=None
)


@backup_app.callback()
def backup(
    context: typer.Context,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="The backup: a new file.")] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient",
            metavar="AGE1...",
            help="Who can open it, as age-keygen prints it; may be repeated, and joins backup.recipients.",
        ),
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Write the whole database into one encrypted file.

    It is one consistent snapshot, also while servers run, and the same for SQLite and PostgreSQL. The file is in the
    format age, of mode 0600, and there whole or not at all. Keys on the token are not in it: it says which it needs.

    \b
    Examples:
      trien-server backup --out /backup/trien-2026-11-25.age --recipient age1...
      trien-server backup show /backup/trien-2026-11-25.age --identity key.txt
    """
    if context.invoked_subcommand is not None:
        return
    if out is None:
        typer.echo("--out FILE says where the backup goes.", err=True)
        raise typer.Exit(2)
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli.backup import take

        _tell(take(loaded.config, out=out, recipients=recipient or []))


@backup_app.command("show")
def backup_show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")],
    identity: Annotated[
        Path, typer.Option("--identity", metavar="FILE", help="A recipient's identity, as age-keygen wrote it.")
    ],
    output: Annotated[str, typer.Option("--output", metavar="text|json", help="What to print.")] = "text",
) -> None:
    """Read a backup whole, check it, and print what it says of itself.

    Neither database nor token is asked. Exit code 1 when it is not whole, was changed, or is for others.

    \b
    Example:
      trien-server backup show /backup/trien-2026-11-25.age --identity key.txt
    """
    if output not in {"text", "json"}:
        typer.echo("--output is text or json.", err=True)
        raise typer.Exit(2)
    with explained():
        from trien_server.cli.backup import show

        _tell(show(file, identity=identity, as_json=output == "json"))


def restore(
    backup_file: Annotated[Path, typer.Option("--backup", metavar="FILE", help="The backup.")],
    identity: Annotated[
        Path, typer.Option("--identity", metavar="FILE", help="A recipient's identity, as age-keygen wrote it.")
    ],
    approval: Annotated[
        list[Path] | None,
        typer.Option("--approval", metavar="FILE", help="An officer's approval of the statement; given twice."),
    ] = None,
    entries: Annotated[
        Path | None,
        typer.Option("--entries", metavar="FILE", help="The log's entries since the backup, as `trien audit export`."),
    ] = None,
    published: Annotated[
        Path | None, typer.Option("--published", metavar="DIR", help="The tile folder in which the log was published.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="A signed checkpoint of the log; may be repeated."),
    ] = None,
    out_dir: Annotated[
        Path, typer.Option("--out-dir", metavar="DIR", help="Where the statement and the report go.")
    ] = Path(),
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Put a backup back into an empty database.

    The database is the one of --config: one that is not there yet, or has nothing in it. The token has to hold the keys
    that the backup needs. No server starts before the end was reached; after a crash, run it again. The log goes on
    under another name. A backup that is older than the last known checkpoint needs the approval of two security
    officers: the first run writes the statement that they sign.

    \b
    Examples:
      trien-server restore --backup b.age --identity key.txt --config new/trien.toml --published /srv/log
      trien-server restore ... --entries lost.jsonl --approval first.json --approval second.json
    """
    loaded = load(config, overrides)
    from trien_server.cli.checks import file_findings

    require_none(file_findings(loaded.config))
    with explained(), _told():
        from trien_server.cli.restore import Wanted
        from trien_server.cli.restore import restore as put_back

        wanted = Wanted(
            backup=backup_file,
            identity=identity,
            checkpoints=checkpoint or [],
            published=published,
            entries=entries,
            approvals=approval or [],
            folder=out_dir,
        )
        if not put_back(loaded.config, wanted, tell=typer.echo):
            raise typer.Exit(1)


class _told:  # noqa: N801 - used as a statement
    """Turns what is wrong with a backup, or with what was given for it, into its text and exit code 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: object) -> None:
        from trien_server.host.age import NotDecrypted

        if isinstance(fault, NotDecrypted | ValueError):
            typer.echo(str(fault), err=True)
            raise typer.Exit(1) from None


def _tell(lines: "Iterable[str]") -> None:
    with _told():
        for line in lines:
            typer.echo(line)
