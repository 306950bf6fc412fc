"""Signals as flags, and an end that nothing holds up."""

import os
import signal
import threading
import time
from types import FrameType


class StopSignal:
    """Is set by SIGTERM and SIGINT.

    A `threading.Event` will not do: its `set` takes a lock, and a second signal that arrives meanwhile would wait
    for it for ever, in the same thread.
    """

    def __init__(self) -> None:
        """Takes both signals over; only in the main thread."""
        self._stopped = False
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def is_set(self) -> bool:
        return self._stopped

    def wait(self, seconds: float) -> bool:
        """Sleeps; returns whether the flag is set."""
        if not self._stopped:
            time.sleep(seconds)
        return self._stopped

    def _handle(self, _: int, __: FrameType | None) -> None:
        self._stopped = True


class ReloadSignal:
    """Is set by SIGHUP, which by default would end the process."""

    def __init__(self) -> None:
        """Takes the signal over; only in the main thread."""
        self._asked = False
        signal.signal(signal.SIGHUP, self._handle)

    def take(self) -> bool:
        """Returns whether the signal came since it was last asked."""
        asked, self._asked = self._asked, False
        return asked

    def _handle(self, _: int, __: FrameType | None) -> None:
        self._asked = True


def end_within(seconds: float, code: int) -> None:
    """Ends the process with that exit code unless it ended by itself before.

    For when everything is closed: Python waits for its threads, and one whose call hangs in the token's module never
    ends.
    """
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()
