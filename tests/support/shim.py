"""A PKCS#11 module between a server and SoftHSM that fails, sleeps or hangs where it is told (shim.c)."""

import atexit
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trien_server.hsm import find_softhsm_module

SOURCE = Path(__file__).with_name("shim.c")


@cache
def shim_module() -> Path:
    """Compiles the module, once in a process."""
    folder = Path(tempfile.mkdtemp(prefix="trien-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    module = folder / "shim.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f'-DMODULE="{find_softhsm_module()}"',
         "-o", module, SOURCE, "-ldl", "-lpthread"],
        check=True,
    )  # fmt: skip
    return module


@dataclass(frozen=True)
class Noted:
    """A call that an order was for, or a login."""

    pid: int
    function: str
    action: str


@dataclass(frozen=True)
class Order:
    """What calls of a function do: `fail` with CKR `number`, `sleep` for `number` milliseconds, `hang`, or `note`.

    `FUNCTION/signer` means calls with a signer's key alone. `pid` is the process that it is for, 0 for all; with
    `once` one call in all processes takes it.
    """

    function: str
    action: str
    number: int = 0
    pid: int = 0
    once: bool = False


class Shim:
    """The module's orders, in a folder, and its notes. `environment` and `setting` are for the server."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.environment = {"SHIM_FOLDER": str(folder)}
        self.setting = f"token.module={shim_module()}"

    def order(self, *orders: Order) -> None:
        """Puts orders in force, at once and in the place of those before."""
        lines = [
            f"{order.function} {order.action} {order.number:x} {order.pid} {int(order.once)}\n" for order in orders
        ]
        new = self._folder / "orders.new"
        new.write_text("".join(lines))
        (self._folder / "claimed").unlink(missing_ok=True)
        new.rename(self._folder / "orders")

    def behave(self) -> None:
        """Lets the module do what SoftHSM does."""
        self.order()

    def noted(self) -> Sequence[Noted]:
        """Returns what was noted since the folder was made, in order."""
        log = self._folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [Noted(int(pid), function, action) for pid, function, action in map(str.split, lines)]

    def counted(self) -> Counter[tuple[str, str]]:
        """Returns how often each function did each action."""
        return Counter((one.function, one.action) for one in self.noted())

    def wait_for(self, function: str, action: str, *, seconds: float = 20.0) -> int:
        """Waits until a call does what it was ordered; returns its process."""
        end = time.monotonic() + seconds
        while True:
            for one in self.noted():
                if (one.function, one.action) == (function, action):
                    return one.pid
            if time.monotonic() > end:
                raise AssertionError(f"no {function} did {action} within {seconds} s")
            time.sleep(0.02)
