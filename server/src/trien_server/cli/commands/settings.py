"""Shows and tries what is configured."""

from typing import Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load, require_none

config_app = typer.Typer(help="Show and check the configuration.", no_args_is_help=True, rich_markup_mode=None)


delivery_app = typer.Typer(help="Try how one-time passwords are sent.", no_args_is_help=True, rich_markup_mode=None)


@config_app.command("show")
def config_show(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Print every value in force and where it comes from.

    What it prints is TOML; what is not set is a comment.
    """
    from trien_server.core.toml_values import toml_value

    loaded = load(config, overrides)
    for section, values in loaded.config.model_dump(mode="json").items():
        if values is None:
            typer.echo(f"# [{section}]  # default")
            continue
        typer.echo(f"[{section}]")
        for key, value in values.items():
            source = loaded.sources.get(f"{section}.{key}", "default")
            typer.echo(f"# {key} =  # {source}" if value is None else f"{key} = {toml_value(value)}  # {source}")


@config_app.command("check")
def config_check(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Check the configuration and the files that it names.

    Nothing is started, and the token is not asked. Exit code 1 when something was found.
    """
    loaded = load(config, overrides)
    from trien_server.cli.checks import findings

    require_none(findings(loaded.config))
    typer.echo("The configuration can be used.")


@delivery_app.command("test")
def delivery_test(
    to: Annotated[
        str, typer.Option("--to", metavar="ADDRESS", help="A mail address, or a number such as +84912345678.")
    ],
    kind: Annotated[str, typer.Option("--kind", metavar="sms|email", help="By which carrier.")],
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Send a text that says it is a test.

    It has no code and changes nothing; neither token nor database is asked, and a running server goes on. Exit code 1
    when the carrier did not take it.

    \b
    Examples:
      trien-server delivery test --kind email --to you@district.example
      trien-server delivery test --kind sms --to +84912345678
    """
    loaded = load(config, overrides)
    with explained():
        from trien_server.cli.checks import delivery_findings
        from trien_server.cli.delivery import WrongUse, send_trial

        require_none(delivery_findings(loaded.config))
        try:
            taken, line = send_trial(loaded.config, kind=kind, address=to)
        except WrongUse as fault:
            typer.echo(str(fault), err=True)
            raise typer.Exit(2) from None
        typer.echo(line, err=not taken)
        if not taken:
            raise typer.Exit(1)
