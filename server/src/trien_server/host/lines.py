"""Lines to a descriptor that may be full, blocked or gone: whoever writes never waits and never fails."""

import atexit
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import TextIO

_MOST_WAITING = 10_000
_FINISH_SECONDS = 2.0


class Lines:
    """Hands text to a thread that writes it in order, as a stream of its own.

    A log that nobody reads, or a full disk under it, must not keep signatures waiting. What finds no place in the
    queue, or cannot be written, is lost; `on_lost` hears how many once writing works again. What waits when the
    process ends normally is written within two seconds; a process that is killed loses it.
    """

    def __init__(self, stream: TextIO, *, on_lost: Callable[[int], None], most: int = _MOST_WAITING) -> None:
        self._stream = stream
        self._on_lost = on_lost
        self._waiting: queue.Queue[str | None] = queue.Queue(most)
        self._lost = 0
        self._count = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()
        atexit.register(self.finish)

    def write(self, text: str) -> None:
        """Queues text. May be called from any thread; never raises."""
        try:
            self._waiting.put_nowait(text)
        except queue.Full:
            self._add_lost(1)

    def flush(self) -> None:
        """Does nothing: the thread keeps nothing back."""

    def finish(self, seconds: float = _FINISH_SECONDS) -> None:
        """Waits until what was queued is written, at most so long, and ends the thread."""
        atexit.unregister(self.finish)
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
            self._thread.join(seconds)

    def _run(self) -> None:
        while (text := self._waiting.get()) is not None:
            try:
                self._put(text)
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._add_lost(1)
            else:
                lost = self._take_lost()
                if lost:
                    self._on_lost(lost)

    def _put(self, text: str) -> None:
        """Writes past the stream's buffer: a thread that hangs there would hold its lock when the process ends."""
        try:
            descriptor = self._stream.fileno()
        except (OSError, AttributeError):  # a stream in memory
            self._stream.write(text)
            return
        rest = memoryview(text.encode(errors="backslashreplace"))
        while rest:
            rest = rest[os.write(descriptor, rest) :]

    def _add_lost(self, count: int) -> None:
        with self._count:
            self._lost += count

    def _take_lost(self) -> int:
        with self._count:
            lost, self._lost = self._lost, 0
        return lost
