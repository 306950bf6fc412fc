"""Makes the installation's own keys on a token, once in its life."""

import secrets
from contextlib import suppress
from typing import Any, Final

from pkcs11 import Attribute, Mechanism, MechanismFlag, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import PKCS11Error

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch, SecurityOfficerNeeded
from trien_server.core.records import InstallationKeyPurpose
from trien_server.core.secret import Secret
from trien_server.hsm.calls import CKU_USER, Calls
from trien_server.hsm.check_values import ExportedKeys, none_exported
from trien_server.hsm.connection import log_in
from trien_server.hsm.failures import Failure, NotProvisioned, PinRejected, classify, describe
from trien_server.hsm.keys import (
    FIRST_LABELS,
    ONE_TIME_PASSWORD_KEY,
    PROBE_KEY,
    PROTECTED,
    SEALING_KEY,
    WRAPPING_KEY,
    find_probe_keys,
    find_secret_keys,
    generate_key_pair,
    label_of,
)
from trien_server.hsm.module import function_list, load_module
from trien_server.hsm.wrapping import is_trusted, wrapping_key_template

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
    *,
    module_path: str,
    pin: Secret,
    token_label: str | None = None,
    token_serial: str | None = None,
    so_pin: Secret | None = None,
    exported: ExportedKeys = none_exported,
) -> tuple[str, ...]:
    """Makes those of the installation's keys that the token lacks, and returns their labels.

    Existing keys are left as they are, so after a crash it is run again; it returns nothing when all
    are there. Loads and ends the module, which nothing else in the process may be using. One process
    at a time: two would make the keys twice, and then both are refused.

    With the security officer's PIN a new wrapping key is marked as trusted (CKA_TRUSTED), where the
    token lets the security officer make it; a wrapping key that is there stays as it is. `exported` names the keys that
    custodians can bring back: brought there before (`hsm.custody`), they are found here.

    Raises `NotProvisioned` when a key is there twice or with other attributes, `PinRejected`, and
    `HsmUnavailable`.
    """
    module = load_module(module_path)
    try:
        calls = Calls(function_list(module.so))
        token = module.find_token(label=token_label, serial=token_serial)
        session = log_in(token, pin)
        made = [label for label in _SECRETS if _make(session, label, exported)]
        if make_probe_key(session):
            made.append(PROBE_KEY)
        if not find_secret_keys(session, WRAPPING_KEY, exported=exported):
            _expect_not_exported(WRAPPING_KEY, exported)
            if so_pin is not None:
                session.close()
                session = _make_trusted_wrapping_key(token, calls, pin=pin, so_pin=so_pin)
            if not find_secret_keys(session, WRAPPING_KEY):
                _make_wrapping_key(session, calls)
            made.append(WRAPPING_KEY)
        for label in (*_SECRETS, WRAPPING_KEY):
            expect_one(label, find_secret_keys(session, label, exported=exported))
        for found in find_probe_keys(session):
            expect_one(PROBE_KEY, found)
    except KeyMismatch as error:
        raise NotProvisioned(f"The token's keys are not Trien's: {error}.") from error
    except PKCS11Error as error:
        raise HsmUnavailable(f"The token's keys could not be made: {describe(error)}.") from error
    finally:
        module.shut_down()
    return tuple(made)


def add_wrapping_key(
    *,
    module_path: str,
    pin: Secret,
    so_pin: Secret,
    token_label: str | None = None,
    token_serial: str | None = None,
    exported: ExportedKeys = none_exported,
) -> int:
    """Makes the trusted wrapping key of the next generation, and returns which one it is.

    It serves nobody until two operators agreed on it. Loads and ends the module, which nothing else in the process may
    be using; other processes may be using the token.

    Raises `NotProvisioned` when the token has no first generation or does not let a trusted one be made, `PinRejected`,
    and `HsmUnavailable`.
    """
    module = load_module(module_path)
    try:
        calls = Calls(function_list(module.so))
        token = module.find_token(label=token_label, serial=token_serial)
        session = log_in(token, pin)
        first = find_secret_keys(session, WRAPPING_KEY, exported=exported)
        expect_one(WRAPPING_KEY, first)
        generation = 2
        while found := find_secret_keys(session, WRAPPING_KEY, generation, exported=exported):
            if is_trusted(first[0]) and not all(is_trusted(key) for key in found):
                raise KeyMismatch(_not_trusted(generation))
            generation += 1
        session.close()
        session = _make_trusted_wrapping_key(token, calls, pin=pin, so_pin=so_pin, generation=generation)
        expect_one(label_of(WRAPPING_KEY, generation), find_secret_keys(session, WRAPPING_KEY, generation))
    except KeyMismatch as error:
        raise NotProvisioned(f"The token's keys are not Trien's: {error}.") from error
    except PKCS11Error as error:
        raise HsmUnavailable(f"The wrapping key could not be made: {describe(error)}.") from error
    finally:
        module.shut_down()
    return generation


def make_installation_key(
    session: Session,
    calls: Calls,
    purpose: InstallationKeyPurpose,
    generation: int,
    *,
    exported: ExportedKeys = none_exported,
) -> None:
    """Makes a sealing or wrapping key of a later generation unless it is there.

    One that follows a key in custody is made on the host, with the custodians' shares (`hsm.custody`). So is a wrapping
    key that follows a trusted one, by the security officer (`add_wrapping_key`): a key that is not trusted would wrap
    nothing of what the trusted one opens, and wrap new keys for whoever has the PIN, who can make such a one. Raises
    `SecurityOfficerNeeded`; `KeyMismatch` when another process made one at the same moment: this one is taken away
    again, and the next attempt finds what is left.
    """
    first = FIRST_LABELS[purpose]
    found = find_secret_keys(session, first, generation, exported=exported)
    if not found and label_of(first, generation - 1) in exported():
        raise SecurityOfficerNeeded(f"{label_of(first, generation)!r} is to be in custody as the one before it.")
    if purpose is InstallationKeyPurpose.WRAPPING and any(
        is_trusted(key) for key in find_secret_keys(session, WRAPPING_KEY, exported=exported)
    ):
        if not found:
            raise SecurityOfficerNeeded(f"The token has no {label_of(first, generation)!r}.")
        if not all(is_trusted(key) for key in found):
            raise KeyMismatch(_not_trusted(generation))
    if found:
        return
    if purpose is InstallationKeyPurpose.WRAPPING:
        made = _make_wrapping_key(session, calls, generation)
    else:
        made = _make_secret_key(session, SEALING_KEY, generation)
    if len(find_secret_keys(session, first, generation)) != 1:
        calls.destroy_object(session, made)
        raise KeyMismatch(f"another process made {label_of(first, generation)!r} too")


def _make(session: Session, label: str, exported: ExportedKeys) -> bool:
    """Makes a secret key unless it is there; tells whether it was made."""
    if find_secret_keys(session, label, exported=exported):
        return False
    _expect_not_exported(label, exported)
    _make_secret_key(session, label)
    return True


def _expect_not_exported(label: str, exported: ExportedKeys) -> None:
    if label in exported():
        raise NotProvisioned(
            f"{label!r} is in custody and not on the token: `trien-server token import-keys` brings it."
        )


def _make_secret_key(session: Session, first: str, generation: int = 1) -> int:
    """Makes a secret key and returns its handle."""
    key_type, mechanism, capabilities = _SECRETS[first]
    made: Any = session.generate_key(
        key_type,
        _SECRET_BITS,
        id=secrets.token_bytes(_ID_SIZE),
        label=label_of(first, generation),
        store=True,
        capabilities=capabilities,
        mechanism=mechanism,
        template={name: value for name, value in PROTECTED.items() if name is not Attribute.TOKEN},
    )
    return int(made.handle)


def _make_wrapping_key(session: Session, calls: Calls, generation: int = 1) -> int:
    """Makes a wrapping key and returns its handle.

    It is made without what a module does not know, when the module refuses the whole template. Which attributes a
    module keeps to is found out by trying: `wrapping_findings`.
    """
    template = wrapping_key_template(secrets.token_bytes(_ID_SIZE), generation)
    try:
        return calls.generate_key(
            session,
            Mechanism.AES_KEY_GEN,
            {**template, Attribute.MODIFIABLE: False, Attribute.COPYABLE: False},
        )
    except PKCS11Error as error:
        if classify(error) is not Failure.REQUEST:
            raise
    plain = {name: value for name, value in template.items() if not isinstance(value, dict | tuple)}
    return calls.generate_key(session, Mechanism.AES_KEY_GEN, {**plain, Attribute.MODIFIABLE: False})


def _make_trusted_wrapping_key(
    token: Any, calls: Calls, *, pin: Secret, so_pin: Secret, generation: int = 1
) -> Session:
    """Lets the security officer make a trusted wrapping key, and leaves a session of the user.

    Only the security officer gives CKA_TRUSTED, and sees no private object. So the key is made as a
    public session object, which stays in the module's memory, and the user copies it to the token as
    a private one that nobody changes. The copy can be copied, for that attribute cannot be taken away
    from a copy, but only unchanged. A token that does not go along gets no key here.
    """
    session = log_in_officer(token, so_pin)
    template = wrapping_key_template(secrets.token_bytes(_ID_SIZE), generation, trusted=True)
    made = 0
    with suppress(PKCS11Error):
        made = calls.generate_key(
            session,
            Mechanism.AES_KEY_GEN,
            {**template, Attribute.TOKEN: False, Attribute.PRIVATE: False},
        )
    calls.log_out(session)
    calls.log_in(session, CKU_USER, pin)
    if made:
        with suppress(PKCS11Error):
            calls.copy_object(
                session,
                made,
                {Attribute.TOKEN: True, Attribute.PRIVATE: True, Attribute.MODIFIABLE: False},
            )
        calls.destroy_object(session, made)
    return session


def log_in_officer(token: Any, so_pin: Secret) -> Session:
    try:
        session: Session = token.open(rw=True, so_pin=so_pin.reveal().decode())
    except PKCS11Error as error:
        if classify(error) is Failure.PIN:
            raise PinRejected(
                f"The token refused the security officer's PIN ({describe(error)}); an operator must act."
            ) from None
        raise
    return session


def make_probe_key(session: Session) -> bool:
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


def _not_trusted(generation: int) -> str:
    return f"{label_of(WRAPPING_KEY, generation)!r} is not trusted, as the first one is: the user made it"


def expect_one(label: str, found: list[Any]) -> None:
    if len(found) != 1:
        raise NotProvisioned(f"The token holds {len(found)} keys {label!r}, not one.")
