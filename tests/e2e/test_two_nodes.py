"""Two nodes, each with its own folder and TLS identity, on one PostgreSQL and one token (docs/postgresql.md)."""

import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from tests.promises.history import History
from tests.promises.recording import RecordedConnection
from tests.support.administration import Administrator, Connection, Person, Refused, request_of
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.sandbox import Installation
from tests.support.shim import Order, Shim
from tests.support.workers import copy_people, judge, running, second_node
from trien.v1 import access_service_pb2

__all__ = ["postgres_fixture"]
KEYS = 4


@dataclass
class Nodes:
    """Both nodes, people, and what clients did."""

    first: Installation
    second: Installation
    people: tuple[Person, ...]
    shim: Shim
    url: str
    history: History = field(default_factory=History)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> Iterator[Nodes]:
    tmp_path = tmp_path_factory.mktemp("nodes")
    peopled = copy_people(tmp_path / "first")
    shim = Shim(tmp_path / "shim")
    url = postgres.url(postgres.copy())
    move_to_postgresql(peopled.directory / "trien.db", url)
    (peopled.directory / "trien.db").unlink()
    settings = (f"store.url={url}", shim.setting)
    first = Installation(peopled.directory, *settings, **shim.environment)
    second = second_node(first, tmp_path / "second", *settings, **shim.environment)
    with running(first, second):
        yield Nodes(first, second, peopled.people, shim, url)


def connect(node: Installation, nodes: Nodes) -> Connection:
    return Connection(node, token=nodes.first.population["client"]["token"])


@pytest.mark.promise("P2", "P7")
def test_two_nodes_are_one_service(nodes: Nodes, record_property: Callable[[str, object], None]) -> None:
    with connect(nodes.first, nodes) as on_first, connect(nodes.second, nodes) as on_second:
        first, second = RecordedConnection(on_first, nodes.history), RecordedConnection(on_second, nodes.history)
        signed = 0
        for number in range(10):
            person = nodes.people[number % 4]
            wanted = request_of(person, f"document {number}".encode())
            one, other = (first, second) if number % 2 else (second, first)
            answer = one.sign(wanted, right=True)
            assert other.sign(wanted, right=True) == answer, "the retry on the other node"
            with pytest.raises(Refused, match="ONE_TIME_PASSWORD_REJECTED"):
                other.sign(request_of(person, code=wanted.one_time_password.code), right=False)
            signed += 1
    with judge(nodes.first, url=nodes.url) as check:
        check(nodes.history)
    record_property("count", f"signed {signed}, each repeated on the other node and its code refused there")
    assert signed == 10


@pytest.mark.promise("P8")
def test_a_key_made_through_one_node_signs_on_the_other(
    nodes: Nodes, record_property: Callable[[str, object], None]
) -> None:
    """Both nodes make keys at the same time; only one at a time creates objects on the token."""

    def make(number: int) -> tuple[Person, Installation]:
        here, there = (nodes.first, nodes.second) if number % 2 else (nodes.second, nodes.first)
        with Administrator(here) as administrator:
            administrator.connection.patience = 90
            return administrator.create_person(f"made-{number}"), there

    with ThreadPoolExecutor(KEYS) as pool:
        made = list(pool.map(make, range(KEYS)))
    waits: list[float] = []
    for person, there in made:
        with connect(there, nodes) as connection:
            connection.patience = 90
            begun = time.monotonic()
            recorded = RecordedConnection(connection, nodes.history)
            recorded.sign(request_of(person), right=True, timeout=60.0)
            waits.append(time.monotonic() - begun)
    with judge(nodes.first, url=nodes.url) as check:
        check(nodes.history)
    record_property(
        "count",
        f"keys {len(waits)}, first signature on the other node after {statistics.median(waits):.2f} s (median),"
        f" {max(waits):.2f} s at most",
    )
    assert len(waits) == KEYS
    assert max(waits) < 60


@pytest.mark.promise("P2", "P8")
def test_a_client_that_one_node_disables_is_refused_by_the_other_at_once(nodes: Nodes) -> None:
    with Administrator(nodes.first) as administrator:
        name, token = administrator.create_client("short-lived")
        with Connection(nodes.second, token=token) as connection:
            with pytest.raises(Refused, match="PERMISSION_DENIED"):
                connection.sign(request_of(nodes.people[7]))
            administrator.connection.call(
                administrator.connection.access.DisableClient, access_service_pb2.DisableClientRequest(name=name)
            )
            refused = 0
            for node in (nodes.second, nodes.first):
                with Connection(node, token=token) as again, pytest.raises(Refused, match="UNAUTHENTICATED"):
                    again.sign(request_of(nodes.people[7], code="00000000"))
                refused += 1
            with pytest.raises(Refused, match="UNAUTHENTICATED"):
                connection.sign(request_of(nodes.people[7], code="00000000"))
    assert refused == 2


@pytest.mark.slow
@pytest.mark.promise("P1", "P2", "P7")
def test_what_a_killed_node_had_in_hand_the_other_completes(
    nodes: Nodes, record_property: Callable[[str, object], None]
) -> None:
    assert nodes.first.process is not None
    with connect(nodes.first, nodes) as on_first, connect(nodes.second, nodes) as on_second:
        wanted = request_of(nodes.people[4], b"a document")
        nodes.shim.order(Order("C_Sign/signer", "hang", pid=nodes.first.process.pid, once=True))
        lost = on_first.signing.SignDigests.future(wanted, timeout=60, metadata=on_first.metadata)
        nodes.shim.wait_for("C_Sign", "hang")
        nodes.first.kill()
        killed = time.monotonic()
        assert lost.exception() is not None
        second = RecordedConnection(on_second, nodes.history)
        others = 0
        for number in range(3):
            second.sign(request_of(nodes.people[5], f"{number}".encode()), right=True)
            others += 1
        answer = second.sign(wanted, right=True, timeout=90.0)
        completed = time.monotonic() - killed
        nodes.first.start()
    with connect(nodes.first, nodes) as on_first:
        assert RecordedConnection(on_first, nodes.history).sign(wanted, right=True) == answer
    with judge(nodes.first, url=nodes.url) as check:
        check(nodes.history)
    record_property("count", f"completed by the other node {completed:.1f} s after the kill, signed meanwhile {others}")
    assert others == 3
    assert completed < 60
