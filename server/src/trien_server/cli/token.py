"""What the token does with wrapped keys, found out by trying."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pkcs11.exceptions import KeyNotWrappable

from trien_server.config import Config
from trien_server.core.algorithms import KeyType
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import Report, WrappingNotSupported
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret
from trien_server.host.log import Log
from trien_server.hsm import Pkcs11Hsm, add_wrapping_key
from trien_server.hsm.selftest import prove_locking

_TRIED = (KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_ED25519)
"""One size of RSA stands for all: making a large key only to try would take seconds."""
_NAMES = {KeyType.RSA_2048: "RSA (tried with RSA_2048)"}


@dataclass(frozen=True, kw_only=True)
class WrappedKeys:
    """What a token does with wrapped keys: which kinds it wraps, why not the others, and what it should have refused.

    When it wraps none, nothing could be tried on one: `findings` is empty then.
    """

    wrapped: tuple[str, ...]
    refused: Mapping[str, str]
    findings: tuple[str, ...]


def try_wrapping(hsm: Pkcs11Hsm) -> WrappedKeys:
    """Makes, wraps, unwraps and signs with a key of each kind, and tries on one what a thief of the PIN would try.

    Nothing stays on the token. Raises `HsmUnavailable`.
    """
    refused: dict[str, str] = {}
    for key_type in _TRIED:
        try:
            hsm.generate_wrapped_key_pair(key_type)
        except WrappingNotSupported as fault:
            refused[key_type] = _reason(fault)
    wrapped = tuple(_NAMES.get(key_type, str(key_type)) for key_type in _TRIED if key_type not in refused)
    return WrappedKeys(wrapped=wrapped, refused=refused, findings=hsm.wrapping_findings() if wrapped else ())


def wrapping_lines(config: Config) -> Iterator[tuple[str, bool]]:
    """Yields what an operator reads about wrapped keys, line by line, and whether the line is a warning.

    Raises `PinRejected`, `NotProvisioned`, `HsmUnavailable`.
    """
    with _token(config) as hsm:
        tried = try_wrapping(hsm)
    if not tried.wrapped:
        yield f"wrapped keys   none: {tried.refused[_TRIED[0]]}", True
        return
    yield f"wrapped keys   {', '.join(tried.wrapped)}: made, wrapped, unwrapped and signed with", False
    for key_type, reason in tried.refused.items():
        yield f"               not {key_type}: {reason}", False
    if not tried.findings:
        yield "               the token kept them closed to every attempt that was made with its PIN", False
    for finding in tried.findings:
        yield f"WARNING        {finding}", True


def prove_threads(config: Config) -> str | None:
    """Lets several threads of a child process use the token at once; returns why it does not bear them, or None.

    Only for a PIN that the token took: the child logs in.
    """
    settings = config.token
    try:
        prove_locking(
            module_path=str(settings.module),
            token_label=settings.label,
            token_serial=settings.serial,
            pin=read_secret(settings.pin_file),
            exported=exported_keys(settings.exported_keys_file),
        )
    except HsmUnavailable as fault:
        return fault.message
    return None


def make_wrapping_key(config: Config, so_pin_file: Path) -> int:
    """Makes a trusted wrapping key of the next generation and returns which one it is.

    Raises `PinRejected`, `NotProvisioned`, `HsmUnavailable`.
    """
    settings = config.token
    if settings.softhsm_configuration_file is not None:
        os.environ["SOFTHSM2_CONF"] = str(settings.softhsm_configuration_file)
    return add_wrapping_key(
        module_path=str(settings.module),
        pin=read_secret(settings.pin_file),
        so_pin=read_secret(so_pin_file),
        token_label=settings.label,
        token_serial=settings.serial,
        exported=exported_keys(settings.exported_keys_file),
    )


def _reason(fault: WrappingNotSupported) -> str:
    if isinstance(fault.__cause__, KeyNotWrappable):
        return "the token's module refuses to wrap them (CKR_KEY_NOT_WRAPPABLE)"
    return str(fault)


def token_of(config: Config, *, self_test: bool, report: Report) -> Pkcs11Hsm:
    """Opens the configuration's token with one session. Raises `PinRejected`, `NotProvisioned`, `HsmUnavailable`."""
    settings = config.token
    if settings.softhsm_configuration_file is not None:
        os.environ["SOFTHSM2_CONF"] = str(settings.softhsm_configuration_file)
    return Pkcs11Hsm(
        module_path=str(settings.module),
        pin=read_secret(settings.pin_file),
        token_label=settings.label,
        token_serial=settings.serial,
        sessions=1,
        exported=exported_keys(settings.exported_keys_file),
        self_test=self_test,
        report=report,
    )


@contextmanager
def _token(config: Config) -> Iterator[Pkcs11Hsm]:
    hsm = token_of(config, self_test=True, report=Log(form=config.log.format).report)
    try:
        yield hsm
    finally:
        hsm.close()
