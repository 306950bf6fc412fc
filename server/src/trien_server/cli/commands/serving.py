"""Serves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_server.cli.commands.host_command import ConfigOption, SetOption, explained, load, require_none

if TYPE_CHECKING:
    from trien_server.host.stop import StopSignal


def run(config: ConfigOption = None, overrides: SetOption = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Then it finishes what is at work, and ends. With server.workers above 1, a supervisor keeps so many processes on the
    same ports and replaces those that die or hang. The schema of the database is never changed here: `trien-server
    migrate` does that.
    """
    loaded = load(config, overrides)
    from trien_server.cli.checks import file_findings

    require_none(file_findings(loaded.config))
    if loaded.config.server.workers > 1:
        with explained():
            from trien_server.cli.supervise import supervise

            code = supervise(loaded, stop=_stop_signal())
        raise typer.Exit(code)
    with explained():
        from trien_server.cli.serve import serve

        code = serve(loaded, stop=_stop_signal())
    raise typer.Exit(code)


def worker(
    heartbeat: Annotated[int, typer.Option("--heartbeat", help="The descriptor of the supervisor's pipe.")],
) -> None:
    """Serve as one of several processes. Started by `run`; reads its configuration from standard input."""
    with explained():
        from trien_server.cli.serve import serve_as_worker

        code = serve_as_worker(heartbeat, stop=_stop_signal())
    raise typer.Exit(code)


def sandbox(
    directory: Annotated[Path, typer.Option("--dir", help="An empty folder, or one with a sandbox.")],
    token_address: Annotated[
        str, typer.Option("--token-address", help="Where clients with bearer tokens connect; port 0 takes a free one.")
    ] = "127.0.0.1:0",
    certificate_address: Annotated[
        str, typer.Option("--certificate-address", help="Where callers with client certificates connect.")
    ] = "127.0.0.1:0",
) -> None:
    """Serve a disposable instance to try.

    Never for real documents. Everything needed to connect, one-time password secrets included, is in
    DIR/connection.json.

    \b
    Example:
      trien-server sandbox --dir build/sandbox
    """
    with explained():
        from trien_server.sandbox import WARNING, Sandbox

        typer.echo(f"*** {WARNING}", err=True)
        stop = _stop_signal()
        running = Sandbox(
            directory, token_address=token_address, certificate_address=certificate_address, log_format="text"
        )
        path = running.start()
        typer.echo(f"The sandbox is ready. Connect with {path}", err=True)
        while not stop.wait(0.2) and not running.instance.fatal.is_set():
            pass
        running.stop()
        if running.instance.fatal.is_set():
            raise typer.Exit(1)


def _stop_signal() -> "StopSignal":
    from trien_server.host.stop import StopSignal

    return StopSignal()
