"""Many callers with one one-time password: exactly one wins, each time (P2)."""

import hashlib
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.administration import Administrator, Connection, Person, e_office, request_of
from tests.support.racing import CALLERS, LOSSES, Racers, at_once, check_round
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import authorization_service_pb2

CHANNELS = 4


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server that lets all callers of a round in, so that they meet in the transaction: one client gets half."""
    limits = ["server.threads=160", "server.signing_requests=128", "token.sessions=4"]
    with running_sandbox(tmp_path_factory.mktemp("race") / "installation", *limits) as running:
        yield running


@pytest.fixture(scope="module")
def channels(wide: Installation) -> Iterator[list[Connection]]:
    token = wide.population["client"]["token"]
    opened = [Connection(wide, token=token) for _ in range(CHANNELS)]
    yield opened
    for connection in opened:
        connection.channel.close()


@pytest.fixture
def racers(channels: list[Connection]) -> Iterator[Racers]:
    made = Racers(channels)
    yield made
    made.close()


@pytest.mark.requirement("ASVS 5.0.0-6.5.1", "NIST 800-63B-4 3.1.4.2 once")
@pytest.mark.promise("P2")
@pytest.mark.parametrize("rounds", [32, pytest.param(256, marks=pytest.mark.slow)])
def test_of_64_callers_with_one_password_exactly_one_signs(
    wide: Installation, racers: Racers, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    with Administrator(wide) as administrator:
        person = administrator.create_person(f"race-sign-{rounds}")
        totals: Counter[str] = Counter()
        widths: list[int] = []
        begun = time.monotonic()
        for number in range(rounds):
            code = person.authenticator.take()
            # Every caller wants another document signed.
            requests = [request_of(person, f"{number}/{caller}".encode(), code=code) for caller in range(CALLERS)]
            calls = racers.race(requests)
            totals += check_round(calls)
            widths.append(at_once(calls))
            administrator.unlock(person.name)
        seconds = time.monotonic() - begun
    record_property(
        "count",
        f"one server: {len(widths)} rounds of {CALLERS} callers in {seconds:.1f} s, {dict(totals)},"
        f" open at once: median {statistics.median(widths)}, least {min(widths)}",
    )
    assert len(widths) == rounds == totals["OK"]
    assert totals.total() == rounds * CALLERS
    assert totals["ONE_TIME_PASSWORD_REJECTED"] >= rounds
    assert sum(width >= CALLERS // 2 for width in widths) >= rounds * 9 // 10
    assert min(widths) > 1
    _check_database(wide, person, rounds)


@pytest.mark.promise("P2")
def test_of_64_callers_with_one_password_exactly_one_approves(wide: Installation, racers: Racers) -> None:
    rounds = 8
    with Administrator(wide) as administrator, e_office(wide) as client:
        person = administrator.create_person("race-approve")
        done = 0
        for number in range(rounds):
            names = [
                client.call(client.authorizations.CreateAuthorization, _wanted(person, f"{number}/{caller}")).name
                for caller in range(CALLERS)
            ]
            code = person.authenticator.take()
            requests = [
                authorization_service_pb2.ApproveAuthorizationsRequest(
                    names=[name], one_time_password=person.one_time_password(code), request_id=str(uuid.uuid4())
                )
                for name in names
            ]
            calls = racers.race(requests, approve=True)
            check_round(calls)
            states = Counter(
                client.call(
                    client.authorizations.GetAuthorization,
                    authorization_service_pb2.GetAuthorizationRequest(name=name),
                ).state
                for name in names
            )
            assert states[authorization_service_pb2.Authorization.APPROVED] == 1
            assert states[authorization_service_pb2.Authorization.PENDING] == CALLERS - 1
            administrator.unlock(person.name)
            done += 1
    assert done == rounds


@pytest.mark.promise("P2", "P8")
def test_with_the_default_limits_the_losers_are_refused_before_their_password_counts(
    installation: Installation, administrator: Administrator
) -> None:
    """A server that admits 24 requests sheds the others as BUSY; still exactly one wins."""
    rounds = 16
    token = installation.population["client"]["token"]
    opened = [Connection(installation, token=token) for _ in range(CHANNELS)]
    racing = Racers(opened)
    try:
        person = administrator.create_person("race-default")
        totals: Counter[str] = Counter()
        for number in range(rounds):
            code = person.authenticator.take()
            requests = [request_of(person, f"{number}/{caller}".encode(), code=code) for caller in range(CALLERS)]
            totals += check_round(racing.race(requests))
            administrator.unlock(person.name)
    finally:
        racing.close()
        for connection in opened:
            connection.channel.close()
    assert totals["OK"] == rounds
    assert totals.total() == rounds * CALLERS
    _check_database(installation, person, rounds)


@pytest.mark.slow
@pytest.mark.promise("P2")
def test_over_three_processes_exactly_one_of_64_callers_signs(tmp_path: Path) -> None:
    rounds = 16
    limits = ["server.workers=3", "server.threads=160", "server.signing_requests=128"]
    with running_sandbox(tmp_path / "installation", *limits) as several, Administrator(several) as administrator:
        token = several.population["client"]["token"]
        opened = [Connection(several, token=token) for _ in range(12)]
        racing = Racers(opened)
        try:
            # A key that one process makes can cost another its token for a moment: SoftHSM's writers race.
            administrator.connection.patience = 60
            person = administrator.create_person("race-processes")
            for connection in opened:
                connection.patience = 60
                connection.call(connection.signing.SignDigests, request_of(person, b"first"))
                connection.patience = 0
            totals: Counter[str] = Counter()
            for number in range(rounds):
                code = person.authenticator.take()
                requests = [request_of(person, f"{number}/{caller}".encode(), code=code) for caller in range(CALLERS)]
                totals += check_round(racing.race(requests))
                administrator.unlock(person.name)
        finally:
            racing.close()
            for connection in opened:
                connection.channel.close()
        assert totals["OK"] == rounds
        assert totals.total() == rounds * CALLERS
        _check_database(several, person, rounds + len(opened))
        assert several.stop() == 0


@pytest.mark.promise("P2", "P7")
def test_64_callers_with_one_request_id_get_one_outcome(wide: Installation, racers: Racers) -> None:
    rounds = 8
    with Administrator(wide) as administrator:
        person = administrator.create_person("race-retry")
        answered = 0
        for number in range(rounds):
            request = request_of(person, f"document {number}".encode())
            calls = racers.race([request] * CALLERS)
            outcomes = Counter(call.outcome for call in calls)
            assert set(outcomes) <= {"OK", "BUSY"}, outcomes
            signatures = {call.answer.signatures[0].value for call in calls if call.outcome == "OK"}
            assert len(signatures) == 1
            answered += outcomes["OK"]
        assert answered >= rounds * CALLERS // 2
    _check_database(wide, person, rounds)


def test_refusals_do_not_use_up_their_connection(installation: Installation, administrator: Administrator) -> None:
    """Refused calls that lived on until the garbage collector came filled gRPC's streams: REFUSED_STREAM for ever."""
    rounds = 24
    person = administrator.create_person("refusals")
    with e_office(installation) as connection:
        racing = Racers([connection])
        try:
            outcomes: Counter[str] = Counter()
            for _ in range(rounds):
                wrong = request_of(person, code="00000000")
                outcomes += Counter(call.outcome for call in racing.race([wrong] * CALLERS))
                administrator.unlock(person.name)
        finally:
            racing.close()
    assert outcomes.total() == rounds * CALLERS
    assert set(outcomes) <= LOSSES, outcomes
    assert outcomes["ONE_TIME_PASSWORD_REJECTED"] >= rounds


def _wanted(person: Person, document: str) -> authorization_service_pb2.CreateAuthorizationRequest:
    digest = hashlib.sha256(document.encode()).digest()
    return authorization_service_pb2.CreateAuthorizationRequest(
        parent=person.credential,
        authorization=authorization_service_pb2.Authorization(
            algorithm=request_of(person, code="000000").algorithm,
            items=[authorization_service_pb2.AuthorizedItem(digest=digest)],
        ),
    )


def _check_database(installation: Installation, person: Person, approvals: int) -> None:
    """Each counter was accepted once, and there are as many approvals as winners."""
    with installation.read_database() as database:
        rows = database.execute("SELECT accepted_value FROM approvals WHERE signer = ?", (person.name,)).fetchall()
    assert sorted(value for (value,) in rows) == list(range(1, approvals + 1))
