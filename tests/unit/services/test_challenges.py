"""Codes that answer a challenge: of an OCRA authenticator, and delivered ones (P2)."""

import pytest
from tests.support.world import CHAIR, World, digests

from trien_server.core.records import AuthenticatorKind


@pytest.fixture
def world() -> World:
    return World().populate()


@pytest.mark.promise("P2")
def test_the_answer_of_an_ocra_authenticator_approves_exactly_its_list(world: World) -> None:
    world.add_ocra()
    first, second = world.authorize(digests(2)), world.authorize(digests(1, of="other"))
    made = world.challenge(first, second)
    approved = world.approve(first, second, password=world.answer(made), challenge=made.challenge.name)
    assert approved.approval.authorizations == (first.name, second.name)
    assert approved.approval.authenticator == f"{CHAIR}/authenticators/ocra"
    data = world.activation_data(first)
    assert len(world.sign(digests(2), activated=(first.name, data)).signatures) == 2


@pytest.mark.promise("P2")
@pytest.mark.parametrize("kind", [AuthenticatorKind.SMS, AuthenticatorKind.EMAIL])
def test_a_delivered_code_approves_exactly_its_list(world: World, kind: AuthenticatorKind) -> None:
    name = world.add_delivery(kind=kind)
    authorization = world.authorize(digests(3))
    made, delivered = world.send(authorization)
    approved = world.approve(authorization, password=delivered.code, challenge=made.challenge.name)
    assert approved.approval.authorizations == (authorization.name,)
    assert approved.approval.authenticator == name
    data = world.activation_data(authorization)
    assert len(world.sign(digests(3), activated=(authorization.name, data)).signatures) == 3
