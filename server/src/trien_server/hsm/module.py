"""Loads a PKCS#11 module so that threads may use it at once.

python-pkcs11 calls `C_Initialize(NULL)`, which promises a single thread, and yet lets threads run
during calls: SoftHSM then crashes. Here the module is told to lock (PKCS#11 2.40, section 5.4).
"""

import contextlib
import ctypes
from collections.abc import Mapping
from typing import Any, Final

from pkcs11 import Attribute, Object, Session, Token, _pkcs11
from pkcs11.exceptions import PKCS11Error

from trien_server.core.errors import HsmUnavailable

CKF_OS_LOCKING_OK: Final = 0x2
CKR_OK: Final = 0

_POSITIONS: Final = {
    "C_Initialize": 0,
    "C_Finalize": 1,
    "C_InitToken": 9,
    "C_Login": 18,
    "C_Logout": 19,
    "C_CreateObject": 20,
    "C_CopyObject": 21,
    "C_DestroyObject": 22,
    "C_SetAttributeValue": 25,
    "C_GenerateKey": 58,
    "C_WrapKey": 60,
    "C_UnwrapKey": 61,
}
"""Where CK_FUNCTION_LIST has the functions that are called here directly (PKCS#11 2.40, pkcs11f.h)."""


class _InitializeArguments(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS: the module may use the operating system's locks."""

    _fields_ = (
        ("CreateMutex", ctypes.c_void_p),
        ("DestroyMutex", ctypes.c_void_p),
        ("LockMutex", ctypes.c_void_p),
        ("UnlockMutex", ctypes.c_void_p),
        ("flags", ctypes.c_ulong),
        ("pReserved", ctypes.c_void_p),
    )


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST: the only thing that every module exports a function for."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 68))


def load_module(path: str) -> "Module":
    """Loads the module, starts it with locking on, and returns it. Raises `HsmUnavailable`."""
    try:
        return Module(path)
    except PKCS11Error as error:
        raise HsmUnavailable(f"The PKCS#11 module {path} cannot be used: {error}.") from error


class Module(_pkcs11.lib):
    """A loaded and initialized module. One at a time in a process.

    `initialize` runs while the object is made, and again after `shut_down`. The inherited `finalize`
    and `reinitialize` are not used: the second would switch locking off.
    """

    def initialize(self) -> None:
        """Tells the module to lock, and to start.

        Raises `HsmUnavailable`, also when something else in this process has initialized the module.
        """
        arguments = _InitializeArguments(flags=CKF_OS_LOCKING_OK)
        result = self._call("C_Initialize", ctypes.byref(arguments))
        if result != CKR_OK:
            raise HsmUnavailable(f"The PKCS#11 module did not start: error {result:#x}.")

    def shut_down(self) -> int:
        """Ends all sessions and the module (C_Finalize), and returns the module's answer.

        The caller makes sure that no call is under way: the module may crash otherwise. Other threads
        run on meanwhile, unlike with the library's own `finalize`.
        """
        return self._call("C_Finalize", None)

    def initialize_token(self, slot: int, label: str, so_pin: bytes) -> None:
        """Makes the slot's token anew (C_InitToken). Everything on it is lost."""
        padded = ctypes.create_string_buffer(label.encode().ljust(32), 32)
        result = self._call(
            "C_InitToken", ctypes.c_ulong(slot), ctypes.c_char_p(so_pin), ctypes.c_ulong(len(so_pin)), padded
        )
        if result != CKR_OK:
            raise HsmUnavailable(f"The token could not be initialized: error {result:#x}.")

    def find_token(self, *, label: str | None, serial: str | None) -> Token:
        """Returns the one token with that label and serial number.

        Raises `HsmUnavailable` when there is none or more than one. Slots that do not answer are
        passed over.
        """
        found = []
        for slot in self.get_slots(token_present=True):
            try:
                token = slot.get_token()
            except PKCS11Error:
                continue
            if label in (None, token.label) and serial in (None, token.serial.decode(errors="replace")):
                found.append(token)
        if len(found) != 1:
            raise HsmUnavailable(f"{len(found)} tokens match label {label!r} and serial number {serial!r}.")
        return found[0]

    def _call(self, name: str, *arguments: object) -> int:
        return call_function(function_list(self.so), name, *arguments)


def call_function(functions: "ctypes.Array[ctypes.c_void_p]", name: str, *arguments: object) -> int:
    """Calls a function of a module's table and returns its answer (CKR_); the GIL is released."""
    address = functions[_POSITIONS[name]]
    if address is None:
        raise HsmUnavailable(f"The PKCS#11 module has no {name}.")
    return int(ctypes.CFUNCTYPE(ctypes.c_ulong)(address)(*arguments))


def function_list(path: str) -> "ctypes.Array[ctypes.c_void_p]":
    """Returns the module's table of functions. Loads the module, which then stays loaded."""
    table = ctypes.POINTER(_FunctionList)()
    result = ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(table))
    if result != CKR_OK:
        raise HsmUnavailable(f"The PKCS#11 module has no function list: error {result:#x}.")
    functions: ctypes.Array[ctypes.c_void_p] = table.contents.functions
    return functions


def find_objects(session: Session, template: Mapping[Attribute, Any]) -> list[Object]:
    """Returns all objects of the token with these attributes. Walks the whole token.

    The search is ended here, also when it fails: python-pkcs11 would leave that to the garbage
    collector, which cannot raise.
    """
    search = _pkcs11.SearchIter(session, dict(template), 16)  # type: ignore[attr-defined]
    try:
        search.__enter__()
        return [found for batch in search for found in batch]
    finally:
        with contextlib.suppress(PKCS11Error):
            search._finalize()
