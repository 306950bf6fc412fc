"""What one client may take: calls a minute, items at work."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.clock import ManualClock
from tests.support.world import OFFICE, P256, World, digests

from trien_server.core import errors
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import AuditEntry, SignerAttempts
from trien_server.services import client_rates
from trien_server.services.client_rates import ClientRates


def client(*, calls: int = 0, items: int = 0, name: str = "batch") -> Principal:
    return Principal(
        kind=PrincipalKind.CLIENT,
        name=f"clients/{name}",
        authenticated_by=AuthenticatedBy.BEARER_TOKEN,
        calls_per_minute=calls,
        concurrent_items=items,
    )


def wait_for_a_call(rates: ClientRates, most: int) -> timedelta | None:
    """Makes a call; returns how long to wait when it is refused."""
    try:
        rates.take_call(client(calls=most))
    except errors.RateLimitReached as refusal:
        return refusal.retry_after
    return None


@given(
    most=st.integers(1, 12),
    gaps=st.lists(st.floats(0, 20, allow_nan=False), min_size=1, max_size=120),
)
def test_never_more_than_the_limit_in_any_minute_and_the_wait_that_is_told_is_right(
    most: int, gaps: list[float]
) -> None:
    clock = ManualClock()
    rates = ClientRates(clock=clock)
    taken: list[float] = []
    for gap in gaps:
        clock.advance(timedelta(seconds=gap))
        wait = wait_for_a_call(rates, most)
        if wait is not None:
            assert timedelta(0) < wait <= timedelta(seconds=61)
            clock.advance(wait + timedelta(milliseconds=1))
            assert wait_for_a_call(rates, most) is None
        taken.append(clock.monotonic())
        assert sum(taken[-1] - 60 < at for at in taken) <= most


def test_a_lower_limit_counts_from_the_next_call() -> None:
    clock = ManualClock()
    rates = ClientRates(clock=clock)
    for _ in range(10):
        rates.take_call(client(calls=10))
        clock.advance(timedelta(seconds=1))
    with pytest.raises(errors.RateLimitReached) as caught:
        rates.take_call(client(calls=3))
    assert caught.value.retry_after is not None
    clock.advance(caught.value.retry_after)
    rates.take_call(client(calls=3))


def test_a_client_without_a_limit_is_not_counted_and_one_does_not_use_anothers() -> None:
    rates = ClientRates(clock=ManualClock())
    for _ in range(1000):
        rates.take_call(client())
    rates.take_call(client(calls=1, name="one"))
    with pytest.raises(errors.RateLimitReached):
        rates.take_call(client(calls=1, name="one"))
    rates.take_call(client(calls=1, name="other"))


def test_what_is_remembered_of_clients_that_were_quiet_for_a_minute_is_forgotten() -> None:
    clock = ManualClock()
    rates = ClientRates(clock=clock)
    most = 0
    for number in range(10 * client_rates._SWEEP):
        rates.take_call(client(calls=5, name=str(number)))
        clock.advance(timedelta(seconds=1))
        most = max(most, len(rates._calls))
    assert most <= client_rates._SWEEP


def test_items_at_work_are_given_back() -> None:
    rates = ClientRates(clock=ManualClock())
    with ExitStack() as held:
        held.enter_context(rates.items(client(items=10), 6))
        held.enter_context(rates.items(client(items=10), 4))
        with pytest.raises(errors.RateLimitReached) as caught, rates.items(client(items=10), 1):
            pytest.fail("let in")
        assert caught.value.retry_after == timedelta(seconds=1)
        with rates.items(client(items=10, name="other"), 10), rates.items(client(), 1000):
            pass
    with pytest.raises(ZeroDivisionError), rates.items(client(items=10), 10):
        _ = 1 / 0
    with rates.items(client(items=10), 10):
        pass
    assert not rates._items


@pytest.mark.promise("P8")
def test_a_request_over_the_limit_costs_nothing_and_evaluates_no_one_time_password(
    record_property: Callable[[str, object], None],
) -> None:
    world = World().populate()
    batch = client(items=4, name=OFFICE.name.partition("/")[2])
    before = len(world.store.rows(AuditEntry))
    refusals = 0
    with world.use.client_rates.items(batch, 4):
        for _ in range(100):
            with pytest.raises(errors.RateLimitReached):
                world.sign(digests(1), principal=batch, password=world.wrong_code())
            refusals += 1
    with pytest.raises(errors.TooManyDigests):
        world.sign(digests(5), principal=batch, password=world.wrong_code())
    assert all(row.record.failures == 0 for row in world.store.rows(SignerAttempts))
    assert len(world.store.rows(AuditEntry)) == before
    assert len(world.sign(digests(4), principal=batch, credential=P256).signatures) == 4
    record_property("count", f"refused by rate with a wrong code, none evaluated: {refusals}")
    assert refusals == 100
