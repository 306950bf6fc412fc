"""What is on a token, and what it would do, before and after a ceremony."""

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from pkcs11 import Attribute, ObjectClass, Session
from pkcs11.exceptions import PKCS11Error

from trien_server.core.custody import COMPONENT_SIZE
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch
from trien_server.core.secret import Secret
from trien_server.hsm.calls import Calls
from trien_server.hsm.check_values import ExportedKeys, check_value, none_exported
from trien_server.hsm.connection import log_in
from trien_server.hsm.custody import FIRST_KEYS, try_custody
from trien_server.hsm.failures import NotProvisioned, describe
from trien_server.hsm.keys import encode_public_key, find_probe_keys, find_secret_keys
from trien_server.hsm.module import find_objects, function_list, load_module
from trien_server.hsm.provisioning import expect_one, log_in_officer
from trien_server.hsm.trials import ONE_TIME_PASSWORDS, PROBE, SEALS, try_mechanisms

_OURS: Final = "trien "
_REQUIRED: Final = (SEALS, ONE_TIME_PASSWORDS, PROBE)


@dataclass(frozen=True, kw_only=True)
class TokenInventory:
    """A token, and the keys on it that are an installation's."""

    label: str
    serial: str
    manufacturer: str
    model: str
    check_values: Mapping[str, str]
    """Of the installation's secret keys, by their labels."""

    probe_key: bytes
    """The probe's public key (SPKI, DER)."""


def try_token(
    *,
    module_path: str,
    pin: Secret,
    so_pin: Secret | None,
    custody: bool,
    token_label: str | None = None,
    token_serial: str | None = None,
) -> tuple[str, ...]:
    """Logs in as whom there is a PIN for, and returns the labels of keys that are on the token as an installation's.

    It tries what the server asks of every token; with `custody` also whether the token makes keys that can be exported.
    Nothing is left. Each PIN is tried once. Loads and ends the module. Raises `PinRejected`, `NotProvisioned`,
    `HsmUnavailable`.
    """
    module = load_module(module_path)
    try:
        token = module.find_token(label=token_label, serial=token_serial)
        session = log_in(token, pin)
        found = _labels(session)
        for trial in try_mechanisms(session):
            if trial.what in _REQUIRED and trial.answer:
                raise HsmUnavailable(f"The token does not do {trial.what}: {trial.answer}.")
        if custody:
            kek = Secret(secrets.token_bytes(COMPONENT_SIZE))
            try_custody(session, Calls(function_list(module.so)), kek)
        if so_pin is not None:
            session.close()
            log_in_officer(token, so_pin).close()
        return found
    except PKCS11Error as error:
        raise HsmUnavailable(f"The token does not do what it has to: {describe(error)}.") from error
    finally:
        module.shut_down()


def take_inventory(
    *,
    module_path: str,
    pin: Secret,
    token_label: str | None = None,
    token_serial: str | None = None,
    exported: ExportedKeys = none_exported,
) -> TokenInventory:
    """Returns what is on a token that an installation was made on.

    Loads and ends the module. Raises `PinRejected`, `NotProvisioned`, `HsmUnavailable`.
    """
    module = load_module(module_path)
    try:
        token: Any = module.find_token(label=token_label, serial=token_serial)
        session = log_in(token, pin)
        values = {}
        for label in FIRST_KEYS:
            found = find_secret_keys(session, label, exported=exported)
            expect_one(label, found)
            values[label] = check_value(session, found[0], label)
        _, public = find_probe_keys(session)
        return TokenInventory(
            label=token.label,
            serial=token.serial.decode(errors="replace").strip(),
            manufacturer=str(token.manufacturer_id).strip(),
            model=str(token.model).strip(),
            check_values=values,
            probe_key=encode_public_key(public[0]),
        )
    except KeyMismatch as error:
        raise NotProvisioned(f"The token's keys are not Trien's: {error}.") from error
    except PKCS11Error as error:
        raise HsmUnavailable(f"The token could not be looked at: {describe(error)}.") from error
    finally:
        module.shut_down()


def _labels(session: Session) -> tuple[str, ...]:
    labels = set()
    for kind in (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY):
        for item in find_objects(session, {Attribute.CLASS: kind}):
            with suppress(PKCS11Error):
                labels.add(str(item[Attribute.LABEL]))
    return tuple(sorted(label for label in labels if label.startswith(_OURS)))
