"""The token."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load, require_none

if TYPE_CHECKING:
    from trien_server.config import Config

token_app = typer.Typer(help="Look at the token, and add to it.", no_args_is_help=True, rich_markup_mode=None)


@token_app.command("check")
def token_check(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Try what the token does with wrapped keys.

    Makes, wraps, unwraps and uses a throw-away key of each kind, and tries on it what a thief of the PIN would try.
    Nothing stays on the token; a running server goes on. Exit code 1 when the token does not keep wrapped keys closed.
    """
    loaded = load(config, overrides)
    from trien_server.cli.checks import file_findings

    require_none(file_findings(loaded.config))
    warned = False
    with explained():
        from trien_server.cli.token import wrapping_lines

        for line, warning in wrapping_lines(loaded.config):
            typer.echo(line, err=warning)
            warned = warned or warning
    if warned:
        raise typer.Exit(1)


ShareOption = Annotated[
    list[Path],
    typer.Option("--share", metavar="FILE", help="A custodian's share; given twice, once for each custodian."),
]


SoPinFileOption = Annotated[
    Path | None,
    typer.Option("--so-pin-file", metavar="FILE", help="The PIN of the token's security officer, for trusted keys."),
]


ExportOption = Annotated[
    Path, typer.Option("--export", metavar="FILE", help="The file of wrapped keys that the ceremony wrote.")
]


@token_app.command("add-sealing-key")
def token_add_sealing_key(
    export: ExportOption, share: ShareOption, config: ConfigOption = None, overrides: SetOption = None
) -> None:
    """Make the next sealing key, when keys are in custody.

    A server makes it by itself as soon as two operators agreed on it, unless custodians hold the keys: then it is made
    here, with both shares, and added to the export. A running server goes on, and takes it into use.

    \b
    Example:
      trien-server token add-sealing-key --export keys.toml --share /media/a/share --share /media/b/share
    """
    loaded = load(config, overrides)
    require_none(_custody_faults(loaded.config, share, None))
    with explained():
        from trien_server.cli.custody import add_lines
        from trien_server.core.records import InstallationKeyPurpose

        for line in add_lines(
            loaded.config, InstallationKeyPurpose.SEALING, export=export, shares=share, so_pin_file=None
        ):
            typer.echo(line)


@token_app.command("add-wrapping-key")
def token_add_wrapping_key(
    so_pin_file: Annotated[
        Path,
        typer.Option(
            "--so-pin-file",
            metavar="FILE",
            help="The PIN of the token's security officer (`init` wrote token-so-pin).",
        ),
    ],
    export: Annotated[
        Path | None, typer.Option("--export", metavar="FILE", help="In custody: the file of wrapped keys.")
    ] = None,
    share: Annotated[
        list[Path] | None, typer.Option("--share", metavar="FILE", help="In custody: a share; given twice.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Make the next trusted wrapping key on the token.

    Only the token's security officer can make one that wraps what the one before opened. It serves nobody until two
    operators agree: trien keys installation rotate --purpose wrapping. A running server goes on.

    \b
    Examples:
      trien-server token add-wrapping-key --so-pin-file /media/safe/so-pin
      trien-server token add-wrapping-key --so-pin-file /media/safe/so-pin
        --export keys.toml --share /media/a/share --share /media/b/share
    """
    loaded = load(config, overrides)
    from trien_server.cli.checks import file_findings, secret_faults

    require_none([*file_findings(loaded.config), *(f"--so-pin-file {fault}" for fault in secret_faults(so_pin_file))])
    with explained():
        from trien_server.cli.custody import add_lines, is_in_custody
        from trien_server.cli.token import make_wrapping_key
        from trien_server.core.records import InstallationKeyPurpose

        if is_in_custody(loaded.config, InstallationKeyPurpose.WRAPPING):
            if export is None or not share:
                typer.echo("The wrapping key is in custody: give --export, and --share twice.", err=True)
                raise typer.Exit(2)
            for line in add_lines(
                loaded.config, InstallationKeyPurpose.WRAPPING, export=export, shares=share, so_pin_file=so_pin_file
            ):
                typer.echo(line)
            return
        generation = make_wrapping_key(loaded.config, so_pin_file)
    typer.echo(f"The token holds the wrapping key of generation {generation}. Put it in use with")
    typer.echo("  trien keys installation rotate --purpose wrapping")


@token_app.command("import-keys")
def token_import_keys(
    export: ExportOption,
    share: ShareOption,
    so_pin_file: SoPinFileOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
) -> None:
    """Bring the installation's keys to an empty token.

    It takes the export and both custodians' shares. The keys are named, by their check values, in the list of
    token.exported_keys_file, which is made when it is not there. Run again after an interruption, it goes on.

    \b
    Example:
      trien-server token import-keys --export keys.toml --share /media/a/share --share /media/b/share
        --so-pin-file /media/so/pin
    """
    loaded = load(config, overrides)
    require_none(_custody_faults(loaded.config, share, so_pin_file))
    with explained():
        from trien_server.cli.custody import import_lines

        for line in import_lines(loaded.config, export=export, shares=share, so_pin_file=so_pin_file):
            typer.echo(line)


def _custody_faults(config: "Config", shares: list[Path], so_pin_file: Path | None) -> list[str]:
    """Returns what keeps keys from being brought to the token, a line each."""
    from trien_server.cli.checks import module_faults, secret_faults

    faults = [f"token.module: {fault}" for fault in module_faults(config.token.module)]
    faults += [f"token.pin_file: {fault}" for fault in secret_faults(config.token.pin_file)]
    faults += [f"--share {fault}" for path in shares for fault in secret_faults(path)]
    if so_pin_file is not None:
        faults += [f"--so-pin-file {fault}" for fault in secret_faults(so_pin_file)]
    if config.token.exported_keys_file is None:
        faults.append("token.exported_keys_file: not set; without that list, exported keys are not believed")
    return faults
