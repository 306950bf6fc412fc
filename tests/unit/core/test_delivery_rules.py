"""How many codes may be sent, and where to."""

from datetime import UTC, datetime, timedelta

import pytest

from trien_server.core.delivery_addresses import masked, parse_address
from trien_server.core.delivery_limits import (
    MOST_BY_CLIENT,
    MOST_TO_SIGNER,
    MOST_TO_SIGNER_BY_CLIENT,
    SHORTEST_PAUSE,
    after_delivery,
    assert_pause,
    delivery_count_name,
)
from trien_server.core.errors import DeliveryLimitReached, InvalidArgument
from trien_server.core.records import AuthenticatorKind, DeliveryCount

AT = datetime(2026, 11, 24, 23, 0, tzinfo=UTC)


def test_the_limits_are_the_documented_ones() -> None:
    assert (MOST_TO_SIGNER, MOST_TO_SIGNER_BY_CLIENT, MOST_BY_CLIENT) == (30, 15, 1_000)
    assert timedelta(seconds=30) == SHORTEST_PAUSE


def test_counts_have_names_that_cannot_be_confused() -> None:
    names = {
        delivery_count_name(at, **of)
        for at in (AT, AT + timedelta(days=1))
        for of in ({"signer": "signers/a"}, {"client": "clients/a"}, {"signer": "signers/a", "client": "clients/a"})
    }
    assert len(names) == 6
    assert "signers/a/clients/a/deliveries/2026-11-24" in names


@pytest.mark.parametrize("most", [1, 2, 30])
def test_a_day_has_so_many_and_says_when_the_next_day_begins(most: int) -> None:
    count: DeliveryCount | None = None
    for sent in range(1, most + 1):
        count = after_delivery(count, name="n", most=most, at=AT)
        assert (count.sent, count.version, count.day) == (sent, sent, "2026-11-24")
    with pytest.raises(DeliveryLimitReached) as refused:
        after_delivery(count, name="n", most=most, at=AT + timedelta(minutes=1))
    assert refused.value.retry_after == timedelta(minutes=59)


def test_a_pause_is_kept_after_each() -> None:
    last = after_delivery(None, name="n", most=30, at=AT)
    assert_pause(None, at=AT)
    assert_pause(last, at=AT + SHORTEST_PAUSE)
    with pytest.raises(DeliveryLimitReached) as refused:
        assert_pause(last, at=AT + SHORTEST_PAUSE - timedelta(seconds=1))
    assert refused.value.retry_after == timedelta(seconds=1)


@pytest.mark.parametrize("number", ["+84912345678", "+1234567", "+123456789012345"])
def test_a_telephone_number_of_e164_is_taken(number: str) -> None:
    assert parse_address(AuthenticatorKind.SMS, number, field="f") == number


@pytest.mark.parametrize(
    "number",
    [
        "",
        "0912345678",
        "84912345678",
        "+0912345678",
        "+84 912 345 678",
        "+123456",
        "+1234567890123456",
        "+8491234567\n",
        "+84٠١٢٣٤٥٦",
        "+84912345678,+84912345679",
    ],
)
def test_any_other_number_is_refused(number: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_address(AuthenticatorKind.SMS, number, field="f")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a@example.vn", "a@example.vn"),
        ("Hoang.Don+duyet@PhuLam.Example", "Hoang.Don+duyet@phulam.example"),
        ("a@bücher.example", "a@xn--bcher-kva.example"),
    ],
)
def test_a_mail_address_is_taken_with_its_domain_in_ascii(given: str, kept: str) -> None:
    assert parse_address(AuthenticatorKind.EMAIL, given, field="f") == kept


@pytest.mark.parametrize(
    "address",
    [
        "",
        "a",
        "@example.vn",
        "a@",
        "a@localhost",
        "a@example..vn",
        "a@-example.vn",
        "a@example.vn\r\nBcc: b@example.vn",
        "a\r\n@example.vn",
        "a@example.vn,b@example.vn",
        "a@example.vn;b@example.vn",
        "a b@example.vn",
        "a@example.vn ",
        "<a@example.vn>",
        "A <a@example.vn>",
        '"a\\"b"@example.vn',
        "a@b@example.vn",
        "a.@example.vn",
        "a..b@example.vn",
        "hoàng@example.vn",
        "a@[127.0.0.1]",
        "a@exa\u202emple.vn",
        "a@example.vn\x00",
        "x" * 65 + "@example.vn",
        "a@" + "x" * 64 + ".vn",
        "a@" + ".".join(["x" * 60] * 5),
    ],
)
def test_anything_but_one_plain_mail_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_address(AuthenticatorKind.EMAIL, address, field="authenticator.address")
    assert refused.value.field == "authenticator.address"


@pytest.mark.parametrize("kind", [AuthenticatorKind.TOTP, AuthenticatorKind.HOTP, AuthenticatorKind.OCRA])
def test_other_kinds_have_no_address(kind: AuthenticatorKind) -> None:
    assert parse_address(kind, "", field="f") == ""
    with pytest.raises(InvalidArgument):
        parse_address(kind, "+84912345678", field="f")


def test_most_of_an_address_is_hidden() -> None:
    assert masked("+84912345678") == "•••••••••678"
    assert masked("hoang.don@example.vn") == masked("h@example.vn").replace("•••@", "h•••@", 1) == "h•••@example.vn"
