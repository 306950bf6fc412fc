"""`trien audit`: the server's audit log, read and checked."""

import typer

from trien_client.cli import (
    audit_erasing,
    audit_export,
    audit_following,
    audit_proofs,
    audit_reading,
    audit_report,
    audit_verification,
    operating,
)
from trien_client.cli.outcome import EXIT_CODES

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Read the audit log, and check that it is whole.",
)

operating.command(app, "list")(audit_reading.list_entries)
operating.command(app, "show")(audit_reading.show)
operating.command(app, "follow")(audit_following.follow)
operating.command(app, "export")(audit_export.export)
operating.command(app, "checkpoint")(audit_proofs.checkpoint)
operating.command(app, "keys")(audit_proofs.keys)
operating.command(app, "receipt")(audit_proofs.receipt)
app.command("verify", epilog=EXIT_CODES)(audit_verification.verify)
operating.command(app, "report")(audit_report.report)
operating.command(app, "erase")(audit_erasing.erase)
