"""A SoftHSM token for tests: made once in a run, its folder copied for each test.

A module can be started once at a time in a process and reads SOFTHSM2_CONF when it starts. So a test
opens its copy with `open_token`, and closes it before the next one begins; tests that need crashes,
or another module's state, run a child process.
"""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from trien_server.core.algorithms import KeyType
from trien_server.core.ports import Hsm, KeyReference
from trien_server.core.secret import Secret
from trien_server.hsm import Pkcs11Hsm, create_softhsm_token, find_softhsm_module, provision
from trien_server.hsm.softhsm import write_softhsm_configuration

LABEL = "trien test"
PIN = Secret(b"72816354-test-pin")
SO_PIN = Secret(b"91827364-test-so-pin")
MODULE = find_softhsm_module()

WRAPPED_TYPES = (KeyType.RSA_2048, KeyType.RSA_3072, KeyType.EC_P256, KeyType.EC_P384)
"""The types that tests have wrapped keys of: SoftHSM wraps no Ed25519 keys, and makes RSA-4096 keys slowly."""

Event = tuple[str, Mapping[str, str]]


@dataclass
class SoftHsmToken:
    """A folder with a token of its own, and the keys that it holds: one of each type."""

    directory: Path
    keys: Mapping[KeyType, KeyReference]
    wrapped: Mapping[KeyType, KeyReference] = field(default_factory=dict)
    """A wrapped key of each type of WRAPPED_TYPES, kept here and not on the token."""

    events: list[Event] = field(default_factory=list)

    @property
    def configuration(self) -> Path:
        """What SOFTHSM2_CONF has to name."""
        return self.directory / "softhsm2.conf"

    def open(self, **arguments: Any) -> Pkcs11Hsm:
        """Opens the token. The caller closes it. Without the self-test unless asked for."""
        os.environ["SOFTHSM2_CONF"] = str(self.configuration)
        given: dict[str, Any] = {
            "module_path": MODULE,
            "token_label": LABEL,
            "pin": PIN,
            "report": lambda event, details: self.events.append((event, details)),
            "self_test": False,
        }
        return Pkcs11Hsm(**{**given, **arguments})

    def remove(self) -> None:
        """Takes the token away, as pulling a device out would."""
        (self.directory / "tokens").rename(self.directory / "removed")

    def bring_back(self) -> None:
        """Puts the token back."""
        (self.directory / "removed").rename(self.directory / "tokens")


@cache
def _original() -> SoftHsmToken:
    """Makes the token that all others are copies of; once in a process, a few seconds for the RSA keys."""
    directory = Path(tempfile.mkdtemp(prefix="trien-softhsm-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    create_softhsm_token(directory, label=LABEL, pin=PIN, so_pin=SO_PIN, module_path=MODULE)
    token = SoftHsmToken(directory, {})
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(token.configuration)
    try:
        provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=SO_PIN)
        hsm = token.open()
        try:
            keys = {}
            wrapped = {key_type: wrapped_key(hsm, key_type) for key_type in WRAPPED_TYPES}
            for key_type in KeyType:
                object_id = os.urandom(16)
                public_key = hsm.generate_key_pair(object_id, key_type)
                keys[key_type] = KeyReference(object_id=object_id, key_type=key_type, public_key=public_key)
        finally:
            hsm.close()
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
    return SoftHsmToken(directory, keys, wrapped)


def wrapped_key(hsm: Hsm, key_type: KeyType) -> KeyReference:
    """Generates a wrapped key pair and returns what a record would keep of it."""
    pair = hsm.generate_wrapped_key_pair(key_type)
    return KeyReference(
        object_id=os.urandom(16), key_type=key_type, public_key=pair.public_key, wrapped_key=pair.wrapped_key
    )


def add_wrapping_key(token: SoftHsmToken) -> int:
    """Makes a trusted wrapping key of the next generation, in a process of its own as its security officer does."""
    code = (
        "import sys; from trien_server.core.secret import Secret; from trien_server.hsm import add_wrapping_key;"
        "print(add_wrapping_key(module_path=sys.argv[1], token_label=sys.argv[2],"
        " pin=Secret(sys.argv[3].encode()), so_pin=Secret(sys.argv[4].encode())))"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, MODULE, LABEL, PIN.reveal().decode(), SO_PIN.reveal().decode()],
        env={**os.environ, "SOFTHSM2_CONF": str(token.configuration)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return int(made.stdout)


def copy_token(directory: Path) -> SoftHsmToken:
    """Copies the provisioned token with its six keys into `directory`; takes milliseconds."""
    original = _original()
    shutil.copytree(original.directory / "tokens", directory / "tokens")
    write_softhsm_configuration(directory)
    return SoftHsmToken(directory, original.keys, original.wrapped)


@contextmanager
def open_token(directory: Path, **arguments: Any) -> Iterator[tuple[Pkcs11Hsm, SoftHsmToken]]:
    """Copies the token and opens the copy; closes it, and restores SOFTHSM2_CONF, at the end."""
    token = copy_token(directory)
    with environment_kept("SOFTHSM2_CONF"):
        hsm = token.open(**arguments)
        try:
            yield hsm, token
        finally:
            hsm.close()


@contextmanager
def environment_kept(name: str) -> Iterator[None]:
    """Gives an environment variable its value back, or none, at the end."""
    before = os.environ.get(name)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before
