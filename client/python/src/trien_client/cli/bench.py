"""`trien bench`: measures the service beside its token."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trien_client._algorithms import KeyType
from trien_client.cli import options
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, reported

if TYPE_CHECKING:
    from trien_client.bench.plan import Plan

BENCH_EXIT_CODES = """Exit codes:

\b
0  done
1  a request failed, so there is a key without a ratio
2  the command was not understood, something that it needs is not installed, or a file cannot be written
3  the server, or a process that drives it or the token, did not start or ended
130  interrupted (Ctrl-C)"""


def bench(
    keys: Annotated[
        list[KeyType] | None,
        typer.Option(
            "--key", metavar="TYPE", help="A type of key; may be given several times. RSA_3072, RSA_2048 and EC_P256."
        ),
    ] = None,
    digests: Annotated[
        list[int] | None,
        typer.Option(
            "--digests", metavar="COUNT", min=1, max=1000, help="Digests in a request; may be given several times. 1."
        ),
    ] = None,
    pkcs1: Annotated[
        bool, typer.Option("--pkcs1", help="Sign with RSA_PKCS1_SHA256 instead of RSA_PSS_SHA256.")
    ] = False,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="COUNT", min=3, help="How often service and token take turns.")
    ] = 3,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", metavar="SECONDS", min=0.5, help="How long a turn is measured: 5, or 1 with --quick."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Short turns: a first look, with more noise.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", metavar="COUNT", min=1, max=64, help="The server's processes (server.workers).")
    ] = 1,
    clients: Annotated[
        int,
        typer.Option(
            "--clients", metavar="COUNT", min=1, max=24, help="People who sign at once, each on a connection."
        ),
    ] = 16,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help="An empty or new folder for the server, on the disk to measure, and kept. Else a temporary one.",
        ),
    ] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the report (JSON) to a file too.")
    ] = None,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Measure the service beside its token alone.

    A server is started for the run, with a SoftHSM token and SQLite, and thrown away afterwards. People sign through
    the whole path: TLS, a one-time password for each request, a flushed audit entry, and verification. In turns with
    that, a copy of the token is driven alone on the same cores. The ratio of both rates says what the path costs.

    A machine that does other work meanwhile gives other figures: leave it alone, and look at how far the rounds differ.

    \b
    Examples:
      trien bench
      trien bench --quick --key EC_P256
      trien bench --digests 1 --digests 16 --report report.json
    """
    with reported(output):
        _require_pkcs11()
        from trien_client.bench.plan import make_plan

        plan = make_plan(
            key_types=keys or (),
            digests=digests or (),
            pkcs1=pkcs1,
            rounds=rounds,
            seconds=seconds,
            quick=quick,
            workers=workers,
            clients=clients,
        )
        if report_file is not None:
            report_file.parent.mkdir(parents=True, exist_ok=True)
        with _folder(folder) as place:
            report = _measure(plan, place)
        if report_file is not None:
            report_file.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        _show(output, report)


def _require_pkcs11() -> None:
    from importlib.util import find_spec

    if find_spec("pkcs11") is None:
        raise CommandError(
            "python-pkcs11, which drives the token alone, is not installed: install trien-client[bench] instead of"
            " trien-client."
        )


@contextmanager
def _folder(wanted: Path | None) -> Iterator[Path]:
    """Gives the folder of the run: the wanted one, which is kept, or a temporary one."""
    if wanted is not None:
        if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            raise CommandError(f"{wanted} is not an empty folder: choose another one.")
        wanted.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield wanted.absolute()
        return
    made = Path(tempfile.mkdtemp(prefix="trien-bench-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _measure(plan: "Plan", folder: Path) -> dict[str, Any]:
    from datetime import UTC, datetime

    from trien_client.bench.installation import ServerNotStarted
    from trien_client.bench.measurement import measure
    from trien_client.bench.process import ChildFailed
    from trien_client.bench.report import report_of

    # The server is a process of its own: it would outlive a command that a plain SIGTERM ends.
    signal.signal(signal.SIGTERM, _interrupt)
    begun = datetime.now(UTC)
    try:
        measured = measure(plan, folder, say=lambda line: typer.echo(f"bench: {line}", err=True))
    except (ServerNotStarted, ChildFailed) as failure:
        raise CommandError(str(failure), exit_code=ExitCode.UNAVAILABLE) from None
    return report_of(measured, at=begun)


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(output: OutputFormat, report: dict[str, Any]) -> None:
    """Prints the report. Raises `CommandError` when a case has no ratio."""
    from trien_client.bench.report import FULL_WIDTH, failures_of, table_of

    if output is OutputFormat.JSON:
        typer.echo(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        from rich.console import Console

        console = Console(highlight=False)
        if not ("COLUMNS" in os.environ or console.is_terminal):
            console.width = FULL_WIDTH
        console.print(table_of(report, width=console.width))
    failures = failures_of(report)
    if failures:
        raise CommandError(" ".join(failures), exit_code=ExitCode.REFUSED)
