"""Details of audit entries are erased by two officers; the log stays whole, and a crash goes on."""

import dataclasses
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.fakes.clock import ManualClock
from tests.support.positions import assign_all, entries_by_position
from tests.support.world import CHAIR, CLERK, OFFICE, OPERATOR, P256, SEAL, SECOND, World, digests, populated

from trien_server.core import errors
from trien_server.core.audit import committed_details, leaf_of
from trien_server.core.audit_selection import Selection
from trien_server.core.merkle import hash_leaf
from trien_server.core.records import AuditEntry, AuditErasure, AuditErasureState, Operator, Proposal, ProposalState
from trien_server.services import audit_erasing, audit_erasures
from trien_server.services.audit_erasures import ErasureQuery
from trien_server.services.changes import Change
from trien_server.services.transactions import next_version

pytestmark = pytest.mark.promise("P10")
WHY = "left in 2026, request 12/2027"


@pytest.fixture
def world() -> World:
    """A log with signatures of two persons."""
    made = populated()
    made.authorize(digests(1, of="titled"), title="Quyết định về bà Nguyễn Thị Hoa")
    for number in range(6):
        made.sign(digests(2, of=f"chair {number}"))
        made.sign(digests(1, of=f"seal {number}"), credential=SEAL)
        made.next_step()
    assign_all(made)
    made.clock.advance(timedelta(hours=1))
    return made


def propose(world: World, *names: str, resource: str = "", why: str = WHY, principal: Any = OPERATOR) -> Proposal:
    end = world.clock.now() - timedelta(minutes=10) if resource else None
    query = ErasureQuery(audit_entries=names, resource=resource, end_time=end, justification=why)
    return world.use.erase_audit_details(principal, query, deadline=world.deadline())


def named(world: World, resource: str) -> set[str]:
    selection = Selection(resource=resource)
    return {entry.name for entry in entries_by_position(world) if selection.admits(entry)}


def erasing(world: World, use: Any = None) -> Any:
    return (use or world.new_process()).audit_erasing


def findings(world: World) -> list[Any]:
    return [one for one in world.new_process().check_integrity() if not one.table.startswith("log_")]


def entry(world: World, name: str) -> AuditEntry:
    return world.use.transactions.read(lambda view: view.require(AuditEntry, name))


def the_erasure(world: World) -> AuditErasure:
    (row,) = world.store.rows(AuditErasure)
    return row.record


def test_what_two_officers_agreed_on_is_erased_and_the_log_stays_whole(world: World) -> None:
    wanted = named(world, CLERK)
    before = {one.name: one for one in entries_by_position(world)}
    assert 5 < len(wanted) < len(before)
    proposal = propose(world, resource=CLERK)
    assert all(one.details for one in entries_by_position(world))
    world.agree(proposal)
    erasing(world).look()

    after = {one.name: one for one in entries_by_position(world)}
    assert [hash_leaf(one.leaf) for one in after.values()] == [hash_leaf(one.leaf) for one in before.values()]
    assert list(after) == list(before)
    for name, was in before.items():
        now = entry(world, name)
        if name in wanted:
            assert (now.version, now.details, now.salt) == (2, "", b"")
            assert committed_details(now) == committed_details(was)
            kept = ("time", "kind", "subject", "subject_version", "leaf", "head_salt", "items_root")
            assert all(getattr(now, field) == getattr(was, field) for field in kept)
        else:
            assert now == was
            assert leaf_of(now) == now.leaf
    done = the_erasure(world)
    assert (done.state, done.erased, set(done.audit_entries)) == (AuditErasureState.DONE, len(wanted), wanted)
    assert findings(world) == []


@pytest.mark.promise("P9")
def test_the_statement_says_how_many_and_which_and_the_entry_why(world: World) -> None:
    wanted = named(world, CLERK)
    proposal = propose(world, resource=CLERK)
    statement = json.loads(proposal.statement)
    assert f"{len(wanted)} audit entries" in statement["remarks"][0]
    assert set(statement["request"]["audit_entries"]) == wanted
    assert "signing_granted" in statement["remarks"][1]
    world.agree(proposal)
    erasing(world).look()
    (told,) = world.store.read(lambda snapshot: snapshot.find(AuditEntry, limit=9, kind="audit_details_erased"))
    details = json.loads(told.record.details)
    assert details["record"]["justification"] == WHY
    assert details["record"]["erased"] == len(wanted)
    assert set(details["record"]["audit_entries"]) == wanted
    (agreed,) = world.store.read(lambda snapshot: snapshot.find(AuditEntry, limit=9, kind="audit_erasure_agreed"))
    said = json.loads(agreed.record.details)
    assert (said["actor"], said["proposer"], said["proposal"]) == (SECOND.name, OPERATOR.name, proposal.name)


@pytest.mark.promise("P12")
def test_no_row_and_no_entry_keeps_what_was_erased(world: World) -> None:
    title = "Quyết định về bà Nguyễn Thị Hoa"
    names = [one.name for one in entries_by_position(world) if title in one.details]
    assert len(names) == 1
    world.agree(propose(world, *names))
    erasing(world).look()
    assert all(title not in one.details for one in entries_by_position(world))
    for row in world.store.rows(Proposal) + world.store.rows(AuditErasure):
        assert title not in repr(row.record)


@pytest.mark.promise("P9")
def test_nothing_is_erased_before_a_second_officer_agrees(world: World) -> None:
    proposal = propose(world, resource=CLERK)
    erasing(world).look()
    assert all(one.details for one in entries_by_position(world))
    with pytest.raises(errors.OwnProposal):
        world.approve_proposal(proposal, by=OPERATOR)
    assert all(one.details for one in entries_by_position(world))
    for principal in (OFFICE,):
        with pytest.raises(errors.PermissionDenied):
            propose(world, resource=CLERK, principal=principal)


def test_an_operator_who_is_limited_to_organizations_has_no_part_in_it(world: World) -> None:
    proposal = propose(world, resource=CLERK)

    def limit(view: Any) -> Change:
        operator = view.require(Operator, SECOND.name)
        return Change(kind="test", slow=[next_version(operator, organizations=("organizations/commune",))])

    world.use.changes.make("test", limit, deadline=world.deadline())
    with pytest.raises(errors.PermissionDenied):
        world.approve_proposal(proposal)
    with pytest.raises(errors.PermissionDenied):
        propose(world, resource=CLERK, principal=SECOND)


def test_what_is_asked_wrongly_is_refused(world: World, record_property: Callable[[str, object], None]) -> None:
    one = entries_by_position(world)[0].name
    now = world.clock.now()
    wrong = [
        ErasureQuery(justification=WHY),
        ErasureQuery(audit_entries=(one,), justification=""),
        ErasureQuery(audit_entries=(one,), justification="x" * 501),
        ErasureQuery(audit_entries=(one,), justification="two\nlines"),
        ErasureQuery(audit_entries=(one,), resource=CLERK, end_time=now, justification=WHY),
        ErasureQuery(audit_entries=(one,), end_time=now, justification=WHY),
        ErasureQuery(resource=CLERK, justification=WHY),
        ErasureQuery(resource=CLERK, end_time=now + timedelta(seconds=1), justification=WHY),
        ErasureQuery(resource="clerk", end_time=now, justification=WHY),
        ErasureQuery(resource="signers/nobody", end_time=now, justification=WHY),
        ErasureQuery(audit_entries=("auditEntries/none",), justification=WHY),
        ErasureQuery(audit_entries=tuple(f"auditEntries/{n}" for n in range(501)), justification=WHY),
    ]
    for query in wrong:
        with pytest.raises(errors.InvalidArgument):
            world.use.erase_audit_details(OPERATOR, query, deadline=world.deadline())
    record_property("count", f"erasures refused {len(wrong)}")
    assert world.store.rows(AuditErasure) == []


def test_an_entry_without_a_place_in_the_log_is_not_erased(world: World) -> None:
    late = world.sign(digests(1, of="late")).audit_entry
    with pytest.raises(errors.StateConflict, match="no place"):
        propose(world, late)


def test_the_entries_about_an_erasure_are_not_erased(world: World) -> None:
    world.agree(propose(world, resource=CLERK))
    erasing(world).look()
    assign_all(world)
    world.clock.advance(timedelta(hours=1))
    kinds = ("audit_erasure_agreed", "audit_details_erased")
    about = [one for one in entries_by_position(world) if one.kind in kinds]
    assert len(about) == 2
    assert all(CLERK in one.details for one in about)
    for one in about:
        with pytest.raises(errors.InvalidArgument, match="stays"):
            propose(world, one.name)
    again = {name for name in named(world, CLERK) if entry(world, name).details} - {one.name for one in about}
    if again:
        assert not set(json.loads(propose(world, resource=CLERK).content)["audit_entries"]) & {a.name for a in about}


def test_two_proposals_about_the_same_entry_erase_it_once(world: World) -> None:
    name = entries_by_position(world)[0].name
    first, second = propose(world, name), propose(world, name)
    world.agree(first)
    erasing(world).look()
    assert world.approve_proposal(second).state is ProposalState.OUTDATED
    with pytest.raises(errors.StateConflict, match="before"):
        propose(world, name)
    assert entry(world, name).version == 2


def test_more_entries_than_one_proposal_holds_are_refused_and_a_search_ends_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_erasures, "MOST_ENTRIES", 3)
    with pytest.raises(errors.InvalidArgument, match="earlier time"):
        propose(world, resource=CLERK)
    world.seconds = 4.0
    with pytest.raises(errors.DeadlineTooShort):
        propose(world, resource=CLERK)


def test_an_entry_that_cannot_be_trusted_stays_and_is_told_of(world: World) -> None:
    wanted = sorted(named(world, CLERK))
    world.agree(propose(world, resource=CLERK))
    row = world.store.read(lambda snapshot: snapshot.get(AuditEntry, wanted[0]))
    world.store.overwrite(dataclasses.replace(row, seal=b"edited"))
    world.events.clear()
    erasing(world).look()
    assert the_erasure(world).erased == len(wanted) - 1
    assert "audit_details_not_erased" in {event.name for event in world.events}
    assert {finding.name for finding in findings(world)} >= {wanted[0]}


@pytest.mark.promise("P5", "P10")
def test_an_erasure_that_nobody_agreed_on_and_one_that_was_undone_are_found(world: World) -> None:
    name = entries_by_position(world)[3].name
    before = world.store.read(lambda snapshot: snapshot.get(AuditEntry, name))
    bare = next_version(before.record, details="", salt=b"")
    # Somebody has a worker's memory, and so the day's key.
    world.use.transactions.run(lambda ledger: ledger.replace(bare), timeout=30.0)
    assert [finding.name for finding in findings(world)] == [name]
    world.store.overwrite(before)
    assert findings(world) == []
    world.agree(propose(world, name))
    erasing(world).look()
    assert findings(world) == []
    world.store.overwrite(before)
    assert [finding.name for finding in findings(world)] == [name]


@dataclasses.dataclass
class Stopping:
    """A store whose process ends at one transaction: before it, or when it is durable."""

    store: Any
    at: int
    persisted: bool
    done: int = 0

    def transact(self, work: Callable[[Any], Any], *, timeout: float) -> Any:
        self.done += 1
        if self.done > self.at or (self.done == self.at and not self.persisted):
            raise errors.StoreUnavailable("the process is gone")
        result = self.store.transact(work, timeout=timeout)
        if self.done == self.at:
            raise errors.StoreUnavailable("killed behind the commit")
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_a_crash_at_any_transaction_leaves_what_the_next_process_goes_on_from(
    world: World, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(audit_erasing, "_TOGETHER", 4)
    wanted = named(world, CLERK)
    leaves = [one.leaf for one in entries_by_position(world)]
    world.agree(propose(world, resource=CLERK))
    killed = 0
    for persisted in (False, True):
        at = 0
        while True:
            at += 1
            clock = ManualClock(world.clock.now())
            kept = world.store.reopened()
            kept.clock = clock.now
            copy = World(clock=clock, hsm=world.hsm, store=kept)
            store: Any = Stopping(kept, at, persisted)
            try:
                copy.new_process(store=store).audit_erasing.look()
            except errors.Refusal:
                killed += 1
            else:
                break
            assert findings(copy) == []
            clock.advance(timedelta(seconds=90))  # the lease lapses
            erasing(copy).look()
            done = the_erasure(copy)
            assert (done.state, done.version, done.erased) == (AuditErasureState.DONE, 2, len(wanted))
            assert {one.name for one in entries_by_position(copy) if not one.details} == wanted
            assert all(entry(copy, name).version == 2 for name in wanted)
            assert [one.leaf for one in entries_by_position(copy)][: len(leaves)] == leaves
            assert findings(copy) == []
    record_property("count", f"kill points of an erasure {killed}")
    assert killed >= 8


def test_a_paused_process_that_wakes_erases_nothing_else(world: World) -> None:
    world.agree(propose(world, resource=CLERK))
    paused, other = erasing(world), erasing(world)
    (erasure,) = world.use.transactions.read(audit_erasing._pending)
    other.look()
    paused._carry_out(erasure)
    assert the_erasure(world).version == 2
    assert findings(world) == []
    assert named(world, CHAIR)
    assert entry(world, next(iter(named(world, P256) - set(erasure.audit_entries)))).details
