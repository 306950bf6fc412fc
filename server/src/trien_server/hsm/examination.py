"""Looks at a module and its token for an operator, step by step, in a child process.

A module may crash, hang, or print: so the child tells of each step when it is done, and what it told before its end
stays known. The PIN is tried once, and not at all where the token says that another wrong one locks it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pkcs11 import Session, Token, TokenFlag
from pkcs11.exceptions import PKCS11Error

from trien_server.core.ports import KeyMismatch
from trien_server.core.secret import Secret
from trien_server.hsm.check_values import ExportedKeys, none_exported
from trien_server.hsm.child import ChildFailed, run_in_child
from trien_server.hsm.connection import log_in
from trien_server.hsm.failures import PinRejected, describe
from trien_server.hsm.keys import PROBE_KEY, SECRET_KEYS, find_probe_keys, find_secret_keys
from trien_server.hsm.module import Module, function_list, load_module
from trien_server.hsm.trials import Trial, try_mechanisms

TIMEOUT: Final = 60.0
_MARK: Final = "trien-examination "
"""Begins a line of ours; a module may print others."""


@dataclass(frozen=True, kw_only=True)
class ModuleFound:
    """What a module says of itself."""

    manufacturer: str
    description: str
    version: str

    @property
    def is_softhsm(self) -> bool:
        return "softhsm" in self.manufacturer.lower()


@dataclass(frozen=True, kw_only=True)
class TokenExamination:
    """What was found, up to the step at which it ended: then `ended` says why, and what is behind it is None."""

    module: ModuleFound | None = None
    tokens: Sequence[tuple[str, str]] | None = None
    """Label and serial number of each initialized token."""
    matching: int = 0
    pin_locked: bool = False
    pin_final_try: bool = False
    pin_refused: str = ""
    logged_in: bool = False
    key_faults: Mapping[str, str] | None = None
    """What is wrong with the installation's keys, by label."""
    trials: Sequence[Trial] | None = None
    ended: str = field(default="")


def examine_token(
    *,
    module_path: str,
    token_label: str | None,
    token_serial: str | None,
    pin: Secret,
    exported: ExportedKeys = none_exported,
) -> TokenExamination:
    """Examines a token, and returns what was found. Raises `KeyMismatch` for a list of exported keys that is not read.

    The environment's SOFTHSM2_CONF counts, as ever. The PIN is tried at most once.
    """
    arguments = {
        "module_path": module_path,
        "token_label": token_label,
        "token_serial": token_serial,
        "pin": pin.reveal().decode(),
        "exported": dict(exported()),
    }
    try:
        printed, ended = run_in_child("trien_server.hsm.examination", "examine", arguments, timeout=TIMEOUT), ""
    except ChildFailed as fault:
        printed, ended = fault.printed, str(fault)
    told: dict[str, Any] = {}
    for line in printed.splitlines():
        if line.startswith(_MARK):
            told |= json.loads(line.removeprefix(_MARK))
    return _examination(told, ended)


def _examination(told: Mapping[str, Any], ended: str) -> TokenExamination:
    module, tokens, trials = told.get("module"), told.get("tokens"), told.get("trials")
    return TokenExamination(
        module=None if module is None else ModuleFound(**module),
        tokens=None if tokens is None else [(label, serial) for label, serial in tokens],
        matching=told.get("matching", 0),
        pin_locked=told.get("pin_locked", False),
        pin_final_try=told.get("pin_final_try", False),
        pin_refused=told.get("pin_refused", ""),
        logged_in=told.get("logged_in", False),
        key_faults=told.get("key_faults"),
        trials=None if trials is None else [Trial(what=what, answer=answer) for what, answer in trials],
        ended=told.get("ended") or ended,
    )


def examine(
    *, module_path: str, token_label: str | None, token_serial: str | None, pin: str, exported: Mapping[str, str]
) -> None:
    """Prints what is found, step by step. Runs in the child."""
    try:
        function_list(module_path)
    except (OSError, AttributeError) as error:
        _tell(ended=f"it is no PKCS#11 module ({error})")
        return
    module = load_module(module_path)
    _tell(
        module={
            "manufacturer": module.manufacturer_id.strip(),
            "description": module.library_description.strip(),
            "version": ".".join(str(part) for part in module.library_version),
        }
    )
    try:
        token = _look_at_tokens(module, token_label, token_serial)
        if token is not None:
            session = _log_in(token, Secret(pin.encode()))
            if session is not None:
                _tell(key_faults=_key_faults(session, lambda: exported))
                _tell(trials=[(trial.what, trial.answer) for trial in try_mechanisms(session)])
                session.close()
    except PKCS11Error as error:
        _tell(ended=describe(error))
    module.shut_down()


def _look_at_tokens(module: Module, label: str | None, serial: str | None) -> Token | None:
    """Tells which tokens there are; returns the one that is meant, when it is one."""
    tokens = []
    for slot in module.get_slots(token_present=True):
        try:
            token = slot.get_token()
        except PKCS11Error:
            continue
        if TokenFlag.TOKEN_INITIALIZED in token.flags:
            tokens.append(token)
    named = [(token.label, token.serial.decode(errors="replace")) for token in tokens]
    matching = [
        token
        for token, (its_label, its_serial) in zip(tokens, named, strict=True)
        if label in (None, its_label) and serial in (None, its_serial)
    ]
    _tell(tokens=named, matching=len(matching))
    return matching[0] if len(matching) == 1 else None


def _log_in(token: Token, pin: Secret) -> Session | None:
    """Tries the PIN once, unless the token says that it is locked, or that another wrong one locks it."""
    locked, final = (flag in token.flags for flag in (TokenFlag.USER_PIN_LOCKED, TokenFlag.USER_PIN_FINAL_TRY))
    _tell(pin_locked=locked, pin_final_try=final)
    if locked or final:
        return None
    try:
        session = log_in(token, pin)
    except PinRejected as refused:
        _tell(pin_refused=str(refused))
        return None
    _tell(logged_in=True)
    return session


def _key_faults(session: Session, exported: ExportedKeys) -> dict[str, str]:
    """Returns what is wrong with the first generation of each of the installation's keys, by label."""
    faults = {}
    for label in SECRET_KEYS:
        try:
            count = len(find_secret_keys(session, label, exported=exported))
        except KeyMismatch as mismatch:
            faults[label] = str(mismatch)
            continue
        if count != 1:
            faults[label] = _count_fault(label, count)
    for half, found in zip(("private", "public"), find_probe_keys(session), strict=True):
        if len(found) != 1:
            faults[f"{PROBE_KEY} ({half})"] = _count_fault(f"{PROBE_KEY} ({half})", len(found))
    return faults


def _count_fault(label: str, count: int) -> str:
    return f"the token has no key {label!r}" if count == 0 else f"the token has {count} keys {label!r}, not one"


def _tell(**what: object) -> None:
    print(_MARK + json.dumps(what), flush=True)  # noqa: T201 - the parent reads it
