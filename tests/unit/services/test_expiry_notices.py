"""Certificates that expire are told of in time, once each over all nodes."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from tests.fakes.public_ca import issue
from tests.support.own_ca import create_ca
from tests.support.world import OPERATOR, P256, World

from trien_server.core.errors import Busy, StoreUnavailable
from trien_server.core.records import AuditEntry, Notice, RevocationReason
from trien_server.services.expiry_notices import LEASE, Expiring, ExpiryNotices

DAY = timedelta(days=1)
MOMENT = timedelta(seconds=1)


@pytest.fixture
def world() -> World:
    return World().populate()


def node(world: World, *files: Expiring) -> ExpiryNotices:
    return world.new_process(of_the_host=lambda: files).expiry_notices


def told(world: World) -> Counter[str]:
    return Counter(event.fields["name"] for event in world.events if event.name == "certificate_expires")


def go_to(world: World, at: datetime) -> None:
    world.clock.advance(at - world.clock.now())


def end_of(world: World, credential: str) -> datetime:
    return x509.load_der_x509_certificate(world.certificate(credential)).not_valid_after_utc


def test_a_credential_is_told_of_30_and_7_and_1_days_before_once_each_over_all_nodes(world: World) -> None:
    end = end_of(world, P256)
    nodes = [node(world) for _ in range(3)]
    days = []
    for before in (30, 7, 1):
        go_to(world, max(world.clock.now(), end - before * DAY - MOMENT))
        if before != 30:
            assert [one.tell() for one in nodes] == [0, 0, 0]
        go_to(world, max(world.clock.now(), end - before * DAY + MOMENT))
        counts = [one.tell() for one in nodes]
        assert counts[0] > 0
        assert counts[1:] == [0, 0]
        days.append(next(e.fields for e in reversed(world.events) if e.fields.get("name") == P256)["days"])
    assert told(world)[P256] == 3
    assert set(told(world).values()) == {3}
    assert days == ["29", "6", "0"]
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "certificate_expires"]
    assert len(entries) == sum(told(world).values()) == len(world.store.rows(Notice))


def test_who_was_away_is_told_the_last_notice_alone(world: World) -> None:
    go_to(world, end_of(world, P256) - DAY / 2)
    assert node(world).tell() > 0
    assert told(world)[P256] == 1
    go_to(world, end_of(world, P256) + DAY)
    assert node(world).tell() == 0


def test_a_renewed_or_revoked_credential_is_told_of_no_more(world: World) -> None:
    world.use.revoke_credential(OPERATOR, P256, reason=RevocationReason.SUPERSEDED, deadline=world.deadline())
    go_to(world, end_of(world, P256) - DAY / 2)
    node(world).tell()
    assert P256 not in told(world)
    assert told(world)


def test_the_own_ca_and_the_servers_files_are_told_of_too(world: World) -> None:
    create_ca(world, days=20)
    now = world.clock.now()
    soon, late = (issue(name, at=now, end=end).der for name, end in (("soon", 5 * DAY), ("late", 90 * DAY)))
    files = (Expiring(name="server/tls-certificate", certificate=soon), Expiring(name="server/x", certificate=late))
    node(world, *files).tell()
    assert told(world)["server/tls-certificate"] == 1
    assert told(world)["certificateAuthorities/ca-1"] == 1
    assert "server/x" not in told(world)
    renewed = issue("renewed", at=now, end=6 * DAY).der
    assert node(world, Expiring(name="server/tls-certificate", certificate=renewed)).tell() == 1


def test_a_file_that_cannot_be_read_keeps_no_other_notice_back(world: World) -> None:
    def fail() -> Any:
        raise OSError("gone")

    go_to(world, end_of(world, P256) - DAY)
    assert world.new_process(of_the_host=fail).expiry_notices.tell() > 0
    assert [event.name for event in world.events].count("certificate_not_read") == 1


@pytest.mark.parametrize("persisted", [False, True])
def test_a_commit_of_unknown_result_leaves_one_notice_with_one_entry(world: World, persisted: bool) -> None:
    soon = Expiring(name="server/x", certificate=issue("soon", at=world.clock.now(), end=DAY).der)
    only = node(world, soon)
    go_to(world, world.clock.now() + MOMENT)
    write = only._write

    def fail(*arguments: Any) -> bool:
        world.store.fail_transact(persisted=persisted)
        return write(*arguments)

    only._write = fail  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        only.tell()
    world.store = world.store.reopened()
    world.clock.advance(timedelta(minutes=2))
    node(world, soon).tell()
    names = [row.record.name for row in world.store.rows(Notice) if row.record.name.startswith("server/x")]
    assert len(names) == 1
    entries = [row.record for row in world.store.rows(AuditEntry) if row.record.kind == "certificate_expires"]
    assert sum('"server/x"' in entry.details for entry in entries) == 1


def test_one_node_looks_at_a_time(world: World) -> None:
    first, second = node(world), node(world)
    with first._leases.hold(LEASE, wait=0.0, stopped=first._stopped), pytest.raises(Busy, match=LEASE):
        second.tell()
