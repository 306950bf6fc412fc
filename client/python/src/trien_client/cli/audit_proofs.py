"""`trien audit checkpoint`, `keys` and `receipt`: what proves that the log is what it says."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trien_client.cli import operating, options
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, ExitCode, OutputFormat
from trien_client.cli.receipts import LogKey

if TYPE_CHECKING:
    from trien.v1.audit_service_pb2 import Checkpoint, GetReceiptRequest, LogKeys, Receipt

Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it to a file that is not there yet.")]


def checkpoint(me: Officer, out: Out = None) -> None:
    """Show the log's newest signed checkpoint: keep one now and then.

    Whoever kept a checkpoint can tell later that the log was only added to: trien audit verify --since FILE.

    \b
    Examples:
      trien audit checkpoint
      trien audit checkpoint --out checkpoint-2027-07
    """
    from trien.v1 import audit_service_pb2

    found: Checkpoint = me.client.call(me.client.audit.GetCheckpoint, audit_service_pb2.GetCheckpointRequest())
    _give(me, found, found.note, out)


def keys(me: Officer, out: Out = None) -> None:
    """Show the log's public keys, each signed by the one before.

    Keep the first line where nobody else writes: everything that the log proves is checked with it.

    \b
    Examples:
      trien audit keys --out log-keys
    """
    from trien.v1 import audit_service_pb2

    found: LogKeys = me.client.call(me.client.audit.GetLogKeys, audit_service_pb2.GetLogKeysRequest())
    _give(me, found, found.text, out)


def receipt(
    me: Officer,
    entry: Annotated[str, typer.Argument(metavar="ENTRY", help="An entry: auditEntries/…, as `list` shows it.")],
    item: Annotated[
        int | None, typer.Option("--item", metavar="N", min=0, help="Also prove this one of its digests, from 0.")
    ] = None,
    out: Out = None,
    log_key: LogKey = None,
) -> None:
    """Show the receipt of an entry: the proof that it is in the log.

    It is verified first when the log's key is known; trien verify receipt does so without the server. Of an entry whose
    details were erased no single digest can be proved any more.

    \b
    Examples:
      trien audit receipt auditEntries/k7m2…
      trien audit receipt auditEntries/k7m2… --item 0 --out decision.receipt
    """
    from trien.v1 import audit_service_pb2

    request = audit_service_pb2.GetReceiptRequest(audit_entry=options.full_name("auditEntries", entry))
    if item is not None:
        request.item = item
    found: Receipt = me.client.call(me.client.audit.GetReceipt, request)
    key = log_key or me.target.log_key()
    if key is None:
        typer.echo("Not verified: there is no key of the log here. Give --log-key FILE (trien audit keys).", err=True)
    else:
        _verify(me, found.text, request, key)
    _give(me, found, found.text, out)


def _verify(me: Officer, text: str, request: "GetReceiptRequest", key: str) -> None:
    """Raises `CommandError` unless the receipt is that of the entry and the item, by the trusted key or a later one."""
    from trien.v1 import audit_service_pb2

    from trien_client._errors import ProofNotValid
    from trien_client._log_notes import follow_trusted
    from trien_client.log import parse_receipt, read_log_keys

    try:
        trusted = read_log_keys(key)
    except ProofNotValid as fault:
        raise CommandError(f"The log's key cannot be read: {fault}") from None
    try:
        receipt = parse_receipt(text)
        asked = request.item if request.HasField("item") else None
        if (receipt.entry, None if receipt.item is None else receipt.item.index) != (request.audit_entry, asked):
            raise ProofNotValid("The server answered with the receipt of another entry or item.")
        try:
            receipt.verify(trusted)
        except ProofNotValid:
            named = me.client.call(me.client.audit.GetLogKeys, audit_service_pb2.GetLogKeysRequest())
            receipt.verify(follow_trusted(trusted, named.text))
    except ProofNotValid as fault:
        raise CommandError(
            f"The receipt does not verify: {fault} Tell your security officer.", exit_code=ExitCode.NOT_TRUSTED
        ) from None


def _give(me: Officer, message: Any, text: str, out: Path | None) -> None:
    """Prints a text as it is, or writes it to a file; as JSON the whole message."""
    from trien_client.cli.files import new_file

    if out is not None:
        with new_file(out, overwrite=False) as file:
            file.write(text.encode())
        if me.output is OutputFormat.TEXT:
            typer.echo(f"Written: {out}")
            return
    if me.output is OutputFormat.JSON:
        typer.echo(operating.as_json(operating.content(message)))
    else:
        typer.echo(text, nl=False)
