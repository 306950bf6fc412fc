"""An instance of fakes with two registration officers who may do everything, and one who is limited."""

from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from tests.support.world import OPERATOR, World, operators

from trien_server.core.principal import Principal
from trien_server.core.records import Organization, Signer, SignerKind
from trien_server.core.roles import Role
from trien_server.host.private_ca import Identity, PrivateCa
from trien_server.services.import_signers import ImportResult
from trien_server.services.operators import OperatorValues
from trien_server.services.organizations import OrganizationValues

LIMITED = replace(OPERATOR, name="operators/limited")


@cache
def _limited_identity() -> Identity:
    return PrivateCa.create("Test CA of the limited").issue_client("operator limited")


def registry() -> World:
    """Returns a world with a province, two districts below it and a commune in the first; nobody signs there."""
    world = World()
    world.use.create_installation({name: identity.certificate_der for name, identity in operators().items()})
    for name, parent in (("province", None), ("east", "province"), ("west", "province"), ("commune", "east")):
        enter(world, name, parent)
    return world


def enter(
    world: World, name: str, parent: str | None = None, *, by: Principal = OPERATOR, **values: Any
) -> Organization:
    """Enters an organization by its id and its parent's."""
    given: dict[str, Any] = {"display_name": f"Ủy ban nhân dân {name}", "start_time": None, "end_time": None}
    return world.use.create_organization(
        by,
        name=f"organizations/{name}",
        parent=None if parent is None else f"organizations/{parent}",
        deadline=world.deadline(),
        **(given | values),
    )


def values_of(world: World, name: str, **changes: Any) -> OrganizationValues:
    """Returns the values that an organization has, with changes."""
    found = world.use.get_organization(OPERATOR, f"organizations/{name}")
    return replace(
        OrganizationValues(
            name=found.name,
            display_name=found.display_name,
            parent=found.parent,
            start_time=found.start_time,
            end_time=found.end_time,
            successor=found.successor,
        ),
        **changes,
    )


def update(world: World, name: str, **changes: Any) -> None:
    """Has two officers change an organization."""
    values = values_of(world, name, **changes)
    world.agree(world.use.update_organization(OPERATOR, values, deadline=world.deadline()))


def end(world: World, name: str, at: datetime, successor: str | None = None) -> None:
    """Has two officers end an organization."""
    update(world, name, end_time=at, successor=None if successor is None else f"organizations/{successor}")


def add_signer(
    world: World, name: str, organization: str = "commune", *, by: Principal = OPERATOR, **values: Any
) -> Signer:
    """Enters a person by id."""
    given: dict[str, Any] = {"display_name": f"Người ký {name}", "kind": SignerKind.PERSON, "position": ""}
    return world.use.create_signer(
        by,
        name=f"signers/{name}",
        organization=f"organizations/{organization}",
        deadline=world.deadline(),
        **(given | values),
    )


def add_limited(world: World, organization: str = "east") -> Principal:
    """Enters a registration officer who is limited to an organization and those below it."""
    values = OperatorValues(
        name=LIMITED.name,
        display_name="Limited",
        certificate=_limited_identity().certificate_der,
        roles=(Role.REGISTRATION_OFFICER,),
        organizations=(f"organizations/{organization}",),
    )
    world.agree(world.use.create_operator(OPERATOR, values, deadline=world.deadline()))
    return LIMITED


def limited_key() -> bytes:
    """Returns the private key (PEM) of the limited officer."""
    return _limited_identity().private_key


def import_list(
    world: World, text: str | bytes, *, by: Principal = OPERATOR, validate_only: bool = False
) -> ImportResult:
    """Imports a list."""
    content = text.encode() if isinstance(text, str) else text
    return world.use.import_signers(by, content, validate_only=validate_only, deadline=world.deadline())
