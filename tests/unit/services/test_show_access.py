"""What is in force is told by the functions that decide."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from tests.support.world import (
    AGENCY,
    CHAIR,
    CLERK,
    FOREIGN,
    OFFICE,
    OPERATOR,
    P256,
    PORTAL,
    SEAL,
    SECOND,
    World,
    digests,
)

from trien_server.core import errors
from trien_server.core.principal import Principal
from trien_server.core.records import Credential, State
from trien_server.core.roles import CLIENT_METHODS, Role
from trien_server.host.private_ca import PrivateCa
from trien_server.services.client_changes import Restriction
from trien_server.services.operators import OperatorValues
from trien_server.services.show_access import Access


@pytest.fixture
def world() -> World:
    return World().populate()


def shown(world: World, name: str, by: Principal = OPERATOR) -> Access:
    return world.use.show_access(by, name)


def why(access: Access) -> dict[str, str]:
    return {found.credential: found.why_not for found in access.credentials}


def add_operator(world: World, role: Role) -> Principal:
    identity = PrivateCa.create("Test CA of operators").issue_client(role)
    values = OperatorValues(
        name=f"operators/{role.lower().replace('_', '-')}",
        display_name=role,
        certificate=identity.certificate_der,
        roles=(role,),
    )
    world.agree(world.use.create_operator(OPERATOR, values, deadline=world.deadline()))
    return world.use.authenticate.by_certificate(identity.certificate_der)


def test_an_operator_sees_what_a_client_may_and_why_not(world: World) -> None:
    access = shown(world, OFFICE.name)
    assert access.enabled
    assert set(access.methods) == CLIENT_METHODS
    assert why(access)[P256] == ""
    assert shown(world, FOREIGN.name).credentials == ()
    narrower = Restriction(methods=("CredentialService.GetCredential",), calls_per_minute=60, concurrent_items=7)
    world.use.restrict_client(OPERATOR, OFFICE.name, narrower, deadline=world.deadline())
    access = shown(world, OFFICE.name)
    assert (access.methods, access.calls_per_minute, access.concurrent_items) == (narrower.methods, 60, 7)
    assert why(access)[P256] == "PERMISSION_DENIED: the client may not call SigningService.SignDigests"
    world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    access = shown(world, OFFICE.name)
    assert (access.enabled, access.methods) == (False, ())
    assert why(access)[P256] == "PERMISSION_DENIED: the client is disabled"


@pytest.mark.promise("P11")
def test_a_client_sees_itself_alone_and_no_reason_that_it_would_not_be_told(world: World) -> None:
    access = shown(world, "", OFFICE)
    assert access == shown(world, OFFICE.name, OFFICE)
    assert why(access)[P256] == ""
    for other in (PORTAL.name, OPERATOR.name, CHAIR, "clients/nobody"):
        with pytest.raises(errors.PermissionDenied):
            shown(world, other, OFFICE)
    narrower = Restriction(methods=("AccessService.ShowAccess",))
    world.use.restrict_client(OPERATOR, OFFICE.name, narrower, deadline=world.deadline())
    refusal = errors.PermissionDenied()
    assert why(shown(world, "", OFFICE))[P256] == f"PERMISSION_DENIED: {refusal.message}"


def test_what_is_shown_is_what_happens(world: World, record_property: Callable[[str, object], None]) -> None:
    """Signs with every credential that is shown, over states: it works when no reason stands there, and only then."""
    changes: list[Callable[[], Any]] = [
        lambda: None,
        lambda: world.use.disable_client(OPERATOR, PORTAL.name, deadline=world.deadline()),
        lambda: world.use.restrict_client(
            OPERATOR, OFFICE.name, Restriction(organizations=("organizations/commune",)), deadline=world.deadline()
        ),
        lambda: world.clock.advance(timedelta(days=31)),
    ]
    compared = refusals = 0
    for change in changes:
        change()
        for principal in (OFFICE, PORTAL):
            for found in shown(world, principal.name).credentials:
                if found.credential != P256:
                    continue
                world.next_step()
                try:
                    world.sign(digests(1), credential=found.credential, principal=principal)
                    happened = ""
                except errors.Refusal as refusal:
                    happened = refusal.reason
                    refusals += 1
                assert found.why_not.partition(":")[0] == happened
                compared += 1
    record_property("count", f"shown and tried: {compared}, of them refused {refusals}")
    assert (compared, refusals) == (8, 4)


def test_a_signer_is_shown_with_what_the_signer_may_activate(world: World) -> None:
    chair, clerk, agency = (shown(world, name) for name in (CHAIR, CLERK, AGENCY))
    assert why(chair)[P256] == ""
    assert SEAL not in why(chair)
    assert why(clerk) == {SEAL: ""}
    assert why(agency) == {SEAL: ""}
    assert clerk.organizations == ("organizations/commune",)
    world.clock.advance(timedelta(days=31))
    assert why(shown(world, CLERK))[SEAL].startswith("CERTIFICATE_NOT_VALID: ")


def test_an_operator_sees_itself_whatever_its_role(world: World) -> None:
    monitor = add_operator(world, Role.MONITOR)
    itself = shown(world, "", monitor)
    assert itself.roles == ("MONITOR",)
    assert "OrganizationService.GetOrganization" in itself.methods
    assert "AccessService.ShowAccess" in itself.methods
    for other in (OFFICE.name, OPERATOR.name, CHAIR):
        with pytest.raises(errors.PermissionDenied):
            shown(world, other, monitor)
    assert shown(world, OPERATOR.name, add_operator(world, Role.AUDITOR)).enabled
    world.use.disable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    second = shown(world, SECOND.name)
    assert (second.enabled, second.methods) == (False, ())
    with pytest.raises(errors.PermissionDenied):
        shown(world, "", SECOND)


@pytest.mark.promise("P11")
def test_nobody_learns_by_asking_who_there_is(world: World) -> None:
    for name in ("clients/nobody", "operators/nobody", "signers/nobody", "keys/key", "nonsense"):
        with pytest.raises(errors.PermissionDenied):
            shown(world, name)


@pytest.mark.promise("P5")
def test_a_credential_that_was_tampered_with_is_named_beside_the_others(world: World) -> None:
    import dataclasses

    row = next(row for row in world.store.rows(Credential) if row.record.name == P256)
    world.store.overwrite(dataclasses.replace(row, record=dataclasses.replace(row.record, max_items=999)))
    found = why(shown(world, OFFICE.name))
    assert found.pop(P256) == "RECORD_NOT_TRUSTED"
    assert set(found.values()) == {""}
    assert world.use.get_client(OPERATOR, OFFICE.name).state is State.ENABLED
