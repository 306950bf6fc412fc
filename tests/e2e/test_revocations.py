"""What is taken away is gone for every call that begins later: on all workers, on both nodes, whatever it is.

Callers call without a pause on connections to all processes; in the middle of it something is taken away. Whatever
begins after the answer to that has to be refused.
"""

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.administration import Administrator, Connection, Refused, client_identity
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.sandbox import Installation, copy_sandbox
from tests.support.workers import running, second_node, serving_of, wait_until
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    signer_service_pb2,
)

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P2", "P9")
CALLERS = 6
KINDS = ("client", "its token", "operator", "credential", "key", "signer", "activator", "client of the credential")
_REFUSALS = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CREDENTIAL_DISABLED"}


@dataclass(frozen=True)
class Call:
    begun: float
    outcome: str


@dataclass
class Caller:
    """Calls one method again and again, on one connection."""

    call: Callable[[], object]
    done: list[Call] = field(default_factory=list)

    def run(self, stopped: threading.Event) -> None:
        while not stopped.is_set():
            begun = time.monotonic()
            try:
                self.call()
            except Refused as refused:
                self.done.append(Call(begun, refused.reason or refused.code.name))
            else:
                self.done.append(Call(begun, "OK"))

    def since(self, moment: float) -> list[Call]:
        return [call for call in list(self.done) if call.begun > moment]


class Service:
    """Servers with somebody to take everything from, and who takes it."""

    def __init__(self, *nodes: Installation) -> None:
        self.nodes = nodes
        self.administrator = Administrator(nodes[0])
        self._make()

    def _make(self) -> None:
        administrator = self.administrator
        self.client, self.token = administrator.create_client("taken-from")
        other, _ = administrator.create_client("other")
        people = [administrator.create_signer(name) for name in ("taken", "staying")]
        self.person = people[0]
        agency = administrator.create_signer("agency", agency=True)
        self.key = administrator.create_key("seal").name
        certificate = administrator.ca.issue_signer(administrator.signing_request(self.key, agency))
        self.credential = administrator.create_credential(
            "seal",
            key=self.key,
            signer=agency,
            chain=[certificate, administrator.ca.identity.certificate_der],
            clients=[self.client, other],
            activators=people,
        )
        self.agency = agency
        self.operator = "operators/third"
        self.identity = client_identity(self.nodes[0], "third")
        operator = access_service_pb2.Operator(
            display_name="Third", certificate=self.identity.certificate_der, roles=[access_service_pb2.MONITOR]
        )
        request = access_service_pb2.CreateOperatorRequest(operator_id="third", operator=operator)
        administrator.agree(administrator.connection.access.CreateOperator, request)
        spare = access_service_pb2.Operator(
            display_name="Fourth",
            certificate=client_identity(self.nodes[0], "fourth").certificate_der,
            roles=[access_service_pb2.MONITOR],
        )
        request = access_service_pb2.CreateOperatorRequest(operator_id="fourth", operator=spare)
        administrator.agree(administrator.connection.access.CreateOperator, request)

    def connect(self, number: int, *, as_operator: bool) -> Connection:
        node = self.nodes[number % len(self.nodes)]
        return Connection(node, identity=self.identity) if as_operator else Connection(node, token=self.token)

    def call(self, connection: Connection, *, as_operator: bool) -> object:
        if as_operator:
            request = organization_service_pb2.GetOrganizationRequest(name=self.administrator.organization)
            return connection.call(connection.organizations.GetOrganization, request)
        authorization = authorization_service_pb2.Authorization(
            algorithm=algorithms_pb2.ECDSA_P256_SHA256,
            items=[authorization_service_pb2.AuthorizedItem(digest=hashlib.sha256(b"a document").digest())],
            approver=self.person,
        )
        return connection.call(
            connection.authorizations.CreateAuthorization,
            authorization_service_pb2.CreateAuthorizationRequest(
                parent=self.credential.name, authorization=authorization
            ),
        )

    def take(self, kind: str) -> Callable[[], None]:
        """Takes something away; returns what gives it back."""
        first = self.administrator.connection
        policy = credential_service_pb2.Credential()
        policy.CopyFrom(self.credential)
        for name in ("key", "signer", "certificate_chain"):
            policy.ClearField(name)
        whole = credential_service_pb2.UpdateCredentialRequest(credential=policy)
        less = credential_service_pb2.RestrictCredentialRequest(credential=policy)
        match kind:
            case "client":
                self._once(first.access.DisableClient, access_service_pb2.DisableClientRequest(name=self.client))
                return self._later(first.access.EnableClient, access_service_pb2.EnableClientRequest(name=self.client))
            case "its token":
                return self._take_token()
            case "operator":
                self._once(first.access.DisableOperator, access_service_pb2.DisableOperatorRequest(name=self.operator))
                return self._later(
                    first.access.EnableOperator, access_service_pb2.EnableOperatorRequest(name=self.operator)
                )
            case "credential":
                name = self.credential.name
                self._once(
                    first.credentials.SuspendCredential, credential_service_pb2.SuspendCredentialRequest(name=name)
                )
                return self._later(
                    first.credentials.ResumeCredential, credential_service_pb2.ResumeCredentialRequest(name=name)
                )
            case "key":
                self._once(first.keys.DisableKey, key_service_pb2.DisableKeyRequest(name=self.key))
                return self._later(first.keys.EnableKey, key_service_pb2.EnableKeyRequest(name=self.key))
            case "signer":
                self._once(first.signers.DisableSigner, signer_service_pb2.DisableSignerRequest(name=self.agency))
                return self._later(first.signers.EnableSigner, signer_service_pb2.EnableSignerRequest(name=self.agency))
            case "activator":
                staying = [entitled for entitled in policy.activators if entitled.signer != self.person]
                del less.credential.activators[:]
                less.credential.activators.extend(staying)
            case _:
                less.credential.clients.remove(self.client)
        self._once(first.credentials.RestrictCredential, less)
        return self._later(first.credentials.UpdateCredential, whole)

    def _take_token(self) -> Callable[[], None]:
        """Renews the token with an overlap, and then ends the old one, which all callers use."""
        access = self.administrator.connection.access
        old = self.token
        client = self.administrator.connection.call(
            access.GetClient, access_service_pb2.GetClientRequest(name=self.client)
        )

        def renew(token: str) -> None:
            client.token_hash = hashlib.sha256(token.encode()).digest()
            request = access_service_pb2.UpdateClientRequest(client=client, overlap_hours=1)
            self.administrator.agree(access.UpdateClient, request)

        renew(f"{old}-{secrets.token_hex(8)}")
        ended = access_service_pb2.RestrictClientRequest(name=self.client, end_previous=True)
        self._once(access.RestrictClient, ended)
        return lambda: renew(old)

    def _once(self, method: Any, request: Any) -> None:
        self.administrator.connection.call(method, request)

    def _later(self, method: Any, request: Any) -> Callable[[], None]:
        return lambda: (self.administrator.agree(method, request), None)[1]


def take_in_the_middle(service: Service, kind: str) -> tuple[int, int]:
    """Takes something away amid calls; returns how many were granted before, and refused after."""
    as_operator = kind == "operator"
    stopped = threading.Event()
    with ExitStack() as held:
        connections = [
            held.enter_context(service.connect(number, as_operator=as_operator)) for number in range(CALLERS)
        ]
        callers = [
            Caller(lambda connection=connection: service.call(connection, as_operator=as_operator))  # type: ignore[misc]
            for connection in connections
        ]
        threads = [threading.Thread(target=caller.run, args=(stopped,)) for caller in callers]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: all(len(caller.done) >= 2 for caller in callers), "everybody calls")
            restore = service.take(kind)
            taken = time.monotonic()
            wait_until(lambda: all(len(caller.since(taken)) >= 2 for caller in callers), "everybody calls again")
        finally:
            stopped.set()
            for thread in threads:
                thread.join(60)
    restore()
    before = [call for caller in callers for call in caller.done if call.begun <= taken]
    after = [call for caller in callers for call in caller.since(taken)]
    granted = [call for call in after if call.outcome == "OK"]
    assert granted == [], f"{kind}: {len(granted)} of {len(after)} calls that began later were granted"
    assert {call.outcome for call in after} <= _REFUSALS, {call.outcome for call in after}
    assert {call.outcome for call in before} <= _REFUSALS | {"OK"}, {call.outcome for call in before}
    return sum(call.outcome == "OK" for call in before), len(after)


def race(service: Service, rounds: int, record_property: Callable[[str, object], None], where: str) -> None:
    granted = refused = done = 0
    for _ in range(rounds):
        for kind in KINDS:
            before, after = take_in_the_middle(service, kind)
            granted, refused, done = granted + before, refused + after, done + 1
            assert before > 0
    record_property(
        "count",
        f"{where}: revocations {done} of {len(KINDS)} kinds amid calls; granted before {granted},"
        f" begun later {refused}, of them granted 0",
    )
    assert done == rounds * len(KINDS)
    assert refused >= 2 * CALLERS * done


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = copy_sandbox(tmp_path_factory.mktemp("revocations") / "installation")
    installation = Installation(directory, "server.workers=3")
    with running(installation):
        wait_until(lambda: serving_of(installation) == 3, "all workers serve")
        service = Service(installation)
        with service.administrator:
            yield service


@pytest.mark.requirement("ASVS 5.0.0-8.3.2")
@pytest.mark.parametrize("rounds", [1, pytest.param(12, marks=pytest.mark.slow)])
def test_what_is_taken_away_is_gone_on_all_workers(
    workers: Service, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    race(workers, rounds, record_property, "SQLite, 3 workers")


@pytest.mark.requirement("ASVS 5.0.0-8.3.2")
@pytest.mark.slow
def test_what_is_taken_away_on_one_node_is_gone_on_both(
    tmp_path: Path, postgres: PostgresServer, record_property: Callable[[str, object], None]
) -> None:
    directory = copy_sandbox(tmp_path / "first")
    url = postgres.url(postgres.copy())
    move_to_postgresql(directory / "trien.db", url)
    (directory / "trien.db").unlink()
    first = Installation(directory, f"store.url={url}")
    second = second_node(first, tmp_path / "second", f"store.url={url}")
    with running(first, second):
        service = Service(first, second)
        with service.administrator:
            race(service, 12, record_property, "PostgreSQL, 2 nodes")
