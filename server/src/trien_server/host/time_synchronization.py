"""What the kernel knows of the clock's synchronization (adjtimex(2))."""

import ctypes
import sys
from typing import Final

_STA_UNSYNC: Final = 0x0040
_TIME_ERROR: Final = 5


class _Timex(ctypes.Structure):
    """`struct timex` up to the field that is read, and room for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_ubyte * 256),
    )


def is_synchronized() -> bool | None:
    """Tells whether something keeps the system's clock in step, as it told the kernel; None where that is not known.

    systemd-timesyncd, ntpd and chronyd (with `rtcsync`) tell it; what keeps the clock in step without telling, such as
    the host of a virtual machine or container, is not seen.
    """
    if not sys.platform.startswith("linux"):
        return None
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    return state != _TIME_ERROR and not timex.status & _STA_UNSYNC
