"""What every command of the host shares: its options, the configuration, and how it ends when something is wrong."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from trien_server.config import LoadedConfig

_PLACES = (Path("trien.toml"), Path("/etc/trien/trien.toml"))


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", envvar="TRIEN_CONFIG", help="The file; else ./trien.toml or /etc/trien/trien.toml."),
]


SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Overrides one value; may be repeated.")
]


def configuration_file(path: Path | None) -> Path | None:
    """Returns the file that was named, else the first of the usual places that has one."""
    return path or next((place for place in _PLACES if place.exists()), None)


def load(path: Path | None, overrides: list[str] | None) -> "LoadedConfig":
    """Returns the configuration, or says what is wrong with it and ends with exit code 2."""
    from trien_server import config as configuration

    chosen = configuration_file(path)
    try:
        return configuration.load(chosen, environment=os.environ, overrides=overrides or [])
    except configuration.BadConfiguration as fault:
        # Who has no file and set nothing else has made no mistake in a value: that all are missing would say nothing.
        if chosen is not None or overrides or any(name.startswith("TRIEN_") and "__" in name for name in os.environ):
            typer.echo(f"The configuration cannot be used:\n{fault}", err=True)
        if chosen is None:
            places = " or ".join(str(place) for place in _PLACES)
            typer.echo(
                f"There is no configuration file {places}: name one with --config FILE, "
                "or make one with `trien-server init --dir DIR`.",
                err=True,
            )
        raise typer.Exit(2) from None


def require_none(findings: list[str]) -> None:
    """Goes on when nothing was found; else prints it and ends with exit code 1."""
    for finding in findings:
        typer.echo(finding, err=True)
    if findings:
        raise typer.Exit(1)


class explained:  # noqa: N801 - used as a statement
    """Turns what can go wrong at a start into one clear line and exit code 1."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, _: object) -> None:
        if fault is None or isinstance(fault, typer.Exit):
            return
        from trien_server.cli.checks import explain, is_pin_refused

        message = explain(fault)
        if message is not None:
            typer.echo(message, err=True)
            raise typer.Exit(3 if is_pin_refused(fault) else 1) from None
