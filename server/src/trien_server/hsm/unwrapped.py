"""The wrapped keys in use: session objects of the token, few, the least recently used dropped.

They live on a session of their own, the keeper, for a session object ends with the session that made
it: sessions that sign come and go after errors. A handle counts only while the keeper's session is the
one that made it, so dropping that session drops all handles in the same step.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch, KeyReference
from trien_server.hsm.sessions import SessionPool, TokenSession
from trien_server.hsm.wrapping import Wrapping

UNWRAPPED_KEYS: Final = 256
"""How many unwrapped keys are kept: SoftHSM becomes slower with thousands of session objects."""

WAIT_FOR_KEY: Final = 10.0
"""How long a call waits for another one that unwraps the same key (seconds)."""

Run = Callable[[Callable[[TokenSession], int]], int]
"""Runs work with the keeper's session, and judges its errors."""


class _Entry:
    """A key that is being unwrapped, or is unwrapped, or failed."""

    __slots__ = ("failure", "handle", "made", "session", "users")

    def __init__(self) -> None:
        self.users = 1
        self.made = threading.Event()
        self.session: TokenSession | None = None
        self.handle = 0
        self.failure: BaseException | None = None


class UnwrappedKeys:
    """Handles of unwrapped keys. May be used from any thread."""

    def __init__(self, keeper: SessionPool, wrapping: Wrapping, *, size: int, counted: Callable[[], None]) -> None:
        """Keeps up to `size` keys, more only while more than that are used at the same moment.

        `counted` is called for each key that is unwrapped, by one thread at a time.
        """
        if size < 1:
            raise ValueError("at least one unwrapped key is kept")
        self._keeper = keeper
        self._wrapping = wrapping
        self._size = size
        self._counted = counted
        self._lock = threading.Lock()
        self._entries: OrderedDict[KeyReference, _Entry] = OrderedDict()

    @contextmanager
    def use(self, key: KeyReference, run: Run) -> Iterator[int]:
        """Gives the key's handle for as long as the block runs; unwraps the key first when it is not kept.

        Those who come meanwhile wait for it, and get its failure. Raises what `Wrapping.unwrap` and
        `run` raise.
        """
        entry, mine = self._enter(key)
        try:
            if mine:
                self._make(key, entry, run)
            elif not entry.made.wait(WAIT_FOR_KEY):
                raise HsmUnavailable("The key is still being unwrapped.")
            elif entry.failure is not None:
                raise _echo(entry.failure) from entry.failure
            yield entry.handle
        finally:
            with self._lock:
                entry.users -= 1

    def _enter(self, key: KeyReference) -> tuple[_Entry, bool]:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and (not entry.made.is_set() or entry.session is self._present()):
                entry.users += 1
                self._entries.move_to_end(key)
                return entry, False
            entry = self._entries[key] = _Entry()
            self._entries.move_to_end(key)
            return entry, True

    def _make(self, key: KeyReference, entry: _Entry, run: Run) -> None:
        def work(session: TokenSession) -> int:
            for handle in self._superfluous(session):
                self._wrapping.destroy(session, handle)
            handle = self._wrapping.unwrap(session, key)
            self._counted()
            entry.session, entry.handle = session, handle
            return handle

        try:
            run(work)
        except BaseException as error:
            entry.failure = error
            with self._lock:
                if self._entries.get(key) is entry:
                    del self._entries[key]
            raise
        finally:
            entry.made.set()

    def _superfluous(self, session: TokenSession) -> list[int]:
        """Takes out the entries of sessions that are gone, and the least recently used beyond the size.

        Returns the handles of the latter, for their objects live in `session`.
        """
        handles = []
        with self._lock:
            for key, entry in list(self._entries.items()):
                if entry.made.is_set() and entry.session is not session:
                    del self._entries[key]
                elif len(self._entries) > self._size and entry.made.is_set() and not entry.users:
                    handles.append(entry.handle)
                    del self._entries[key]
        return handles

    def _present(self) -> TokenSession | None:
        return self._keeper.slots[0].present


def _echo(failure: BaseException) -> BaseException:
    """Returns for a second caller the error that the first one met."""
    if isinstance(failure, KeyMismatch):
        return KeyMismatch(*failure.args)
    if isinstance(failure, ValueError):
        return ValueError(*failure.args)
    return HsmUnavailable()
