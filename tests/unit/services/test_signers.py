"""Signers: entered, listed, changed by two officers, shut out by one."""

import unicodedata
from datetime import timedelta

import pytest
from tests.support.registry import LIMITED, add_limited, add_signer, end, registry
from tests.support.world import CHAIR, CLERK, OPERATOR, SEAL, World, digests

from trien_server.core import errors
from trien_server.core.records import AuditEntry, Proposal, ProposalState, Signer, SignerState
from trien_server.services.paging import Page
from trien_server.services.signers import SignerValues


@pytest.fixture
def world() -> World:
    return registry()


def propose(world: World, name: str, **values: str) -> Proposal:
    given = {"display_name": f"Người ký {name}", "organization": "organizations/commune"}
    wanted = SignerValues(name=f"signers/{name}", **(given | values))
    return world.use.update_signer(OPERATOR, wanted, deadline=world.deadline())


def listed(world: World, *, organization: str | None = None, size: int = 7, by: object = OPERATOR) -> list[str]:
    names: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        found, token = world.use.list_signers(
            by,  # type: ignore[arg-type]
            organization=organization,
            page=Page.parse(size, token),
        )
        assert len(found) <= size
        names += [signer.name for signer in found]
        pages += 1
    assert names == sorted(set(names))
    return names


def addresses_told(world: World) -> list[str]:
    """Returns where something was delivered since the last time, and checks that it says what it is about."""
    found = []
    for delivery in world.deliveries.values():
        assert all("addresses" in one.text.body.reveal().decode() for one in delivery.taken)
        found += [one.address for one in delivery.taken]
        delivery.taken.clear()
    return sorted(found)


def test_a_signer_has_addresses_and_a_name_in_one_normal_form(world: World) -> None:
    name = "Hoàng Trịnh Đôn"
    made = add_signer(
        world,
        "don",
        display_name=unicodedata.normalize("NFD", name),
        email="don@Phulam.Example",
        phone="+84912345678",
    )
    assert (made.display_name, made.email, made.phone) == (name, "don@phulam.example", "+84912345678")
    for values in ({"email": "don"}, {"email": "a@b.vn, c@d.vn"}, {"phone": "0912345678"}, {"display_name": ""}):
        with pytest.raises(errors.InvalidArgument):
            add_signer(world, "other", **values)
    assert world.store.rows(Signer)[0].record == made
    assert len(world.store.rows(Signer)) == 1


@pytest.mark.promise("P9")
@pytest.mark.parametrize(
    "hidden", ["\u3164", "\u115f", "\uffa0", "\U000e0100", "\u034f", "\u202e", "\u2066", "\u200b", "\U000e0041"]
)
def test_no_title_has_what_whoever_approves_could_not_see(world: World, hidden: str) -> None:
    with pytest.raises(errors.InvalidArgument):
        add_signer(world, "shown", display_name=f"Hoa{hidden}ng")
    assert world.store.rows(Signer) == []


def test_nobody_is_entered_in_an_agency_that_has_ended(world: World) -> None:
    add_signer(world, "left-behind")
    end(world, "commune", world.clock.now(), "east")
    with pytest.raises(errors.InvalidArgument) as caught:
        add_signer(world, "late")
    assert "organizations/east" in caught.value.message
    # Who is there stays, can be corrected there, and moves when the officers say so.
    world.agree(propose(world, "left-behind", display_name="Khác"))
    world.agree(propose(world, "left-behind", organization="organizations/east"))
    with pytest.raises(errors.InvalidArgument):
        propose(world, "left-behind", organization="organizations/commune")


def test_signers_are_listed_page_by_page_and_by_organization(world: World) -> None:
    for number in range(20):
        add_signer(world, f"a-{number:02}", "commune" if number % 3 else "east")
    assert len(listed(world)) == 20
    assert listed(world, organization="organizations/east") == [f"signers/a-{number:02}" for number in range(0, 20, 3)]
    assert listed(world, organization="organizations/west") == []
    with pytest.raises(errors.PermissionDenied):
        listed(world, organization="organizations/nowhere")


@pytest.mark.requirement("ASVS 5.0.0-8.4.1")
def test_a_limited_officer_sees_and_changes_only_signers_within_the_limits(world: World) -> None:
    limited = add_limited(world, "east")
    for number in range(20):
        add_signer(world, f"a-{number:02}", "commune" if number % 3 else "west")
    inside = [f"signers/a-{number:02}" for number in range(20) if number % 3]
    assert listed(world, by=limited, size=4) == inside
    assert listed(world, by=limited, organization="organizations/commune") == inside
    with pytest.raises(errors.PermissionDenied):
        listed(world, by=limited, organization="organizations/west")
    use, deadline = world.use, world.deadline()
    values = SignerValues(name="signers/a-00", display_name="x", organization="organizations/commune")
    calls = [
        lambda: use.get_signer(limited, "signers/a-00"),
        lambda: use.get_signer(limited, "signers/nobody"),
        lambda: use.disable_signer(limited, "signers/a-00", deadline=deadline),
        lambda: use.unlock_signer(limited, "signers/a-00", deadline=deadline),
        lambda: use.enable_signer(limited, "signers/a-00", deadline=deadline),
        lambda: use.update_signer(limited, values, deadline=deadline),
        lambda: use.update_signer(
            limited,
            SignerValues(name="signers/a-01", display_name="x", organization="organizations/west"),
            deadline=deadline,
        ),
        lambda: add_signer(world, "new", "west", by=LIMITED),
        lambda: add_signer(world, "new", "nowhere", by=LIMITED),
    ]
    before = len(world.store.rows(AuditEntry))
    for call in calls:
        with pytest.raises(errors.PermissionDenied) as caught:
            call()
        assert caught.value.message == "The resource does not exist or you may not use it."
    assert len(world.store.rows(AuditEntry)) == before
    assert use.disable_signer(limited, "signers/a-01", deadline=deadline).state is SignerState.DISABLED


@pytest.mark.promise("P11")
def test_a_limited_officer_reads_no_proposal_about_signers_of_others(world: World) -> None:
    """Statements hold people's addresses."""
    limited = add_limited(world, "east")
    add_signer(world, "inside", "commune")
    add_signer(world, "outside", "west", email="secret@west.example")
    within = propose(world, "inside", display_name="Khác")
    without = propose(world, "outside", organization="organizations/west", email="other@west.example")
    assert "secret@west.example" in without.statement
    assert world.use.get_proposal(limited, within.name) == within
    for name in (without.name, "proposals/none"):
        with pytest.raises(errors.PermissionDenied) as refused:
            world.use.get_proposal(limited, name)
        assert refused.value.message == errors.PermissionDenied().message
    page = Page(size=50, after="")
    shown = [one.name for one in world.use.list_proposals(limited, state=ProposalState.PENDING, page=page)[0]]
    assert shown == [within.name]
    assert len(world.use.list_proposals(OPERATOR, state=ProposalState.PENDING, page=page)[0]) == 2


def test_a_limited_officer_pages_through_a_thousand_signers_of_others(world: World) -> None:
    limited = add_limited(world, "east")
    lines = [f"b-{number:04},Người {number},west" for number in range(1500)]
    content = "\n".join(["id,name,organization", *lines, "z,Người cuối,commune"]).encode()
    assert world.use.import_signers(OPERATOR, content, validate_only=False, deadline=world.deadline()).entered == 1501
    assert listed(world, by=limited) == ["signers/z"]


@pytest.mark.requirement("ASVS 5.0.0-6.3.7", "NIST 800-63B-4 3.1.3.3 binding")
@pytest.mark.promise("P9")
def test_another_address_needs_two_officers_and_is_told_of_to_both_addresses(world: World) -> None:
    add_signer(world, "mai", email="old@phulam.example")
    proposal = propose(world, "mai", email="new@phulam.example")
    world.use.notices.work_off()
    assert addresses_told(world) == []
    assert world.use.get_signer(OPERATOR, "signers/mai").email == "old@phulam.example"
    with pytest.raises(errors.OwnProposal):
        world.approve_proposal(proposal, by=OPERATOR)
    world.agree(proposal)
    world.use.notices.work_off()
    assert addresses_told(world) == ["new@phulam.example", "old@phulam.example"]
    assert world.use.get_signer(OPERATOR, "signers/mai").email == "new@phulam.example"
    # A phone beside it is told of at both; another post is nobody's address.
    world.agree(propose(world, "mai", email="", phone="+84912345678"))
    world.agree(propose(world, "mai", phone="+84912345678", position="Chủ tịch"))
    world.use.notices.work_off()
    assert addresses_told(world) == ["+84912345678", "new@phulam.example"]


def test_a_proposal_is_outdated_when_the_signer_changed_meanwhile(world: World) -> None:
    add_signer(world, "mai")
    proposal = propose(world, "mai", position="Chủ tịch")
    world.agree(propose(world, "mai", display_name="Nguyễn Thị Mai"))
    assert world.approve_proposal(proposal).state is ProposalState.OUTDATED
    with pytest.raises(errors.InvalidArgument):
        propose(world, "mai", display_name="Nguyễn Thị Mai")


@pytest.mark.promise("P9")
def test_one_officer_disables_and_two_enable(world: World) -> None:
    add_signer(world, "mai")
    use, name = world.use, "signers/mai"
    with pytest.raises(errors.StateConflict):
        use.enable_signer(OPERATOR, name, deadline=world.deadline())
    assert use.disable_signer(OPERATOR, name, deadline=world.deadline()).state is SignerState.DISABLED
    entries = len(world.store.rows(AuditEntry))
    # A second call, as after a lost answer, changes nothing.
    assert use.disable_signer(OPERATOR, name, deadline=world.deadline()).version == 2
    assert len(world.store.rows(AuditEntry)) == entries
    proposal = use.enable_signer(OPERATOR, name, deadline=world.deadline())
    assert use.get_signer(OPERATOR, name).state is SignerState.DISABLED
    world.agree(proposal)
    assert use.get_signer(OPERATOR, name).state is SignerState.ENABLED
    with pytest.raises(errors.PermissionDenied):
        use.disable_signer(OPERATOR, "signers/nobody", deadline=world.deadline())


@pytest.mark.requirement("NIST 800-63B-4 4.5")
def test_a_disabled_signer_signs_and_approves_nothing_until_two_officers_enable_it() -> None:
    world = World().populate()
    code, clerks = world.code(), world.code(CLERK)
    for name in (CHAIR, CLERK):
        world.use.disable_signer(OPERATOR, name, deadline=world.deadline())
    with pytest.raises(errors.CredentialDisabled):
        world.sign(digests(1), password=code)
    with pytest.raises(errors.PermissionDenied):
        # The seal's own signer, the agency, is enabled: the person who approves is not.
        world.sign(digests(1), credential=SEAL, signer=CLERK, password=clerks)
    for name in (CHAIR, CLERK):
        world.agree(world.use.enable_signer(OPERATOR, name, deadline=world.deadline()))
    # The codes were not consumed.
    world.sign(digests(1), password=code)
    world.sign(digests(1), credential=SEAL, signer=CLERK, password=clerks)


def test_an_unlocked_signer_counts_from_the_beginning() -> None:
    world = World().populate()
    for _ in range(3):
        with pytest.raises((errors.OneTimePasswordRejected, errors.SignerLocked)):
            world.sign(digests(1), password=world.wrong_code())
    with pytest.raises(errors.SignerLocked):
        world.sign(digests(1))
    world.use.unlock_signer(OPERATOR, CHAIR, deadline=world.deadline())
    world.clock.advance(timedelta(seconds=1))
    world.sign(digests(1))
