"""PDFs as different programs make them: what is signed in practice is never our own file."""

import random
from collections.abc import Callable
from pathlib import Path

from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import PdfSignatureMetadata, Signer, sign_pdf

VECTORS = Path(__file__).parents[1] / "vectors" / "pdf"
MEBIBYTE = 1024 * 1024


def reportlab_page(path: Path) -> Path:
    """One A4 page of ReportLab."""
    from reportlab.lib.pagesizes import A4  # type: ignore[import-untyped]
    from reportlab.pdfgen.canvas import Canvas  # type: ignore[import-untyped]

    canvas = Canvas(str(path), pagesize=A4)
    canvas.setTitle("Bien ban nghiem thu")
    canvas.setFont("Times-Roman", 13)
    for line in range(40):
        canvas.drawString(85, 780 - 17 * line, f"{line + 1}. Dien tich lua nghiem thu: {line * 0.37:.2f} ha")
    canvas.save()
    return path


def libreoffice_document(path: Path) -> Path:
    """The committed page of LibreOffice, in Vietnamese."""
    path.write_bytes((VECTORS / "libreoffice.pdf").read_bytes())
    return path


def large_document(path: Path, size: int = 50 * MEBIBYTE) -> Path:
    """A page that carries `size` bytes which do not compress, as a scan does."""
    noise = random.Random(size)
    offsets: list[int] = []
    with path.open("wb") as file:
        file.write(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")

        def write(content: bytes) -> None:
            offsets.append(file.tell())
            file.write(f"{len(offsets)} 0 obj\n".encode() + content + b"\nendobj\n")

        write(b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles << /Names [ (scan) 4 0 R ] >> >> >>")
        write(b"<< /Type /Pages /Kids [ 3 0 R ] /Count 1 >>")
        write(b"<< /Type /Page /Parent 2 0 R /MediaBox [ 0 0 595 842 ] /Resources << >> >>")
        write(b"<< /Type /Filespec /F (scan.bin) /UF (scan.bin) /EF << /F 5 0 R >> >>")
        offsets.append(file.tell())
        file.write(f"5 0 obj\n<< /Type /EmbeddedFile /Length {size} >>\nstream\n".encode())
        for start in range(0, size, MEBIBYTE):
            file.write(noise.randbytes(min(MEBIBYTE, size - start)))
        file.write(b"\nendstream\nendobj\n")
        table = file.tell()
        file.write(f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode())
        for offset in offsets:
            file.write(f"{offset:010d} 00000 n \n".encode())
        file.write(f"trailer\n<< /Size {len(offsets) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode())
    return path


def signed_document(path: Path, signer: Signer, *, field_name: str = "Before") -> Path:
    """A page of ReportLab that someone signed before, with a key of their own."""
    unsigned = reportlab_page(path.with_suffix(".unsigned.pdf"))
    with unsigned.open("rb") as document, path.open("wb") as output:
        sign_pdf(IncrementalPdfFileWriter(document), PdfSignatureMetadata(field_name=field_name), signer, output=output)
    return path


PRODUCERS: dict[str, Callable[[Path], Path]] = {
    "reportlab": reportlab_page,
    "libreoffice": libreoffice_document,
    "large": large_document,
}
"""Every producer of an unsigned PDF."""
