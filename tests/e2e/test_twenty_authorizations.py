"""Twenty documents over three credentials, one code, on real servers: exactly these, also while one is denied (P2)."""

import hashlib
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.administration import Administrator, Connection, Person, Refused, e_office
from tests.support.moving import running_on_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401
from tests.support.sandbox import Installation, running_sandbox
from trien.v1 import algorithms_pb2
from trien.v1 import authorization_service_pb2 as messages

TWENTY = 20
Decision = messages.Authorization


def serve(kind: str, stack: ExitStack, folder: Path, request: pytest.FixtureRequest) -> Installation:
    """Runs a server on a database of that kind."""
    if kind == "SQLite":
        return stack.enter_context(running_sandbox(folder / "installation"))
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return stack.enter_context(running_on_postgresql(folder / "installation", postgres.url(postgres.copy())))


def person_with_three(administrator: Administrator) -> tuple[Person, list[str]]:
    """Makes a person and two more credentials of theirs."""
    person = administrator.create_person("twenty")
    credentials = [person.credential]
    for number in (2, 3):
        key = administrator.create_key(f"twenty-{number}")
        certificate = administrator.ca.issue_signer(administrator.signing_request(key.name, person.name))
        chain = [certificate, administrator.ca.identity.certificate_der]
        made = administrator.create_credential(f"twenty-{number}", key=key.name, signer=person.name, chain=chain)
        credentials.append(made.name)
    return replace(person), credentials


def create(client: Connection, credentials: list[str], count: int, text: str) -> list[str]:
    names = []
    for number in range(count):
        digest = hashlib.sha256(f"{text} {number}".encode()).digest()
        wanted = Decision(algorithm=algorithms_pb2.ECDSA_P256_SHA256, items=[messages.AuthorizedItem(digest=digest)])
        request = messages.CreateAuthorizationRequest(parent=credentials[number % 3], authorization=wanted)
        names.append(client.call(client.authorizations.CreateAuthorization, request).name)
    return names


def states(client: Connection, names: list[str]) -> list[int]:
    get = client.authorizations.GetAuthorization
    return [client.call(get, messages.GetAuthorizationRequest(name=name)).state for name in names]


def decided(client: Connection, deny: messages.DenyAuthorizationRequest) -> bool:
    """Denies an authorization that is being approved; tells whether it came first."""
    try:
        client.call(client.authorizations.DenyAuthorization, deny)
    except Refused as refused:
        if refused.reason not in {"AUTHORIZATION_NOT_PENDING", "BUSY"}:
            raise
        return False
    return True


@pytest.mark.promise("P2", "P8")
@pytest.mark.parametrize(
    ("kind", "rounds"),
    [
        ("SQLite", 2),
        ("PostgreSQL", 2),
        pytest.param("SQLite", TWENTY, marks=pytest.mark.slow),
        pytest.param("PostgreSQL", TWENTY, marks=pytest.mark.slow),
    ],
)
def test_while_one_of_twenty_is_denied_all_or_none_are_approved(
    kind: str,
    rounds: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    outcomes: Counter[str] = Counter()
    with ExitStack() as stack:
        server = serve(kind, stack, tmp_path, request)
        administrator = stack.enter_context(Administrator(server))
        clients = [stack.enter_context(e_office(server)) for _ in range(2)]
        pool = stack.enter_context(ThreadPoolExecutor(2))
        person, credentials = person_with_three(administrator)
        others = create(clients[0], credentials, 3, "others")
        for number in range(rounds):
            position = number * TWENTY // rounds
            names = create(clients[0], credentials, TWENTY, f"round {number}")
            code, request_id, start = person.authenticator.take(), str(uuid.uuid4()), threading.Barrier(2)
            deny = messages.DenyAuthorizationRequest(name=names[position])

            def approve(wanted: list[str], code: str = code, request_id: str = request_id) -> Refused | None:
                approval = messages.ApproveAuthorizationsRequest(
                    names=wanted, one_time_password=person.one_time_password(code), request_id=request_id
                )
                try:
                    clients[0].call(clients[0].authorizations.ApproveAuthorizations, approval)
                except Refused as refused:
                    return refused
                return None

            def race(
                wanted: list[str] = names,
                start: threading.Barrier = start,
                ask: Callable[..., Refused | None] = approve,
            ) -> Refused | None:
                start.wait(30)
                return ask(wanted)

            racing = pool.submit(race)
            start.wait(30)
            denied = decided(clients[1], deny)
            refused_approval = racing.result(60)
            assert denied is (refused_approval is not None), refused_approval
            if refused_approval is not None:
                outcomes["denied first"] += 1
                assert refused_approval.reason == "AUTHORIZATION_NOT_PENDING"
                assert refused_approval.metadata["authorization"] == names[position]
                nineteen = [name for name in names if name != names[position]]
                assert states(clients[0], nineteen) == [Decision.PENDING] * (TWENTY - 1)
                assert approve(nineteen) is None
                assert states(clients[0], nineteen) == [Decision.APPROVED] * (TWENTY - 1)
                assert states(clients[0], [names[position]]) == [Decision.DENIED]
            else:
                outcomes["approved first"] += 1
                assert states(clients[0], names) == [Decision.APPROVED] * TWENTY
        again = messages.ApproveAuthorizationsRequest(names=others, one_time_password=person.one_time_password(code))
        with pytest.raises(Refused, match="ONE_TIME_PASSWORD_REJECTED"):
            clients[0].call(clients[0].authorizations.ApproveAuthorizations, again)
        assert states(clients[0], others) == [Decision.PENDING] * 3
    record_property("count", f"{kind}: rounds {outcomes.total()} of twenty, {dict(outcomes)}")
    assert outcomes.total() == rounds
