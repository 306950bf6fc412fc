"""How often a wrong password may be tried."""

from datetime import UTC, datetime, timedelta

import pytest

from trien_server.core.attempts import after_failure, after_success, assert_open
from trien_server.core.errors import SignerLocked
from trien_server.core.records import ClientAttempts, SignerAttempts

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def fresh() -> tuple[SignerAttempts, ClientAttempts]:
    return SignerAttempts(name="s", failures=0), ClientAttempts(name="s/c", version=0, failures=0, blocks=0)


def lock_of(signer: SignerAttempts, client: ClientAttempts, at: datetime) -> timedelta | None:
    with pytest.raises(SignerLocked) as locked:
        assert_open(signer, client, at=at)
    return locked.value.retry_after


@pytest.mark.requirement("NIST 800-63B-4 3.2.2 waiting")
def test_three_failures_in_a_row_shut_a_client_out_and_the_time_doubles() -> None:
    signer, client = fresh()
    at, waits, remaining = AT, [], []
    for _ in range(3):
        for _ in range(3):
            assert_open(signer, client, at=at)
            # Another client's success in between keeps the signer's own count low.
            signer, client, left = after_failure(SignerAttempts(name="s", failures=0), client, at=at)
            remaining.append(left)
        wait = lock_of(signer, client, at)
        assert wait is not None
        waits.append(wait)
        at += wait
    assert waits == [timedelta(minutes=15), timedelta(minutes=30), timedelta(minutes=60)]
    assert remaining == [2, 1, 0] * 3


@pytest.mark.requirement("NIST 800-63B-4 3.2.2")
def test_five_failures_over_all_clients_lock_the_signer_and_the_lock_grows_to_an_hour() -> None:
    signer, _ = fresh()
    at, waits = AT, []
    for number in range(100):
        client = ClientAttempts(name=f"s/{number}", version=0, failures=0, blocks=0)
        assert_open(signer, client, at=at)
        signer, _, remaining = after_failure(signer, client, at=at)
        if number < 4:
            assert remaining == min(2, 4 - number)
        else:
            assert remaining == 0
            wait = lock_of(signer, client, at)
            if wait is None:
                break
            waits.append(wait)
            at += wait
    assert number == 99, "an operator has to act after 100 failures in a row"
    assert waits[:4] == [timedelta(seconds=seconds) for seconds in (30, 60, 120, 240)]
    assert set(waits[7:]) == {timedelta(hours=1)}
    assert lock_of(signer, client, at + timedelta(days=365)) is None


def test_one_clients_failures_do_not_shut_out_another() -> None:
    signer, broken = fresh()
    for _ in range(3):
        signer, broken, _ = after_failure(signer, broken, at=AT)
    assert lock_of(signer, broken, AT) == timedelta(minutes=15)
    other = ClientAttempts(name="s/other", version=0, failures=0, blocks=0)
    assert_open(signer, other, at=AT)
    signer, other = after_success(signer, other)
    assert (signer.failures, signer.locked_until) == (0, None)
    assert lock_of(signer, broken, AT) == timedelta(minutes=15)
