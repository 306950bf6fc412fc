"""What a visible signature field shows: an image, or two lines of text in a font that is embedded.

Decree 30/2020/NĐ-CP, Appendix I, wants a person's signature as an image without text. The text is for fields of other
documents. pyHanko's own stamp is never drawn: its font has no Vietnamese letters.
"""

import io
import logging
import shutil
import struct
import subprocess
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any

from pyhanko.pdf_utils import generic
from pyhanko.pdf_utils.content import PdfContent, ResourceType
from pyhanko.pdf_utils.generic import pdf_name
from pyhanko.pdf_utils.layout import AxisAlignment, BoxConstraints, InnerScaling, Margins, SimpleBoxLayoutRule
from pyhanko.pdf_utils.writer import BasePdfFileWriter
from pyhanko.stamp import BaseStampStyle, StaticStampStyle

from trien_client.cli.outcome import CommandError, plain

VIETNAM = timezone(timedelta(hours=7))
_SIZE = 10.0
_LEADING = 13.0
_MOST_PIXELS = 16_000_000
_FONT_FILES = (
    "/usr/share/fonts/truetype/liberation2/LiberationSerif-Regular.ttf",
    "/usr/share/fonts/truetype/liberation/LiberationSerif-Regular.ttf",
    "/usr/share/fonts/liberation-serif/LiberationSerif-Regular.ttf",
    "/usr/share/fonts/liberation-serif-fonts/LiberationSerif-Regular.ttf",
    "/usr/share/fonts/TTF/LiberationSerif-Regular.ttf",
    "/System/Library/Fonts/Supplemental/Times New Roman.ttf",
    "C:/Windows/Fonts/times.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSerif.ttf",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
)
_FAMILIES = ("Liberation Serif", "DejaVu Serif", "DejaVu Sans")


def image_style(file: Path) -> BaseStampStyle:
    """Returns a style that draws the image as large as the field allows, in its proportions and with its transparency.

    Raises `CommandError` when the file is not a PNG.
    """
    from PIL import Image
    from pyhanko.pdf_utils.images import PdfImage

    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise CommandError(f"{file} has more than {_MOST_PIXELS // 1_000_000} million pixels.")
            pixels = image.convert("RGBA")
    except OSError as error:
        if error.errno is not None:
            raise
        raise CommandError(f"{file} is not a PNG image that can be read.") from None
    except (ValueError, SyntaxError, Image.DecompressionBombError):
        raise CommandError(f"{file} is not a PNG image that can be read.") from None
    return _style(PdfImage(pixels), InnerScaling.STRETCH_TO_FIT, margin=0)


@dataclass(frozen=True)
class TextStyle(BaseStampStyle):
    """Says who signed and when; without a font that has all the letters it draws nothing.

    The font is looked for only when there is a visible field.
    """

    name: str = ""
    at: datetime = datetime.min

    def create_stamp(self, writer: BasePdfFileWriter, box: BoxConstraints, text_params: dict[str, Any]) -> Any:
        """Makes the stamp for one field; None when nothing is to be drawn."""
        lines = (
            f"Ký bởi: {plain(unicodedata.normalize('NFC', self.name))}",
            f"Ngày ký: {self.at.astimezone(VIETNAM):%d/%m/%Y %H:%M:%S} +07:00",
        )
        font = embeddable_font("".join(lines))
        if font is None:
            return None
        style = _style(_TextBlock(lines, font), InnerScaling.SHRINK_TO_FIT, margin=2)
        return style.create_stamp(writer, box, text_params)


def _style(content: PdfContent, scaling: InnerScaling, *, margin: int) -> BaseStampStyle:
    middle = SimpleBoxLayoutRule(
        x_align=AxisAlignment.ALIGN_MID,
        y_align=AxisAlignment.ALIGN_MID,
        margins=Margins(margin, margin, margin, margin),
        inner_content_scaling=scaling,
    )
    return StaticStampStyle(background=content, background_layout=middle, background_opacity=1, border_width=0)


@dataclass(frozen=True, kw_only=True)
class EmbeddableFont:
    """A TrueType font with the glyphs of one text only; widths and measures in thousandths of the size."""

    name: str
    program: bytes
    glyphs: dict[str, int]
    widths: dict[str, float]
    box: tuple[float, float, float, float]
    ascent: float
    descent: float

    def width(self, text: str) -> float:
        """The length of a line at size 1."""
        return sum(self.widths[character] for character in text) / 1000


def embeddable_font(text: str) -> EmbeddableFont | None:
    """Returns a font of this machine that has every character of `text` and may be embedded, or None."""
    # All digits, so that documents that are signed one after the other share one font.
    characters = "".join(sorted(set(text) | set("0123456789")))
    for file in _candidates():
        font = _subset(file, characters)
        if font is not None:
            return font
    return None


def _candidates() -> Iterator[str]:
    yield from (file for file in _FONT_FILES if Path(file).is_file())
    yield from _fontconfig()


@cache
def _fontconfig() -> tuple[str, ...]:
    program = shutil.which("fc-match")
    if program is None:
        return ()
    found = []
    for family in _FAMILIES:
        try:
            answer = subprocess.run(  # noqa: S603 - fontconfig's own program, with arguments of ours
                [program, "--format=%{file}", f"{family}:lang=vi"],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ()
        found.append(answer.stdout.strip())
    return tuple(file for file in found if file)


@cache
def _subset(file: str, characters: str) -> EmbeddableFont | None:
    from fontTools import subset  # type: ignore[import-untyped]
    from fontTools.ttLib import TTFont, TTLibError  # type: ignore[import-untyped]

    logging.getLogger("fontTools").setLevel(logging.CRITICAL + 1)
    try:
        font: Any = TTFont(io.BytesIO(Path(file).read_bytes()), lazy=True)
        restricted = font["OS/2"].fsType & 0x000F == 0x0002
        if (
            "glyf" not in font
            or "fvar" in font
            or restricted
            or not set(map(ord, characters)) <= set(font.getBestCmap())
        ):
            return None
        options: Any = subset.Options()
        options.hinting = False
        options.layout_features = []
        options.notdef_outline = True
        selection: Any = subset.Subsetter(options)
        selection.populate(text=characters)
        selection.subset(font)
        program = io.BytesIO()
        font.save(program)
        scale = 1000 / font["head"].unitsPerEm
        names = {character: font.getBestCmap()[ord(character)] for character in characters}
        return EmbeddableFont(
            name="TRIENS+" + (font["name"].getDebugName(6) or "Font").replace(" ", ""),
            program=program.getvalue(),
            glyphs={character: font.getGlyphID(name) for character, name in names.items()},
            widths={character: font["hmtx"][name][0] * scale for character, name in names.items()},
            box=tuple(getattr(font["head"], side) * scale for side in ("xMin", "yMin", "xMax", "yMax")),
            ascent=font["hhea"].ascent * scale,
            descent=font["hhea"].descent * scale,
        )
    except (OSError, TTLibError, KeyError, ValueError, AssertionError, struct.error):
        return None


class _TextBlock(PdfContent):
    """Centred black lines; PDF 1.7 (ISO 32000-1), sections 9.7.4 and 9.10.3."""

    def __init__(self, lines: tuple[str, ...], font: EmbeddableFont) -> None:
        self._lines = lines
        self._font = font
        self._width = max(font.width(line) for line in lines) * _SIZE
        super().__init__(box=BoxConstraints(width=self._width, height=_LEADING * len(lines)))

    def render(self) -> bytes:
        self.set_resource(ResourceType.FONT, pdf_name("/TrienText"), self._font_object())
        commands = [b"0 g BT /TrienText %g Tf" % _SIZE]
        for index, line in enumerate(self._lines):
            x = (self._width - self._font.width(line) * _SIZE) / 2
            y = _LEADING * (len(self._lines) - index - 1) + _LEADING * 0.28
            codes = "".join(f"{self._font.glyphs[character]:04x}" for character in line)
            commands.append(b"1 0 0 1 %.3f %.3f Tm <%s> Tj" % (x, y, codes.encode()))
        return b"\n".join([*commands, b"ET"])

    def _font_object(self) -> generic.PdfObject:
        font, writer = self._font, self._ensure_writer
        program = generic.StreamObject(_dictionary({"/Length1": _number(len(font.program))}), stream_data=font.program)
        program.compress()  # type: ignore[no-untyped-call]
        descriptor = _dictionary(
            {
                "/Type": pdf_name("/FontDescriptor"),
                "/FontName": pdf_name("/" + font.name),
                "/Flags": _number(4),
                "/FontBBox": generic.ArrayObject(map(_number, font.box)),
                "/ItalicAngle": _number(0),
                "/Ascent": _number(font.ascent),
                "/Descent": _number(font.descent),
                "/CapHeight": _number(font.ascent),
                "/StemV": _number(80),
                "/FontFile2": writer.add_object(program),
            }
        )
        widths = generic.ArrayObject()
        for character, glyph in font.glyphs.items():
            widths += [_number(glyph), generic.ArrayObject([_number(font.widths[character])])]
        descendant = _dictionary(
            {
                "/Type": pdf_name("/Font"),
                "/Subtype": pdf_name("/CIDFontType2"),
                "/BaseFont": pdf_name("/" + font.name),
                "/CIDSystemInfo": _dictionary(
                    {
                        "/Registry": generic.TextStringObject("Adobe"),
                        "/Ordering": generic.TextStringObject("Identity"),
                        "/Supplement": _number(0),
                    }
                ),
                "/FontDescriptor": writer.add_object(descriptor),
                "/W": widths,
                "/CIDToGIDMap": pdf_name("/Identity"),
            }
        )
        letters = generic.StreamObject(stream_data=_unicode_map(font.glyphs))
        letters.compress()  # type: ignore[no-untyped-call]
        return writer.add_object(
            _dictionary(
                {
                    "/Type": pdf_name("/Font"),
                    "/Subtype": pdf_name("/Type0"),
                    "/BaseFont": pdf_name("/" + font.name),
                    "/Encoding": pdf_name("/Identity-H"),
                    "/DescendantFonts": generic.ArrayObject([writer.add_object(descendant)]),
                    "/ToUnicode": writer.add_object(letters),
                }
            )
        )


def _dictionary(entries: dict[str, generic.PdfObject]) -> generic.DictionaryObject:
    return generic.DictionaryObject({pdf_name(key): value for key, value in entries.items()})  # type: ignore[no-untyped-call]


def _number(value: float) -> generic.PdfObject:
    return generic.NumberObject(round(value))  # type: ignore[no-untyped-call]


def _unicode_map(glyphs: dict[str, int]) -> bytes:
    pairs = [f"<{glyph:04x}> <{character.encode('utf-16-be').hex()}>" for character, glyph in glyphs.items()]
    # At most 100 pairs may follow one operator (Adobe Technical Note 5014).
    parts = [pairs[start : start + 100] for start in range(0, len(pairs), 100)]
    blocks = "\n".join(f"{len(part)} beginbfchar\n" + "\n".join(part) + "\nendbfchar" for part in parts)
    return (
        "/CIDInit /ProcSet findresource begin\n12 dict begin\nbegincmap\n"
        "/CIDSystemInfo << /Registry (Adobe) /Ordering (UCS) /Supplement 0 >> def\n"
        "/CMapName /Adobe-Identity-UCS def\n/CMapType 2 def\n"
        "1 begincodespacerange\n<0000> <ffff>\nendcodespacerange\n"
        f"{blocks}\nendcmap\nCMapName currentdict /CMap defineresource pop\nend\nend\n"
    ).encode("ascii")
