"""Calls of the module that python-pkcs11 cannot make: templates inside of templates, and plain handles.

A wrapping key carries CKA_UNWRAP_TEMPLATE and CKA_ALLOWED_MECHANISMS, which the library does not
encode; and for each object that it unwraps the library asks ten attributes and makes a class, more
work than the unwrapping itself. Errors are the library's classes, so that `failures` judges them.
"""

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pkcs11.exceptions as module_errors
from pkcs11 import Mechanism, Session
from pkcs11.exceptions import PKCS11Error

from trien_server.core.secret import Secret
from trien_server.hsm.module import CKR_OK, call_function

ALLOWED_MECHANISMS: Final = 0x40000600
"""CKA_ALLOWED_MECHANISMS (PKCS#11 2.40, section 4.8.2)."""

CKU_SO: Final = 0
CKU_USER: Final = 1

Value = bool | int | bytes | Mapping[int, bool | int | bytes] | Sequence[Mechanism]
Template = Mapping[int, Value]

_ERRORS: Final[Mapping[int, type[PKCS11Error]]] = {
    0x02: module_errors.HostMemory,
    0x05: module_errors.GeneralError,
    0x06: module_errors.FunctionFailed,
    0x07: module_errors.ArgumentsBad,
    0x10: module_errors.AttributeReadOnly,
    0x11: module_errors.AttributeSensitive,
    0x12: module_errors.AttributeTypeInvalid,
    0x13: module_errors.AttributeValueInvalid,
    0x30: module_errors.DeviceError,
    0x31: module_errors.DeviceMemory,
    0x32: module_errors.DeviceRemoved,
    0x54: module_errors.FunctionNotSupported,
    0x60: module_errors.KeyHandleInvalid,
    0x62: module_errors.KeySizeRange,
    0x63: module_errors.KeyTypeInconsistent,
    0x69: module_errors.KeyNotWrappable,
    0x6A: module_errors.KeyUnextractable,
    0x70: module_errors.MechanismInvalid,
    0x71: module_errors.MechanismParamInvalid,
    0x82: module_errors.ObjectHandleInvalid,
    0x90: module_errors.OperationActive,
    0x91: module_errors.OperationNotInitialized,
    0xA0: module_errors.PinIncorrect,
    0xA3: module_errors.PinExpired,
    0xA4: module_errors.PinLocked,
    0xB0: module_errors.SessionClosed,
    0xB3: module_errors.SessionHandleInvalid,
    0xD0: module_errors.TemplateIncomplete,
    0xD1: module_errors.TemplateInconsistent,
    0xE0: module_errors.TokenNotPresent,
    0xE1: module_errors.TokenNotRecognised,
    0xF0: module_errors.UnwrappingKeyHandleInvalid,
    0x101: module_errors.UserNotLoggedIn,
    0x110: module_errors.WrappedKeyInvalid,
    0x112: module_errors.WrappedKeyLenRange,
    0x113: module_errors.WrappingKeyHandleInvalid,
}
"""What the codes of CKR_ (PKCS#11 2.40, section 5.1) are as classes; any other is a plain `PKCS11Error`."""


class _Attribute(ctypes.Structure):
    """CK_ATTRIBUTE."""

    _fields_ = (("type", ctypes.c_ulong), ("pValue", ctypes.c_void_p), ("ulValueLen", ctypes.c_ulong))


class _Mechanism(ctypes.Structure):
    """CK_MECHANISM, without a parameter unless one is given."""

    _fields_ = (("mechanism", ctypes.c_ulong), ("pParameter", ctypes.c_void_p), ("ulParameterLen", ctypes.c_ulong))


class Calls:
    """The module's functions on objects by their handles. One thread at a time for each session."""

    def __init__(self, functions: "ctypes.Array[ctypes.c_void_p]") -> None:
        self._functions = functions

    def generate_key(self, session: Session, mechanism: Mechanism, template: Template) -> int:
        """Generates a secret key and returns its handle (C_GenerateKey)."""
        key = ctypes.c_ulong()
        self._call("C_GenerateKey", session, _mechanism(mechanism), *_template(template), ctypes.byref(key))
        return key.value

    def create_object(self, session: Session, template: Template) -> int:
        """Makes an object of given attributes and returns its handle (C_CreateObject)."""
        made = ctypes.c_ulong()
        self._call("C_CreateObject", session, *_template(template), ctypes.byref(made))
        return made.value

    def copy_object(self, session: Session, item: int, template: Template) -> int:
        """Copies an object with other attributes and returns the copy's handle (C_CopyObject)."""
        copy = ctypes.c_ulong()
        self._call("C_CopyObject", session, ctypes.c_ulong(item), *_template(template), ctypes.byref(copy))
        return copy.value

    def destroy_object(self, session: Session, item: int) -> None:
        """Destroys an object (C_DestroyObject)."""
        self._call("C_DestroyObject", session, ctypes.c_ulong(item))

    def set_attributes(self, session: Session, item: int, template: Template) -> None:
        """Changes attributes (C_SetAttributeValue)."""
        self._call("C_SetAttributeValue", session, ctypes.c_ulong(item), *_template(template))

    def wrap_key(
        self, session: Session, mechanism: Mechanism, wrapping_key: int, key: int, *, parameter: bytes = b""
    ) -> bytes:
        """Wraps a key (C_WrapKey)."""
        size = ctypes.c_ulong()
        arguments = (session, _mechanism(mechanism, parameter), ctypes.c_ulong(wrapping_key), ctypes.c_ulong(key))
        self._call("C_WrapKey", *arguments, None, ctypes.byref(size))
        wrapped = ctypes.create_string_buffer(size.value)
        self._call("C_WrapKey", *arguments, wrapped, ctypes.byref(size))
        return wrapped.raw[: size.value]

    def unwrap_key(
        self,
        session: Session,
        mechanism: Mechanism,
        wrapping_key: int,
        wrapped: bytes,
        template: Template,
        *,
        parameter: bytes = b"",
    ) -> int:
        """Unwraps a key into an object of these attributes and returns its handle (C_UnwrapKey)."""
        key = ctypes.c_ulong()
        self._call(
            "C_UnwrapKey",
            session,
            _mechanism(mechanism, parameter),
            ctypes.c_ulong(wrapping_key),
            ctypes.c_char_p(wrapped),
            ctypes.c_ulong(len(wrapped)),
            *_template(template),
            ctypes.byref(key),
        )
        return key.value

    def log_in(self, session: Session, user: int, pin: Secret) -> None:
        """Logs in (C_Login). The PIN is tried once."""
        value = pin.reveal()
        self._call("C_Login", session, ctypes.c_ulong(user), ctypes.c_char_p(value), ctypes.c_ulong(len(value)))

    def log_out(self, session: Session) -> None:
        """Logs all sessions out (C_Logout); public session objects stay."""
        self._call("C_Logout", session)

    def _call(self, name: str, session: Session, *arguments: object) -> None:
        handle = ctypes.c_ulong(session.handle)  # type: ignore[attr-defined]
        result = call_function(self._functions, name, handle, *arguments)
        if result != CKR_OK:
            raise _ERRORS.get(result, PKCS11Error)(f"{name}: error {result:#x}")


def _mechanism(mechanism: Mechanism, parameter: bytes = b"") -> object:
    if not parameter:
        return ctypes.byref(_Mechanism(mechanism, None, 0))
    buffer = ctypes.create_string_buffer(parameter, len(parameter))
    made = _Mechanism(mechanism, ctypes.addressof(buffer), len(parameter))
    made.kept = buffer
    return ctypes.byref(made)


def _template(template: Template) -> "tuple[ctypes.Array[_Attribute], ctypes.c_ulong]":
    """Returns the template as an array of CK_ATTRIBUTE, and its length. The array keeps its values alive."""
    array = (_Attribute * len(template))()
    kept = []
    for place, (name, value) in enumerate(template.items()):
        buffer, size = _encode(value)
        kept.append(buffer)
        array[place] = _Attribute(int(name), ctypes.addressof(buffer), size)
    array.kept = kept  # type: ignore[attr-defined]
    return array, ctypes.c_ulong(len(template))


def _encode(value: Value) -> "tuple[ctypes.Array[Any] | ctypes._SimpleCData[Any], int]":
    if isinstance(value, bool):
        return ctypes.c_ubyte(value), 1
    if isinstance(value, int):
        return ctypes.c_ulong(value), ctypes.sizeof(ctypes.c_ulong)
    if isinstance(value, bytes):
        return ctypes.create_string_buffer(value, len(value)), len(value)
    if isinstance(value, Mapping):
        array, _ = _template(value)
        return array, ctypes.sizeof(array)
    mechanisms = (ctypes.c_ulong * len(value))(*value)
    return mechanisms, ctypes.sizeof(mechanisms)
