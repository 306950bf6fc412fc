"""The HTTP application without a server: where it sends nobody, and whom it lets in."""

import asyncio
from collections.abc import MutableMapping
from datetime import UTC
from typing import Any, cast

import pytest
from tests.fakes.clock import ManualClock

from trien_server.core.delivered_text import Language
from trien_server.core.secret import Secret
from trien_server.web.app import WebApp
from trien_server.web.enrolment import Answer, Asked, EnrolmentPage
from trien_server.web.pages import Pages
from trien_server.web.rates import MOST_OF_ALL, MOST_OF_ONE, Rates, network_of


class OnePage:
    """Answers whatever is asked."""

    def show(self, _: Asked) -> Answer:
        return Answer(status=200, page="shown", outcome="OK")

    def fault(self, _: Language, status: int, message: str, outcome: str) -> Answer:
        return Answer(status=status, page=message, outcome=outcome)


def get(path: str, *, host: str) -> tuple[int, dict[bytes, bytes]]:
    """Returns status and headers of the answer to a GET."""
    clock = ManualClock()
    app = WebApp(
        page=cast(EnrolmentPage, OnePage()),
        rates=Rates(clock=clock),
        clock=clock,
        language=Language.ENGLISH,
        log=lambda **_: None,
    ).build()
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", host.encode())],
        "client": ("192.0.2.1", 50000),
        "server": ("sign.example", 443),
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


@pytest.mark.promise("P11")
@pytest.mark.parametrize("path", ["/enrol/abc/", "/livez/", "/enrol", "/enrol/", "//elsewhere.example/", "/enrol/a/b"])
def test_no_request_is_sent_elsewhere_and_every_answer_has_the_headers(path: str) -> None:
    status, headers = get(path, host="elsewhere.example")
    assert status == 404
    assert b"location" not in headers
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"referrer-policy"] == b"no-referrer"


def test_the_page_itself_is_shown() -> None:
    assert get("/enrol/abc", host="sign.example")[0] == 200


def test_a_form_with_more_fields_than_ours_is_no_fault_of_the_server() -> None:
    nothing = cast(Any, None)
    page = EnrolmentPage(
        authenticate=nothing,
        open_=nothing,
        begin=nothing,
        confirm=nothing,
        pages=Pages(service="Test", zone=UTC),
        clock=ManualClock(),
    )
    asked = Asked(code=Secret(b"abc"), language=Language.ENGLISH, confirmation_key=None)
    for body in (b"&".join([b"act=begin"] * 100), b"act=", b"\xff"):
        assert page.act(asked, body).status == 400


def test_of_an_ipv6_network_all_addresses_are_one_caller() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")


def test_one_address_takes_no_place_of_the_others() -> None:
    rates = Rates(clock=ManualClock())
    allowed = sum(rates.allows("192.0.2.1") for _ in range(2 * MOST_OF_ALL))
    assert allowed == MOST_OF_ONE
    others = [f"198.51.{number // 250}.{number % 250}" for number in range(MOST_OF_ALL)]
    assert sum(rates.allows(address) for address in others) == MOST_OF_ALL - MOST_OF_ONE
