"""A retry with the same request_id is safe, whatever was lost on the way (P7), also after kill -9 (P1, P2)."""

import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from tests.support.administration import Administrator, Connection, Person, Refused, e_office, request_of
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import signing_service_pb2

CALLERS = 6
LEASE_SECONDS = 30.0
AT_WORK_AGAIN = LEASE_SECONDS + 15.0


@dataclass
class History:
    """What a caller asked for and what it was told."""

    person: Person
    answered: list[tuple[Any, Any]] = field(default_factory=list)
    at_work: list[Any] = field(default_factory=list)
    """Granted, and cut off before the outcome: another process may complete them when the lease is over."""
    lost: Counter[str] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)


class Caller(threading.Thread):
    """Signs one document after the other; repeats a request whose answer was lost until it is told."""

    def __init__(self, installation: Installation, person: Person, stop: threading.Event) -> None:
        super().__init__(name=person.name)
        self.history = History(person)
        self._installation = installation
        self._stopping = stop

    def run(self) -> None:
        token = self._installation.population["client"]["token"]
        pending = None
        number = 0
        with Connection(self._installation, token=token) as connection:
            while not self._stopping.is_set() or pending is not None:
                if pending is None:
                    number += 1
                    documents = [f"{self.name} {number} {n}".encode() for n in range(1 + number % 3)]
                    pending = request_of(self.history.person, *documents)
                try:
                    self.history.answered.append((pending, connection.sign(pending, timeout=1.5)))
                    pending = None
                except Refused as refused:
                    pending = self._after(refused, pending)

    def _after(self, refused: Refused, pending: Any) -> Any:
        if refused.reason == "BUSY":
            self.history.at_work.append(pending)
            return None
        if refused.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
            self.history.lost[refused.reason or refused.code.name] += 1
            time.sleep(0.05)
            return pending
        self.history.unexpected.append(str(refused))
        return None


def verify(person: Person, request: Any, answer: Any) -> int:
    """Verifies all signatures of an answer with the certificate's key; returns how many."""
    key = person.certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert len(answer.signatures) == len(request.items)
    for item, signature in zip(request.items, answer.signatures, strict=True):
        key.verify(signature.value, item.digest, ec.ECDSA(Prehashed(SHA256())))
    return len(answer.signatures)


class Records:
    """What the database says."""

    def __init__(self, installation: Installation) -> None:
        with installation.read_database() as database:
            self.entries = {
                name: (kind, json.loads(details))
                for name, kind, details in database.execute("SELECT name, kind, details FROM audit_entries")
            }
            self.approvals = database.execute("SELECT signer, authenticator, accepted_value FROM approvals").fetchall()
            self.granted = {
                name: (subject, entry, bool(completed))
                for name, subject, entry, completed in database.execute(
                    "SELECT name, subject, audit_entry, completed FROM granted_requests WHERE method = 'SignDigests'"
                )
            }
            self.outcomes = {name for (name,) in database.execute("SELECT request FROM outcomes")}

    def check_promises(self) -> None:
        """One password gave at most one approval; each outcome has its grant, each grant its entry."""
        accepted = Counter((authenticator, value) for _, authenticator, value in self.approvals)
        assert accepted
        assert max(accepted.values()) == 1
        assert self.outcomes <= set(self.granted)
        assert self.outcomes == {name for name, (_, _, completed) in self.granted.items() if completed}
        for name, (subject, entry, _) in self.granted.items():
            kind, details = self.entries[entry]
            assert kind in {"signing_granted", "signing_resumed"}
            assert (details["request"], details["authorization"]) == (name, subject)

    def check_answer(self, request: Any, answer: Any) -> None:
        """The entry that an answer names was made for these digests and this request."""
        kind, details = self.entries[answer.audit_entry]
        assert kind in {"signing_granted", "signing_resumed"}
        assert details["signedDigests"] == [item.digest.hex() for item in request.items]
        assert details["request"].endswith(request.request_id)
        assert details["authorization"] == answer.authorization

    def accepted_of(self, person: Person) -> list[int]:
        return sorted(value for signer, _, value in self.approvals if signer == person.name)


@pytest.fixture(scope="module")
def office(installation: Installation) -> Iterator[Connection]:
    with e_office(installation) as connected:
        yield connected


@pytest.mark.promise("P7")
def test_a_retry_needs_no_second_password_and_gives_the_same_outcome(
    office: Connection, administrator: Administrator, installation: Installation
) -> None:
    person = administrator.create_person("retry")
    request = request_of(person, b"1", b"2", b"3")
    answer = office.sign(request)
    repeats = 0
    for code in (request.one_time_password.code, "00000000", person.authenticator.at(0)):
        request.one_time_password.code = code
        assert office.sign(request) == answer
        repeats += 1
    assert repeats == 3
    other = signing_service_pb2.SignDigestsRequest()
    for change in ("digest", "order", "fewer"):
        other.CopyFrom(request)
        match change:
            case "digest":
                other.items[2].digest = hashlib.sha256(b"4").digest()
            case "order":
                other.items[0].digest, other.items[1].digest = request.items[1].digest, request.items[0].digest
            case _:
                other.items.pop()
        with pytest.raises(Refused, match="REQUEST_ID_REUSED"):
            office.sign(other)
    records = Records(installation)
    assert records.accepted_of(person) == [1]


@pytest.mark.promise("P2", "P7")
def test_a_call_that_is_cut_off_right_after_sending_can_be_repeated(
    administrator: Administrator, installation: Installation
) -> None:
    person = administrator.create_person("retry-cancel")
    token = installation.population["client"]["token"]
    cut, answered = 0, 0
    dice = random.Random(7)
    for number in range(40):
        request = request_of(person, f"document {number}".encode())
        connection = Connection(installation, token=token)
        with connection:
            grpc.channel_ready_future(connection.channel).result(timeout=10)
            future = connection.signing.SignDigests.future(request, timeout=10, metadata=connection.metadata)
            time.sleep(dice.choice([0.0, 0.0005, 0.001, 0.002, 0.003, 0.005]))
            if number % 2:
                connection.channel.close()
            cut += future.cancel() or future.cancelled()
        with Connection(installation, token=token) as again:
            answer = again.sign(request)
            assert verify(person, request, answer) == 1
            answered += 1
    assert answered == 40
    assert cut >= 13
    records = Records(installation)
    assert records.accepted_of(person) == list(range(1, 41))
    records.check_promises()


@pytest.mark.promise("P1", "P2", "P7")
@pytest.mark.parametrize(
    ("planned", "with_leases"), [(12, False), pytest.param(40, True, marks=pytest.mark.slow)], ids=["12", "40"]
)
def test_kill_9_under_load_loses_no_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], planned: int, with_leases: bool
) -> None:
    """`with_leases` waits until the leases of killed processes are over, and completes what they began."""
    dice = random.Random(42)
    rounds = 0
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            people = [administrator.create_person(f"kill-{number}") for number in range(CALLERS)]
        stop = threading.Event()
        callers = [Caller(installation, person, stop) for person in people]
        for caller in callers:
            caller.start()
        try:
            for _ in range(planned):
                time.sleep(dice.uniform(0.1, 0.5))
                installation.kill()
                installation.start()
                rounds += 1
            last_kill = time.monotonic()
            time.sleep(0.3)
        finally:
            stop.set()
            for caller in callers:
                caller.join(30)
        histories = [caller.history for caller in callers]
        assert not [text for history in histories for text in history.unexpected]
        assert not any(caller.is_alive() for caller in callers)

        # Whatever was granted and cut off is completed under the same approval once the lease is over.
        if with_leases:
            time.sleep(max(0.0, last_kill + LEASE_SECONDS + 1.0 - time.monotonic()))
        completed = 0
        with e_office(installation) as connection:
            for history in histories:
                for request in history.at_work if with_leases else ():
                    request.one_time_password.code = "00000000"
                    history.answered.append((request, connection.sign(request, timeout=AT_WORK_AGAIN)))
                    completed += 1
            repeated = 0
            for history in histories:
                for request, answer in history.answered[-20:]:
                    assert connection.sign(request) == answer
                    repeated += 1

        records = Records(installation)
        records.check_promises()
        signatures = 0
        for history in histories:
            for request, answer in history.answered:
                signatures += verify(history.person, request, answer)
                records.check_answer(request, answer)
            # Each password that was used was accepted for one request, and no request took a second one.
            used = list(range(1, history.person.authenticator.counter))
            assert records.accepted_of(history.person) == used
            assert len(history.answered) + (0 if with_leases else len(history.at_work)) == len(used)
        assert installation.stop() == 0
    answers = sum(len(history.answered) for history in histories)
    lost = sum((history.lost for history in histories), Counter[str]())
    with capsys.disabled():
        print(  # noqa: T201 - the figures are part of the result
            f"\nkill -9: {rounds} rounds, {answers} requests, {signatures} signatures, "
            f"{completed} completed after their lease, {repeated} repeated, lost answers {dict(lost)}"
        )
    assert rounds == planned
    assert answers >= planned * 3
    assert lost.total() >= planned
    assert repeated >= CALLERS


def test_the_judge_of_signatures_can_say_no(office: Connection, administrator: Administrator) -> None:
    person = administrator.create_person("retry-judge")
    request = request_of(person, b"1")
    answer = office.sign(request)
    request.items[0].digest = hashlib.sha256(b"2").digest()
    with pytest.raises(InvalidSignature):
        verify(person, request, answer)
