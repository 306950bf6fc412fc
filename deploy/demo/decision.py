"""Makes the demo's document: a decision of a commune's People's Committee, laid out by Decree 30/2020/NĐ-CP.

    python deploy/demo/decision.py build/demo/decision.pdf

The commune, the people and the decision are made up; the date is today's in Vietnam. The PDF has an empty signature
field between the signer's title and name, where the decree wants the signature.
"""

import sys
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from string import Template

from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import SigFieldSpec, append_signature_field
from weasyprint import HTML  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent
FIELD_NAME = "ChuTich"
SIGNER = "Hoàng Trịnh Đôn"
VIETNAM = timezone(timedelta(hours=7))
# The signature's place in the field: centred, and as wide as a hand writes.
SIGNATURE_WIDTH_MM, SIGNATURE_HEIGHT_MM = 54, 22
_PAGE_HEIGHT_PT = 297 / 25.4 * 72
_PT_PER_CSS_PIXEL = 0.75


class FontMissing(Exception):  # noqa: N818
    """The document would be set in another typeface than the decree's."""


def make(path: Path, *, on: date) -> None:
    """Writes the decision, dated `on`, with its empty signature field.

    Raises `FontMissing` when no Liberation Serif (which has the measures of Times New Roman) with Vietnamese is here.
    """
    source = Template((HERE / "decision.html").read_text(encoding="utf-8"))
    first, last = on + timedelta(days=3), on + timedelta(days=10)
    html = source.substitute(date=_words(on), period=f"từ {_words(first)} đến {_words(last)}")
    document = HTML(string=html, base_url=str(HERE)).render()
    left, top, right, bottom = document.pages[0].anchors["signature-place"]
    document.write_pdf(path, pdf_identifier=b"trien-demo-decision", pdf_tags=True)
    _check_fonts(path)
    x = (left + right) / 2 * _PT_PER_CSS_PIXEL
    y = _PAGE_HEIGHT_PT - (top + bottom) / 2 * _PT_PER_CSS_PIXEL
    half_width, half_height = _points(SIGNATURE_WIDTH_MM) / 2, _points(SIGNATURE_HEIGHT_MM) / 2
    box = (round(x - half_width), round(y - half_height), round(x + half_width), round(y + half_height))
    with path.open("rb+") as file:
        writer = IncrementalPdfFileWriter(file)
        append_signature_field(
            writer, SigFieldSpec(FIELD_NAME, box=box, readable_field_name=f"Chữ ký của {SIGNER}", on_page=0)
        )
        writer.write_in_place()  # type: ignore[no-untyped-call]


def _words(day: date) -> str:
    """Writes a date as the decree does: days below ten and the months January and February with a leading zero."""
    month = f"{day.month:02}" if day.month <= 2 else str(day.month)
    return f"ngày {day.day:02} tháng {month} năm {day.year}"


def _points(millimetres: float) -> float:
    return millimetres / 25.4 * 72


def _check_fonts(path: Path) -> None:
    with path.open("rb") as file:
        fonts = PdfFileReader(file).root["/Pages"]["/Kids"][0]["/Resources"]["/Font"]
        names = {str(fonts[key]["/BaseFont"]).partition("+")[2] for key in fonts}
    strange = {name for name in names if not name.startswith("Liberation-Serif")}
    if strange:
        raise FontMissing(
            f"The document came out in {', '.join(sorted(strange))}: Liberation Serif 2 is missing"
            " (Debian 12: apt-get install fonts-liberation2)."
        )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make(Path(sys.argv[1]), on=datetime.now(VIETNAM).date())


if __name__ == "__main__":
    main()
