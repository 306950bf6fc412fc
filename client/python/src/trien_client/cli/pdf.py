"""Signs PDFs for the command line, with pyHanko; imported late, because pyHanko takes half a second."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.misc import PdfError
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign import PdfSignatureMetadata, PdfSigner
from pyhanko.sign.fields import SigSeedSubFilter, enumerate_sig_fields
from pyhanko.sign.general import SigningError

from trien_client._algorithms import SignatureAlgorithm
from trien_client._client import Client
from trien_client._items import Item
from trien_client._resources import SigningResult
from trien_client.cli.outcome import CommandError
from trien_client.cli.password import PasswordSource
from trien_client.pyhanko import TrienSigner, sign_together


class PromptingSigner(TrienSigner):
    """A signer that asks the person again when the one-time password was not accepted."""

    def __init__(
        self,
        client: Client,
        credential: str,
        *,
        algorithm: SignatureAlgorithm | None,
        source: PasswordSource,
        signer: str | None,
    ) -> None:
        super().__init__(client, credential, algorithm=algorithm, one_time_password=source, signer=signer)
        self._source = source

    async def run(self, work: Callable[[], SigningResult]) -> SigningResult:
        """Does `work` in this thread: nothing else waits, and Ctrl-C reaches whoever reads the password."""
        return work()

    def sign_items(self, items: Sequence[Item], *, request_id: str | None = None) -> SigningResult:
        """Has items signed; the attempts share one request id, `request_id` if it is given."""
        return self._source.until_accepted(
            lambda _, own: super(PromptingSigner, self).sign_items(items, request_id=request_id or own)
        )


@dataclass(frozen=True, kw_only=True)
class PdfOptions:
    """How the signature is made."""

    field: str | None
    reason: str | None
    location: str | None
    pades: bool


def sign_documents(documents: Sequence[tuple[Path, BinaryIO]], signer: TrienSigner, options: PdfOptions) -> list[str]:
    """Signs each document into its output, all with one one-time password; returns the fields' names.

    Raises `CommandError` when a file cannot be read as a PDF or the field cannot be signed; then none is signed.
    """
    silence_libraries()

    async def together() -> list[str]:
        return await sign_together(signer, [partial(_sign, *document, signer, options) for document in documents])

    # Not asyncio.run: its handler would keep the first Ctrl-C from a person who is asked for the password.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(together())
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()


async def _sign(document: Path, signed: BinaryIO, signer: TrienSigner, options: PdfOptions) -> str:
    try:
        with document.open("rb") as source:
            writer = IncrementalPdfFileWriter(source)
            name = options.field or _free_field(writer.prev)
            metadata = PdfSignatureMetadata(
                field_name=name,
                reason=options.reason,
                location=options.location,
                subfilter=SigSeedSubFilter.PADES if options.pades else SigSeedSubFilter.ADOBE_PKCS7_DETACHED,
            )
            await PdfSigner(metadata, signer).async_sign_pdf(writer, output=signed)
    except PdfError as error:
        raise CommandError(f"{document} cannot be read as a PDF: {error}") from None
    except SigningError as error:
        raise CommandError(f"{document} cannot be signed: {error}") from None
    return name


def silence_libraries() -> None:
    """Keeps pyHanko's log, with its tracebacks, off the terminal: what matters is said in one line."""
    for name in ("pyhanko", "pyhanko_certvalidator"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def _free_field(reader: PdfFileReader) -> str:
    empty = [name for name, value, _ in enumerate_sig_fields(reader) if value is None]
    if len(empty) == 1:
        # A form that was prepared with one place for a signature.
        return str(empty[0])
    taken = {name for name, _, _ in enumerate_sig_fields(reader)}
    return next(name for number in range(1, len(taken) + 2) if (name := f"Signature{number}") not in taken)
