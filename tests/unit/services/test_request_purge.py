"""Request records go when their time is over; nothing else does, and nobody can hide behind it."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from tests.fakes.clock import ManualClock
from tests.support.world import CHAIR, OFFICE, OPERATOR, P256, World, digests, new_request_id, populated

from trien_server.core import errors
from trien_server.core.ports import Store
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    Approval,
    AuditEntry,
    AuthenticatorState,
    Authorization,
    Challenge,
    DeliveryCount,
    GrantedRequest,
    Notice,
    Record,
    RequestPurge,
    SignatureUse,
)
from trien_server.core.retention import DEFAULT_DAYS, LEAST_DAYS, REMOVED, RETENTION, is_due
from trien_server.services import request_purge
from trien_server.services.integrity import REQUEST_PURGE
from trien_server.services.integrity_rules import SIGN
from trien_server.services.transactions import Ledger
from trien_server.wiring import UseCases

DAY = timedelta(days=1)


def used(world: World) -> None:
    """Uses everything that leaves request records, once."""
    world.sign(digests(1), request_id=new_request_id())
    world.next_step()
    authorization = world.authorize(digests(2, of="both"), request_id=new_request_id())
    world.approve(authorization, request_id=new_request_id())
    data = world.activation_data(authorization)
    world.sign(digests(1, of="both"), activated=(authorization.name, data), request_id=new_request_id())
    asked = world.authorize(digests(1, of="asked"))
    made = world.challenge(asked)
    world.approve(asked, password=world.answer(made), challenge=made.challenge.name)
    world.send(world.authorize(digests(1, of="sent")), signer=CHAIR)
    world.next_step()


def filled(*, days_between: int = 5) -> World:
    """Returns a world that was used at two times."""
    world = populated()
    world.add_ocra()
    world.add_delivery(CHAIR)
    world.use.transactions.run(
        lambda ledger: ledger.insert(Notice(name=f"{P256}/notices/expires-30", create_time=ledger.at)), timeout=30.0
    )
    used(world)
    world.clock.advance(days_between * DAY)
    used(world)
    return world


def copied(world: World) -> World:
    """Returns another world that has come to the same point."""
    clock = ManualClock(world.clock.now())
    store = world.store.reopened()
    store.clock = clock.now
    return World(clock=clock, hsm=world.hsm, store=store)


def counts(world: World) -> Counter[str]:
    kinds = (*HOT_RECORDS, *SLOW_RECORDS)
    return Counter({kind.table: len(world.store.read(lambda s, kind=kind: s.find(kind, limit=9999))) for kind in kinds})


def purging(world: World, use: UseCases | None = None, **settings: Any) -> Any:
    found = (use or world.new_process(**settings)).request_purging
    found._pause_seconds = 0.0
    return found


def findings(world: World) -> list[Any]:
    return list(world.new_process().check_integrity())


def to_the_end(world: World, days: float = DEFAULT_DAYS) -> None:
    """Lets so much time go by that everything so far is over."""
    world.clock.advance(timedelta(days=days + 2))


def test_every_kind_of_record_is_in_the_table_of_what_is_kept() -> None:
    assert set(RETENTION) == {*HOT_RECORDS, *SLOW_RECORDS}
    assert set(REMOVED).isdisjoint(SLOW_RECORDS)
    assert not {AuditEntry, AuthenticatorState} & set(REMOVED)
    assert len(REMOVED) == 7
    assert all(kept.why and bool(kept.end_words) is (kept.end is not None) for kept in RETENTION.values())


@pytest.mark.promise("P7")
@pytest.mark.requirement("ASVS 5.0.0-14.2.7")
def test_what_is_over_goes_and_everything_else_stays(record_property: Callable[[str, object], None]) -> None:
    world = filled()
    before = counts(world)
    assert all(before[kind.table] >= 1 for kind in REMOVED), before
    assert findings(world) == []
    to_the_end(world)
    assert findings(world) == []

    removed = purging(world).purge()

    after = counts(world)
    assert removed == sum(before[kind.table] for kind in REMOVED)
    assert [after[kind.table] for kind in REMOVED] == [0] * len(REMOVED)
    assert world.store.read(lambda snapshot: snapshot.outcome(f"{OFFICE.name}/requests/x")) is None
    kept = {kind.table for kind in RETENTION} - {kind.table for kind in REMOVED}
    grown = {"audit_entries", "leases", "request_purges"}
    assert {table: after[table] for table in kept - grown} == {table: before[table] for table in kept - grown}
    assert after["request_purges"] == 1
    assert findings(world) == []
    entries = world.store.read(lambda snapshot: snapshot.find(AuditEntry, limit=999, kind="request_records_removed"))
    told: Counter[str] = Counter()
    for row in entries:
        details = json.loads(row.record.details)
        told[details["table"]] += details["count"]
    assert told == Counter({kind.table: before[kind.table] for kind in REMOVED})
    record_property("count", f"request records removed {removed}")
    assert removed >= 15


def test_what_is_younger_stays_with_everything_that_it_names() -> None:
    world = filled(days_between=20)
    first = counts(world)
    # The first use is over, the second is not.
    world.clock.advance(timedelta(days=DEFAULT_DAYS - 10))
    removed = purging(world).purge()
    after = counts(world)
    assert 0 < removed < sum(first[kind.table] for kind in REMOVED)
    assert all(after[kind.table] > 0 for kind in REMOVED if kind is not Notice), after
    assert findings(world) == []
    for kind in REMOVED:
        for row in world.store.read(lambda snapshot, kind=kind: snapshot.find(kind, limit=999)):
            assert not is_due(row.record, world.clock.now() - DEFAULT_DAYS * DAY)


def test_nothing_goes_before_its_time_and_nothing_is_written(record_property: Callable[[str, object], None]) -> None:
    world = filled()
    before, looked = counts(world), 0
    for days in (0, 1, LEAST_DAYS, DEFAULT_DAYS - 40):
        world.clock.advance(timedelta(days=days))
        assert purging(world).purge() == 0
        looked += 1
    after = counts(world)
    assert before - after == Counter()
    assert after["audit_entries"] == before["audit_entries"]
    assert after["request_purges"] == 0
    record_property("count", f"passes that removed nothing {looked}")
    assert looked == 4


@pytest.mark.promise("P7")
def test_a_request_id_is_free_again_when_its_record_is_gone_and_its_entry_stays() -> None:
    world = World().populate()
    request_id = new_request_id()
    result = world.sign(digests(1), request_id=request_id)
    world.clock.advance(8 * DAY)
    with pytest.raises(errors.AuthorizationExpired):
        world.sign(digests(1), request_id=request_id, password="000000")
    with pytest.raises(errors.RequestIdReused):
        world.sign(digests(1, of="other"), request_id=request_id)
    to_the_end(world, LEAST_DAYS)
    world.add_credential("credentials/later", world.key(P256).key_type, CHAIR, CHAIR)
    assert purging(world, keep_requests=LEAST_DAYS * DAY).purge() > 0
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), credential="credentials/later", request_id=request_id, password=world.wrong_code())
    again = world.sign(digests(1), credential="credentials/later", request_id=request_id)
    assert again.audit_entry != result.audit_entry
    entry = world.use.transactions.read(lambda view: view.require(AuditEntry, result.audit_entry))
    assert digests(1)[0].hex() in entry.details
    assert findings(world) == []


@pytest.mark.promise("P2")
def test_a_code_that_was_used_stays_used_when_its_approval_is_gone() -> None:
    world = populated()
    world.sign(digests(1))
    states = world.store.read(lambda snapshot: snapshot.find(AuthenticatorState, limit=99))
    to_the_end(world)
    assert purging(world).purge() > 0
    assert world.store.read(lambda snapshot: snapshot.find(AuthenticatorState, limit=99)) == states


@pytest.mark.promise("P5", "P10")
def test_the_time_is_in_force_before_the_first_record_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled()
    to_the_end(world)
    in_force: list[bool] = []
    remove = Ledger.remove

    def watched(ledger: Ledger, record: Record) -> None:
        row = ledger._transaction.get(RequestPurge, REQUEST_PURGE)
        change = ledger._transaction.latest_change(REQUEST_PURGE)
        in_force.append(
            row is not None
            and change is not None
            and change.record.subject_version == row.record.version
            and is_due(record, row.record.purged_before)
        )
        remove(ledger, record)

    monkeypatch.setattr(Ledger, "remove", watched)
    assert purging(world).purge() == len(in_force) > 0
    assert all(in_force)


@pytest.mark.promise("P5", "P10")
def test_a_deletion_of_younger_rows_is_found_also_after_a_purge(record_property: Callable[[str, object], None]) -> None:
    world = filled(days_between=20)
    world.clock.advance(timedelta(days=DEFAULT_DAYS - 10))
    assert purging(world).purge() > 0
    assert findings(world) == []
    found = 0
    for kind in (GrantedRequest, Authorization, Approval):
        for row in world.store.read(lambda snapshot, kind=kind: snapshot.find(kind, limit=999)):
            if kind is Authorization and row.record.approval is None:
                continue
            if kind is GrantedRequest and row.record.method != SIGN:
                continue
            world.store.delete(kind, row.record.name)
            assert findings(world), f"{kind.table} {row.record.name}"
            world.store.overwrite(row)
            found += 1
    assert findings(world) == []
    record_property("count", f"younger rows deleted and found {found}")
    assert found >= 6


@pytest.mark.promise("P5")
def test_a_time_that_was_put_back_or_edited_hides_nothing() -> None:
    world = filled(days_between=20)
    world.clock.advance(timedelta(days=DEFAULT_DAYS - 10))
    purging(world).purge()
    row = world.store.read(lambda snapshot: snapshot.get(RequestPurge, REQUEST_PURGE))
    world.store.overwrite(
        dataclasses.replace(row, record=dataclasses.replace(row.record, purged_before=world.clock.now()))
    )
    assert {finding.table for finding in findings(world)} >= {RequestPurge.table}
    with pytest.raises(errors.RecordNotTrusted):
        purging(world).purge()
    world.store.delete(RequestPurge, REQUEST_PURGE)
    assert {finding.table for finding in findings(world)} >= {RequestPurge.table}


@dataclass
class Stopping:
    """A store whose process ends at one transaction: before it, or when it is durable."""

    store: Store
    at: int
    persisted: bool
    done: int = 0

    def transact(self, work: Callable[[Any], Any], *, timeout: float) -> Any:
        self.done += 1
        if self.done > self.at:
            raise errors.StoreUnavailable("the process is gone")
        if self.done == self.at and not self.persisted:
            raise errors.StoreUnavailable("killed before the commit")
        result = self.store.transact(work, timeout=timeout)
        if self.done == self.at:
            raise errors.StoreUnavailable("killed behind the commit")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


@pytest.mark.promise("P5", "P7", "P8")
def test_a_crash_at_any_transaction_leaves_what_the_next_process_goes_on_from(
    monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(request_purge, "_TOGETHER", 3)
    killed, start = 0, filled(days_between=20)
    for persisted in (False, True):
        at = 0
        while True:
            at += 1
            world = copied(start)
            before = counts(world)
            world.clock.advance(timedelta(days=DEFAULT_DAYS - 10))
            store: Any = Stopping(world.store, at, persisted)
            try:
                purging(world, world.new_process(store=store)).purge()
            except errors.Refusal:
                killed += 1
            else:
                break
            assert findings(world) == []
            world.clock.advance(timedelta(seconds=90))  # the lease lapses
            purging(world).purge()
            after = counts(world)
            due = {kind.table: before[kind.table] - after[kind.table] for kind in REMOVED}
            assert all(due.values()), due
            assert findings(world) == []
            entries = world.store.read(lambda s: s.find(AuditEntry, limit=999, kind="request_records_removed"))
            told = sum(json.loads(row.record.details)["count"] for row in entries)
            assert told == sum(due.values())
    record_property("count", f"kill points of a purge {killed}")
    assert killed >= 12


@pytest.mark.promise("P2")
def test_two_processes_do_not_purge_at_once_and_a_paused_one_does_no_harm() -> None:
    world = filled()
    to_the_end(world)
    one, other = purging(world), purging(world)
    steps = one._steps(one._put_in_force())
    assert next(steps) == 0  # it read its first page, and is paused
    assert other.purge() > 0
    assert sum(steps) == 0
    assert findings(world) == []
    with one._leases.hold(request_purge.LEASE, wait=0.0, stopped=one._stopped):
        third = World.new_process(world).request_purging
        with pytest.raises(errors.Busy):
            third.purge()


def test_a_row_that_cannot_be_trusted_stays_and_hides_no_other() -> None:
    world = filled()
    to_the_end(world)
    row = world.store.rows(SignatureUse)[0]
    name = row.record.name
    world.store.overwrite(dataclasses.replace(row, seal=b"edited"))
    assert purging(world).purge() > 0
    assert [row.record.name for row in world.store.rows(SignatureUse)] == [name]
    assert [event.fields["name"] for event in world.events if event.name == "record_not_trusted"].count(name) >= 1
    assert all(not world.store.rows(kind) for kind in REMOVED if kind is not SignatureUse)


def test_a_pass_ends_and_the_next_one_comes_a_day_later() -> None:
    world = filled()
    to_the_end(world)
    process = purging(world)
    assert process.purge() > 0
    versions = [process.purge(), world.store.read(lambda s: s.get(RequestPurge, REQUEST_PURGE)).record.version]
    assert versions == [0, 1]
    world.clock.advance(DAY + timedelta(seconds=1))
    assert process.purge() == 0
    assert world.store.read(lambda s: s.get(RequestPurge, REQUEST_PURGE)).record.version == 2
    assert findings(world) == []


def test_what_ends_last_is_removed_last() -> None:
    """A request that is there has its authorization, and an authorization its approval, at every time."""
    world = filled()
    for before in (world.clock.now() + hours * timedelta(hours=1) for hours in range(-1, 80)):
        read = world.use.transactions.read
        for granted in read(lambda view: view.find(GrantedRequest)):
            named = read(lambda view, name=granted.subject: view.get(Authorization, name))
            if named is not None:
                assert is_due(granted, before) or not is_due(named, before)
        for authorization in read(lambda view: view.find(Authorization)):
            if authorization.approval is not None:
                decision = read(lambda view, name=authorization.approval: view.require(Approval, name))
                assert is_due(authorization, before) or not is_due(decision, before)
    assert REMOVED.index(GrantedRequest) < REMOVED.index(Authorization) < REMOVED.index(Approval)
    assert {Challenge, DeliveryCount} < set(REMOVED)
    assert OPERATOR.name
