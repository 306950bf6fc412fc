"""Makes a SoftHSM token for development and tests. SoftHSM keeps keys in files: never in production."""

from pathlib import Path
from typing import Final

from pkcs11 import TokenFlag

from trien_server.core.errors import HsmUnavailable
from trien_server.core.secret import Secret
from trien_server.hsm.child import ChildFailed, run_in_child
from trien_server.hsm.module import load_module

SOFTHSM_MODULES: Final = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
)
"""Where distributions put the module."""


def find_softhsm_module() -> str:
    """Returns the path of SoftHSM's module. Raises `HsmUnavailable` when it is not installed."""
    for path in SOFTHSM_MODULES:
        if Path(path).exists():
            return path
    raise HsmUnavailable("SoftHSM is not installed (Debian: apt install softhsm2).")


def write_softhsm_configuration(directory: Path) -> Path:
    """Writes `softhsm2.conf` for tokens in `directory/tokens`, and returns its path (for SOFTHSM2_CONF)."""
    tokens = directory / "tokens"
    for folder in (directory, tokens):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    configuration = directory / "softhsm2.conf"
    configuration.write_text(
        f"directories.tokendir = {tokens.resolve()}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    return configuration


def create_softhsm_token(
    directory: Path, *, label: str, pin: Secret, so_pin: Secret, module_path: str | None = None
) -> Path:
    """Makes a token with its PINs in a folder of mode 0700, and returns the path of its configuration.

    A child process does it: SoftHSM reads its configuration from the environment, and `softhsm2-util`
    would show the PINs in the process list. Here they go through a pipe.

    Raises `HsmUnavailable` when SoftHSM is missing, refuses, or has a token of that label there.
    """
    configuration = write_softhsm_configuration(directory)
    try:
        run_in_child(
            "trien_server.hsm.softhsm",
            "initialize_token",
            {
                "module_path": module_path or find_softhsm_module(),
                "label": label,
                "pin": pin.reveal().decode(),
                "so_pin": so_pin.reveal().decode(),
            },
            timeout=30,
            environment={"SOFTHSM2_CONF": str(configuration)},
        )
    except ChildFailed as error:
        raise HsmUnavailable(f"The SoftHSM token was not made: {error}.") from error
    return configuration


def initialize_token(*, module_path: str, label: str, pin: str, so_pin: str) -> None:
    """Initializes the first free slot and sets the user's PIN. Runs in the child.

    SoftHSM always shows one free slot behind its tokens.
    """
    module = load_module(module_path)
    free = []
    for slot in module.get_slots():
        token = slot.get_token()
        if TokenFlag.TOKEN_INITIALIZED not in token.flags:
            free.append(slot)
        elif token.label == label:
            raise SystemExit(f"a token {label!r} exists")
    module.initialize_token(free[0].slot_id, label, so_pin.encode())
    session = module.find_token(label=label, serial=None).open(rw=True, so_pin=so_pin)
    session.init_pin(pin)
    session.close()
    module.shut_down()
