"""The texts by which a person is told of what concerns the person: ours, in plain words.

No link is in them, so that nobody learns to follow one, but for the one that begins an enrolment: it is the way to
the page, and whoever asked for the enrolment knows that it comes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum

from trien_server.core.delivered_text import Language
from trien_server.core.ports import DeliveredText
from trien_server.core.quoting import quotable
from trien_server.core.records import AuthenticatorKind
from trien_server.core.secret import Secret

_LONGEST_SERVICE = 40
_LONGEST_NAME = 63
_LONGEST_APPLICATION = 32


class Telling(StrEnum):
    """What a person is told."""

    ENROLMENT_AGREED = "enrolment-agreed"
    ENROLLED = "enrolled"
    AUTHENTICATOR_CREATED = "authenticator-created"
    AUTHENTICATOR_DISABLED = "authenticator-disabled"
    ADDRESSES_CHANGED = "addresses-changed"
    FROZEN = "frozen"
    NOTICES_ON = "notices-on"
    NOTICES_OFF = "notices-off"


@dataclass(frozen=True, kw_only=True)
class _Words:
    subject: str
    link: str
    code: str
    signed: str
    told: dict[Telling, str]


_WORDS = {
    Language.VIETNAMESE: _Words(
        subject="{service}: thông báo",
        link=(
            "{service}: mời Quý vị đăng ký ứng dụng tạo mã ký tại {link} (dùng được một lần, đến {until})."
            " Vui lòng không chuyển tiếp tin này."
        ),
        code=(
            "{service}: mã đăng ký ứng dụng tạo mã ký của Quý vị là {code} (dùng được một lần, đến {until})."
            " Vui lòng không chuyển tiếp tin này."
        ),
        signed=(
            "{service}: lúc {time}, {credential} đã ký {count} văn bản do {client} gửi."
            " Số đối chiếu: {fingerprint}."
            " Nếu không phải Quý vị, hãy khóa chữ ký và báo ngay cho cán bộ phụ trách."
        ),
        told={
            Telling.ENROLMENT_AGREED: (
                "{service}: hai cán bộ đã cho phép đăng ký ứng dụng tạo mã ký {authenticator} cho Quý vị,"
                " từ {start}."
                " Nếu Quý vị không yêu cầu, hãy khóa chữ ký (trien signers freeze) và báo ngay cho cán bộ phụ trách."
            ),
            Telling.ENROLLED: (
                "{service}: ứng dụng tạo mã ký {authenticator} của Quý vị đã có hiệu lực."
                " Nếu không phải Quý vị, hãy báo ngay cho cán bộ phụ trách để khóa chữ ký."
            ),
            Telling.AUTHENTICATOR_CREATED: (
                "{service}: từ nay mã ký của Quý vị có thể được gửi đến một địa chỉ mới ({authenticator})."
                " Nếu Quý vị không yêu cầu, hãy khóa chữ ký (trien signers freeze) và báo ngay cho cán bộ phụ trách."
            ),
            Telling.AUTHENTICATOR_DISABLED: (
                "{service}: {authenticator} của Quý vị không còn dùng để ký được nữa."
                " Nếu Quý vị không yêu cầu, hãy hỏi cán bộ phụ trách."
            ),
            Telling.ADDRESSES_CHANGED: (
                "{service}: các địa chỉ nhận thông báo của Quý vị đã được thay đổi."
                " Nếu Quý vị không yêu cầu, hãy khóa chữ ký (trien signers freeze) và báo ngay cho cán bộ phụ trách."
            ),
            Telling.FROZEN: (
                "{service}: chữ ký của Quý vị đã bị khóa bằng mã của chính Quý vị."
                " Chỉ hai cán bộ cùng đồng ý mới mở lại được."
            ),
            Telling.NOTICES_ON: "{service}: từ nay Quý vị được báo về mỗi lần ký.",
            Telling.NOTICES_OFF: "{service}: từ nay Quý vị không được báo về mỗi lần ký nữa.",
        },
    ),
    Language.ENGLISH: _Words(
        subject="{service}: notice",
        link=(
            "{service}: please set up the app that makes your signing codes at {link} (once, until {until})."
            " Please do not pass this message on."
        ),
        code=(
            "{service}: the code to set up the app that makes your signing codes is {code} (once, until {until})."
            " Please do not pass this message on."
        ),
        signed=(
            "{service}: at {time} {credential} signed {count} document(s) sent by {client}. Compare: {fingerprint}."
            " If this was not you, freeze your signature and tell your officer at once."
        ),
        told={
            Telling.ENROLMENT_AGREED: (
                "{service}: two officers agreed that you may set up {authenticator} to make signing codes, from {start}"
                " on. If you did not ask for it, freeze your signature (trien signers freeze) and tell your officer"
                " at once."
            ),
            Telling.ENROLLED: (
                "{service}: {authenticator} now makes your signing codes."
                " If this was not you, tell your officer at once to stop your signature."
            ),
            Telling.AUTHENTICATOR_CREATED: (
                "{service}: your signing codes can now be sent to another address ({authenticator})."
                " If you did not ask for it, freeze your signature (trien signers freeze) and tell your officer at"
                " once."
            ),
            Telling.AUTHENTICATOR_DISABLED: (
                "{service}: {authenticator} no longer makes codes for your signature."
                " If you did not ask for it, ask your officer."
            ),
            Telling.ADDRESSES_CHANGED: (
                "{service}: the addresses at which you are told such things were changed."
                " If you did not ask for it, freeze your signature (trien signers freeze) and tell your officer at"
                " once."
            ),
            Telling.FROZEN: (
                "{service}: your signature was frozen by a code of your own. Only two officers together can undo it."
            ),
            Telling.NOTICES_ON: "{service}: from now on you are told of each signature.",
            Telling.NOTICES_OFF: "{service}: from now on you are no longer told of each signature.",
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class NoticeTexts:
    """Writes the texts of one installation: its name, its language and time zone, and where its enrolment page is."""

    service: str
    language: Language
    public_url: str | None = None
    zone: tzinfo = UTC

    def enrolment(self, kind: AuthenticatorKind, *, code: Secret, until: datetime) -> DeliveredText:
        """Returns the text with an enrolment code: as a link to the page, or alone where there is none."""
        words = _WORDS[self.language]
        shown = {"service": self._service, "until": self._time(until)}
        if self.public_url is None:
            return self._text(kind, words.code.format(code=code.reveal().decode(), **shown))
        bare = code.reveal().decode().removeprefix("trien-enrol-").replace("-", "")
        return self._text(kind, words.link.format(link=f"{self.public_url}/enrol/{bare}", **shown))

    def signed(
        self, kind: AuthenticatorKind, *, credential: str, client: str, count: int, fingerprint: str, at: datetime
    ) -> DeliveredText:
        """Returns the text about a signature; `credential` and `client` are resource names."""
        return self._text(
            kind,
            _WORDS[self.language].signed.format(
                service=self._service,
                credential=_id(credential),
                client=quotable(_id(client), longest=_LONGEST_APPLICATION) or "?",
                count=count,
                fingerprint=" ".join(fingerprint[begin : begin + 4] for begin in range(0, len(fingerprint), 4)),
                time=self._time(at),
            ),
        )

    def told(
        self, kind: AuthenticatorKind, what: Telling, *, authenticator: str = "", start: datetime | None = None
    ) -> DeliveredText:
        """Returns the text that tells a person of something; `authenticator` is a resource name."""
        begins = "" if start is None else self._time(start)
        words = _WORDS[self.language].told[what]
        body = words.format(service=self._service, authenticator=_id(authenticator), start=begins)
        return self._text(kind, body)

    def _time(self, at: datetime) -> str:
        """Returns a time with the zone's offset: `2026-11-24 22:51 +07:00`."""
        local = at.astimezone(self.zone)
        return f"{local:%Y-%m-%d %H:%M} {local:%z}"[:-2] + ":" + f"{local:%z}"[-2:]

    @property
    def _service(self) -> str:
        return quotable(self.service, longest=_LONGEST_SERVICE) or "Trien"

    def _text(self, kind: AuthenticatorKind, body: str) -> DeliveredText:
        subject = _WORDS[self.language].subject.format(service=self._service)
        return DeliveredText(subject=subject if kind is AuthenticatorKind.EMAIL else "", body=Secret(body.encode()))


def _id(name: str) -> str:
    """Returns the last part of a resource name: lower-case letters, digits and hyphens, which make no link."""
    return name.rpartition("/")[2][:_LONGEST_NAME]
