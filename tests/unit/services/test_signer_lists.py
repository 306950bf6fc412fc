"""Lists of signers as spreadsheets, careless people and attackers write them: each fault is named with its line."""

import csv
import io
import re
import string
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trien_server.core.records import SignerKind
from trien_server.services.signer_lists import MOST_FAULTS, MOST_LINES, ListedSigner, SignerList, read_signer_list

PAGE = Path(__file__).parents[3] / "docs/signers-csv.md"
HEAD = "id,name,organization,kind,position,email,phone"
GOOD = "mai,Nguyễn Thị Mai,commune,person,Chủ tịch,mai@phulam.example,+84912345678"


def read(*lines: str, head: str = HEAD, end: str = "\n") -> SignerList:
    return read_signer_list(end.join([head, *lines, ""]).encode())


def faults(*lines: str, head: str = HEAD) -> list[tuple[int, str]]:
    """Returns line and column of each fault; nothing is both good and faulty."""
    found = read(*lines, head=head)
    assert {signer.line for signer in found.signers}.isdisjoint(fault.line for fault in found.faults)
    return [(fault.line, fault.column) for fault in found.faults]


def message_of(content: bytes) -> str:
    found = read_signer_list(content)
    assert not found.signers
    (fault,) = found.faults
    return f"{fault.line}: {fault.message}"


def test_a_good_line_is_read() -> None:
    expected = ListedSigner(
        line=2,
        id="mai",
        display_name="Nguyễn Thị Mai",
        organization="organizations/commune",
        kind=SignerKind.PERSON,
        position="Chủ tịch",
        email="mai@phulam.example",
        phone="+84912345678",
    )
    plain = "\n".join([HEAD, GOOD, ""])
    for text in (
        plain,
        plain.rstrip("\n"),
        plain.replace("\n", "\r\n"),
        f"\ufeff{plain}",
        unicodedata.normalize("NFD", plain),
        plain.replace(",", ";"),
        f"{HEAD}\n" + ",".join(f'"{cell}"' for cell in GOOD.split(",")),
        plain.replace(",commune", ", organizations/commune "),
        plain.replace(HEAD, "Mã,Họ và tên,Đơn vị,Loại,Chức vụ,Email,Điện thoại").replace("person", "Cá nhân"),
        f"{plain},,,,,,\n   \n\n",
    ):
        assert read_signer_list(text.encode()) == SignerList(signers=(expected,), faults=()), text


def test_the_page_about_lists_names_every_column_and_its_other_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [column for column, _ in rows] == ["id", "name", "organization", "kind", "position", "email", "phone"]
    for column, others in rows:
        for other in (column, column.upper(), *others.split(", ")):
            head = HEAD.replace(column, other.strip())
            assert read(GOOD, head=head).faults == (), other


def test_columns_may_be_left_out_and_in_any_order() -> None:
    (signer,) = read("commune,Mai,mai", head="organization,NAME,id").signers
    assert (signer.id, signer.display_name, signer.kind, signer.phone) == ("mai", "Mai", SignerKind.PERSON, "")
    assert read("seal,UBND xã,commune,agency", head="id,name,organization,kind").signers[0].kind is SignerKind.AGENCY
    assert faults("mai,Mai", head="id,name") == [(1, "organization")]
    assert faults("mai,Mai,commune,x", head="id,name,organization,name") == [(1, "name")]
    assert faults("mai,Mai,commune,x", head="id,name,organization,salary") == [(1, "")]
    assert faults(GOOD, head=HEAD.replace(",", "\t")) != []


def test_each_faulty_cell_is_named_with_its_line_and_column() -> None:
    for cell, good, bad in (
        ("id", "mai", ["", "Mai", "m ai", "-mai", "m" * 64, "signers/mai", "mai\u0301", "..", "ma_i"]),
        ("name", "Nguyễn Thị Mai", ["", "x" * 201, "a\u0007b", "a\u202eb", '"two\nlines"', "a\x00b", "a\u2028b"]),
        ("organization", "commune", ["", "Commune", "signers/commune", "organizations/", "a/b"]),
        ("kind", "person", ["robot", "PERSONS"]),
        ("position", "Chủ tịch", ["x" * 201, "a\tb", "a\x1bb"]),
        ("email", "mai@phulam.example", ["mai", "a@b", "a@b.vn c@d.vn", "<a@b.vn>", "a@" + "b" * 300 + ".vn"]),
        ("phone", "+84912345678", ["0912345678", "84912345678", "+84 912 345 678", "8.49E+10", "+84", "+" + "8" * 16]),
    ):
        for value in bad:
            line = GOOD.replace(good, value, 1)
            assert faults("ok,Người khác,commune,,,,", line, GOOD) == [(4 if "\n" in value else 3, cell)] or (
                # A cell of two lines is named by the line that it begins on.
                "\n" in value and faults("ok,Người khác,commune,,,,", line) == [(3, cell)]
            ), (cell, value)


def test_all_faults_of_a_line_are_named_at_once() -> None:
    assert faults("Mai,,nowhere at all,robot,,mai,0912") == [
        (2, column) for column in ("id", "name", "organization", "kind", "email", "phone")
    ]


def test_a_cell_that_a_spreadsheet_would_run_is_refused() -> None:
    for begin in "=+-@＝＋－＠":
        for cell, good in (("name", "Nguyễn Thị Mai"), ("position", "Chủ tịch")):
            line = GOOD.replace(good, f'"{begin}HYPERLINK(""http://x"",A1)"')
            found = read(line)
            assert [fault.column for fault in found.faults] == [cell]
            assert "spreadsheet" in found.faults[0].message
        assert faults(GOOD.replace("mai@", f" {begin}1@")) == [(2, "email")]
    assert read(GOOD).signers[0].phone.startswith("+84")


def test_an_id_that_is_there_twice_is_named_with_both_lines() -> None:
    found = read(GOOD, "hoa,Trần Thị Hoa,commune,,,,", "mai,Lê Thị Mai,commune,,,,")
    assert [(fault.line, fault.column) for fault in found.faults] == [(4, "id")]
    assert "line 2" in found.faults[0].message


def test_a_line_that_differs_by_its_id_alone_is_asked_about() -> None:
    twice = "Nguyễn Thị Mai,commune,,Chuyên viên,,"
    decomposed = unicodedata.normalize("NFD", twice)
    assert faults(f"mai,{twice}", f"mai-2,{decomposed}") == [(3, "name")]
    # Two people of one name are told apart by whatever else is said of them.
    assert faults(f"mai,{twice}", f"mai-2,{twice}+84912345678") == []


def test_a_line_with_other_than_the_first_lines_cells_is_named() -> None:
    assert faults(f"{GOOD},more", "hoa,Trần Thị Hoa,commune") == [(2, ""), (3, "")]


def test_quotation_marks_that_do_not_end_are_named_where_they_begin() -> None:
    assert faults(GOOD, 'hoa,"Trần Thị Hoa,commune,,,,', "x,y,z,,,,") == [(3, "")]
    assert faults('hoa,"Trần" Thị Hoa,commune,,,,') == [(2, "")]


def test_lines_are_counted_as_people_see_them() -> None:
    found = read(GOOD, "", ",,,,,,", "Hoa,Trần Thị Hoa,commune,,,,", end="\r\n")
    assert [(fault.line, fault.column) for fault in found.faults] == [(5, "id")]


def test_other_encodings_are_named() -> None:
    text = f"{HEAD}\n{GOOD}\n"
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
        assert "UTF-16" in message_of(text.encode(encoding))
    names = ["Nguyễn Thị Mai", "Trần Văn Đức", "Phạm Hồng Hải"]
    # What each writes for the same three names.
    assert "Windows-1258" in message_of(_windows_1258("id,name\n" + "\n".join(names)))
    tcvn3 = "NguyÔn ThÞ Mai\nTrÇn V¨n §øc\nPh¹m Hång H¶i".encode("latin-1")
    assert "TCVN3" in message_of(b"id,name\n" + tcvn3)
    vni = "Nguyeãn Thò Mai\nTraàn Vaên Ñöùc\nPhaïm Hoàng Haûi".encode("latin-1")
    assert "VNI" in message_of(b"id,name\n" + vni)
    assert message_of(b"id,name\na,b\nc,\xff\xff").startswith("3: it is not UTF-8")


def _windows_1258(text: str) -> bytes:
    """Encodes as Vietnamese Windows does: â, ê, ô, ă, ơ, ư, đ as one letter, and the tones behind them."""
    marks = {"\u0300", "\u0301", "\u0303", "\u0309", "\u0323"}
    written = ""
    for letter in text:
        apart = unicodedata.normalize("NFD", letter)
        tone = "".join(mark for mark in apart if mark in marks)
        written += unicodedata.normalize("NFC", "".join(mark for mark in apart if mark not in marks)) + tone
    return written.encode("cp1258")


def test_names_that_were_converted_from_the_wrong_encoding_are_refused() -> None:
    for name in ("TrÇn V¨n §øc", "Ph¹m Hång", "Nguyeãn Thò Mai", "Traàn Vaên Ñöùc", "Phaïm Hoøa"):
        assert faults(f"mai,{name},commune,,,,") == [(2, "name")], name
    for name in ("Hoàng Trịnh Đôn", "Quách Thoại Mỹ", "Toán Xoã", "Loïc Jørgensen", "Bạch Hoà Khoái", "Phượng Huyền"):
        assert faults(f"mai,{name},commune,,,,") == [], name


def test_a_list_of_100000_lines_is_one_fault() -> None:
    content = "\n".join([HEAD, *(f"s-{number},N,c,,,," for number in range(100_000))]).encode()
    assert "100,000" in message_of(content)
    most = "\n".join([HEAD, *(f"s-{number},N {number},c,,,," for number in range(MOST_LINES)), ""])
    found = read_signer_list(most.encode())
    assert (len(found.signers), found.faults) == (MOST_LINES, ())


def test_a_list_says_at_most_so_many_faults() -> None:
    found = read(*("Mai,,,,,," for _ in range(MOST_FAULTS)))
    assert len(found.faults) == MOST_FAULTS


def test_an_empty_list_is_a_fault() -> None:
    for content in (b"", b"\xef\xbb\xbf", b"\n\n", HEAD.encode(), f"{HEAD}\n,,,,,,\n\n".encode()):
        assert message_of(content)


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
def test_no_bytes_raise(content: bytes) -> None:
    for head in (b"", b"id,name,organization\n", b"id;name;organization;phone\n"):
        found = read_signer_list(head + content)
        assert found.signers or found.faults
        for signer in found.signers:
            assert signer.display_name == unicodedata.normalize("NFC", signer.display_name)
            assert signer.display_name[0] not in "=+-@"
            assert signer.display_name.isprintable()


_IDS = st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=20)
_NAMES = st.text("aăâbcdđeêghiklmnoôơpqrstuưvxyáàảãạ ,;\"'", min_size=1, max_size=40).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(_IDS, _NAMES, min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    st.sampled_from(["NFC", "NFD"]),
    st.booleans(),
)
def test_what_a_spreadsheet_writes_is_read_back(
    people: dict[str, str], end: str, quoting: int, form: str, mark: bool
) -> None:
    people = {
        key: name for key, name in people.items() if not read(f'{key},"{name.replace(chr(34), "")}",c,,,,').faults
    }
    written = io.StringIO()
    writer = csv.writer(written, lineterminator=end, quoting=quoting)  # type: ignore[arg-type]
    writer.writerow(["id", "name", "organization", "position"])
    for key, name in people.items():
        writer.writerow([key, unicodedata.normalize(form, name), "c", key])
    found = read_signer_list(("\ufeff" if mark else "").encode() + written.getvalue().encode())
    good = {signer.id: signer.display_name for signer in found.signers}
    assert not people or good == {key: unicodedata.normalize("NFC", name) for key, name in people.items()}


@pytest.mark.slow
@settings(max_examples=5000, deadline=None)
@given(st.lists(st.sampled_from([*',;"\r\n=+-@', "\x00", "id", "name", "organization", "mai", "Mai", "\ufeff", "ễ"])))
def test_no_arrangement_of_what_lists_are_made_of_raises(parts: list[str]) -> None:
    for head in ("", "id,name,organization\n"):
        found = read_signer_list((head + "".join(parts)).encode())
        assert found.signers or found.faults
