"""What an error of the module means for the session, the token and the caller.

HsmUnavailable
├── PinRejected        an operator is needed; the PIN is never tried again
├── NotProvisioned     the token lacks an installation key, or has it twice
├── TokenFailed        the module answers, but wrongly, or no longer about the token
└── CallRefused        it says that a call's arguments are at fault; it is a ValueError too
"""

from enum import Enum, auto

import pkcs11.exceptions as module_errors
from pkcs11.exceptions import PKCS11Error

from trien_server.core.errors import HsmUnavailable


class PinRejected(HsmUnavailable):
    """The token refused the PIN: it was tried once, and is not tried again."""


class NotProvisioned(HsmUnavailable):
    """The token does not hold each of the installation's keys exactly once."""


class TokenFailed(HsmUnavailable):
    """The module still answers, but wrongly, or what this process knew of the token is gone."""


class CallRefused(HsmUnavailable, ValueError):  # noqa: N818
    """The token refused arguments that were checked before: nothing that the caller could change."""


class Failure(Enum):
    """Who is at fault, and so what happens next."""

    REQUEST = auto()
    """The call's arguments. The session stays."""

    SESSION = auto()
    """The session or a handle. It is dropped with its cache; another one is tried once."""

    SESSION_COUNT = auto()
    """The token has no more sessions. The pool stays smaller."""

    PIN = auto()
    """The PIN. Nothing is tried again until an operator acted."""

    DEVICE = auto()
    """The token or the module. Nothing is asked of it until recovery went well."""


_FAILURES: dict[Failure, tuple[type[PKCS11Error], ...]] = {
    Failure.REQUEST: (
        module_errors.ArgumentsBad,
        module_errors.AttributeReadOnly,
        module_errors.AttributeSensitive,
        module_errors.AttributeTypeInvalid,
        module_errors.AttributeValueInvalid,
        module_errors.DataInvalid,
        module_errors.DataLenRange,
        module_errors.DomainParamsInvalid,
        module_errors.EncryptedDataInvalid,
        module_errors.EncryptedDataLenRange,
        module_errors.FunctionNotSupported,
        module_errors.KeySizeRange,
        module_errors.KeyTypeInconsistent,
        module_errors.MechanismInvalid,
        module_errors.MechanismParamInvalid,
        module_errors.SignatureInvalid,
        module_errors.SignatureLenRange,
        module_errors.TemplateIncomplete,
        module_errors.TemplateInconsistent,
    ),
    Failure.SESSION: (
        module_errors.FunctionCancelled,
        module_errors.KeyHandleInvalid,
        module_errors.ObjectHandleInvalid,
        module_errors.OperationActive,
        module_errors.OperationNotInitialized,
        module_errors.SessionClosed,
        module_errors.SessionHandleInvalid,
        module_errors.UnwrappingKeyHandleInvalid,
        module_errors.UserNotLoggedIn,
        module_errors.WrappingKeyHandleInvalid,
    ),
    Failure.SESSION_COUNT: (module_errors.SessionCount,),
    Failure.PIN: (
        module_errors.PinExpired,
        module_errors.PinIncorrect,
        module_errors.PinInvalid,
        module_errors.PinLenRange,
        module_errors.PinLocked,
        module_errors.UserPinNotInitialized,
    ),
}
_BY_CLASS = {error: failure for failure, errors in _FAILURES.items() for error in errors}

_KEY_FUNCTION_NOT_PERMITTED = "Unmapped error code 0x68"
"""CKR_KEY_FUNCTION_NOT_PERMITTED, which the library has no class for."""


def classify(error: PKCS11Error) -> Failure:
    """Returns what the error means. What is not known counts as the device's: to stop is safe."""
    if str(error) == _KEY_FUNCTION_NOT_PERMITTED:
        return Failure.REQUEST
    return _BY_CLASS.get(type(error), Failure.DEVICE)


def describe(error: BaseException) -> str:
    """Returns the error's class and text for the operator; modules put no secrets there."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
