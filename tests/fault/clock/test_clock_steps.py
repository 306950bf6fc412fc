"""A server whose clock is stepped by 90 s, ahead and back: no code opens twice, and no lock stays for ever (P2, P8)."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
    Refused,
    TimeAuthenticator,
    e_office,
    request_of,
)
from tests.support.fake_clock import FakeClock
from tests.support.sandbox import Installation, running_sandbox, trien_server

pytestmark = pytest.mark.promise("P2", "P8")

STEP = 90
WITHIN_TOLERANCE = STEP - 3
"""A clock that is less than 5 s behind the newest audit entry is trusted."""


@pytest.fixture
def clock(tmp_path: Path) -> FakeClock:
    return FakeClock(tmp_path)


@pytest.fixture
def stepped(tmp_path: Path, clock: FakeClock) -> Iterator[Installation]:
    with running_sandbox(tmp_path / "installation", **clock.environment) as running:
        yield running


class Phone:
    """A person's TOTP authenticator whose own clock goes as the server's, so that its codes are of now."""

    def __init__(self, administrator: Administrator, person: Person, clock: FakeClock) -> None:
        self._authenticator: TimeAuthenticator = administrator.create_timer(person.name)
        self._clock = clock

    @property
    def step(self) -> int:
        return int(time.time() + self._clock.offset) // 30

    def code(self, step: int) -> str:
        return self._authenticator.at(step)


def outcome(client: Connection, person: Person, code: str) -> str:
    """Returns OK, or why a signature by that code was refused.

    Where the clock went ahead, an entry of a moment ago is one of long ago until it is sealed: then it is asked again.
    """
    while True:
        try:
            client.sign(request_of(person, code=code))
        except Refused as refused:
            if refused.reason == "LOG_NOT_SEALED":
                time.sleep(0.2)
                continue
            return refused.reason or refused.code.name
        return "OK"


def jumps(installation: Installation) -> list[float]:
    """Returns the jumps that the log reports, in whole tens of seconds."""
    return [round(float(line["seconds"]), -1) for line in installation.lines() if line.get("event") == "clock_jumped"]


def start_is_refused(installation: Installation) -> bool:
    """Starts a server on the folder; tells whether it refused because of the clock."""
    finished = trien_server(
        "run", "--config", str(installation.directory / "trien.toml"), "--set", "log.format=json",
        "--set", "server.token_address=127.0.0.1:0", "--set", "server.certificate_address=127.0.0.1:0",
        *(word for setting in installation.settings for word in ("--set", setting)),
        **installation.environment,
    )  # fmt: skip
    return finished.returncode == 1 and "clock" in finished.stderr


@pytest.mark.requirement("ASVS 5.0.0-6.5.8", "NIST 800-63B-4 3.2.7")
def test_a_code_opens_once_whatever_the_clock_does(
    stepped: Installation, clock: FakeClock, record_property: Any
) -> None:
    refused = 0
    with Administrator(stepped) as administrator, e_office(stepped) as client:
        person = administrator.create_person("stepped")
        phone = Phone(administrator, person, clock)
        first = phone.step
        assert outcome(client, person, phone.code(first)) == "OK"

        clock.set(STEP)
        assert outcome(client, person, phone.code(first)) == "ONE_TIME_PASSWORD_REJECTED"
        second = phone.step
        assert outcome(client, person, phone.code(second)) == "OK"
        assert outcome(client, person, phone.code(second)) == "ONE_TIME_PASSWORD_REJECTED"

        # Back at the true time the log is 90 s ahead: nothing is decided, so nothing is consumed either.
        clock.set(0)
        for step in (first, second, phone.step + 1, second + 1):
            assert outcome(client, person, phone.code(step)) == "CLOCK_NOT_TRUSTED"
            refused += 1
        wait_for_health(client, serving=False)

        # A server that is started meanwhile refuses to.
        assert stepped.stop() == 0
        assert start_is_refused(stepped)
        clock.set(WITHIN_TOLERANCE)
        stepped.start()

    # The time has caught up: what was used is used, what was refused without being looked at works.
    with e_office(stepped) as client:
        assert outcome(client, person, phone.code(second)) == "ONE_TIME_PASSWORD_REJECTED"
        assert outcome(client, person, phone.code(max(second + 1, phone.step))) == "OK"
        for step in (first, second):
            assert outcome(client, person, phone.code(step)) == "ONE_TIME_PASSWORD_REJECTED"
        clock.set(WITHIN_TOLERANCE - STEP)
        assert outcome(client, person, person.authenticator.take()) == "CLOCK_NOT_TRUSTED"
        clock.set(WITHIN_TOLERANCE)
        wait_for_health(client, serving=True)
        person.authenticator.counter -= 1
        assert outcome(client, person, person.authenticator.take()) == "OK"
    assert stepped.stop() == 0
    with stepped.read_database() as database:
        accepted = database.execute("SELECT authenticator, accepted_value FROM approvals").fetchall()
    record_property("count", f"steps reported {jumps(stepped)}, refused untouched {refused}, accepted {len(accepted)}")
    assert len(accepted) == len(set(accepted)) == 4
    assert jumps(stepped) == [90, -90, -90, 90]
    events = [line["event"] for line in stepped.lines()]
    assert "clock_not_trusted" in events
    assert "clock_trusted_again" in events


def test_a_lock_that_was_made_by_a_clock_ahead_ends(stepped: Installation, clock: FakeClock) -> None:
    """Three wrong codes shut a client out for 15 minutes, counted from a clock that was 90 s ahead."""
    quarter = 15 * 60
    with Administrator(stepped) as administrator, e_office(stepped) as client:
        person = administrator.create_person("locked")
        clock.set(STEP)
        reasons = [outcome(client, person, "00000000") for _ in range(4)]
        assert reasons == ["ONE_TIME_PASSWORD_REJECTED"] * 3 + ["SIGNER_LOCKED"]
        clock.set(0)
        assert outcome(client, person, person.authenticator.at(1)) in {"SIGNER_LOCKED", "CLOCK_NOT_TRUSTED"}
        clock.set(WITHIN_TOLERANCE)
        with pytest.raises(Refused, match="SIGNER_LOCKED") as caught:
            client.sign(request_of(person, code=person.authenticator.at(1)))
        assert caught.value.retry_after is not None
        assert quarter - 60 < caught.value.retry_after <= quarter + STEP
        clock.set(STEP + quarter)
        assert outcome(client, person, person.authenticator.at(1)) == "OK"
    assert stepped.stop() == 0


def test_a_server_serves_and_stops_in_time_whatever_the_clock_does(stepped: Installation, clock: FakeClock) -> None:
    """Timers and deadlines go by the monotonic clock."""
    rounds = 0
    with Administrator(stepped) as administrator, e_office(stepped) as client:
        person = administrator.create_person("timers")
        for offset in (STEP, 2 * STEP, 3 * STEP):
            clock.set(offset)
            begun = time.monotonic()
            client.sign(request_of(person), timeout=5)
            wait_for_health(client, serving=True, seconds=10)
            assert time.monotonic() - begun < 15
            rounds += 1
    begun = time.monotonic()
    assert stepped.stop() == 0
    assert time.monotonic() - begun < 30
    assert rounds == 3


def wait_for_health(client: Connection, *, serving: bool, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while client.serving() is not serving:
        assert time.monotonic() < end, f"health never said {serving}"
        time.sleep(0.1)
