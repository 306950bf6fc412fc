"""Brings the installation's secret keys out of a token under custody, and onto one.

A key in custody begins as an object of one session: sensitive, extractable, seen by no other process. It is wrapped by
the key-encryption key of the custodians and destroyed. What is on the token is always what was unwrapped again, so
that a key is in use only when its export was seen to open.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from pkcs11 import Attribute, Mechanism, MechanismFlag, ObjectClass, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import MechanismInvalid, PKCS11Error

from trien_server.core.custody import WRAPPED_SIZE, ExportedKey
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch
from trien_server.core.secret import Secret
from trien_server.hsm.calls import CKU_USER, Calls, Template
from trien_server.hsm.check_values import WRAPPING_MECHANISMS, check_value
from trien_server.hsm.connection import log_in
from trien_server.hsm.failures import NotProvisioned, TokenFailed, describe
from trien_server.hsm.keys import (
    ONE_TIME_PASSWORD_KEY,
    PROBE_KEY,
    PROTECTED,
    SEALING_KEY,
    SECRET_KEYS,
    WRAPPING_KEY,
    find_secret_keys,
    parse_label,
)
from trien_server.hsm.module import find_objects, function_list, load_module
from trien_server.hsm.provisioning import expect_one, log_in_officer, make_probe_key
from trien_server.hsm.wrapping import wrapping_key_template

T = TypeVar("T")

FIRST_KEYS: Final = (SEALING_KEY, ONE_TIME_PASSWORD_KEY, WRAPPING_KEY)
"""What an installation needs at least to be brought back."""

_CAPABILITIES: Final = {
    SEALING_KEY: MechanismFlag.SIGN | MechanismFlag.VERIFY,
    ONE_TIME_PASSWORD_KEY: MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
    WRAPPING_KEY: MechanismFlag.WRAP | MechanismFlag.UNWRAP,
}


def export_new_keys(
    *,
    module_path: str,
    pin: Secret,
    labels: Sequence[str],
    key_encryption_key: Secret,
    trusted: bool,
    token_label: str | None = None,
    token_serial: str | None = None,
) -> tuple[ExportedKey, ...]:
    """Generates keys in the token and returns them wrapped; nothing of them is left on it.

    With `trusted`, wrapping keys are to be trusted ones once they are brought back. Loads and ends the module, which
    nothing else in the process may be using.

    Raises `NotProvisioned` when the token has a key of one of these labels, `PinRejected`, `HsmUnavailable`.
    """
    module = load_module(module_path)
    try:
        calls = Calls(function_list(module.so))
        session = log_in(module.find_token(label=token_label, serial=token_serial), pin)
        for label in labels:
            if _with_label(session, label):
                raise NotProvisioned(f"The token has a key {label!r} already: one in custody cannot be made beside it.")
        kek = _put_key_encryption_key(session, calls, key_encryption_key, private=True)
        return tuple(_export_new(session, calls, label, kek, trusted=trusted) for label in labels)
    except PKCS11Error as error:
        raise HsmUnavailable(f"The token does not make keys that are wrapped: {describe(error)}.") from error
    finally:
        module.shut_down()


def bring_keys(
    *,
    module_path: str,
    pin: Secret,
    keys: Sequence[ExportedKey],
    key_encryption_key: Secret,
    so_pin: Secret | None = None,
    token_label: str | None = None,
    token_serial: str | None = None,
) -> tuple[str, ...]:
    """Brings exported keys onto a token that lacks them, and the probe key; returns the labels of what it made.

    A key that is there with its check value stays, so after a crash it is run again. A key is looked at as a session
    object before it is copied to the token. Loads and ends the module, which nothing else in the process may be using.

    Raises `NotProvisioned` when another key has one of the labels, one is not what its check value says, or the
    security officer's PIN is missing; `PinRejected`, `HsmUnavailable`.
    """
    named = {key.label: key.check_value for key in keys}
    made = []
    module = load_module(module_path)
    try:
        calls = Calls(function_list(module.so))
        token = module.find_token(label=token_label, serial=token_serial)
        session = log_in(token, pin)
        missing = []
        for key in keys:
            first, generation = parse_label(key.label)
            if not find_secret_keys(session, first, generation, exported=lambda: named):
                missing.append(key)
        trusted = [key for key in missing if key.trusted]
        if trusted:
            if so_pin is None:
                raise NotProvisioned(
                    f"{trusted[0].label!r} is trusted, which takes the PIN of the token's security officer."
                )
            session.close()
            session = _bring_trusted(token, calls, trusted, key_encryption_key, pin=pin, so_pin=so_pin)
        kek = _put_key_encryption_key(session, calls, key_encryption_key, private=True)
        for key in missing:
            if not key.trusted:
                template = {**_template(key), Attribute.TOKEN: False}
                _keep(session, calls, key, _unwrap(session, calls, kek, key, template))
            made.append(key.label)
        for key in keys:
            first, generation = parse_label(key.label)
            expect_one(key.label, find_secret_keys(session, first, generation, exported=lambda: named))
        if make_probe_key(session):
            made.append(PROBE_KEY)
    except KeyMismatch as error:
        raise NotProvisioned(f"The token's keys are not those of the export: {error}.") from error
    except PKCS11Error as error:
        raise HsmUnavailable(f"The keys could not be brought to the token: {describe(error)}.") from error
    finally:
        module.shut_down()
    return tuple(made)


def try_custody(session: Session, calls: Calls, key_encryption_key: Secret) -> None:
    """Tries with throw-away session objects whether keys can be wrapped, and brought back as what they were.

    Raises `HsmUnavailable`, or what the module raises.
    """
    kek = _put_key_encryption_key(session, calls, key_encryption_key, private=True)
    for label in FIRST_KEYS:
        key = _export_new(session, calls, label, kek, trusted=False)
        handle = _unwrap(session, calls, kek, key, {**_template(key), Attribute.TOKEN: False})
        try:
            found = next(item for item in _with_label(session, key.label) if item.handle == handle)
            if check_value(session, found, label) != key.check_value:
                raise TokenFailed(f"The token brought back another key than {label!r}.")
        finally:
            calls.destroy_object(session, handle)
    calls.destroy_object(session, kek)


def _export_new(session: Session, calls: Calls, label: str, kek: int, *, trusted: bool) -> ExportedKey:
    first, _ = parse_label(label)
    sealing = first == SEALING_KEY
    made: Any = session.generate_key(
        TokenKeyType.GENERIC_SECRET if sealing else TokenKeyType.AES,
        256,
        label=label,
        store=False,
        capabilities=_CAPABILITIES[first],
        mechanism=Mechanism.GENERIC_SECRET_KEY_GEN if sealing else Mechanism.AES_KEY_GEN,
        template={Attribute.PRIVATE: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True},
    )
    try:
        wrapped = _with_either_mechanism(lambda mechanism: calls.wrap_key(session, mechanism, kek, made.handle))
        if len(wrapped) != WRAPPED_SIZE:
            raise TokenFailed(f"The token wrapped a key as {len(wrapped)} bytes, not {WRAPPED_SIZE}.")
        value = check_value(session, made, label)
    finally:
        made.destroy()
    return ExportedKey(label=label, check_value=value, wrapped=wrapped, trusted=trusted and first == WRAPPING_KEY)


def _bring_trusted(
    token: Any, calls: Calls, keys: Sequence[ExportedKey], key_encryption_key: Secret, *, pin: Secret, so_pin: Secret
) -> Session:
    """Brings trusted wrapping keys and leaves a session of the user.

    Only the security officer gives CKA_TRUSTED, and sees no private object: as a trusted wrapping key is made
    (`provisioning`), it is unwrapped as a public session object, which the user copies to the token as a private one.
    """
    session = log_in_officer(token, so_pin)
    kek = _put_key_encryption_key(session, calls, key_encryption_key, private=False)
    unwrapped = []
    for key in keys:
        template = {**_template(key), Attribute.TOKEN: False, Attribute.PRIVATE: False}
        unwrapped.append(_unwrap(session, calls, kek, key, template))
    calls.destroy_object(session, kek)
    calls.log_out(session)
    calls.log_in(session, CKU_USER, pin)
    for key, handle in zip(keys, unwrapped, strict=True):
        _keep(session, calls, key, handle)
    return session


def _keep(session: Session, calls: Calls, key: ExportedKey, handle: int) -> None:
    """Copies an unwrapped key to the token, once it has proved to be the exported one; the session object goes."""
    try:
        found = next(item for item in _with_label(session, key.label) if item.handle == handle)
        if check_value(session, found, key.label) != key.check_value:
            raise KeyMismatch(f"what opens as {key.label!r} has another check value")
        first, _ = parse_label(key.label)
        unchangeable: dict[int, bool] = {Attribute.MODIFIABLE: False} if first == WRAPPING_KEY else {}
        calls.copy_object(session, handle, {Attribute.TOKEN: True, Attribute.PRIVATE: True, **unchangeable})
    finally:
        calls.destroy_object(session, handle)


def _template(key: ExportedKey) -> dict[int, Any]:
    first, generation = parse_label(key.label)
    object_id = secrets.token_bytes(16)
    if first == WRAPPING_KEY:
        made = wrapping_key_template(object_id, generation, trusted=key.trusted)
        del made[Attribute.VALUE_LEN]
        return {**made, Attribute.KEY_TYPE: int(TokenKeyType.AES)}
    return {
        **{int(name): value for name, value in {**PROTECTED, **SECRET_KEYS[first]}.items()},
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(SECRET_KEYS[first][Attribute.KEY_TYPE]),
        Attribute.ID: object_id,
        Attribute.LABEL: key.label.encode(),
    }


def _unwrap(session: Session, calls: Calls, kek: int, key: ExportedKey, template: Template) -> int:
    return _with_either_mechanism(lambda mechanism: calls.unwrap_key(session, mechanism, kek, key.wrapped, template))


def _with_either_mechanism(act: Callable[[Mechanism], T]) -> T:
    try:
        return act(WRAPPING_MECHANISMS[0])
    except MechanismInvalid:
        return act(WRAPPING_MECHANISMS[1])


def _put_key_encryption_key(session: Session, calls: Calls, key: Secret, *, private: bool) -> int:
    """Puts the key of the custodians into the session, which it ends with; nothing reads it there."""
    return calls.create_object(
        session,
        {
            Attribute.CLASS: int(ObjectClass.SECRET_KEY),
            Attribute.KEY_TYPE: int(TokenKeyType.AES),
            Attribute.TOKEN: False,
            Attribute.PRIVATE: private,
            Attribute.SENSITIVE: True,
            Attribute.EXTRACTABLE: False,
            Attribute.ENCRYPT: False,
            Attribute.DECRYPT: False,
            Attribute.WRAP: True,
            Attribute.UNWRAP: True,
            Attribute.VALUE: key.reveal(),
        },
    )


def _with_label(session: Session, label: str) -> list[Any]:
    return find_objects(session, {Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label})
