"""Lets a test answer in the place of SoftHSM: counts calls, returns CKR codes, or hangs.

The functions of CK_FUNCTION_LIST are replaced in this process's memory, so the server's code is the
one of production. `restore` puts them back.
"""

import ctypes
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.softhsm import MODULE

from trien_server.hsm.module import function_list

POSITIONS = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_GetSlotList": 4,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_Login": 18,
    "C_CopyObject": 21,
    "C_DestroyObject": 22,
    "C_GetAttributeValue": 24,
    "C_FindObjectsInit": 26,
    "C_EncryptInit": 29,
    "C_Decrypt": 34,
    "C_SignInit": 42,
    "C_Sign": 43,
    "C_GenerateKey": 58,
    "C_GenerateKeyPair": 59,
    "C_WrapKey": 60,
    "C_UnwrapKey": 61,
}
ARGUMENTS = {
    "C_Initialize": 1,
    "C_Finalize": 1,
    "C_GetSlotList": 3,
    "C_OpenSession": 5,
    "C_CloseSession": 1,
    "C_Login": 4,
    "C_CopyObject": 5,
    "C_DestroyObject": 2,
    "C_GetAttributeValue": 4,
    "C_FindObjectsInit": 3,
    "C_EncryptInit": 3,
    "C_Decrypt": 5,
    "C_SignInit": 3,
    "C_Sign": 5,
    "C_GenerateKey": 5,
    "C_GenerateKeyPair": 8,
    "C_WrapKey": 6,
    "C_UnwrapKey": 8,
}
Answer = Callable[[], int | None]


class ScriptedModule:
    """Counts `calls`; `answers[name]` returns a CKR code in the module's place, or None to ask the module."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._table = function_list(MODULE)
        self._originals: dict[str, int] = {}
        self._kept: list[object] = []
        for name in POSITIONS:
            self._replace(name)

    def answer(self, name: str, code: int, *, times: int = 1_000_000) -> None:
        """Lets the next `times` calls return `code`."""
        left = [times]

        def reply() -> int | None:
            with self._lock:
                left[0] -= 1
                return code if left[0] >= 0 else None

        self.answers[name] = reply

    def hang(self, name: str, *, times: int) -> threading.Event:
        """Lets the next `times` calls wait until the returned event is set; then the module answers."""
        let_go = threading.Event()
        left = [times]

        def wait() -> int | None:
            with self._lock:
                left[0] -= 1
                hangs = left[0] >= 0
            if hangs:
                let_go.wait(60)
            return None

        self.answers[name] = wait
        return let_go

    def restore(self) -> None:
        """Puts SoftHSM's functions back."""
        for name, address in self._originals.items():
            self._table[POSITIONS[name]] = ctypes.c_void_p(address)

    def _replace(self, name: str) -> None:
        prototype = ctypes.CFUNCTYPE(ctypes.c_ulong, *[ctypes.c_void_p] * ARGUMENTS[name])
        address = self._table[POSITIONS[name]]
        assert isinstance(address, int)
        original = prototype(address)

        def replacement(*arguments: object) -> int:
            with self._lock:
                self.calls[name] += 1
            answer = self.answers.get(name)
            code = answer() if answer is not None else None
            return int(original(*arguments)) if code is None else code

        callback = prototype(replacement)
        self._originals[name] = address
        self._kept.append((callback, original))
        self._table[POSITIONS[name]] = ctypes.cast(callback, ctypes.c_void_p)


@contextmanager
def scripted_module() -> Iterator[ScriptedModule]:
    """Replaces the functions for as long as the block runs."""
    script = ScriptedModule()
    try:
        yield script
    finally:
        script.restore()
