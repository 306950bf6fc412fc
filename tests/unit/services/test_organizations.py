"""Organizations: a tree with dates, whose agencies end and become part of others."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.support.registry import add_limited, end, enter, limited_key, registry, update, values_of
from tests.support.world import OPERATOR, World, digests

from trien_client.operators import sign_approval
from trien_server.core import errors
from trien_server.core.approval import approval_text
from trien_server.core.records import Organization, Proposal, ProposalState
from trien_server.services.organizations import DEEPEST
from trien_server.services.paging import Page


@pytest.fixture
def world() -> World:
    return registry()


def propose(world: World, name: str, **changes: object) -> Proposal:
    return world.use.update_organization(OPERATOR, values_of(world, name, **changes), deadline=world.deadline())


def refused(field: str, call: Callable[[], object]) -> str:
    with pytest.raises(errors.InvalidArgument) as caught:
        call()
    assert caught.value.field == f"organization.{field}", caught.value.message
    return caught.value.message


def test_an_organization_gets_all_values_that_two_officers_agree_on(world: World) -> None:
    begun, ends = datetime(2020, 1, 1, tzinfo=UTC), datetime(2027, 7, 1, tzinfo=UTC)
    # "Xã" in the normal form D is the same title.
    update(
        world,
        "commune",
        display_name="Xa\u0303 Phú Lâm",
        parent="organizations/west",
        start_time=begun,
        end_time=ends,
        successor="organizations/west",
    )
    found = world.use.get_organization(OPERATOR, "organizations/commune")
    assert (found.display_name, found.parent, found.start_time, found.end_time, found.successor, found.version) == (
        "Xã Phú Lâm",
        "organizations/west",
        begun,
        ends,
        "organizations/west",
        2,
    )


def test_no_organization_lies_below_itself(world: World) -> None:
    for parent in ("province", "east", "commune"):
        refused("parent", lambda parent=parent: propose(world, "province", parent=f"organizations/{parent}"))


@pytest.mark.promise("P9")
def test_two_moves_that_would_make_a_circle_together_do_not(world: World) -> None:
    first = propose(world, "east", parent="organizations/west")
    second = propose(world, "west", parent="organizations/east")
    world.agree(first)
    assert world.approve_proposal(second).state is ProposalState.OUTDATED
    assert world.use.get_organization(OPERATOR, "organizations/west").parent == "organizations/province"


def test_a_parent_and_a_successor_have_to_exist(world: World) -> None:
    ends = world.clock.now() + timedelta(days=1)
    refused("parent", lambda: enter(world, "x", "nowhere"))
    refused("successor", lambda: enter(world, "x", successor="organizations/nowhere", end_time=ends))
    refused("parent", lambda: propose(world, "west", parent="organizations/nowhere"))
    refused("successor", lambda: propose(world, "west", successor="organizations/nowhere", end_time=ends))
    assert len(world.store.rows(Organization)) == 4


def test_the_tree_has_at_most_sixteen_levels_also_after_a_move(world: World) -> None:
    above = "commune"  # the third level
    for level in range(4, DEEPEST + 1):
        enter(world, f"level-{level}", above)
        above = f"level-{level}"
    refused("parent", lambda: enter(world, "level-17", above))
    enter(world, "other", "west")
    # What is moved takes along what lies below it: 14 levels, below the third one.
    refused("parent", lambda: propose(world, "commune", parent="organizations/other"))
    update(world, "commune", parent="organizations/west")


def test_dates_are_in_order_and_within_reason(world: World) -> None:
    now = world.clock.now()
    refused("end_time", lambda: enter(world, "x", start_time=now, end_time=now))
    refused("end_time", lambda: propose(world, "west", start_time=now, end_time=now - timedelta(seconds=1)))
    refused("start_time", lambda: enter(world, "x", start_time=datetime(1899, 12, 31, tzinfo=UTC)))
    refused("end_time", lambda: enter(world, "x", end_time=datetime(2200, 1, 1, tzinfo=UTC)))


def test_a_successor_exists_at_the_end_and_becomes_no_part_of_what_it_follows(world: World) -> None:
    now = world.clock.now()
    refused("successor", lambda: propose(world, "east", successor="organizations/west"))
    refused("successor", lambda: propose(world, "east", end_time=now, successor="organizations/east"))
    enter(world, "later", start_time=now + timedelta(days=2))
    refused("successor", lambda: propose(world, "east", end_time=now, successor="organizations/later"))
    end(world, "east", now + timedelta(days=1), "west")
    end(world, "west", now + timedelta(days=3), "later")
    # Earlier than what it follows: only the order of the dates would allow it, not the chain.
    update(world, "east", end_time=now + timedelta(days=2))
    update(world, "later", start_time=None)
    message = refused(
        "successor",
        lambda: propose(world, "later", end_time=now + timedelta(days=1), successor="organizations/east"),
    )
    assert "becomes part of this one" in message


def test_values_that_an_organization_has_already_are_no_change(world: World) -> None:
    with pytest.raises(errors.InvalidArgument):
        propose(world, "west")
    values = replace(values_of(world, "west"), name="organizations/none")
    with pytest.raises(errors.PermissionDenied):
        world.use.update_organization(OPERATOR, values, deadline=world.deadline())


def test_organizations_are_listed_page_by_page(world: World) -> None:
    for number in range(20):
        enter(world, f"school-{number:02}", "commune")
    names: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        found, token = world.use.list_organizations(OPERATOR, page=Page.parse(7, token))
        names += [organization.name for organization in found]
        pages += 1
    assert (len(names), pages, sorted(set(names))) == (24, 4, names)


@pytest.mark.promise("P9")
def test_a_limited_officer_enters_and_changes_only_what_lies_within_the_limits(world: World) -> None:
    limited = add_limited(world, "east")
    enter(world, "school", "commune", by=limited)
    for parent in (None, "province", "west", "nowhere"):
        with pytest.raises(errors.PermissionDenied):
            enter(world, "other", parent, by=limited)

    def change(name: str, **changes: object) -> Proposal:
        values = values_of(world, name, **changes)
        return world.use.update_organization(limited, values, deadline=world.deadline())

    change("commune", display_name="Xã Phú Lâm")
    change("school", parent="organizations/east")
    soon = world.clock.now() + timedelta(days=1)
    for name, changes in (
        ("west", {"display_name": "x"}),
        ("school", {"parent": "organizations/west"}),
        ("school", {"parent": None}),
        ("east", {"parent": None}),
        ("school", {"end_time": soon, "successor": "organizations/west"}),
    ):
        with pytest.raises(errors.PermissionDenied):
            change(name, **changes)


@pytest.mark.requirement("ASVS 5.0.0-8.4.1")
@pytest.mark.promise("P9")
def test_a_limited_officer_decides_on_nothing_outside_the_limits(world: World) -> None:
    limited = add_limited(world, "east")
    proposal = propose(world, "west", display_name="x")
    signature = sign_approval(limited_key(), approval_text(proposal.name, proposal.digest))

    def approve() -> Proposal:
        return world.use.proposals.approve(
            limited, proposal.name, digest=proposal.digest, signature=signature, deadline=world.deadline()
        )

    with pytest.raises(errors.PermissionDenied):
        approve()
    with pytest.raises(errors.PermissionDenied):
        world.use.proposals.reject(limited, proposal.name, reason="", deadline=world.deadline())
    # It still waits for somebody who may.
    world.agree(proposal)


@pytest.mark.promise("P9")
def test_what_a_limited_officer_proposed_is_outdated_when_the_organization_left_the_limits(world: World) -> None:
    limited = add_limited(world, "east")
    values = values_of(world, "commune", display_name="x")
    proposal = world.use.update_organization(limited, values, deadline=world.deadline())
    update(world, "commune", parent="organizations/west")
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED


def test_an_agency_that_has_ended_or_not_begun_signs_nothing_and_consumes_nothing() -> None:
    world = World().populate()
    now = world.clock.now()
    authorization = world.authorize(digests(1))
    outcomes = []
    for dates in (
        {"start_time": now + timedelta(days=1)},
        {"start_time": None, "end_time": now},
        {"end_time": now + timedelta(hours=1)},
    ):
        update(world, "commune", **dates)
        code = world.code()
        for act in (
            lambda code=code: world.sign(digests(1), password=code),
            lambda code=code: world.approve(authorization, password=code),
            lambda: world.authorize(digests(1)),
        ):
            try:
                act()
                outcomes.append("OK")
                world.next_step()
                code = world.code()
            except errors.Refusal as refusal:
                outcomes.append(refusal.reason)
    assert outcomes[:6] == ["CREDENTIAL_DISABLED"] * 6
    assert outcomes[6] == "OK"  # with the code that was refused before: it was not looked at


def test_an_authorization_that_was_approved_before_the_agency_ended_is_not_opened_after_it() -> None:
    world = World().populate()
    authorization = world.authorize(digests(1))
    world.approve(authorization)
    data = world.activation_data(authorization)
    end(world, "commune", world.clock.now() + timedelta(minutes=2))
    world.clock.advance(timedelta(minutes=2))
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1), activated=(authorization.name, data))


def test_the_dates_cost_a_warm_request_no_token_call() -> None:
    world = World().populate()
    update(world, "commune", end_time=world.clock.now() + timedelta(days=30))
    world.sign(digests(1))
    world.next_step()
    world.hsm.calls.clear()
    world.sign(digests(1))
    # `ready` and `prepare` look into the process's own memory: the handle is cached.
    assert world.hsm.calls == {"ready": 1, "prepare": 1, "decrypt": 1, "sign": 1}
