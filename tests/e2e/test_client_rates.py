"""A batch job at full speed beside tablets: its limits hold, its codes are not lost, and the tablets go on."""

import hashlib
import statistics
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from tests.support.administration import Administrator, Connection, Person, Refused, request_of
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import access_service_pb2, algorithms_pb2, signing_service_pb2

pytestmark = pytest.mark.promise("P2", "P8")
BATCHES = 3
ITEMS = 16
CALLS_PER_MINUTE = 40
DOCUMENTS = 12


@dataclass
class Batch:
    """Signs without a pause, and asks again at once, with the same code, when it is refused."""

    connection: Connection
    person: Person
    signed: list[int] = field(default_factory=list)
    let_in: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    without_retry_info: int = 0

    def run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            request = self._request()
            while not stopped.is_set():
                begun = time.monotonic()
                try:
                    answer = self.connection.sign(request)
                except Refused as refused:
                    self.refused[refused.reason or refused.code.name] += 1
                    self.without_retry_info += refused.retry_after is None
                    time.sleep(0.01)
                    continue
                self.let_in.append(begun)
                self.signed.append(len(answer.signatures))
                break

    def _request(self) -> signing_service_pb2.SignDigestsRequest:
        return signing_service_pb2.SignDigestsRequest(
            credential=self.person.credential,
            algorithm=algorithms_pb2.ECDSA_P256_SHA256,
            items=[
                signing_service_pb2.SignItem(digest=hashlib.sha256(str(number).encode()).digest())
                for number in range(ITEMS)
            ],
            request_id=str(uuid.uuid4()),
            one_time_password=self.person.one_time_password(),
        )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_sandbox(tmp_path_factory.mktemp("rates") / "installation") as running:
        yield running


def tablet_seconds(connection: Connection, tablet: Person) -> list[float]:
    """Signs documents one after the other, as a person at a tablet; returns how long each took."""
    seconds = []
    for number in range(DOCUMENTS):
        begun = time.monotonic()
        connection.sign(request_of(tablet, f"document {number}".encode()))
        seconds.append(time.monotonic() - begun)
    return seconds


def test_a_batch_job_at_full_speed_keeps_within_its_limits_and_starves_no_tablet(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    with Administrator(installation) as administrator:
        name, token = administrator.create_client("batch")
        access = administrator.connection.access
        restriction = access_service_pb2.RestrictClientRequest(
            name=name, calls_per_minute=CALLS_PER_MINUTE, concurrent_items=2 * ITEMS
        )
        administrator.connection.call(access.RestrictClient, restriction)
        batches = [
            Batch(Connection(installation, token=token), administrator.create_person(f"batch-{number}", clients=[name]))
            for number in range(BATCHES)
        ]
        tablet = administrator.create_person("tablet")
    stopped = threading.Event()
    threads = [threading.Thread(target=batch.run, args=(stopped,)) for batch in batches]
    with Connection(installation, token=installation.population["client"]["token"]) as office:
        alone = tablet_seconds(office, tablet)
        begun = time.monotonic()
        for thread in threads:
            thread.start()
        try:
            beside = tablet_seconds(office, tablet)
            while sum(batch.refused["RATE_LIMIT_REACHED"] for batch in batches) < 50 and time.monotonic() - begun < 50:
                beside += tablet_seconds(office, tablet)
        finally:
            stopped.set()
            for thread in threads:
                thread.join(60)
    refused = sum((batch.refused for batch in batches), Counter[str]())
    let_in = sorted(moment for batch in batches for moment in batch.let_in)
    assert sum(batch.without_retry_info for batch in batches) == 0
    assert set(refused) == {"RATE_LIMIT_REACHED"}
    assert 0 < len(let_in) <= CALLS_PER_MINUTE
    assert all(count == ITEMS for batch in batches for count in batch.signed)
    logged = [line for line in installation.lines() if line.get("outcome") == "RATE_LIMIT_REACHED"]
    assert {line["principal"] for line in logged} == {name}
    # No code was lost on a refusal: each that was given out is accepted, in its turn, but the last.
    with installation.read_database() as database:
        rows = database.execute("SELECT signer, accepted_value FROM approvals").fetchall()
    for batch in batches:
        accepted = sorted(value for signer, value in rows if signer == batch.person.name)
        assert accepted == list(range(1, 1 + len(batch.signed)))
    ratio = statistics.median(beside) / statistics.median(alone)
    record_property(
        "count",
        f"batch of {BATCHES} callers at full speed: let in {len(let_in)} of at most {CALLS_PER_MINUTE} calls a minute,"
        f" refused {refused['RATE_LIMIT_REACHED']}; a tablet's median {1e3 * statistics.median(beside):.0f} ms beside"
        f" it, {1e3 * statistics.median(alone):.0f} ms alone ({ratio:.1f} times), documents {len(beside)}, refused 0",
    )
    assert refused["RATE_LIMIT_REACHED"] >= 50
    assert len(beside) >= DOCUMENTS
    assert ratio < 20


def test_a_request_that_is_too_large_even_alone_says_so(installation: Installation) -> None:
    with Administrator(installation) as administrator:
        name, token = administrator.create_client("small")
        access = administrator.connection.access
        administrator.connection.call(
            access.RestrictClient, access_service_pb2.RestrictClientRequest(name=name, concurrent_items=ITEMS - 1)
        )
        person = administrator.create_person("small", clients=[name])
    with Connection(installation, token=token) as connection:
        batch = Batch(connection, person)
        with pytest.raises(Refused, match="TOO_MANY_DIGESTS"):
            connection.sign(batch._request())
