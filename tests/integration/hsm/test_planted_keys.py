"""Keys that somebody with the user's PIN put under the labels of the installation's own keys."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import Attribute, Mechanism, MechanismFlag, ObjectClass, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import PKCS11Error
from tests.integration.hsm.test_provisioning import logged_in
from tests.support.softhsm import MODULE, SoftHsmToken, copy_token

from trien_server.core.ports import KeyMismatch
from trien_server.core.records import InstallationKeyPurpose
from trien_server.hsm.calls import Calls
from trien_server.hsm.keys import PROTECTED, SEALING_KEY, SECRET_KEYS, WRAPPING_KEY, label_of
from trien_server.hsm.module import function_list

KNOWN = bytes(range(32))
HIDDEN = {Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False}


@pytest.fixture
def token(tmp_path: Path) -> SoftHsmToken:
    copy = copy_token(tmp_path / "token")
    os.environ["SOFTHSM2_CONF"] = str(copy.configuration)
    return copy


def template_of(first: str, generation: int) -> dict[int, Any]:
    return {
        **{int(name): value for name, value in {**PROTECTED, **SECRET_KEYS[first]}.items()},
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(SECRET_KEYS[first].get(Attribute.KEY_TYPE, TokenKeyType.AES)),
        Attribute.LABEL: label_of(first, generation).encode(),
        Attribute.ID: os.urandom(16),
    }


def put(session: Session, calls: Calls, first: str, generation: int) -> None:
    calls.create_object(session, {**template_of(first, generation), Attribute.VALUE: KNOWN})


def _readable(session: Session, first: str, generation: int) -> Any:
    sealing = first == SEALING_KEY
    return session.generate_key(
        TokenKeyType.GENERIC_SECRET if sealing else TokenKeyType.AES,
        256,
        label=label_of(first, generation),
        store=True,
        capabilities=(MechanismFlag.SIGN | MechanismFlag.VERIFY)
        if sealing
        else MechanismFlag.WRAP | MechanismFlag.UNWRAP,
        mechanism=Mechanism.GENERIC_SECRET_KEY_GEN if sealing else Mechanism.AES_KEY_GEN,
        template={
            **{
                name: value
                for name, value in {**PROTECTED, **SECRET_KEYS[first]}.items()
                if name not in (Attribute.TOKEN, Attribute.KEY_TYPE)
            },
            Attribute.SENSITIVE: False,
            Attribute.EXTRACTABLE: True,
        },
    )


def read_and_hide(session: Session, calls: Calls, first: str, generation: int) -> None:
    made = _readable(session, first, generation)
    assert len(made[Attribute.VALUE]) == 32
    calls.set_attributes(session, made.handle, HIDDEN)


def read_and_copy(session: Session, calls: Calls, first: str, generation: int) -> None:
    made = _readable(session, first, generation)
    assert len(made[Attribute.VALUE]) == 32
    calls.copy_object(session, made.handle, HIDDEN)
    made.destroy()


Plant = Callable[[Session, Calls, str, int], None]
WAYS = (put, read_and_hide, read_and_copy)


@pytest.mark.promise("P5")
@pytest.mark.parametrize("plant", WAYS)
def test_a_sealing_key_that_somebody_knows_verifies_nothing_and_is_not_taken_into_use(
    token: SoftHsmToken, plant: Plant
) -> None:
    with logged_in() as session:
        plant(session, Calls(function_list(MODULE)), SEALING_KEY, 2)
    hsm = token.open()
    try:
        with pytest.raises(KeyMismatch, match="attributes of its purpose"):
            hsm.authenticate(b"a row of the thief's", generation=2)
        with pytest.raises(KeyMismatch, match="attributes of its purpose"):
            hsm.make_installation_key(InstallationKeyPurpose.SEALING, 2)
        assert len(hsm.authenticate(b"m")) == 32
    finally:
        hsm.close()


@pytest.mark.promise("P4")
@pytest.mark.parametrize("plant", WAYS)
def test_a_wrapping_key_that_somebody_knows_is_not_taken_into_use(token: SoftHsmToken, plant: Plant) -> None:
    with logged_in() as session:
        plant(session, Calls(function_list(MODULE)), WRAPPING_KEY, 2)
    hsm = token.open()
    try:
        with pytest.raises(KeyMismatch, match="attributes of its purpose"):
            hsm.make_installation_key(InstallationKeyPurpose.WRAPPING, 2)
    finally:
        hsm.close()


@pytest.mark.promise("P4")
def test_a_wrapping_key_that_only_the_user_made_does_not_follow_a_trusted_one(token: SoftHsmToken) -> None:
    """Nobody knows it, but it has no template: whatever it wraps can be unwrapped as a key that shows itself."""
    with logged_in() as session:
        calls = Calls(function_list(MODULE))
        calls.generate_key(session, Mechanism.AES_KEY_GEN, {**template_of(WRAPPING_KEY, 2), Attribute.VALUE_LEN: 32})
    hsm = token.open()
    try:
        with pytest.raises(KeyMismatch, match="not trusted"):
            hsm.make_installation_key(InstallationKeyPurpose.WRAPPING, 2)
    finally:
        hsm.close()


@pytest.mark.promise("P4", "P5")
def test_the_token_lets_nobody_say_that_it_made_a_key_itself(token: SoftHsmToken) -> None:
    refused = 0
    with logged_in() as session:
        calls = Calls(function_list(MODULE))
        made = _readable(session, SEALING_KEY, 2)
        for name in (Attribute.LOCAL, Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE):
            claimed = {name: True, Attribute.VALUE: KNOWN}
            for act in (
                lambda claimed=claimed: calls.create_object(session, {**template_of(SEALING_KEY, 3), **claimed}),
                lambda name=name: calls.copy_object(session, made.handle, {**HIDDEN, name: True}),
                lambda name=name: calls.set_attributes(session, made.handle, {name: True}),
            ):
                with pytest.raises(PKCS11Error):
                    act()
                refused += 1
    assert refused == 9
