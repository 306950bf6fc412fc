"""Receipts of what a command signed: fetched, verified and written once the signature is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import options
from trien_client.cli.outcome import CommandError

if TYPE_CHECKING:
    from trien_client._resources import SigningResult

ReceiptFile = Annotated[
    Path | None,
    typer.Option(
        "--receipt",
        metavar="FILE",
        help="Write the receipt too: the proof that the signature is in the server's audit log (of one item only).",
    ),
]
LogKey = Annotated[
    str | None,
    typer.Option(
        "--log-key",
        envvar="TRIEN_LOG_KEY",
        metavar="FILE|KEY",
        help="The audit log's key, which receipts are verified with, instead of the connection file's.",
    ),
]


def require_receipt(target: options.Target, path: Path | None, *, items: int, force: bool, inputs: list[Path]) -> None:
    """Raises `CommandError` when no receipt can be had or written, before anyone is asked for a password."""
    from trien_client.cli.files import require_writable

    if path is None:
        return
    if items != 1:
        raise CommandError("--receipt takes the receipt of one item: sign one.")
    if target.known_log_key() is None:
        raise CommandError("There is nothing to verify the receipt with: give --log-key FILE (trien audit keys).")
    require_writable(path, overwrite=force, inputs=tuple(inputs))


def write_receipt(target: options.Target, result: "SigningResult", path: Path | None, *, force: bool) -> None:
    """Fetches the receipt of the one digest that was signed, verifies it, and writes it."""
    from trien_client._errors import TrienError
    from trien_client.cli.files import new_file

    if path is None:
        return
    with target.connect() as client:
        try:
            found = client.receipt(result, item=0)
        except TrienError:
            typer.echo(f"Signed, but without a receipt: ask for that of {result.audit_entry} later.", err=True)
            raise
    with new_file(path, overwrite=force) as file:
        file.write(found.text.encode())
