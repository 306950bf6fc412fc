"""The enrolment page: plain HTML without scripts, for narrow screens, old browsers and screen readers."""

import base64
import hashlib
import io
import re
from dataclasses import dataclass
from datetime import datetime, tzinfo
from html import escape
from urllib.parse import parse_qs, urlsplit

import segno

from trien_server.core.delivered_text import Language
from trien_server.core.records import Enrolment
from trien_server.core.secret import Secret
from trien_server.services.enrolling import BegunEnrolment
from trien_server.web.words import WORDS, Words

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --ground: #f5f6f8; --card: #fff; --line: #c9ced8; --soft: #505b6b;
  --act: #0b5cad; --bad: #a3191e; --badground: #fdecec; --good: #14683a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8ebf0; --ground: #14181f; --card: #1d232d; --line: #3d4656;
  --soft: #b3bccb; --act: #6db3f8; --bad: #ff9a9d; --badground: #3a1d20; --good: #7ddba5; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1.0625rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 34rem; margin: 0 auto; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .75rem; }
header { max-width: 34rem; margin: 0 auto .75rem; color: var(--soft); font-size: .9375rem; font-weight: 600; }
h1 { margin: 0 0 .75rem; font-size: 1.5rem; line-height: 1.25; }
h2 { margin: 1.5rem 0 .5rem; font-size: 1.0625rem; }
p { margin: 0 0 .75rem; }
.soft { color: var(--soft); font-size: .9375rem; }
.bad { padding: .75rem; border-left: .25rem solid var(--bad); background: var(--badground); color: var(--bad); }
.good { color: var(--good); }
.qr { margin: 0 auto .75rem; padding: .5rem; max-width: 17rem; background: #fff; border-radius: .5rem; }
.qr svg { display: block; width: 100%; height: auto; }
code { display: block; padding: .5rem .75rem; border: 1px dashed var(--line); border-radius: .5rem;
  font-size: 1.0625rem; letter-spacing: .04em; overflow-wrap: anywhere; user-select: all; }
label { display: block; margin: 1.5rem 0 .375rem; font-weight: 600; }
input { width: 100%; padding: .625rem .75rem; border: 2px solid var(--line); border-radius: .5rem; color: inherit;
  background: var(--card); font: inherit; font-size: 1.375rem; letter-spacing: .2em; }
button, a.act { display: block; width: 100%; margin-top: 1rem; padding: .75rem 1rem; border: 2px solid var(--act);
  border-radius: .5rem; background: var(--act); color: var(--card); font: inherit; font-weight: 600; text-align: center;
  text-decoration: none; cursor: pointer; }
a.act { margin-top: .25rem; background: transparent; color: var(--act); }
input:focus-visible, button:focus-visible, a:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
"""What the content security policy allows: this style sheet and no other."""


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Writes the pages of one installation."""

    service: str
    zone: tzinfo

    def start(self, language: Language, enrolment: Enrolment, *, waits: bool, fault: str = "") -> str:
        """Returns the page with one button: opening it begins nothing."""
        words = WORDS[language]
        if not waits:
            form = f"{_paragraph(words.before)}{_paragraph(words.once)}{_form('begin', words.begin)}"
        else:
            waiting = words.waits.format(time=self._time(enrolment.start_time))
            field = _code_field(words.waits_code, _hint(words, "6–8"), fault=fault)
            form = f"{_paragraph(waiting)}{_form('begin', words.begin_now, field)}"
        return self._page(language, words.title, f"{_paragraph(words.lead)}{_fault(fault)}{form}")

    def secret(self, language: Language, begun: BegunEnrolment) -> str:
        """Returns the page with the new secret, which is shown once, and the form for the first code."""
        words = WORDS[language]
        uri = begun.uri.reveal().decode()
        question = "" if begun.question is None else begun.question.hex()
        asked = f"<h2>{escape(words.question)}</h2><code>{question}</code>" if question else ""
        body = (
            f"<h2>{escape(words.scan)}</h2>{_qr(begun.uri, words.qr)}"
            f'<p class="soft">{escape(words.here)}</p><a class="act" href="{escape(uri)}">{escape(words.open_app)}</a>'
            f"<h2>{escape(words.type_secret)}</h2><code>{escape(_grouped(uri))}</code>{asked}"
            f"{self._confirmation(words, begun.enrolment)}"
        )
        return self._page(language, words.title, body)

    def confirmation(self, language: Language, enrolment: Enrolment, *, fault: str = "") -> str:
        """Returns the form for the first code without the secret, which is not shown again."""
        words = WORDS[language]
        told = _fault(fault) if fault else _paragraph(words.begun_before)
        return self._page(language, words.title, f"{told}{self._confirmation(words, enrolment, fault=fault)}")

    def done(self, language: Language) -> str:
        """Returns the page at the end."""
        words = WORDS[language]
        return self._page(language, words.done, f'<p class="good">{escape(words.done_lead)}</p>')

    def fault(self, language: Language, message: str) -> str:
        """Returns a page that says what is wrong."""
        words = WORDS[language]
        return self._page(language, words.title, f"{_fault(message)}{_paragraph(words.what_to_do)}")

    def _confirmation(self, words: Words, enrolment: Enrolment, *, fault: str = "") -> str:
        field = _code_field(words.first_code, _hint(words, str(enrolment.digits)), fault=fault)
        return _form("confirm", words.confirm, field)

    def _page(self, language: Language, title: str, body: str) -> str:
        return (
            f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="robots" content="noindex">\n<link rel="icon" href="data:,">\n'
            f"<title>{escape(title)} – {escape(self.service)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
            f"<header>{escape(self.service)}</header>\n<main>\n<h1>{escape(title)}</h1>\n{body}\n</main>\n"
            "</body>\n</html>\n"
        )

    def _time(self, at: datetime) -> str:
        local = at.astimezone(self.zone)
        return f"{local:%H:%M, %d/%m/%Y}"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>\n"


def _fault(message: str) -> str:
    return f'<p class="bad" role="alert" id="fault">{escape(message)}</p>\n' if message else ""


def _hint(words: Words, digits: str) -> str:
    return words.first_code_hint.format(digits=digits)


def _form(act: str, button: str, fields: str = "") -> str:
    return (
        f'<form method="post" autocomplete="off"><input type="hidden" name="act" value="{act}">{fields}'
        f'<button type="submit">{escape(button)}</button></form>\n'
    )


def _code_field(label: str, hint: str, *, fault: str) -> str:
    described = ' aria-invalid="true" aria-describedby="fault"' if fault else ' aria-describedby="hint"'
    return (
        f'<label for="code">{escape(label)}</label><p class="soft" id="hint">{escape(hint)}</p>'
        '<input id="code" name="code" type="text" inputmode="numeric" autocomplete="one-time-code" pattern="[0-9]{6,8}"'
        f' maxlength="8" required{described}>'
    )


def _qr(uri: Secret, description: str) -> str:
    """Returns the QR code as SVG inside the page, dark on light whatever the page's colours are."""
    buffer = io.BytesIO()
    segno.make_qr(uri.reveal().decode(), error="m", boost_error=False).save(
        buffer, kind="svg", xmldecl=False, svgns=False, omitsize=True, dark="#000", light="#fff", border=4
    )
    drawn = buffer.getvalue().decode().strip()
    named = re.sub(r"^<svg", f'<svg role="img" aria-label="{escape(description)}"', drawn, count=1)
    return f'<div class="qr">{named}</div>\n'


def _grouped(uri: str) -> str:
    """Returns the secret of an `otpauth` URI in groups of four, for people who type it."""
    secret = parse_qs(urlsplit(uri).query)["secret"][0].rstrip("=")
    return " ".join(secret[begin : begin + 4] for begin in range(0, len(secret), 4))
