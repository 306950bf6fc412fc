"""Certificates are signed, revoked, listed and told of by two processes at once, on real databases."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.support.own_ca import create_ca, grant
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.world import OPERATOR, P256, World

from trien_server.core.errors import Refusal
from trien_server.core.ports import Store
from trien_server.core.records import AuditEntry, IssuedCertificate, IssuedCertificateState, Notice, RevocationReason
from trien_server.services.issued_certificates import serial_of
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store
from trien_server.wiring import UseCases

__all__ = ["postgres_fixture"]
Act = Callable[[UseCases], object]
AUTHORITY = "certificateAuthorities/ca-1"
ROUNDS = pytest.mark.parametrize("rounds", [5, pytest.param(60, marks=pytest.mark.slow)])


@dataclass
class Nodes:
    """Two processes with stores of their own over one database."""

    database: str
    world: World
    processes: tuple[UseCases, UseCases]

    def at_once(self, *acts: Act) -> list[object]:
        """Does the acts at the same time, by turns in either process; returns what they returned or refused."""
        ends: list[object] = [None] * len(acts)
        start = threading.Barrier(len(acts))

        def one(place: int) -> None:
            start.wait(60)
            try:
                ends[place] = acts[place](self.processes[place % 2])
            except Refusal as refusal:
                ends[place] = refusal.reason

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(acts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        return ends

    def issued(self, name: str) -> IssuedCertificate:
        return self.processes[0].transactions.read(lambda view: view.require(IssuedCertificate, name))

    def revoke(self, name: str) -> Act:
        return lambda use: use.own_ca.revoke(
            OPERATOR, name, reason=RevocationReason.SUPERSEDED, deadline=self.world.deadline()
        )


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
    else:
        url = f"sqlite:///{tmp_path / 'trien.db'}"
        migrate(url)
    stores: list[Store] = []

    def opened(world_now: Any = None) -> Any:
        store: Any = open_store(url, on_fatal=lambda reason: pytest.fail(reason))
        stores.append(store)
        if world_now is not None:
            store.now = world_now
        return store

    world = World(store=opened())
    world.store.now = world.clock.now
    world.populate()
    create_ca(world)
    yield Nodes(request.param, world, (world.use, world.new_process(store=opened(world.clock.now))))
    for store in stores:
        store.close()


@ROUNDS
def test_a_certificate_that_two_sign_and_one_revokes_is_issued_once_or_never(
    nodes: Nodes, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    found: Counter[str] = Counter()
    for _ in range(rounds):
        name = grant(nodes.world, nodes.world.key(P256).name)
        pending = nodes.issued(name)

        def issue(use: UseCases, name: str = name) -> None:
            use.own_ca.issuance.issue(name)

        ends = nodes.at_once(issue, issue, nodes.revoke(name))
        issued = nodes.issued(name)
        assert ends[:2] == [None, None]
        assert issued.state is IssuedCertificateState.REVOKED
        assert issued.to_be_signed == pending.to_be_signed
        assert issued.version == (3 if issued.certificate else 2)
        if issued.certificate:
            assert x509.load_der_x509_certificate(issued.certificate).tbs_certificate_bytes == pending.to_be_signed
        found["issued, then revoked" if issued.certificate else "never issued"] += 1
    record_property("count", f"{nodes.database}: certificates {found.total()}, {dict(found)}")
    assert found.total() == rounds


@ROUNDS
def test_lists_that_two_make_at_once_have_numbers_of_their_own_and_never_say_less(
    nodes: Nodes, rounds: int, record_property: Callable[[str, object], None]
) -> None:
    lists: dict[int, set[int]] = {}
    revoked = []
    for _ in range(rounds):
        name = grant(nodes.world, nodes.world.key(P256).name)
        revoked.append(serial_of(name))

        def make(use: UseCases) -> bytes:
            return use.own_ca.lists.make(AUTHORITY)

        for made in nodes.at_once(make, make, nodes.revoke(name)):
            if isinstance(made, bytes):
                listed = x509.load_der_x509_crl(made)
                number = listed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
                assert number not in lists
                lists[number] = {entry.serial_number for entry in listed}
        nodes.world.clock.advance(timedelta(seconds=1))
    numbers = sorted(lists)
    assert len(numbers) > rounds
    for lower, higher in itertools.pairwise(numbers):
        assert lists[lower] <= lists[higher]
    last = x509.load_der_x509_crl(nodes.processes[1].own_ca.lists.make(AUTHORITY))
    assert {entry.serial_number for entry in last} == set(revoked)
    record_property("count", f"{nodes.database}: lists {len(lists)} of two processes, {rounds} revocations meanwhile")


def test_two_nodes_that_look_at_once_tell_once(nodes: Nodes) -> None:
    world = nodes.world
    world.clock.advance(timedelta(days=29, hours=12))
    nodes.at_once(*[lambda use: use.expiry_notices.tell()] * 4)
    for use in nodes.processes:
        use.expiry_notices.tell()
    notices = world.use.transactions.read(lambda view: view.find(Notice))
    entries = world.use.transactions.read(lambda view: view.find(AuditEntry, limit=1_000_000))
    told = [event.fields["name"] for event in world.events if event.name == "certificate_expires"]
    assert len(notices) == len(told) == len(set(told)) == 5
    assert sum(entry.kind == "certificate_expires" for entry in entries) == 5
