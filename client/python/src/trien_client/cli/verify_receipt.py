"""`trien verify receipt`: tells whether a receipt proves what it should, without asking the server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trien_client.cli import options
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat, plain, reported, show

if TYPE_CHECKING:
    from trien_client.log import Checkpoint, Receipt

_PART = 1 << 20

LogKeyOption = Annotated[
    str,
    typer.Option(
        "--log-key",
        envvar="TRIEN_LOG_KEY",
        metavar="FILE|KEY",
        help="The log's public keys: the file `log-keys` that you keep (trien audit keys), or the one line of a key.",
    ),
]


def verify_receipt(
    receipt: Annotated[Path, typer.Argument(metavar="RECEIPT", help="The receipt, as the server gave it.")],
    log_key: LogKeyOption,
    document: Annotated[
        Path | None,
        typer.Option("--document", metavar="FILE", help="Require that the receipt is about this file's digest."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option("--digest", metavar="HEX", help="Require that the receipt is about this digest."),
    ] = None,
    output: options.Output = OutputFormat.TEXT,
) -> None:
    """Tell whether a receipt proves what it says.

    Nothing is sent. Good means: an entry with this name, time and kind is at this position of the log whose checkpoint
    the log's key signed, and the digest is one of the entry's. It does not say that the signature itself is good: see
    trien verify.

    \b
    Examples:
      trien verify receipt decision.receipt --log-key log-keys
      trien verify receipt decision.receipt --log-key log-keys --document decision.pdf
    """
    with reported(output):
        from trien_client._errors import ProofNotValid
        from trien_client._log_receipts import LARGEST_RECEIPT
        from trien_client.cli.files import require_file
        from trien_client.log import parse_receipt, read_log_keys

        if document is not None and digest is not None:
            raise CommandError("Give --document or --digest, not both.")
        wanted = None if digest is None else _digest(digest)
        try:
            keys = read_log_keys(log_key)
        except ProofNotValid as fault:
            raise CommandError(f"--log-key: {fault}") from None
        for needed in (receipt, *([] if document is None else [document])):
            require_file(needed)
        try:
            with receipt.open("rb") as file:
                read = parse_receipt(file.read(LARGEST_RECEIPT + 1).decode(errors="replace"))
            checkpoint = read.verify(keys)
            if wanted is not None:
                read.require_digest(wanted)
            if document is not None:
                with document.open("rb") as file:
                    read.require_document(iter(lambda: file.read(_PART), b""))
        except ProofNotValid as fault:
            show(output, f"NOT GOOD: {plain(str(fault))}", {"good": False, "error": str(fault)})
            raise typer.Exit(int(ExitCode.REFUSED)) from None
        show(output, _text(read, checkpoint), _content(read, checkpoint))


def _digest(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise CommandError("--digest takes a digest in hexadecimal, as sha256sum prints it.") from None


def _text(receipt: "Receipt", checkpoint: "Checkpoint") -> str:
    lines = [
        "Good.",
        f"  entry       {receipt.entry}",
        f"  kind        {receipt.kind}",
        f"  time        {receipt.time.isoformat()}",
    ]
    if receipt.subject is not None:
        lines.append(f"  subject     {receipt.subject}, version {receipt.subject_version}")
    if receipt.item is not None:
        lines.append(f"  digest      {receipt.item.digest.hex()}")
        lines.append(f"              number {receipt.item.index + 1} of {receipt.item.count}")
    lines += [
        f"  position    {receipt.position} of {checkpoint.size} entries",
        f"  log         {plain(checkpoint.origin)}",
    ]
    return "\n".join(lines)


def _content(receipt: "Receipt", checkpoint: "Checkpoint") -> dict[str, object]:
    item = receipt.item
    return {
        "good": True,
        "entry": receipt.entry,
        "leaf_hash": receipt.leaf_hash.hex(),
        "kind": receipt.kind,
        "time": receipt.time.isoformat(),
        "subject": receipt.subject,
        "subject_version": receipt.subject_version,
        "item": None if item is None else {"index": item.index, "count": item.count, "digest": item.digest.hex()},
        "position": receipt.position,
        "checkpoint": {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex()},
    }
