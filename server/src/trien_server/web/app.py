"""The HTTP application: its two pages, the headers that all answers have, and one log line a request."""

import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from trien_server.core.delivered_text import Language
from trien_server.core.ports import Clock
from trien_server.core.secret import Secret
from trien_server.web.enrolment import Answer, Asked, EnrolmentPage
from trien_server.web.pages import STYLE_HASH
from trien_server.web.rates import Rates
from trien_server.web.words import WORDS, language_of

COOKIE = "__Secure-trien-confirmation"
_COOKIE_SECONDS = 3600
_LARGEST_BODY = 2_000
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class RequestLog(Protocol):
    """Writes one line a request: never its path, which holds the code, nor its body (P12)."""

    def __call__(self, *, event: str, **fields: str | float | None) -> None: ...


@dataclass(frozen=True, kw_only=True)
class WebApp:
    """Answers requests. What it calls blocks, so it runs in threads."""

    page: EnrolmentPage
    rates: Rates
    clock: Clock
    language: Language
    log: RequestLog

    def build(self) -> Starlette:
        """Returns the ASGI application."""
        routes = [
            Route("/enrol/{code}", self._observed("enrol", self._enrol), methods=["GET", "POST"]),
            Route("/livez", _livez, methods=["GET"]),
        ]
        app = Starlette(routes=routes, exception_handlers={404: self._nowhere, 405: self._nowhere})
        # A redirection would go to whatever host the request names, with the code, and before anything is counted.
        app.router.redirect_slashes = False
        return app

    def _observed(
        self, name: str, handle: Callable[[Request], Awaitable[Answer]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            begun = self.clock.monotonic()
            where = None
            try:
                answer = await handle(request)
            except ClientDisconnect:
                answer = Answer(status=400, page="", outcome="CANCELLED")
            except Exception as fault:  # noqa: BLE001 - the edge is where everything unforeseen ends
                where = _place(fault)
                language = self._language(request)
                answer = self.page.fault(language, 500, WORDS[language].not_now, "INTERNAL")
            self.log(
                event="web",
                method=f"{request.method} {name}",
                outcome=answer.outcome,
                seconds=round(self.clock.monotonic() - begun, 4),
                fault=where,
            )
            return _response(answer)

        return endpoint

    async def _enrol(self, request: Request) -> Answer:
        language = self._language(request)
        words = WORDS[language]
        address = request.client.host if request.client is not None else ""
        if not self.rates.allows(address):
            return self.page.fault(language, 429, words.busy, "RATE_LIMIT_REACHED")
        key = request.cookies.get(COOKIE)
        asked = Asked(
            code=Secret(_bare(request.path_params["code"])),
            language=language,
            confirmation_key=None if not key else Secret(key.encode("utf-8", "replace")),
        )
        if request.method == "GET" or request.method == "HEAD":
            answer = await run_in_threadpool(self.page.show, asked)
        elif request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            # A page elsewhere must not press the button; old browsers say nothing, and their cookies are strict.
            return self.page.fault(language, 403, words.unknown, "PERMISSION_DENIED")
        else:
            body = await _body(request)
            if body is None:
                return self.page.fault(language, 413, words.not_here, "INVALID_ARGUMENT")
            answer = await run_in_threadpool(self.page.act, asked, body)
        if answer.status == 404:
            self.rates.count_wrong(address)
        return answer

    async def _nowhere(self, request: Request, _: Exception) -> Response:
        language = self._language(request)
        return _response(self.page.fault(language, 404, WORDS[language].not_here, "NOT_FOUND"))

    def _language(self, request: Request) -> Language:
        return language_of(request.headers.get("accept-language", ""), preferred=self.language)


async def _livez(_: Request) -> Response:
    return PlainTextResponse("ok\n", headers=_HEADERS)


async def _body(request: Request) -> bytes | None:
    """Returns the request's body; None when it is larger than any form of ours."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_BODY:
            return None
    return body


def _bare(code: str) -> bytes:
    """Returns a code without its prefix: people may paste the whole one."""
    return code.lower().removeprefix("trien-enrol-").encode("utf-8", "replace")


def _response(answer: Answer) -> Response:
    response = HTMLResponse(answer.page, status_code=answer.status, headers=_HEADERS)
    if answer.confirmation_key is not None or answer.forget:
        response.set_cookie(
            COOKIE,
            "" if answer.confirmation_key is None else answer.confirmation_key.reveal().decode(),
            max_age=0 if answer.confirmation_key is None else _COOKIE_SECONDS,
            path="/enrol",
            secure=True,
            httponly=True,
            samesite="strict",
        )
    return response


def _place(fault: BaseException) -> str:
    """Returns an exception's kind and where it was raised: no message, for it may hold what was sent."""
    frames = traceback.extract_tb(fault.__traceback__)
    where = " < ".join(f"{frame.name}:{frame.lineno}" for frame in reversed(frames[-6:]))
    return f"{type(fault).__module__}.{type(fault).__qualname__} at {where}"
