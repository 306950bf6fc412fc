"""Signs PDFs for the command line, with pyHanko; imported late, because pyHanko takes half a second."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import PdfSignatureMetadata, PdfSigner
from pyhanko.sign.fields import SigSeedSubFilter, enumerate_sig_fields
from pyhanko.sign.general import SigningError

from trien_client.cli.appearance import TextStyle, image_style
from trien_client.cli.outcome import CommandError
from trien_client.cli.prompting import run_together
from trien_client.pyhanko import TrienSigner


@dataclass(frozen=True, kw_only=True)
class PdfOptions:
    """How the signature is made."""

    field: str | None
    """An empty field of the document, or None for the only one, or a new one."""
    new_field: str | None
    """A field to make, which is not visible."""
    appearance: Path | None
    """The image that a visible field shows; None for who signed and when."""
    reason: str | None
    location: str | None
    pades: bool


def sign_documents(documents: Sequence[tuple[Path, BinaryIO]], signer: TrienSigner, options: PdfOptions) -> list[str]:
    """Signs each document into its output, all with one one-time password; returns the fields' names.

    Raises `CommandError` when a file cannot be read as a PDF or the field cannot be signed; then none is signed.
    """
    silence_libraries()
    return run_together(signer, [partial(_sign, *document, signer, options) for document in documents])


async def _sign(document: Path, signed: BinaryIO, signer: TrienSigner, options: PdfOptions) -> str:
    try:
        with document.open("rb") as source:
            writer = IncrementalPdfFileWriter(source)
            name = options.field or options.new_field or _free_field(writer.prev)
            style = (
                TextStyle(name=signer.subject_name or signer.credential, at=datetime.now().astimezone())
                if options.appearance is None
                else image_style(options.appearance)
            )
            metadata = PdfSignatureMetadata(
                field_name=name,
                reason=options.reason,
                location=options.location,
                subfilter=SigSeedSubFilter.PADES if options.pades else SigSeedSubFilter.ADOBE_PKCS7_DETACHED,
            )
            await PdfSigner(metadata, signer, stamp_style=style).async_sign_pdf(writer, output=signed)
    except PdfError as error:
        raise CommandError(f"{document} is damaged: {error}") from None
    except SigningError as error:
        raise CommandError(f"{document} cannot be signed: {error}") from None
    return name


def silence_libraries() -> None:
    """Keeps pyHanko's log, with its tracebacks, off the terminal: what matters is said in one line."""
    for name in ("pyhanko", "pyhanko_certvalidator"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def require_signable(document: Path, options: PdfOptions) -> None:
    """Raises `CommandError` when the document or its field cannot be signed, before anyone is asked for a password."""
    silence_libraries()
    with opened_pdf(document) as reader, plainly(document):
        fields = {str(name): (value, field) for name, value, field in enumerate_sig_fields(reader)}
        wanted = options.field
        if wanted is not None and wanted not in fields:
            there = f"the PDF has {', '.join(fields)}" if fields else "the PDF has no signature field"
            raise CommandError(f"{document}: There is no field {wanted}; {there}. --new-field NAME makes one.")
        if wanted is not None and fields[wanted][0] is not None:
            raise CommandError(f"{document}: The field {wanted} is signed already.")
        if options.new_field is not None and options.new_field in fields:
            raise CommandError(f"{document}: There is a field {options.new_field} already: --field signs in it.")
        if options.appearance is not None:
            name = wanted or options.new_field or _free_field(reader)
            if name not in fields or not _is_visible(fields[name][1].get_object()):
                raise CommandError(
                    f"{document}: --appearance needs a field that has a place on a page; {name} has none."
                    " Say which with --field."
                )
            image_style(options.appearance)


@contextmanager
def opened_pdf(document: Path) -> Iterator[PdfFileReader]:
    """Gives a reader of the document.

    Raises `CommandError` that says in plain words why it cannot be read.
    """
    with document.open("rb") as source:
        start = source.read(1024)
        if not start:
            raise CommandError(f"{document} is empty.")
        if b"%PDF-" not in start:
            raise CommandError(f"{document} is not a PDF.")
        with plainly(document):
            reader = PdfFileReader(source)
            if reader.encrypted:
                raise CommandError(f"{document} is protected by a password; remove the protection first.")
            _ = reader.root["/Pages"]["/Kids"]
        yield reader


@contextmanager
def plainly(document: Path) -> Iterator[None]:
    """Turns what a damaged file makes the parser raise into one `CommandError`."""
    try:
        yield
    except (PdfError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise CommandError(f"{document} is cut off or damaged: it cannot be read as a PDF.") from None


def _is_visible(field: Any) -> bool:
    widget = field["/Kids"][0] if "/Rect" not in field and "/Kids" in field else field
    if "/Rect" not in widget:
        return False
    left, bottom, right, top = (float(side) for side in widget["/Rect"])
    return left != right and bottom != top


def _free_field(reader: PdfFileReader) -> str:
    empty = [name for name, value, _ in enumerate_sig_fields(reader) if value is None]
    if len(empty) == 1:
        # A form that was prepared with one place for a signature.
        return str(empty[0])
    taken = {name for name, _, _ in enumerate_sig_fields(reader)}
    return next(name for number in range(1, len(taken) + 2) if (name := f"Signature{number}") not in taken)
