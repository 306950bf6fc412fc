"""The SDK's test authenticator, and the QR codes by which questions reach a real one."""

import base64
import re
import struct

import pytest
import segno

from trien_client import qr
from trien_client.ocra import NotAnswered, Question, TestAuthenticator, ocra

SECRET = bytes(range(32))
SUITE = "OCRA-1:HOTP-SHA256-8:QH64"
QUESTION = "4f2a91c3" + "5e" * 28
URI = f"ocra:?suite={SUITE}&question={QUESTION}&fingerprint=4f2a%2091c3&count=20"
OTPAUTH = f"otpauth://ocra/Test:Ho%C3%A0ng?secret={base64.b32encode(SECRET).decode().rstrip('=')}&issuer=Test&ocrasuite={SUITE}"


def test_it_answers_the_question_that_a_qr_code_shows() -> None:
    authenticator = TestAuthenticator.from_uri(OTPAUTH)
    assert authenticator.answer(URI) == ocra(SECRET, SUITE, QUESTION)
    assert Question.from_uri(URI) == Question(suite=SUITE, question=QUESTION, fingerprint="4f2a 91c3", count=20)
    assert SECRET.hex() not in repr(vars(authenticator)) + repr(authenticator)


@pytest.mark.parametrize(
    "uri",
    [
        URI.replace("SHA256", "SHA512"),
        URI.replace("-8:", "-6:"),
        URI.replace("QH64", "QH40"),
        URI.replace("4f2a%20", "4f2b%20"),
        URI.replace("ocra:", "otpauth:"),
        URI.replace("ocra:?", "ocra://host/?"),
        URI.replace("&count=20", ""),
        URI.replace("count=20", "count=many"),
        URI + "&count=1",
        URI.replace("4f2a91c3", "4f2a91c"),
        "",
    ],
)
def test_it_answers_nothing_else(uri: str) -> None:
    with pytest.raises(NotAnswered):
        TestAuthenticator.from_uri(OTPAUTH).answer(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        OTPAUTH.replace("//ocra/", "//totp/"),
        OTPAUTH.replace(SUITE, "OCRA-1:HOTP-MD5-8:QH64"),
        OTPAUTH.replace("secret=", "secret=1"),
    ],
)
def test_it_is_made_from_an_ocra_uri_alone_and_does_not_tell_it(uri: str) -> None:
    with pytest.raises(ValueError, match="otpauth URI") as refused:
        TestAuthenticator.from_uri(uri)
    assert "AAAQEA" not in str(refused.value)


def test_the_qr_code_in_a_terminal_is_the_one_that_files_have() -> None:
    """Reads the half blocks back and compares each module with segno's own matrix."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", qr.terminal(URI)).split("\n")
    read: list[list[int]] = []
    for line in lines:
        read.append([0 if block in "█▀" else 1 for block in line])
        read.append([0 if block in "█▄" else 1 for block in line])
    made = segno.make_qr(URI, error="m", boost_error=False)
    expected = [[int(bool(module)) for module in row] for row in made.matrix_iter(border=2)]
    assert read[: len(expected)] == expected
    assert all(not any(row) for row in read[len(expected) :])
    assert sum(map(sum, expected)) > 500


def test_a_page_gets_an_svg_and_a_file_a_png_of_the_same_size() -> None:
    modules = segno.make_qr(URI, error="m", boost_error=False).symbol_size(scale=3)[0]
    image = qr.png(URI, scale=3)
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", image[16:24]) == (modules, modules)
    picture = qr.svg(URI, scale=3)
    assert picture.startswith("<svg")
    assert f'width="{modules}"' in picture
