"""A server that served many requests is no larger than one that served few.

What grows at first is no leak: the allocator's arenas, gRPC's buffers, caches that fill up to their bounds, SQLite's
page cache. So the first third of the requests is warm-up, and the growth is the median slope between all pairs of the
measurements behind it. Measured is anonymous memory: pages of files (libraries, the database's shared index) belong to
the kernel's cache, and grow with the database and not with what the process keeps.

`TRIEN_SOAK_REQUESTS` sets how many requests there are. With fewer than 100,000 the bound is on what the server grew
while they were made: caches still fill up then, and a slope would say nothing.
"""

import hashlib
import itertools
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.administration import Administrator, Connection, Person, Refused, request_of
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import authorization_service_pb2, credential_service_pb2, signing_service_pb2

REQUESTS = int(os.environ.get("TRIEN_SOAK_REQUESTS", "100000"))
STEPS = 60
CALLERS = 4
MOST_GROWTH = 1 << 20
"""Bytes per 100,000 requests, or in all when there are fewer."""


@dataclass(frozen=True)
class Size:
    """What the server's processes hold together."""

    requests: int
    anonymous: int
    resident: int
    descriptors: int
    threads: int


def processes(root: int) -> list[int]:
    """Returns a process and all below it."""
    children = Path(f"/proc/{root}/task/{root}/children").read_text().split()
    return [root, *itertools.chain.from_iterable(processes(int(child)) for child in children)]


def measure(installation: Installation, requests: int) -> Size:
    assert installation.process is not None
    totals: Counter[str] = Counter()
    descriptors = 0
    for process in processes(installation.process.pid):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in {"RssAnon", "VmRSS", "Threads"}:
                totals[name] += int(value.split()[0])
        descriptors += len(list(Path(f"/proc/{process}/fd").iterdir()))
    return Size(requests, totals["RssAnon"] * 1024, totals["VmRSS"] * 1024, descriptors, totals["Threads"])


class Caller:
    """One application's thread: signs at once, and now and then does everything else."""

    def __init__(self, connection: Connection, person: Person) -> None:
        self.connection = connection
        self.person = person
        self.outcomes: Counter[str] = Counter()
        self._work = self._endless()

    def call(self, requests: int) -> None:
        """Makes so many requests."""
        for _ in range(requests):
            method, request, expected = next(self._work)
            try:
                self.connection.call(method, request)
                outcome = "OK"
            except Refused as refused:
                outcome = refused.reason or refused.code.name
            assert outcome == expected, (outcome, expected)
            self.outcomes[outcome] += 1

    def _endless(self) -> Iterator[tuple[object, object, str]]:
        stubs, person = self.connection, self.person
        authorizations = stubs.authorizations
        for number in itertools.count():
            sign = request_of(person, b"%d" % number, b"%d again" % number)
            yield stubs.signing.SignDigests, sign, "OK"
            match number % 10:
                case 0:
                    yield stubs.signing.SignDigests, sign, "OK"  # a retry
                case 2:
                    get = credential_service_pb2.GetCredentialRequest(name=person.credential)
                    yield stubs.credentials.GetCredential, get, "OK"
                case 4:
                    yield authorizations.CreateAuthorization, self._wanted(b"%d" % number), "OK"
                case 5:
                    listing = authorization_service_pb2.ListAuthorizationsRequest(parent=person.credential, page_size=5)
                    yield authorizations.ListAuthorizations, listing, "OK"
                case 6:
                    short = request_of(person, b"short", code="00000000")
                    short.items[0].CopyFrom(signing_service_pb2.SignItem(digest=b"short"))
                    yield stubs.signing.SignDigests, short, "INVALID_DIGEST"
                case 8:
                    unknown = credential_service_pb2.GetCredentialRequest(name=f"credentials/none-{number}")
                    yield stubs.credentials.GetCredential, unknown, "PERMISSION_DENIED"
                case 9:
                    yield stubs.signing.SignDigests, request_of(person, code="00000000"), "ONE_TIME_PASSWORD_REJECTED"

    def _wanted(self, document: bytes) -> authorization_service_pb2.CreateAuthorizationRequest:
        digest = hashlib.sha256(document).digest()
        return authorization_service_pb2.CreateAuthorizationRequest(
            parent=self.person.credential,
            authorization=authorization_service_pb2.Authorization(
                algorithm=request_of(self.person, code="000000").algorithm,
                items=[authorization_service_pb2.AuthorizedItem(digest=digest)],
            ),
        )


def growth(sizes: list[Size]) -> float:
    """Returns the growth of anonymous memory in bytes per request: the median slope of all pairs (Theil and Sen)."""
    return statistics.median(
        (later.anonymous - earlier.anonymous) / (later.requests - earlier.requests)
        for earlier, later in itertools.combinations(sizes, 2)
    )


@pytest.mark.soak
@pytest.mark.promise("P8")
def test_the_server_does_not_grow_with_its_requests(
    tmp_path: Path, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    sizes: list[Size] = []
    begun = time.monotonic()
    with running_sandbox(tmp_path / "installation") as server, Administrator(server) as administrator:
        callers = []
        for number in range(CALLERS):
            client, token = administrator.create_client(f"soak-{number}")
            person = administrator.create_person(f"soak-{number}", clients=[client])
            callers.append(Caller(Connection(server, token=token), person))
        share = max(1, REQUESTS // (STEPS * CALLERS))
        made = 0
        with ThreadPoolExecutor(CALLERS) as pool:
            for _ in range(STEPS):
                for done in [pool.submit(caller.call, share) for caller in callers]:
                    done.result()
                made += share * CALLERS
                sizes.append(measure(server, made))
                with capsys.disabled():
                    print(f"soak: {time.monotonic() - begun:.0f} s, {sizes[-1]}", flush=True)  # noqa: T201
        outcomes = sum((caller.outcomes for caller in callers), Counter[str]())
        for caller in callers:
            caller.connection.channel.close()
        assert server.stop() == 0
        assert '"fault"' not in server.log()
    settled = sizes[STEPS // 3 :]
    per_100000 = growth(settled) * 100_000
    seconds = time.monotonic() - begun
    record_property(
        "count",
        f"SQLite: requests {outcomes.total()} by {CALLERS} callers in {seconds:.0f} s, {dict(outcomes)};"
        f" anonymous memory {sizes[0].anonymous >> 10} KiB at first, {settled[0].anonymous >> 10} KiB when warm,"
        f" {settled[-1].anonymous >> 10} KiB at the end: {per_100000 / 1024:.0f} KiB more per 100,000 requests;"
        f" descriptors {settled[0].descriptors} to {settled[-1].descriptors},"
        f" threads {settled[0].threads} to {settled[-1].threads}",
    )
    assert outcomes.total() == made >= min(REQUESTS, 99_000) * 9 // 10 > 0
    assert outcomes["OK"] > made // 2
    assert per_100000 * min(made, 100_000) / 100_000 <= MOST_GROWTH
    assert settled[-1].descriptors <= settled[0].descriptors + 2
    assert settled[-1].threads <= settled[0].threads + 1
