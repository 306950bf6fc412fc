"""The policy of a credential: hours and kinds are parsed into values that cannot be wrong, and compared exactly."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trien_server.core.errors import InvalidArgument
from trien_server.core.items import MOST_ITEMS
from trien_server.core.policy import MOST_HOURS, Hours, Policy, allowed_kinds
from trien_server.core.records import AuthenticatorKind, RevocationPolicy

HANOI = ZoneInfo("Asia/Ho_Chi_Minh")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MONDAY = datetime(2026, 11, 23, tzinfo=HANOI)


def hours(*alternatives: str) -> Hours:
    return Hours.parse(alternatives, field="hours")


def policy(**changes: object) -> Policy:
    values: dict[str, object] = {
        "max_items": 0,
        "client_collected_otp": True,
        "authenticator_kinds": (),
        "hours": (),
        "revocation_policy": RevocationPolicy.IGNORE,
    }
    return Policy.parse(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("alternative", "within", "without"),
    [
        ("mon-fri 07:00-17:30", "mon 07:00, fri 17:29, wed 12:00", "mon 06:59, fri 17:30, sat 12:00, sun 00:00"),
        ("mon 00:00-24:00", "mon 00:00, mon 23:59", "tue 00:00, sun 23:59"),
        ("sat,sun 08:00-12:00", "sat 08:00, sun 11:59", "fri 09:00, mon 09:00, sat 12:00"),
        ("mon,wed-fri 07:00-08:00", "mon 07:00, wed 07:00, thu 07:59, fri 07:00", "tue 07:00, sat 07:00"),
        ("sun 23:59-24:00", "sun 23:59", "sun 23:58, mon 00:00"),
    ],
)
def test_hours_are_those_of_the_clock_on_the_wall(alternative: str, within: str, without: str) -> None:
    parsed = hours(alternative)
    for expected, moments in ((True, within), (False, without)):
        for moment in moments.split(", "):
            day, _, clock = moment.partition(" ")
            hour, _, minute = clock.partition(":")
            at = MONDAY + timedelta(days=DAYS.index(day), hours=int(hour), minutes=int(minute))
            assert parsed.include(at, HANOI) is expected, moment
            # The same moment, told in another zone.
            assert parsed.include(at.astimezone(UTC), HANOI) is expected, moment
            # Within the minute to its last microsecond.
            assert parsed.include(at + timedelta(seconds=59, microseconds=999_999), HANOI) is expected, moment


def test_no_hours_are_always_and_alternatives_add_up() -> None:
    both = hours("mon-fri 07:00-11:30", "mon-fri 13:00-17:30")
    week = [MONDAY + timedelta(minutes=minute) for minute in range(7 * 24 * 60)]
    assert all(hours().include(at, HANOI) for at in week)
    assert sum(both.include(at, HANOI) for at in week) == 5 * 9 * 60


def test_a_zone_with_summer_time_follows_its_own_clock() -> None:
    berlin, office = ZoneInfo("Europe/Berlin"), hours("sun 02:00-03:00", "mon-fri 07:00-17:30")
    # In winter 07:00 there is 06:00 UTC, in summer 05:00.
    assert office.include(datetime(2026, 1, 5, 6, 0, tzinfo=UTC), berlin)
    assert not office.include(datetime(2026, 1, 5, 5, 59, tzinfo=UTC), berlin)
    assert office.include(datetime(2026, 7, 6, 5, 0, tzinfo=UTC), berlin)
    # On 2026-03-29 no minute from 02:00 to 03:00 comes; on 2026-10-25 each comes twice.
    for day, expected in ((datetime(2026, 3, 29, tzinfo=UTC), 0), (datetime(2026, 10, 25, tzinfo=UTC), 120)):
        assert sum(office.include(day + timedelta(minutes=minute), berlin) for minute in range(1440)) == expected


@pytest.mark.parametrize(
    "alternative",
    [
        "",
        "mon",
        "07:00-17:30",
        "Mon-Fri 07:00-17:30",
        "mon-fri  07:00-17:30",
        "mon-fri 7:00-17:30",
        "mon-fri 07:00",
        "mon-fri 07:00-17:30 ",
        "mon-fri 07:00-17:30\n",
        "mon-fri 07:60-17:30",
        "mon-fri 07:00-24:01",
        "mon-fri 25:00-26:00",
        "mon-fri 17:30-07:00",
        "mon-fri 07:00-07:00",
        "fri-mon 07:00-17:30",
        "mon-wed-fri 07:00-17:30",
        "mon,,fri 07:00-17:30",
        "xyz 07:00-17:30",
        "mon-fri ٠٧:00-17:30",
    ],
)
def test_what_is_no_day_and_hour_is_refused_by_its_position(alternative: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        hours("mon-fri 07:00-17:30", alternative)
    assert refused.value.field == "hours[1]"


def test_there_is_a_bound_on_alternatives() -> None:
    assert hours(*["mon 07:00-08:00"] * MOST_HOURS) == hours("mon 07:00-08:00")
    with pytest.raises(InvalidArgument):
        hours(*["mon 07:00-08:00"] * (MOST_HOURS + 1))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 1439), st.integers(1, 1440)), max_size=6), st.randoms())
def test_within_is_inclusion_minute_by_minute(spans: list[tuple[int, int, int]], chance: random.Random) -> None:
    wanted = [(day, min(a, b), max(a, b)) for day, a, b in spans if a != b]
    texts = [f"{DAYS[day]} {a // 60:02}:{a % 60:02}-{b // 60:02}:{b % 60:02}" for day, a, b in wanted]
    fewer = chance.sample(texts, chance.randint(0, len(texts)))
    minutes = {day * 1440 + minute for day, a, b in wanted for minute in range(a, b)}
    if texts:
        assert hours(*texts).minutes == sum(1 << minute for minute in minutes)
        assert hours(*texts).within(hours())
        assert hours().within(hours(*texts)) == (len(minutes) == 10080)
    if fewer:
        assert hours(*fewer).within(hours(*texts))
        assert hours(*texts).within(hours(*fewer)) == (hours(*texts) == hours(*fewer))


@pytest.mark.parametrize(
    ("before", "after", "finding"),
    [
        ({"max_items": 10}, {"max_items": 11}, "max_items"),
        ({"max_items": 10}, {"max_items": 0}, "max_items"),
        ({"client_collected_otp": False}, {"client_collected_otp": True}, "client_collected_otp_allowed"),
        ({"authenticator_kinds": (AuthenticatorKind.OCRA,)}, {}, "authenticator_kinds"),
        ({"authenticator_kinds": tuple(AuthenticatorKind)}, {}, "authenticator_kinds"),
        (
            {"authenticator_kinds": (AuthenticatorKind.OCRA,)},
            {"authenticator_kinds": (AuthenticatorKind.OCRA, AuthenticatorKind.SMS)},
            "authenticator_kinds",
        ),
        ({"hours": ("mon-fri 07:00-17:30",)}, {"hours": ("mon-fri 07:00-17:31",)}, "hours"),
        ({"hours": ("mon-fri 07:00-17:30",)}, {}, "hours"),
        ({"revocation_policy": RevocationPolicy.REFUSE_REVOKED}, {}, "revocation_policy"),
        (
            {"revocation_policy": RevocationPolicy.REQUIRE_GOOD},
            {"revocation_policy": RevocationPolicy.REFUSE_REVOKED},
            "revocation_policy",
        ),
    ],
)
def test_what_allows_more_is_named(before: dict[str, object], after: dict[str, object], finding: str) -> None:
    looser, stricter = policy(**after), policy(**before)
    (found,) = looser.looser_than(stricter)
    assert found.startswith(f"{finding}: ")
    assert stricter.looser_than(looser) == []
    assert stricter.looser_than(stricter) == []


def test_hours_that_are_written_in_another_way_are_the_same_hours() -> None:
    one = policy(hours=("mon-tue 07:00-12:00", "mon-tue 12:00-17:00"))
    other = policy(hours=("mon 07:00-17:00", "tue 07:00-17:00"))
    assert one.looser_than(other) == other.looser_than(one) == []
    assert policy().looser_than(policy(hours=("mon-sun 00:00-24:00",))) == []


def test_no_kinds_are_all_and_zero_items_are_the_most() -> None:
    assert allowed_kinds(()) == set(AuthenticatorKind)
    assert allowed_kinds(("OCRA",)) == {AuthenticatorKind.OCRA}
    assert policy().max_items == MOST_ITEMS
    for count in (-1, MOST_ITEMS + 1):
        with pytest.raises(InvalidArgument):
            policy(max_items=count)
