"""Proves at the start that the module bears several threads, where a crash hurts nobody.

A module that does not lock crashes, or gives signatures that do not verify, when threads use it at
once: SoftHSM without locking does so within a fraction of the rounds that are run here. The threads
run in a child process that loads the module in the same way as the server does.
"""

import threading
from collections.abc import Mapping
from typing import Final

from trien_server.core.errors import HsmUnavailable
from trien_server.core.secret import Secret
from trien_server.hsm.check_values import ExportedKeys, none_exported
from trien_server.hsm.child import ChildFailed, run_in_child
from trien_server.hsm.connection import Connection
from trien_server.hsm.module import load_module

THREADS: Final = 4
ROUNDS: Final = 100
TIMEOUT: Final = 15.0


def prove_locking(
    *,
    module_path: str,
    token_label: str | None,
    token_serial: str | None,
    pin: Secret,
    exported: ExportedKeys = none_exported,
) -> None:
    """Lets several threads of a child process make probe signatures at once, and verify them.

    The child logs in too: the caller has used the PIN with success before, so a wrong one is not
    tried twice.

    Raises `HsmUnavailable` when the child crashes, or a signature is wrong.
    """
    arguments = {
        "module_path": module_path,
        "token_label": token_label,
        "token_serial": token_serial,
        "pin": pin.reveal().decode(),
        "exported": dict(exported()),
    }
    try:
        run_in_child("trien_server.hsm.selftest", "exercise", arguments, timeout=TIMEOUT)
    except ChildFailed as error:
        raise HsmUnavailable(f"The PKCS#11 module did not bear several threads: {error}.") from error


def exercise(
    *, module_path: str, token_label: str | None, token_serial: str | None, pin: str, exported: Mapping[str, str]
) -> None:
    """Makes THREADS × ROUNDS probe signatures, each thread with a session of its own. Runs in the child."""
    module = load_module(module_path)
    connection = Connection(
        module=module,
        token_label=token_label,
        token_serial=token_serial,
        pin=Secret(pin.encode()),
        sessions=THREADS,
        report=_tell_nobody,
        exported=lambda: exported,
    )
    begin = threading.Barrier(len(connection.readers.slots))
    made: list[int] = []

    def sign() -> None:
        with connection.readers.lease(TIMEOUT) as slot:
            begin.wait(TIMEOUT)
            for _ in range(ROUNDS):
                slot.session().probe()
            made.append(ROUNDS)

    threads = [threading.Thread(target=sign) for _ in connection.readers.slots]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    module.shut_down()
    if sum(made) != len(threads) * ROUNDS:
        raise SystemExit("not every probe signature was made and verified")


def _tell_nobody(event: str, details: Mapping[str, str]) -> None:
    """Takes reports: the parent hears of a failure by the child's end."""
