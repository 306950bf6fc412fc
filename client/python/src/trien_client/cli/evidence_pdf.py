"""The evidence report as a PDF: made of the facts alone, the same facts give the same bytes.

The fonts are this machine's, embedded in part: the letters of Vietnamese are in few of those that every reader has.
"""

import io
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.enums import TA_CENTER
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import (
    Flowable,
    LongTable,
    PageBreak,
    Paragraph,
    Preformatted,
    SimpleDocTemplate,
    Spacer,
    Table,
    TableStyle,
)

from trien_client.cli.evidence_words import WORDS, Words
from trien_client.cli.outcome import CommandError

VIETNAM = timezone(timedelta(hours=7))
_FOLDERS = (
    "/usr/share/fonts/truetype/liberation2",
    "/usr/share/fonts/truetype/liberation",
    "/usr/share/fonts/liberation-serif",
    "/usr/share/fonts/liberation-mono",
    "/usr/share/fonts/liberation-serif-fonts",
    "/usr/share/fonts/liberation-mono-fonts",
    "/usr/share/fonts/TTF",
    "/usr/share/fonts/truetype/dejavu",
    "/usr/share/fonts/dejavu-serif-fonts",
    "/usr/share/fonts/dejavu-sans-mono-fonts",
    "/System/Library/Fonts/Supplemental",
    "C:/Windows/Fonts",
)
_FILES = {
    "Report": ("LiberationSerif-Regular.ttf", "Times New Roman.ttf", "times.ttf", "DejaVuSerif.ttf"),
    "Report-Bold": ("LiberationSerif-Bold.ttf", "Times New Roman Bold.ttf", "timesbd.ttf", "DejaVuSerif-Bold.ttf"),
    "Report-Mono": ("LiberationMono-Regular.ttf", "Courier New.ttf", "cour.ttf", "DejaVuSansMono.ttf"),
}
_LEFT, _WIDTH = 20 * mm + 6, A4[0] - 40 * mm - 12  # a frame keeps 6 points free on both sides
_GREEN, _AMBER, _RED = colors.Color(0.05, 0.4, 0.15), colors.Color(0.55, 0.35, 0), colors.Color(0.7, 0.05, 0.05)
_COLOURS = {"VERIFIED": _GREEN, "TOLD": _AMBER, "FAILED": _RED}
_RULE = colors.Color(0.75, 0.75, 0.75)


def write_pdf(facts: dict[str, Any], language: str) -> bytes:
    """Returns the report. Raises `CommandError` when this machine has no font with the letters of Vietnamese."""
    _register_fonts()
    words = WORDS[language]
    output = io.BytesIO()
    document = SimpleDocTemplate(
        output,
        pagesize=A4,
        leftMargin=20 * mm,
        rightMargin=20 * mm,
        topMargin=18 * mm,
        bottomMargin=20 * mm,
        title=words.title,
        author="trien",
        subject=facts["entry"]["name"],
        lang=language,
        initialFontName="Report",
        invariant=1,
    )
    document.build(
        _story(facts, words), canvasmaker=partial(_NumberedCanvas, words=words, entry=facts["entry"]["name"])
    )
    return output.getvalue()


class _NumberedCanvas(Canvas):  # type: ignore[misc]
    """Writes the footer once it is known how many pages there are."""

    def __init__(self, *arguments: Any, words: Words, entry: str, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._words = words
        self._entry = entry
        self._pages: list[dict[str, Any]] = []

    def showPage(self) -> None:  # noqa: N802 - reportlab's name
        self._pages.append(dict(self.__dict__))
        self._startPage()

    def save(self) -> None:
        for number, page in enumerate(self._pages, start=1):
            self.__dict__.update(page)
            self.setFont("Report", 8.5)
            self.drawString(_LEFT, 11 * mm, self._entry)
            self.drawRightString(_LEFT + _WIDTH, 11 * mm, self._words.page.format(page=number, pages=len(self._pages)))
            super().showPage()
        super().save()


def _style(name: str, **changes: Any) -> ParagraphStyle:
    given = {"fontName": "Report", "fontSize": 10.5, "leading": 14, "splitLongWords": 1} | changes
    return ParagraphStyle(name, **given)


_TITLE = _style("title", fontName="Report-Bold", fontSize=16, leading=22, alignment=TA_CENTER)
_MADE = _style("made", fontSize=9.5, leading=13, alignment=TA_CENTER)
_HEADING = _style(
    "heading", fontName="Report-Bold", fontSize=12, leading=16, spaceBefore=12, spaceAfter=4, keepWithNext=1
)
_TEXT = _style("text")
_LABEL = _style("label", textColor=colors.Color(0.3, 0.3, 0.3))
_BOLD = _style("bold", fontName="Report-Bold")
_SMALL = _style("small", fontSize=9, leading=12)
_HASH = _style("hash", fontName="Report-Mono", fontSize=8, leading=14)
_CELL = _style("cell", fontName="Report-Mono", fontSize=8, leading=11)
_LARGEST_MONO, _SMALLEST_MONO = 7.2, 4.5


def _story(facts: dict[str, Any], words: Words) -> list[Flowable]:
    made = words.made.format(made=_local(facts["made"]), entry=facts["entry"]["name"])
    return [
        _paragraph(words.title, _TITLE),
        _paragraph(made, _MADE),
        Spacer(1, 4 * mm),
        _verdict(facts["checks"], words),
        *_who(facts, words),
        *_certificate(facts, words),
        *_items(facts, words),
        *_proof(facts, words),
        *_later(facts, words),
        *_checks(facts, words),
        *_steps(words),
        *_appendix(facts, words),
    ]


def _verdict(checks: Sequence[dict[str, Any]], words: Words) -> Flowable:
    results = [one["result"] for one in checks]
    failed = results.count("FAILED")
    text = (words.bad if failed else words.good).format(
        failed=failed, verified=results.count("VERIFIED"), told=results.count("TOLD")
    )
    colour = _RED if failed else _GREEN
    box = Table([[_paragraph(text, _style("verdict", fontName="Report-Bold", textColor=colour))]], colWidths=[_WIDTH])
    box.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, -1), "Report"),
                ("BOX", (0, 0), (-1, -1), 1, colour),
                ("TOPPADDING", (0, 0), (-1, -1), 6),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 8),
            ]
        )
    )
    return box


def _who(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    about, entry = facts["about"], facts["entry"]
    yield _paragraph(words.sections["who"], _HEADING)
    kind = about["authenticator_kind"]
    reason = _details(entry).get("reason")
    yield _fields(
        words,
        [
            ("signer", _named(about, "signer")),
            ("organization", _named(about, "organization")),
            ("approver", _named(about, "approver")),
            ("authenticator", _joined(words.authenticators.get(kind, kind) if kind else None, about["authenticator"])),
            ("assurance", words.assurances.get(about["assurance"], about["assurance"])),
            ("approve_time", _local(about["approve_time"])),
            ("time", _local(entry["time"])),
            ("kind", _joined(words.kinds.get(entry["kind"]), entry["kind"])),
            ("reason", reason if isinstance(reason, str) else None),
            ("client", _named(about, "client")),
            ("credential", about["credential"]),
        ],
    )
    yield _paragraph(words.note, _SMALL)


def _certificate(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    certificate = facts["certificate"]
    yield _paragraph(words.sections["certificate"], _HEADING)
    if certificate is None:
        yield _paragraph(words.absent, _TEXT)
        return
    validity = f"{_local(certificate['not_before'])} – {_local(certificate['not_after'])}"
    yield _fields(
        words,
        [
            ("subject", certificate["subject"]),
            ("issuer", certificate["issuer"]),
            ("serial_number", certificate["serial_number"]),
            ("validity", validity),
            ("sha256", certificate["sha256"]),
        ],
        hashes={"serial_number", "sha256"},
    )


def _items(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    items = facts["items"]
    here = facts.get("document_items", ())
    compared = facts["document"]
    if here:
        compared = f"{compared} ({words.columns['index']} {', '.join(str(index + 1) for index in here)})"
    yield _paragraph(words.sections["items"], _HEADING)
    yield _fields(words, [("algorithm", facts["algorithm"]), ("count", str(len(items))), ("document", compared)])
    if not items:
        return
    rows = [[_paragraph(words.columns[name], _BOLD) for name in ("index", "digest", "result")]]
    for item in items:
        result = item["result"]
        shown = words.results.get(result, words.absent) if result else words.absent
        rows.append(
            [
                _paragraph(
                    str(item["index"] + 1), _style("number", fontName="Report-Bold") if item["index"] in here else _TEXT
                ),
                _paragraph(item["digest"], _CELL),
                _paragraph(
                    shown, _style("result", fontSize=8.5, leading=11, textColor=_COLOURS.get(result, colors.black))
                ),
            ]
        )
    yield _table(rows, [14 * mm, _WIDTH - 44 * mm, 30 * mm])


def _proof(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    proof = facts["proof"]
    yield _paragraph(words.sections["proof"], _HEADING)
    if "root" not in proof:
        yield _paragraph(words.absent, _TEXT)
        return
    names = ("position", "leaf_hash", "origin", "size", "root", "log_key")
    yield _fields(words, [(name, str(proof[name])) for name in names], hashes={"leaf_hash", "root", "log_key"})


def _later(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    yield _paragraph(words.sections["later"], _HEADING)
    later = facts["later_entries"]
    if not later:
        yield _paragraph(words.absent, _TEXT)
        return
    rows = [[_paragraph(words.columns[name], _BOLD) for name in ("time", "entry")]]
    rows += [
        [
            _paragraph(_local(entry["time"]) or "", _TEXT),
            _paragraph(f"{_joined(words.kinds.get(entry['kind']), entry['kind'])} {entry['name']}", _TEXT),
        ]
        for entry in later
    ]
    yield _table(rows, [52 * mm, _WIDTH - 52 * mm])


def _checks(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    yield _paragraph(words.sections["checks"], _HEADING)
    rows = [[_paragraph(words.columns[name], _BOLD) for name in ("check", "outcome")]]
    for one in facts["checks"]:
        finding = words.findings.get(one["finding"], one["finding"])
        text = words.checks[one["check"]] + (f": {finding}" if finding else "")
        colour = _style("outcome", fontName="Report-Bold", fontSize=9, leading=12, textColor=_COLOURS[one["result"]])
        rows.append([_paragraph(text, _TEXT), _paragraph(words.results[one["result"]], colour)])
    yield _table(rows, [_WIDTH - 42 * mm, 42 * mm])


def _steps(words: Words) -> Iterable[Flowable]:
    yield _paragraph(words.sections["steps"], _HEADING)
    for number, step in enumerate(words.steps, start=1):
        yield _paragraph(f"{number}. {step}", _style("step", leftIndent=12, firstLineIndent=-12, spaceAfter=3))


def _appendix(facts: dict[str, Any], words: Words) -> Iterable[Flowable]:
    proof = facts["proof"]
    if proof["receipt"] is None:
        return
    # On one page: no page's foot comes between the lines that are copied.
    yield PageBreak()
    yield _paragraph(words.sections["appendix"], _HEADING)
    yield _paragraph(words.receipt, _BOLD)
    yield _verbatim(proof["receipt"])
    yield Spacer(1, 3 * mm)
    yield _paragraph(words.keys, _BOLD)
    yield _verbatim(proof["log_keys"] or "")
    if proof["item_receipts"]:
        yield Spacer(1, 3 * mm)
        yield _paragraph(words.items.format(count=len(proof["item_receipts"])), _SMALL)


def _fields(words: Words, fields: Iterable[tuple[str, str | None]], *, hashes: Iterable[str] = ()) -> Flowable:
    mono = set(hashes)
    rows = [
        [_paragraph(words.labels[name], _LABEL), _paragraph(value, _HASH if name in mono else _TEXT)]
        for name, value in fields
        if value
    ]
    table = Table(rows or [["", ""]], colWidths=[52 * mm, _WIDTH - 52 * mm])
    table.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, -1), "Report"),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 1.5),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ]
        )
    )
    return table


def _table(rows: list[list[Flowable]], widths: list[float]) -> Flowable:
    table = LongTable(rows, colWidths=widths, repeatRows=1)
    table.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, -1), "Report"),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("LINEBELOW", (0, 0), (-1, 0), 0.8, colors.black),
                ("LINEBELOW", (0, 1), (-1, -1), 0.3, _RULE),
                ("TOPPADDING", (0, 0), (-1, -1), 2),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
                ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ]
        )
    )
    return table


def _paragraph(text: str, style: ParagraphStyle) -> Paragraph:
    return Paragraph(escape(_drawable(text, style.fontName)), style)


def _drawable(text: str, font: str) -> str:
    """Returns the text with a sign in the place of every character that cannot be drawn; the JSON has it as it is."""
    glyphs = pdfmetrics.getFont(font).face.charToGlyph
    return "".join(one if ord(one) in glyphs and one.isprintable() else "?" for one in text)


def _verbatim(text: str) -> Flowable:
    """Returns lines as they are, in letters that the longest of them has room in: they are to be copied."""
    lines = [_drawable(line, "Report-Mono") for line in text.rstrip("\n").split("\n")]
    longest = max(1, *(pdfmetrics.stringWidth(line, "Report-Mono", 1) for line in lines))
    size = max(_SMALLEST_MONO, min(_LARGEST_MONO, _WIDTH / longest))
    return Preformatted("\n".join(lines), _style("verbatim", fontName="Report-Mono", fontSize=size, leading=size * 1.3))


def _named(about: dict[str, Any], what: str) -> str | None:
    return _joined(about[f"{what}_display_name"], about[what])


def _joined(first: str | None, second: str | None) -> str | None:
    return f"{first} ({second})" if first and second and first != second else first or second


def _details(entry: dict[str, Any]) -> dict[str, Any]:
    from trien_client.cli.evidence import details_of

    return details_of(entry["details"])


def _local(text: str | None) -> str | None:
    """Returns a time of the facts as people in Vietnam read it."""
    if text is None:
        return None
    at = datetime.fromisoformat(text).astimezone(VIETNAM)
    return f"{at:%d/%m/%Y %H:%M:%S} (UTC+7)"


def _register_fonts() -> None:
    for name, files in _FILES.items():
        if name in pdfmetrics.getRegisteredFontNames():
            continue
        found = next((path for file in files for folder in _FOLDERS if (path := Path(folder, file)).is_file()), None)
        if found is None:
            raise CommandError("No font with the letters of Vietnamese was found: install the Liberation fonts.")
        pdfmetrics.registerFont(TTFont(name, str(found)))
