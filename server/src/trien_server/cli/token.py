"""What the token does with wrapped keys, found out by trying."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pkcs11.exceptions import KeyNotWrappable

from trien_server.config import Config
from trien_server.core.algorithms import KeyType
from trien_server.core.ports import WrappingNotSupported
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret
from trien_server.host.log import Log
from trien_server.hsm import Pkcs11Hsm, add_wrapping_key

_TRIED = (KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P384, KeyType.EC_ED25519)
"""One size of RSA stands for all: making a large key only to try would take seconds."""
_NAMES = {KeyType.RSA_2048: "RSA (tried with RSA_2048)"}


def wrapping_lines(config: Config) -> Iterator[tuple[str, bool]]:
    """Yields what an operator reads about wrapped keys, line by line, and whether the line is a warning.

    Each kind of key is made, wrapped, unwrapped and signed with; then everything is tried on a wrapped key that a
    thief of the PIN would try. Nothing stays on the token. Raises `PinRejected`, `NotProvisioned`, `HsmUnavailable`.
    """
    with _token(config) as hsm:
        refused = {}
        for key_type in _TRIED:
            try:
                hsm.generate_wrapped_key_pair(key_type)
            except WrappingNotSupported as fault:
                refused[key_type] = _reason(fault)
        wrapped = [_NAMES.get(key_type, str(key_type)) for key_type in _TRIED if key_type not in refused]
        if not wrapped:
            yield f"wrapped keys   none: {refused[_TRIED[0]]}", True
            return
        yield f"wrapped keys   {', '.join(wrapped)}: made, wrapped, unwrapped and signed with", False
        for key_type, reason in refused.items():
            yield f"               not {key_type}: {reason}", False
        found = hsm.wrapping_findings()
    if not found:
        yield "               the token kept them closed to every attempt that was made with its PIN", False
    for finding in found:
        yield f"WARNING        {finding}", True


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


@contextmanager
def _token(config: Config) -> Iterator[Pkcs11Hsm]:
    settings = config.token
    if settings.softhsm_configuration_file is not None:
        os.environ["SOFTHSM2_CONF"] = str(settings.softhsm_configuration_file)
    hsm = Pkcs11Hsm(
        module_path=str(settings.module),
        pin=read_secret(settings.pin_file),
        token_label=settings.label,
        token_serial=settings.serial,
        sessions=1,
        exported=exported_keys(settings.exported_keys_file),
        report=Log(form=config.log.format).report,
    )
    try:
        yield hsm
    finally:
        hsm.close()
