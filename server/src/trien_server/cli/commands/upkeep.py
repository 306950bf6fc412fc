"""Looks after an installation: migrate, fsck, doctor."""

from typing import Annotated

import typer

from trien_server.cli.commands.host_command import (
    ConfigOption,
    SetOption,
    configuration_file,
    explained,
    load,
    require_none,
)


def migrate(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Bring the database to this server's schema.

    Stop the server and make a backup first.
    """
    loaded = load(config, overrides)
    with explained():
        from trien_server.store.schema import migrate as migrate_store

        before = migrate_store(loaded.config.store.url)
        if before.current == before.head:
            typer.echo(f"The schema was current: {before.head}.")
        else:
            typer.echo(f"The schema went from {before.current or 'none'} to {before.head}.")


def fsck(
    output: Annotated[str, typer.Option("--output", metavar="text|json", help="What to print.")] = "text",
    unwrap: Annotated[
        bool, typer.Option("--unwrap", help="Also have the token open every wrapped key and sign with it.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Look for what was changed behind the server's back.

    Reads every row of the database and every key of the token: seals, the whole log and what was signed and published
    of it, what it names, references, approvals, recorded signatures. Changes nothing, and works while servers run and
    when they are down. Says how long it takes. Exit code 1 when something was found, or when not everything could be
    looked at.

    \b
    Examples:
      trien-server fsck --config /var/lib/trien/trien.toml
      trien-server fsck --output json | jq .findings
      trien-server fsck --unwrap
    """
    if output not in {"text", "json"}:
        typer.echo("--output is text or json.", err=True)
        raise typer.Exit(2)
    loaded = load(config, overrides)
    from trien_server.cli.checks import file_findings

    require_none(file_findings(loaded.config))
    with explained():
        from trien_server.cli.fsck import check

        if check(loaded.config, as_json=output == "json", unwrap=unwrap):
            raise typer.Exit(1)


def doctor(
    output: Annotated[str, typer.Option("--output", metavar="text|json", help="What to print.")] = "text",
    network: Annotated[
        bool, typer.Option("--network", help="Also try mail server and SMS gateway; nothing is sent.")
    ] = False,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Look at the installation, and say what to do.

    Configuration, files, certificates, disks, clock, database and token, each by itself. Works when the server is down,
    and beside a running one, to which it does no harm. Only database and token are contacted. The PIN is tried once: a
    wrong one counts. Exit code 1 when there is an error, 0 else.

    \b
    Examples:
      trien-server doctor --config /var/lib/trien/trien.toml
      trien-server doctor --output json | jq '.findings[] | select(.severity == "error")'
    """
    if output not in {"text", "json"}:
        typer.echo("--output is text or json.", err=True)
        raise typer.Exit(2)
    chosen = configuration_file(config)
    if chosen is None and not overrides:
        load(config, overrides)
    from trien_server.cli.doctor.command import doctor as look

    if look(chosen, overrides or [], as_json=output == "json", network=network):
        raise typer.Exit(1)
