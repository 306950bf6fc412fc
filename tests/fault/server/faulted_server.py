"""A real server whose requests are hit by faults, its one caller, who asks again, and the judge of both."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.fault.server.tracing import Group, Seen, Target, Tracing
from tests.promises.history import History
from tests.promises.installation import Judge, judge_of
from tests.promises.recording import RecordedConnection
from tests.support.administration import Administrator, Connection, Person, Refused, request_of
from tests.support.moving import running_on_postgresql
from tests.support.postgres import PostgresServer
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import algorithms_pb2, authorization_service_pb2, signing_service_pb2

SCENARIOS = ("sign", "approve", "sign-activated")
DATABASES = ("sqlite", "postgresql")

_LEASE_SECONDS = 31.0
"""A request whose process died has a lease of 30 s, and 0.1 s an item."""
_PATIENCE = 60.0
_TEMPORARY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,  # by a server that stops
}
_CLIENT = "clients/e-office"


@dataclass(frozen=True)
class Attempt:
    """A request that is repeated with the same id, content and code until its end is known."""

    method: str
    request: Any


class FaultedServer:
    """One server process, one caller, one history."""

    def __init__(self, installation: Installation, judge: Judge, person: Person) -> None:
        self.installation = installation
        self.judge = judge
        self.history = History()
        self._person = person
        self._connection: Connection | None = None
        self._office: RecordedConnection | None = None
        self._at_work: list[tuple[float, Attempt]] = []
        self._known: Attempt | None = None
        self.restarts = 0
        self.completed_later = 0
        self.endings: set[int] = set()

    @property
    def office(self) -> RecordedConnection:
        """The caller, connected to a process that runs."""
        if self.installation.process is not None and self.installation.process.poll() is not None:
            self.endings.add(self.installation.wait())
            self._disconnect()
        if self.installation.process is None:
            self.installation.start()
            self.restarts += 1
        if self._office is None:
            token = self.installation.population["client"]["token"]
            self._connection = Connection(self.installation, token=token)
            grpc.channel_ready_future(self._connection.channel).result(timeout=_PATIENCE)
            self._office = RecordedConnection(self._connection, self.history, client=_CLIENT)
        return self._office

    def close(self) -> None:
        self._disconnect()

    def restart(self) -> None:
        """Kills the process; the next call starts another."""
        self.installation.kill()
        self._disconnect()

    def warm_up(self) -> None:
        """Repeats an answered request, so that the process knows the rows that it has verified."""
        if self._known is None:
            self._known = Attempt("sign", request_of(self._person, b"known"))
        self._until_served(self._known)

    def prepare(self, scenario: str) -> Attempt:
        """Makes a request that was not sent yet, with what has to be there before it."""
        if scenario == "sign":
            return Attempt("sign", request_of(self._person, b"one", b"two"))
        made = self._create()
        approval = authorization_service_pb2.ApproveAuthorizationsRequest(
            names=[made.name, self._create().name],
            one_time_password=self._person.one_time_password(),
            request_id=str(uuid.uuid4()),
        )
        if scenario == "approve":
            return Attempt("approve", approval)
        self._until_served(Attempt("approve", approval))
        fetch = authorization_service_pb2.FetchSignatureActivationDataRequest(name=made.name)
        connection = self.office.connection
        secret = connection.call(connection.authorizations.FetchSignatureActivationData, fetch)
        request = signing_service_pb2.SignDigestsRequest(
            credential=self._person.credential,
            algorithm=algorithms_pb2.ECDSA_P256_SHA256,
            items=[signing_service_pb2.SignItem(digest=item.digest) for item in made.items[1:]],
            request_id=str(uuid.uuid4()),
            activated_authorization=signing_service_pb2.ActivatedAuthorization(
                authorization=made.name, signature_activation_data=secret.signature_activation_data
            ),
        )
        return Attempt("sign", request)

    def serve(
        self, attempt: Attempt, *, groups: Sequence[Group], places: Mapping[str, str], target: Target | None
    ) -> Seen:
        """Has the attempt served once, under observation; the caller may be told nothing."""
        office = self.office
        process = self.installation.process
        assert process is not None
        with Tracing(process.pid, groups, places, target) as tracing:
            refused: Refused | None = None
            try:
                self._call(office, attempt, timeout=60.0)
            except Refused as told:
                refused = told
            seen = tracing.end()
        if target is None and refused is not None:
            raise refused
        return seen

    def recover(self, attempt: Attempt) -> None:
        """Asks again until the end is known, or puts it off while another process has the lease; then judges."""
        self._settle(attempt)
        for since, waiting in list(self._at_work):
            if time.monotonic() - since > _LEASE_SECONDS:
                self._at_work.remove((since, waiting))
                self._until_served(waiting)
                self.completed_later += 1
        self.judge.check(self.history, settled=not self._at_work)

    def finish(self, *, wait: bool) -> None:
        """Completes what was put off, and judges for the last time. Without `wait` what is at work stays so."""
        while wait and self._at_work:
            since, waiting = self._at_work.pop(0)
            time.sleep(max(0.0, since + _LEASE_SECONDS - time.monotonic()))
            self._until_served(waiting)
            self.completed_later += 1
        assert self.office is not None  # runs: whoever opens a crashed database first repairs it
        self.judge.check(self.history, settled=wait or not self._at_work)

    def _settle(self, attempt: Attempt) -> None:
        """Repeats the attempt unless its work is under the lease of a process that may have died."""
        begun = time.monotonic()
        assert self.office is not None
        if self.judge.at_work(f"{_CLIENT}/requests/{attempt.request.request_id}"):
            self._at_work.append((begun, attempt))
            return
        self._until_served(attempt)

    def _until_served(self, attempt: Attempt) -> None:
        """Repeats the attempt until it is answered. A decided refusal of what is right is an error."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                self._call(self.office, attempt, timeout=40.0)
                return
            except Refused as refused:
                if refused.code not in _TEMPORARY or time.monotonic() > end:
                    raise
            time.sleep(0.2)

    @staticmethod
    def _call(office: RecordedConnection, attempt: Attempt, *, timeout: float) -> None:
        if attempt.method == "approve":
            office.approve(attempt.request, right=True, timeout=timeout)
        else:
            office.sign(attempt.request, right=True, timeout=timeout)

    def _create(self) -> Any:
        digests = [bytes([number]) * 32 for number in range(3)]
        request = authorization_service_pb2.CreateAuthorizationRequest(
            parent=self._person.credential,
            authorization=authorization_service_pb2.Authorization(
                algorithm=algorithms_pb2.ECDSA_P256_SHA256,
                items=[authorization_service_pb2.AuthorizedItem(digest=digest) for digest in digests],
            ),
            request_id=str(uuid.uuid4()),
        )
        return self.office.create(request)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.channel.close()
        self._connection = self._office = None


@contextmanager
def faulted_server(directory: Path, database: str, request: pytest.FixtureRequest) -> Iterator[FaultedServer]:
    """Runs a server on a copy of the sandbox, on either database, with one person's caller."""
    if database == "sqlite":
        running, url = running_sandbox(directory / "installation"), None
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.url(server.copy())
        running = running_on_postgresql(directory / "installation", url)
    with running as installation, judge_of(installation.directory, url=url) as judge:
        with Administrator(installation) as administrator:
            person = administrator.create_person("faulted")
        server_under_fault = FaultedServer(installation, judge, person)
        try:
            server_under_fault.warm_up()
            yield server_under_fault
        finally:
            server_under_fault.close()


def places_of(installation: Installation) -> dict[str, str]:
    """Returns what lies behind the paths that a server uses."""
    return {
        str(installation.directory / "token"): "token",
        str(installation.database): "database",
        str(installation.log_path): "log",
        "socket:": "socket",
        "anon_inode:": "event",
    }
