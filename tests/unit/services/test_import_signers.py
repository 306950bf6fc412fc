"""A list of signers is entered whole or not at all, and can be imported again."""

from datetime import timedelta

import pytest
from tests.support.registry import add_limited, add_signer, end, import_list, registry
from tests.support.world import OFFICE, OPERATOR, World

from trien_server.core import errors
from trien_server.core.records import AuditEntry, Signer, SignerAttempts, SignerKind
from trien_server.services.signer_lists import MOST_FAULTS

LIST = """id,name,organization,kind,position,email,phone
mai,Nguyễn Thị Mai,commune,,Chủ tịch,mai@phulam.example,+84912345678
hoa,Trần Thị Hoa,commune,person,,,
seal,Ủy ban nhân dân xã,east,agency,,,
"""


@pytest.fixture
def world() -> World:
    return registry()


def names(world: World) -> list[str]:
    return [row.record.name for row in world.store.rows(Signer)]


def test_a_list_is_entered_with_an_audit_entry_for_each_signer(world: World) -> None:
    before = len(world.store.rows(AuditEntry))
    result = import_list(world, LIST)
    assert (result.entered, result.unchanged, result.faults) == (3, 0, ())
    entries = [row.record for row in world.store.rows(AuditEntry)]
    made = [entry for entry in entries if entry.kind == "signer_created"]
    assert (
        sorted(str(entry.subject) for entry in made) == names(world) == ["signers/hoa", "signers/mai", "signers/seal"]
    )
    assert len(entries) == before + 3
    assert all('"list":"sha256:' in entry.details.replace(" ", "") for entry in made)
    seal = world.use.get_signer(OPERATOR, "signers/seal")
    assert (seal.kind, seal.organization) == (SignerKind.AGENCY, "organizations/east")
    assert len(world.store.rows(SignerAttempts)) == 3


def test_a_check_alone_changes_nothing(world: World) -> None:
    entries = len(world.store.rows(AuditEntry))
    result = import_list(world, LIST, validate_only=True)
    assert (result.entered, result.faults) == (3, ())
    assert names(world) == []
    assert len(world.store.rows(AuditEntry)) == entries


def test_one_fault_is_enough_that_nothing_is_entered(world: World) -> None:
    for line in ("x,Người,nowhere,,,,", "X,Người,commune,,,,", "mai,Khác,commune,,,,", "x,=1+1,commune,,,,"):
        result = import_list(world, f"{LIST}{line}\n")
        assert (result.entered, result.unchanged, [fault.line for fault in result.faults]) == (0, 0, [5])
    assert names(world) == []


def test_a_list_imported_again_changes_nothing(world: World) -> None:
    import_list(world, LIST)
    world.use.disable_signer(OPERATOR, "signers/hoa", deadline=world.deadline())
    entries = len(world.store.rows(AuditEntry))
    for validate_only in (True, False):
        result = import_list(world, LIST, validate_only=validate_only)
        assert (result.entered, result.unchanged, result.faults) == (0, 3, ())
    assert len(world.store.rows(AuditEntry)) == entries
    more = import_list(world, f"{LIST}lan,Lê Thị Lan,commune,,,,\n")
    assert (more.entered, more.unchanged) == (1, 3)


@pytest.mark.promise("P7")
@pytest.mark.parametrize("persisted", [True, False])
def test_an_import_whose_answer_was_lost_is_repeated_safely(world: World, persisted: bool) -> None:
    world.store.fail_transact(persisted=persisted)
    with pytest.raises(errors.StoreUnavailable):
        import_list(world, LIST)
    assert len(names(world)) == (3 if persisted else 0)
    result = import_list(world, LIST)
    assert (result.entered, result.unchanged) == ((0, 3) if persisted else (3, 0))
    assert len(names(world)) == 3


def test_a_signer_who_exists_with_other_values_is_a_fault_that_names_them(world: World) -> None:
    add_signer(world, "mai", display_name="Nguyễn Thị Mai", position="Chủ tịch")
    (fault,) = import_list(world, LIST).faults
    assert (fault.line, fault.column) == (2, "id")
    assert fault.message == "a signer of that id exists, with another email and phone"
    assert names(world) == ["signers/mai"]


def test_organizations_are_checked(world: World) -> None:
    end(world, "commune", world.clock.now() + timedelta(days=1), "east")
    assert import_list(world, LIST, validate_only=True).faults == ()
    world.clock.advance(timedelta(days=1))
    faults = import_list(world, f"{LIST}x,Người,nowhere,,,,\n").faults
    assert [(fault.line, fault.column) for fault in faults] == [(line, "organization") for line in (2, 3, 5)]
    assert faults[0].message == "organizations/commune has ended; its successor is organizations/east"
    assert faults[2].message == "there is no organizations/nowhere"


def test_a_limited_officer_imports_only_within_the_limits(world: World) -> None:
    limited = add_limited(world, "east")
    add_signer(world, "lan", "west")
    text = f"{LIST}x,Người,west,,,,\ny,Người,nowhere,,,,\nlan,Người,commune,,,,\n"
    faults = import_list(world, text, by=limited).faults
    assert [fault.line for fault in faults] == [5, 6, 7]
    # What lies outside looks like what does not exist, and who is there stays unknown.
    assert faults[0].message == faults[1].message
    assert faults[2].message == "a signer of that id exists"
    assert import_list(world, LIST, by=limited).entered == 3


def test_nobody_but_a_registration_officer_imports(world: World) -> None:
    for text in (LIST, "", "nonsense"):
        with pytest.raises(errors.PermissionDenied):
            import_list(world, text, by=OFFICE)


def test_faults_are_said_up_to_a_thousand(world: World) -> None:
    lines = "".join(f"p-{number},Người {number},nowhere,,,,\n" for number in range(MOST_FAULTS + 5))
    result = import_list(world, f"{LIST}{lines}")
    assert len(result.faults) == MOST_FAULTS
    assert result.entered == 0
