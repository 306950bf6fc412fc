"""The text that a person gets with a one-time password: ours, on one line, with the client's words quoted.

The code comes first, so that it is seen on a locked screen; then how many documents, whose request it is, and the short
fingerprint that the application shows too. There is no link in it, so that nobody learns to follow one.
"""

from dataclasses import dataclass
from enum import StrEnum

from trien_server.core.ports import DeliveredText
from trien_server.core.quoting import quotable
from trien_server.core.records import AuthenticatorKind
from trien_server.core.secret import Secret

SEGMENTS = 3
LONGEST = SEGMENTS * 67
"""UTF-16 code units: a short message of several segments has 67 in each (70 when there is one; 3GPP TS 23.040)."""
_LONGEST_CLIENT = 32
_LONGEST_TITLE = 60
_LONGEST_SERVICE = 40


class Language(StrEnum):
    """The language of delivered texts."""

    VIETNAMESE = "vi"
    ENGLISH = "en"


@dataclass(frozen=True, kw_only=True)
class _Words:
    one: str
    many: str
    titled: str
    by_client: str
    by_unnamed: str
    body: str
    subject: str
    test_body: str
    test_subject: str


_WORDS = {
    Language.VIETNAMESE: _Words(
        one="1 văn bản",
        many="{count} văn bản",
        titled='{documents} "{title}"',
        by_client='do "{client}" gửi',
        by_unnamed="do một ứng dụng gửi",
        body="{code} là mã ký {documents}, {sender}. Số đối chiếu: {fingerprint}. Vui lòng không cho ai biết mã này.",
        subject="{service}: mã ký văn bản",
        test_body="Đây là tin nhắn thử của {service}, không có mã nào. Quý vị không cần làm gì.",
        test_subject="{service}: tin nhắn thử",
    ),
    Language.ENGLISH: _Words(
        one="1 document",
        many="{count} documents",
        titled='{documents} "{title}"',
        by_client='sent by "{client}"',
        by_unnamed="sent by an application",
        body="{code} is the code to sign {documents}, {sender}. Compare: {fingerprint}. Please tell nobody this code.",
        subject="{service}: code to sign documents",
        test_body="This is a test message of {service}, with no code. There is nothing to do.",
        test_subject="{service}: test message",
    ),
}


def delivered_text(
    *,
    kind: AuthenticatorKind,
    code: Secret,
    client_title: str,
    count: int,
    fingerprint: str,
    title: str,
    service: str,
    language: Language = Language.VIETNAMESE,
) -> DeliveredText:
    """Returns the text for a code that signs `count` documents, all of the client's `title` where it is not empty.

    `client_title` and `title` may be any text: what cannot be quoted is left out (`core.quoting`). The body has at
    most three segments of a short message. The subject is for mail alone, and does not have the code.
    """
    words = _WORDS[language]
    documents = words.one if count == 1 else words.many.format(count=count)
    quoted = quotable(title, longest=_LONGEST_TITLE)
    if quoted:
        documents = words.titled.format(documents=documents, title=quoted)
    client = quotable(client_title, longest=_LONGEST_CLIENT)
    sender = words.by_client.format(client=client) if client else words.by_unnamed
    body = words.body.format(
        code=code.reveal().decode("ascii"), documents=documents, sender=sender, fingerprint=fingerprint
    )
    return _text(kind, subject=words.subject, service=service, body=body)


def trial_text(*, kind: AuthenticatorKind, service: str, language: Language) -> DeliveredText:
    """Returns a text that says it is a test, for an operator who tries the configuration."""
    words = _WORDS[language]
    body = words.test_body.format(service=_shown(service))
    return _text(kind, subject=words.test_subject, service=service, body=body)


def _text(kind: AuthenticatorKind, *, subject: str, service: str, body: str) -> DeliveredText:
    shown = subject.format(service=_shown(service)) if kind is AuthenticatorKind.EMAIL else ""
    return DeliveredText(subject=shown, body=Secret(body.encode()))


def _shown(service: str) -> str:
    return quotable(service, longest=_LONGEST_SERVICE) or "Trien"
