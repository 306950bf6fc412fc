"""What a person reads beside a code: whatever the client calls itself and its documents, the text stays ours."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trien_server.core.delivered_text import LONGEST, Language, delivered_text, trial_text
from trien_server.core.quoting import length, quotable
from trien_server.core.records import AuthenticatorKind
from trien_server.core.secret import Secret

FINGERPRINT = "4f2a 91c3"
# What mail and telephone programs make a link of: a scheme, a domain, an address, a number to call.
LINKS = re.compile(r"\w\.\w|\w:[^\s\"]|://|//|\bwww\.\S|@|\\\\|[。．｡․﹒]\w", re.IGNORECASE)
HOSTILE = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.sampled_from(
            [
                "https://evil.vn/a", "evil.vn", "EVIL.VN", "www.evil.vn", "evil。vn", "evil．vn", "evil｡vn", "evil․vn",
                "a@evil.vn", "a＠evil.vn", "tel:113", "mailto:a", "zalo://x", "ftp:／／x", "\\\\host\\share",
                "123456", "123 456", "12-34-56", "１２３４５６", "①②③④⑤⑥", "¹²³⁴⁵⁶", "१२३४५६", "٠١٢٣٤٥", "0912.345.678",
                '"', "”", "＂", "''", "«x»", "〞", "\u202e", "\u200b", "\u2066", "\u0000", "\r\n", "\u2028", "\x85",
                "אבג", "\u0301" * 9, "a\u0301\u0302\u0303\u0304", "\ufe0f", "\u3164", "🏛", "{code}", "{0}", "%s",
                "Quyết định số 12/2026/QĐ-UBND", "Văn phòng điện tử", "TP.HCM", "…com", "...com",
            ]
        ),
    ),
    max_size=8,
).map("".join)  # fmt: skip


def _body(**changes: object) -> str:
    values: dict[str, object] = {
        "kind": AuthenticatorKind.SMS,
        "code": Secret(b"123456"),
        "client_title": "Văn phòng điện tử",
        "count": 20,
        "fingerprint": FINGERPRINT,
        "title": "",
        "service": "Trien",
    }
    return delivered_text(**(values | changes)).body.reveal().decode()  # type: ignore[arg-type]


@given(
    title=HOSTILE,
    client=HOSTILE,
    code=st.from_regex(r"[0-9]{6,8}", fullmatch=True),
    count=st.integers(1, 100),
    language=st.sampled_from(Language),
    kind=st.sampled_from([AuthenticatorKind.SMS, AuthenticatorKind.EMAIL]),
)
def test_whatever_the_client_calls_it_the_text_stays_ours(
    title: str, client: str, code: str, count: int, language: Language, kind: AuthenticatorKind
) -> None:
    text = delivered_text(
        kind=kind,
        code=Secret(code.encode()),
        client_title=client,
        count=count,
        fingerprint=FINGERPRINT,
        title=title,
        service=client,
        language=language,
    )
    body = text.body.reveal().decode()
    assert body.startswith(f"{code} ")
    assert body.count(code) == 1
    assert FINGERPRINT in body.rpartition('"')[2]
    assert length(body) <= LONGEST == 201
    for line in (body, text.subject):
        assert line.splitlines() == [line][: len(line)]
        assert LINKS.search(line) is None, line
        assert unicodedata.is_normalized("NFC", line)
        assert {unicodedata.category(character) for character in line} & {"Cc", "Cf", "Cs", "Zl", "Zp"} == set()
        assert {unicodedata.bidirectional(character) for character in line} & {"R", "AL", "AN"} == set()
    assert code not in text.subject
    # Each quotation ends where ours ends: nothing in it looks like a quotation mark.
    assert body.count('"') in {0, 2, 4}
    assert not set("”“„«»″＂〝〞〟") & set(body)
    # No number in a quotation could pass for a code.
    for quoted in re.findall(r'"([^"]*)"', body):
        numbers = re.findall(r"\d(?:[ .,'+–—-]*\d){3,}", quoted)
        assert [number for number in numbers if not re.fullmatch(r"(19|20)\d\d", number)] == []


@given(words=HOSTILE, longest=st.integers(1, 80))
def test_what_can_be_quoted_stays_as_it_is_when_it_is_quoted_again(words: str, longest: int) -> None:
    quoted = quotable(words, longest=longest)
    assert length(quoted) <= longest
    whole = quotable(words, longest=10_000)
    assert quotable(whole, longest=10_000) == whole


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("Văn phòng điện tử", "Văn phòng điện tử"),
        (unicodedata.normalize("NFD", "Quyết định số 12/2026/QĐ-UBND"), "Quyết định số 12/2026/QĐ-UBND"),
        ("Nghị quyết ngày 24/11/2026 (dự thảo)", "Nghị quyết ngày 24/11/2026 (dự thảo)"),
        ("UBND TP.HCM", "UBND TP. HCM"),
        ("xem https://evil.vn/a", "xem https: /evil. vn/a"),
        ("a@evil.vn", "a evil. vn"),
        ("mã 123 456 của bạn", "mã … của bạn"),
        ("mã １２３４", "mã …"),
        ('x" do "Chủ tịch', "x do Chủ tịch"),
        ("trái\u202etừ phải", "trái từ phải"),
        ("ភាសាខ្មែរ", "ភាសាខ្មែរ"),
        ("🏛 \u200b", ""),
        ("— …", ""),
    ],
)
def test_a_title_is_quoted_as_people_write_it_without_what_misleads(words: str, shown: str) -> None:
    assert quotable(words, longest=100) == shown


def test_a_long_title_is_cut_between_letters() -> None:
    title = "Quyết định về việc thu hồi đất để xây dựng trường tiểu học xã Phú Lâm năm học 2026"
    assert quotable(title, longest=30) == "Quyết định về việc thu hồi đấ…"
    assert quotable("𠀀" * 20, longest=11) == "𠀀" * 5 + "…"
    assert length(quotable("𠀀" * 20, longest=10)) == 9


def test_the_text_in_vietnamese_and_in_english() -> None:
    assert _body() == (
        '123456 là mã ký 20 văn bản, do "Văn phòng điện tử" gửi. Số đối chiếu: 4f2a 91c3. '
        "Vui lòng không cho ai biết mã này."
    )
    assert _body(count=1, title="Tờ trình số 5/TTr-UBND") == (
        '123456 là mã ký 1 văn bản "Tờ trình số 5/TTr-UBND", do "Văn phòng điện tử" gửi. Số đối chiếu: 4f2a 91c3. '
        "Vui lòng không cho ai biết mã này."
    )
    assert _body(language=Language.ENGLISH, count=1) == (
        '123456 is the code to sign 1 document, sent by "Văn phòng điện tử". Compare: 4f2a 91c3. '
        "Please tell nobody this code."
    )
    assert "do một ứng dụng gửi" in _body(client_title="🏛")


def test_a_mail_has_a_subject_without_the_code_and_a_short_message_has_none() -> None:
    values = {"code": Secret(b"123456"), "client_title": "x", "count": 2, "fingerprint": FINGERPRINT, "title": ""}
    mail = delivered_text(kind=AuthenticatorKind.EMAIL, service="Ký số huyện", **values)  # type: ignore[arg-type]
    message = delivered_text(kind=AuthenticatorKind.SMS, service="Ký số huyện", **values)  # type: ignore[arg-type]
    assert mail.subject == "Ký số huyện: mã ký văn bản"
    assert message.subject == ""
    assert mail.body == message.body
    assert "123456" not in repr(mail)


@pytest.mark.parametrize("language", Language)
def test_a_test_message_says_so_and_has_no_code(language: Language) -> None:
    text = trial_text(kind=AuthenticatorKind.EMAIL, service="Trien", language=language)
    body = text.body.reveal().decode()
    assert ("thử" if language is Language.VIETNAMESE else "test message") in body
    assert re.search(r"\d", body) is None
    assert text.subject.startswith("Trien: ")
