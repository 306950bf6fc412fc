"""Makes the installation's own keys on a token, once in its life."""

import secrets
from typing import Any, Final

from pkcs11 import Attribute, Mechanism, MechanismFlag, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import PKCS11Error

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch
from trien_server.core.secret import Secret
from trien_server.hsm.connection import log_in
from trien_server.hsm.failures import NotProvisioned, describe
from trien_server.hsm.keys import (
    ONE_TIME_PASSWORD_KEY,
    PROBE_KEY,
    PROTECTED,
    SEALING_KEY,
    find_probe_keys,
    find_secret_keys,
    generate_key_pair,
)
from trien_server.hsm.module import load_module

_SECRETS: Final[dict[str, tuple[TokenKeyType, Mechanism, MechanismFlag]]] = {
    SEALING_KEY: (
        TokenKeyType.GENERIC_SECRET,
        Mechanism.GENERIC_SECRET_KEY_GEN,
        MechanismFlag.SIGN | MechanismFlag.VERIFY,
    ),
    ONE_TIME_PASSWORD_KEY: (
        TokenKeyType.AES,
        Mechanism.AES_KEY_GEN,
        MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
    ),
}
_SECRET_BITS: Final = 256
_ID_SIZE: Final = 16


def provision(
    *, module_path: str, pin: Secret, token_label: str | None = None, token_serial: str | None = None
) -> tuple[str, ...]:
    """Makes those of the installation's keys that the token lacks, and returns their labels.

    Existing keys are left as they are, so after a crash it is run again; it returns nothing when all
    are there. Loads and ends the module, which nothing else in the process may be using. One process
    at a time: two would make the keys twice, and then both are refused.

    Raises `NotProvisioned` when a key is there twice or with other attributes, `PinRejected`, and
    `HsmUnavailable`.
    """
    module = load_module(module_path)
    try:
        session = log_in(module.find_token(label=token_label, serial=token_serial), pin)
        made = [label for label in _SECRETS if _make(session, label)]
        if _make_probe_key(session):
            made.append(PROBE_KEY)
        for label in _SECRETS:
            _expect_one(label, find_secret_keys(session, label))
        for found in find_probe_keys(session):
            _expect_one(PROBE_KEY, found)
    except KeyMismatch as error:
        raise NotProvisioned(f"The token's keys are not Trien's: {error}.") from error
    except PKCS11Error as error:
        raise HsmUnavailable(f"The token's keys could not be made: {describe(error)}.") from error
    finally:
        module.shut_down()
    return tuple(made)


def _make(session: Session, label: str) -> bool:
    """Makes a secret key unless it is there; tells whether it was made."""
    if find_secret_keys(session, label):
        return False
    key_type, mechanism, capabilities = _SECRETS[label]
    session.generate_key(
        key_type,
        _SECRET_BITS,
        id=secrets.token_bytes(_ID_SIZE),
        label=label,
        store=True,
        capabilities=capabilities,
        mechanism=mechanism,
        template={name: value for name, value in PROTECTED.items() if name is not Attribute.TOKEN},
    )
    return True


def _make_probe_key(session: Session) -> bool:
    """Makes the probe key unless it is there whole; tells whether it was made.

    Half a pair is what a crash left. It protects nothing, so it is removed and made anew.
    """
    private, public = find_probe_keys(session)
    if private and public:
        return False
    for half in (*private, *public):
        half.destroy()
    generate_key_pair(session, secrets.token_bytes(_ID_SIZE), KeyType.EC_P256, label=PROBE_KEY)
    return True


def _expect_one(label: str, found: list[Any]) -> None:
    if len(found) != 1:
        raise NotProvisioned(f"The token holds {len(found)} keys {label!r}, not one.")
