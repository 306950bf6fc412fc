"""`trien sign pdf`: the field that is signed in, and what it shows."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.pdf_utils.layout import BoxConstraints
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.pdf_utils.writer import PdfFileWriter, copy_into_new_writer
from pyhanko.sign.fields import SigFieldSpec, append_signature_field, enumerate_sig_fields
from tests.documents.judge import require_good
from tests.documents.producers import reportlab_page
from tests.fakes.signing_service import CertificateAuthority, FakeSigningService
from tests.integration.client.command import CODE, Trien

from trien_client.cli import appearance

SIGN = ("--credential", "p256", "--otp-file", "-")
BLUE = (24, 44, 140)


@pytest.fixture
def form(tmp_path: Path) -> Path:
    """A page with a place for a signature, 150 by 60 points, whose background is not white."""
    return with_field(reportlab_page(tmp_path / "form.pdf"), "ChuTich", (300, 20, 450, 80))


def with_field(path: Path, name: str, box: tuple[int, int, int, int]) -> Path:
    with path.open("rb+") as file:
        writer = IncrementalPdfFileWriter(file)
        append_signature_field(writer, SigFieldSpec(name, box=box, on_page=0))
        writer.write_in_place()  # type: ignore[no-untyped-call]
    return path


def text_of(path: Path) -> str:
    return subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True).stdout


def picture_of(path: Path) -> Image.Image:
    """The first page at one pixel a point."""
    subprocess.run(["pdftoppm", "-r", "72", "-png", "-singlefile", path, path.with_suffix("")], check=True)
    return Image.open(path.with_suffix(".png")).convert("RGB")


def test_a_visible_field_says_who_signed_and_when_in_an_embedded_font(
    trien: Trien, form: Path, tmp_path: Path, authority: CertificateAuthority
) -> None:
    out = tmp_path / "out.pdf"
    trien("sign", "pdf", form, out, *SIGN, code=CODE)
    text = text_of(out)
    assert "Ký bởi: Hoàng Trình Đôn p256" in text
    assert f"Ngày ký: {datetime.now(appearance.VIETNAM):%d/%m/%Y }" in text
    assert "+07:00" in text
    fonts = subprocess.run(["pdffonts", out], capture_output=True, text=True, check=True).stdout
    [embedded] = [line.split() for line in fonts.splitlines() if "TRIENS+" in line]
    assert embedded[-5:-2] == ["yes", "yes", "yes"]
    place = picture_of(out).crop((300, 842 - 80, 450, 842 - 20))
    dark = [(x, y) for x in range(150) for y in range(60) if sum(place.getpixel((x, y))) < 300]  # type: ignore[arg-type]
    assert 50 < len(dark) < 1500, "lines of text, and no frame"
    assert all(1 < x < 148 and 10 < y < 50 for x, y in dark)
    require_good(out, authority.root_pem)


def test_an_image_fills_the_field_in_its_proportions_and_stays_transparent(
    trien: Trien, form: Path, tmp_path: Path, authority: CertificateAuthority
) -> None:
    image = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    image.paste((*BLUE, 255), (0, 0, 20, 40))
    image.save(tmp_path / "signature.png")
    out = tmp_path / "out.pdf"
    trien(
        *("sign", "pdf", form, out, *SIGN, "--field", "ChuTich", "--appearance", tmp_path / "signature.png"), code=CODE
    )
    place = picture_of(out).crop((300, 842 - 80, 450, 842 - 20))
    # 60 by 60 points in the middle: blue on the left half, the page on the right one.
    assert [place.getpixel((x, 30)) for x in (40, 50, 70, 80, 100, 110)] == [
        (255, 255, 255), BLUE, BLUE, (255, 255, 255), (255, 255, 255), (255, 255, 255),
    ]  # fmt: skip
    assert [place.getpixel((60, y)) for y in (2, 57)] == [BLUE, BLUE]
    assert "Ký bởi" not in text_of(out)
    require_good(out, authority.root_pem)


def test_without_a_font_nothing_is_drawn(
    trien: Trien, form: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, authority: CertificateAuthority
) -> None:
    monkeypatch.setattr(appearance, "_candidates", lambda: iter(()))
    out = tmp_path / "out.pdf"
    trien("sign", "pdf", form, out, *SIGN, code=CODE)
    place = picture_of(out).crop((300, 842 - 80, 450, 842 - 20))
    assert place.getcolors() == [(150 * 60, (255, 255, 255))]
    require_good(out, authority.root_pem)


def test_a_font_without_the_letters_is_not_taken(tmp_path: Path) -> None:
    assert appearance.embeddable_font("Hoàng Trịnh Đôn") is not None
    assert appearance.embeddable_font("Ký bởi: \U0001f58b") is None
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert appearance._subset(str(tmp_path / "broken.ttf"), "a") is None
    assert _stamp("Ký bởi") is not None
    assert _stamp("\U0001f58b") is None


def _stamp(name: str) -> Any:
    style = appearance.TextStyle(name=name, at=datetime(2026, 11, 24, tzinfo=UTC))
    return style.create_stamp(PdfFileWriter(), BoxConstraints(width=100, height=50), {})  # type: ignore[no-untyped-call]


def test_a_new_field_is_made_only_when_it_is_asked_for(trien: Trien, form: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pdf"
    trien("sign", "pdf", form, out, *SIGN, "--new-field", "VanThu", code=CODE)
    assert "field VanThu" in trien("verify", out).stdout
    with out.open("rb") as file:
        assert [name for name, _, _ in enumerate_sig_fields(PdfFileReader(file))] == ["ChuTich", "VanThu"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--field", "ChuTichh"], "There is no field ChuTichh; the PDF has ChuTich."),
        (["--field", "ChuTich", "--new-field", "A"], "give one of them"),
        (["--new-field", "ChuTich"], "There is a field ChuTich already"),
        (["--new-field", "A.B"], "no full stop"),
        (["--new-field", "A", "--appearance", "{png}"], "has a place on a page"),
        (["--appearance", "{text}"], "is not a PNG image"),
        (["--appearance", "{missing}"], "No such file"),
    ],
)
def test_a_wrong_field_or_image_costs_no_password(
    trien: Trien, service: FakeSigningService, form: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    names = {"png": tmp_path / "a.png", "text": tmp_path / "a.txt", "missing": tmp_path / "no.png"}
    Image.new("RGBA", (4, 4)).save(names["png"])
    names["text"].write_text("no image")
    given = [option.format(**names) for option in options]
    # Not even the lack of a terminal is said before.
    result = trien("sign", "pdf", form, tmp_path / "out.pdf", "--credential", "p256", *given, exit_code=2)
    assert told in result.stderr
    assert service.calls == []
    assert not (tmp_path / "out.pdf").exists()


def test_a_field_is_signed_once(trien: Trien, service: FakeSigningService, form: Path, tmp_path: Path) -> None:
    trien("sign", "pdf", form, tmp_path / "once.pdf", *SIGN, code=CODE)
    sign = ["sign", "pdf", tmp_path / "once.pdf", tmp_path / "out.pdf", *SIGN, "--field", "ChuTich"]
    assert "signed already" in trien(*sign, code="222222", exit_code=2).stderr
    assert service.approvals == 1
    sign = ["sign", "pdf", reportlab_page(tmp_path / "a.pdf"), tmp_path / "out.pdf", *SIGN, "--field", "ChuTich"]
    assert "the PDF has no signature field" in trien(*sign, code="222222", exit_code=2).stderr


def encrypted(path: Path) -> None:
    with path.open("rb") as source:
        writer = copy_into_new_writer(PdfFileReader(source))
        writer.encrypt("owner", "user")  # type: ignore[no-untyped-call]
        content = path.with_suffix(".encrypted")
        with content.open("wb") as target:
            writer.write(target)  # type: ignore[no-untyped-call]
    content.replace(path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("no pdf"), "is not a PDF."),
    "empty": (lambda path: path.write_bytes(b""), "is empty."),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "is cut off or damaged"),
    "overwritten": (
        lambda path: path.write_bytes(path.read_bytes().replace(b"/Pages", b"/Pagez")),
        "is cut off or damaged",
    ),
    "encrypted": (encrypted, "is protected by a password; remove the protection first."),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_pdf_is_said_in_plain_words(
    trien: Trien, service: FakeSigningService, tmp_path: Path, kind: str
) -> None:
    document = reportlab_page(tmp_path / "in.pdf")
    make, told = BROKEN[kind]
    make(document)
    for command in (["sign", "pdf", document, tmp_path / "out.pdf", "--credential", "p256"], ["verify", document]):
        result = trien(*command, exit_code=2)
        assert f"in.pdf {told}" in result.stderr
    assert service.calls == []
