"""Reading the log: filters, pages, and entries that are not to be trusted (P10, P5)."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.support.positions import assign_all, entries_by_position
from tests.support.world import CHAIR, CLERK, OFFICE, OPERATOR, P256, SEAL, World, digests, populated

from trien_server.core import errors
from trien_server.core.audit_selection import Selection
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import AuditEntry, Operator
from trien_server.services import audit_entries
from trien_server.services.audit_entries import EntryPage, ListAuditEntries, ListQuery
from trien_server.services.changes import Change

pytestmark = pytest.mark.promise("P10")


@pytest.fixture
def world() -> World:
    """A log with signatures of two persons and a refusal."""
    made = populated()
    made.sign(digests(2))
    made.sign(digests(1, of="seal"), credential=SEAL)
    made.next_step()
    with pytest.raises(errors.OneTimePasswordRejected):
        made.sign(digests(1, of="refused"), password=made.wrong_code())
    assign_all(made)
    return made


def every(world: World, **query: Any) -> list[AuditEntry]:
    """Follows a list's pages to its end."""
    return [found.entry for page in pages(world, **query) for found in page.entries]


def pages(world: World, *, use: ListAuditEntries | None = None, **query: Any) -> Iterator[EntryPage]:
    token = ""
    for _ in range(10_000):
        page = (use or world.use.list_audit_entries)(OPERATOR, ListQuery(token=token, **query))
        yield page
        token = page.next_token
        if not token:
            return
    raise AssertionError("a list without end")


def test_an_entry_is_read_whole_and_with_its_position(world: World) -> None:
    everything = entries_by_position(world)
    for position, entry in enumerate(everything):
        found = world.use.get_audit_entry(OPERATOR, entry.name)
        assert (found.entry, found.position) == (entry, position)
    world.next_step()
    unsealed = world.sign(digests(1)).audit_entry
    assert world.use.get_audit_entry(OPERATOR, unsealed).position is None
    with pytest.raises(errors.PermissionDenied):
        world.use.get_audit_entry(OPERATOR, "auditEntries/nothing")


@pytest.mark.parametrize("size", [1, 3, 500])
@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_have_every_entry_once_and_in_order(world: World, size: int, newest_first: bool) -> None:
    everything = entries_by_position(world)
    assert len(everything) > 40
    wanted = everything[::-1] if newest_first else everything
    assert every(world, size=size, newest_first=newest_first) == wanted
    later = everything[10:]
    assert every(world, size=size, newest_first=newest_first, first_position=10) == (
        later[::-1] if newest_first else later
    )


def test_a_page_looks_at_so_many_entries_and_no_more(world: World) -> None:
    few = ListAuditEntries(transactions=world.use.transactions, most_scanned=7)
    everything = entries_by_position(world)
    found = list(pages(world, use=few, selection=Selection(kinds=frozenset({"no such kind"}))))
    assert [page.entries for page in found] == [[]] * len(found)
    assert len(found) == -(-len(everything) // 7)
    assert [page.next_position for page in found][:2] == [7, 14]
    assert found[-1].next_position == len(everything)
    backwards = [one.entry.name for page in pages(world, use=few, newest_first=True, size=500) for one in page.entries]
    assert backwards == [entry.name for entry in reversed(everything)]


def test_a_page_of_long_details_is_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_entries, "MOST_BYTES", 1000)
    found = list(pages(world, size=500))
    assert len(found) > 5
    assert all(sum(len(one.entry.details) for one in page.entries[:-1]) < 1000 for page in found)
    assert [one.entry for page in found for one in page.entries] == entries_by_position(world)


def of(entry: AuditEntry) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(entry.details)
    return details


def test_each_filter_narrows_the_list_to_what_matches(world: World) -> None:
    everything = entries_by_position(world)
    half = everything[len(everything) // 2].time
    digest = digests(2)[1]
    filters: list[tuple[dict[str, Any], Callable[[AuditEntry], bool]]] = [
        ({"kinds": frozenset({"signing_granted"})}, lambda entry: entry.kind == "signing_granted"),
        (
            {"kinds": frozenset({"signing_granted", "refused"})},
            lambda entry: entry.kind in {"signing_granted", "refused"},
        ),
        ({"resource": CLERK}, lambda entry: CLERK in (entry.subject or "") or CLERK in entry.details),
        ({"resource": OFFICE.name}, lambda entry: entry.subject == OFFICE.name or OFFICE.name in entry.details),
        ({"start_time": half}, lambda entry: entry.time >= half),
        ({"end_time": half}, lambda entry: entry.time < half),
        ({"reason": "ONE_TIME_PASSWORD_REJECTED"}, lambda entry: entry.kind == "refused"),
        ({"digest": digest}, lambda entry: digest.hex() in entry.details),
        (
            {"digest": digests(1, of="seal")[0], "resource": SEAL, "kinds": frozenset({"signing_granted"})},
            lambda entry: entry.kind == "signing_granted" and of(entry)["credential"] == SEAL,
        ),
    ]
    for narrowed, matches in filters:
        wanted = [entry for entry in everything if matches(entry)]
        assert every(world, selection=Selection(**narrowed)) == wanted, narrowed
        assert wanted or "time" in str(narrowed), narrowed
    assert every(world, selection=Selection(digest=b"\x00" * 32)) == []
    # A resource is a whole name: one that begins alike is another.
    assert every(world, selection=Selection(resource=CHAIR[:-1])) == []


def edit(world: World, entry: AuditEntry, **changes: Any) -> None:
    """Changes an entry's row as somebody with the database would: its seal stays."""
    row = next(row for row in world.store.rows(AuditEntry) if row.record.name == entry.name)
    world.store.overwrite(dataclasses.replace(row, record=dataclasses.replace(entry, **changes)))


@pytest.mark.promise("P5")
def test_an_entry_that_is_not_to_be_trusted_hides_no_other_and_is_told_of(world: World) -> None:
    everything = entries_by_position(world)
    # No decision rests on these: what it rests on could not be read at all.
    places = [place for place, entry in enumerate(everything) if entry.kind == "proposal_created"][:3]
    edited, removed, mangled = (everything[place] for place in places)
    edit(world, edited, kind="something_else")
    world.store.delete(AuditEntry, removed.name)
    world.store.mangle(AuditEntry, mangled.name, "a text where a number belongs")
    for newest_first in (False, True):
        found = list(pages(world, size=500, newest_first=newest_first))
        told = {finding.position: finding for page in found for finding in page.findings}
        assert set(told) == set(places)
        assert told[places[0]].name == edited.name
        assert "seal" in told[places[0]].finding
        assert "no entry" in told[places[1]].finding
        seen = [one.entry for page in found for one in page.entries]
        rest = [entry for position, entry in enumerate(everything) if position not in told]
        assert seen == (rest[::-1] if newest_first else rest)
    reported = [event for event in world.events if event.name == "record_not_trusted"]
    assert len(reported) >= 4
    with pytest.raises(errors.RecordNotTrusted):
        world.use.get_audit_entry(OPERATOR, edited.name)


def test_each_finding_stands_at_its_own_position(world: World) -> None:
    everything = entries_by_position(world)
    place = next(at for at, entry in enumerate(everything) if entry.kind == "proposal_created")
    world.store.delete(AuditEntry, everything[place].name)
    world.store.mangle(AuditEntry, everything[place + 1].name, "a text where a number belongs")
    told = {finding.position: finding.finding for page in pages(world, size=500) for finding in page.findings}
    assert told.keys() == {place, place + 1}
    assert "no entry" in told[place]
    assert told[place + 1] == "a text where a number belongs"


def test_a_filter_does_not_hide_what_is_wrong(world: World) -> None:
    everything = entries_by_position(world)
    granted = next(position for position, entry in enumerate(everything) if entry.kind == "signing_granted")
    edit(world, everything[granted], kind="certificate_expires")
    found = list(pages(world, selection=Selection(kinds=frozenset({"signing_granted"}))))
    assert [finding.position for page in found for finding in page.findings] == [granted]


def test_a_page_token_is_good_for_the_same_request_alone(world: World) -> None:
    token = world.use.list_audit_entries(OPERATOR, ListQuery(size=3)).next_token
    for query in (
        ListQuery(token=token, newest_first=True),
        ListQuery(token=token, first_position=1),
        ListQuery(token=token, selection=Selection(resource=CHAIR)),
        ListQuery(token=token[:-4] + "AAAA"),
        ListQuery(token="?"),
        ListQuery(token=token.swapcase()),
    ):
        with pytest.raises(errors.InvalidArgument, match="page_token"):
            world.use.list_audit_entries(OPERATOR, query)
    for wrong in (ListQuery(size=-1), ListQuery(first_position=-1)):
        with pytest.raises(errors.InvalidArgument):
            world.use.list_audit_entries(OPERATOR, wrong)


def test_what_is_new_is_found_from_the_next_position_on(world: World) -> None:
    page = world.use.list_audit_entries(OPERATOR, ListQuery(newest_first=True, size=1))
    size = page.next_position
    assert size == len(entries_by_position(world))
    nothing = world.use.list_audit_entries(OPERATOR, ListQuery(first_position=size))
    assert (nothing.entries, nothing.next_position) == ([], size)
    world.next_step()
    signed = world.sign(digests(1)).audit_entry
    assign_all(world)
    page = world.use.list_audit_entries(OPERATOR, ListQuery(first_position=size))
    assert signed in [found.entry.name for found in page.entries]
    assert page.entries[0].position == size


def test_erased_details_stay_erased_and_match_no_digest(world: World) -> None:
    entry = next(entry for entry in entries_by_position(world) if entry.kind == "signing_granted")
    erased = dataclasses.replace(entry, version=2, details="", salt=b"")
    seals = world.use.seals
    world.store.transact(
        lambda transaction: transaction.replace(seals.seal_hot(erased, at=world.clock.now())), timeout=5.0
    )
    assert world.use.get_audit_entry(OPERATOR, entry.name).entry.details == ""
    assert entry.name in [
        found.name for found in every(world, selection=Selection(kinds=frozenset({"signing_granted"})))
    ]
    found = every(world, selection=Selection(digest=digests(2)[1]))
    assert entry.name not in [one.name for one in found]
    assert entry.name not in [one.name for one in every(world, selection=Selection(resource=P256))]


@pytest.mark.promise("P11")
def test_an_operator_of_some_organizations_and_an_application_read_no_entries(world: World) -> None:
    first = next(iter(entries_by_position(world))).name
    officer = world.use.get_operator(OPERATOR, OPERATOR.name)
    limited = dataclasses.replace(
        officer,
        name="operators/limited",
        version=1,
        certificate_fingerprint=b"\x01" * 32,
        public_key_hash=b"\x01" * 32,
        organizations=("organizations/commune",),
    )
    assert isinstance(limited, Operator)
    world.use.changes.make("tests", lambda _: Change(kind="test", slow=[limited]), deadline=world.deadline())
    principal = Principal(kind=PrincipalKind.OPERATOR, name=limited.name, authenticated_by=AuthenticatedBy.CERTIFICATE)
    for caller in (principal, OFFICE):
        with pytest.raises(errors.PermissionDenied):
            world.use.list_audit_entries(caller, ListQuery())
        with pytest.raises(errors.PermissionDenied):
            world.use.get_audit_entry(caller, first)


def test_the_log_can_be_read_on_another_day(world: World) -> None:
    world.clock.advance(timedelta(days=3))
    other = world.new_process()
    page = other.list_audit_entries(OPERATOR, ListQuery(size=500))
    assert len(page.entries) == len(entries_by_position(world))
    assert page.findings == []
