"""`trien sign`: the commands that sign."""

import typer

from trien_client.cli.outcome import EXIT_CODES
from trien_client.cli.sign_digest import digest
from trien_client.cli.sign_file import file
from trien_client.cli.sign_pdf import pdf, pdfs

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Sign PDFs, other files, or digests.")
app.command("pdf", epilog=EXIT_CODES)(pdf)
app.command("pdfs", epilog=EXIT_CODES)(pdfs)
app.command("file", epilog=EXIT_CODES)(file)
app.command("digest", epilog=EXIT_CODES)(digest)
