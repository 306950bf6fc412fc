"""Sessions of the token, each with the key handles that were found in it, and their pool.

A session serves one thread at a time, and its handles are used in it alone: after an error, session
and handles are dropped in one step, for a stale handle may name another key.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any, Final

from pkcs11 import Attribute, Session
from pkcs11.exceptions import PKCS11Error

from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch, KeyReference
from trien_server.hsm.check_values import ExportedKeys, none_exported
from trien_server.hsm.failures import Failure, classify
from trien_server.hsm.keys import (
    SEALING_KEY,
    WRAPPING_KEY,
    encode_public_key,
    find_key_pair,
    find_secret_keys,
    label_of,
    token_key_type,
)

CACHED_KEYS: Final = 4096
"""How many signers' keys a session keeps handles of; the least recently used are dropped."""


class TokenSession:
    """One open session with its handles. Used by one thread at a time."""

    def __init__(
        self,
        session: Session,
        *,
        sealing_key: Any,
        password_key: Any,
        wrapping_key: Any,
        probe_key: Any,
        probe: Callable[["TokenSession"], None],
        exported: ExportedKeys = none_exported,
    ) -> None:
        self.session: Final = session
        self._exported = exported
        self.password_key: Final = password_key
        self.probe_key: Final = probe_key
        self._secret_keys: dict[tuple[str, int], Any] = {(SEALING_KEY, 1): sealing_key, (WRAPPING_KEY, 1): wrapping_key}
        self._probe = probe
        self._keys: OrderedDict[bytes, tuple[KeyReference, Any]] = OrderedDict()

    def probe(self) -> None:
        """Signs a random message with the probe key and verifies it. Raises `TokenFailed` when it is wrong."""
        self._probe(self)

    def sealing_key(self, generation: int = 1) -> Any:
        """Returns the sealing key of a generation. Raises `KeyMismatch` when the token shows none, or several."""
        return self._secret_key(SEALING_KEY, generation)

    def wrapping_key(self, generation: int = 1) -> Any:
        """Returns the wrapping key of a generation. Raises `KeyMismatch` when the token shows none, or several."""
        return self._secret_key(WRAPPING_KEY, generation)

    def _secret_key(self, first: str, generation: int) -> Any:
        """Returns the cached handle, or the one that a search finds. A token that finds nothing must prove itself."""
        found = self._secret_keys.get((first, generation))
        if found is None:
            keys = find_secret_keys(self.session, first, generation, exported=self._exported)
            if len(keys) != 1:
                self.probe()
                raise KeyMismatch(f"the token holds {len(keys)} keys {label_of(first, generation)!r}")
            found = self._secret_keys[first, generation] = keys[0]
        return found

    def knows(self, key: KeyReference) -> bool:
        """Tells whether the key's handle is cached. May be called from any thread."""
        entry = self._keys.get(key.object_id)
        return entry is not None and entry[0] == key

    def private_key(self, key: KeyReference) -> Any:
        """Returns the private key object: the cached one, or the one that a search finds.

        Raises `KeyMismatch` unless exactly one private key has the id and the type, and the public
        key, where the token shows it, is the record's. A token that finds nothing must first prove by
        a probe signature that it is still there.
        """
        entry = self._keys.get(key.object_id)
        if entry is not None and entry[0] == key:
            with suppress(KeyError):  # another thread may forget it just now
                self._keys.move_to_end(key.object_id)
            return entry[1]
        private, public = find_key_pair(self.session, key.object_id)
        if len(private) != 1 or len(public) > 1:
            self.probe()
            raise KeyMismatch(f"{len(private)} private and {len(public)} public keys have the id")
        if public and encode_public_key(public[0]) != key.public_key:
            raise KeyMismatch("the token's public key is not the record's")
        found = private[0]
        if found[Attribute.KEY_TYPE] is not token_key_type(key.key_type) or not hasattr(found, "sign"):
            raise KeyMismatch("the token's private key is of another type, or does not sign")
        self._keys[key.object_id] = (key, found)
        if len(self._keys) > CACHED_KEYS:
            self._keys.popitem(last=False)
        return found

    def forget(self, object_id: bytes) -> None:
        """Drops the handle of a key that is about to be destroyed. May be called from any thread."""
        self._keys.pop(object_id, None)


class Slot:
    """A place of the pool: a session, or none until somebody needs one."""

    def __init__(self, open_session: Callable[[], TokenSession]) -> None:
        self._open = open_session
        self._session: TokenSession | None = None
        self.busy_since: float | None = None
        """Since when the present user has it (monotonic seconds); None when nobody does."""

    def session(self) -> TokenSession:
        """Returns the session; opens it when there is none. Raises what opening raises."""
        if self._session is None:
            self._session = self._open()
        return self._session

    @property
    def present(self) -> TokenSession | None:
        """The session, or None when it was dropped or never opened. May be asked from any thread."""
        return self._session

    def drop(self) -> None:
        """Closes the session and forgets its handles, in one step."""
        session, self._session = self._session, None
        if session is not None:
            with suppress(PKCS11Error):
                session.session.close()

    def knows(self, key: KeyReference) -> bool:
        """Tells whether the key's handle is cached. May be called from any thread."""
        session = self._session
        return session is not None and session.knows(key)

    def forget(self, object_id: bytes) -> None:
        """Drops a key's handle. May be called from any thread."""
        session = self._session
        if session is not None:
            session.forget(object_id)


class _Waiter:
    """A thread in the queue; whoever frees a slot puts it here and lets the thread go on."""

    def __init__(self, wanted: Slot | None) -> None:
        self.wanted = wanted
        self.slot: Slot | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class SessionPool:
    """A few sessions for many threads, first come, first served."""

    def __init__(self, open_session: Callable[[], TokenSession], size: int) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._slots = [Slot(open_session) for _ in range(size)]
        self._free = list(self._slots)
        self._waiters: deque[_Waiter] = deque()
        self._refusing = False
        self.busy_since: float | None = None
        """Since when at least one slot has been in use (monotonic seconds); None when none is."""

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The places of the pool."""
        return tuple(self._slots)

    def open_all(self) -> int:
        """Opens every session and returns how many there are: fewer when the token has no more.

        Raises what opening the first one raises.
        """
        for slot in self.slots:
            try:
                slot.session()
            except PKCS11Error as error:
                if classify(error) is not Failure.SESSION_COUNT or slot is self._slots[0]:
                    raise
                with self._lock:
                    self._free.remove(slot)
                    self._slots.remove(slot)
        return len(self._slots)

    def retire(self, slot: Slot) -> bool:
        """Makes the pool smaller by a leased slot, for the token has no session for it; False for the last one."""
        with self._lock:
            if slot in self._slots and len(self._slots) == 1:
                return False
            self._slots.remove(slot)
            return True

    @contextmanager
    def lease(self, timeout: float, wanted: Slot | None = None) -> Iterator[Slot]:
        """Gives a slot, or the wanted one, to the calling thread for as long as the block runs.

        Raises `HsmUnavailable` after `timeout` seconds, and at once when the pool refuses.
        """
        slot = self._take(timeout, wanted)
        try:
            yield slot
        finally:
            with self._lock:
                self._give(slot)

    def refuse(self) -> None:
        """Lets nobody in any more, and sends away those who wait."""
        with self._lock:
            self._refusing = True
            for waiter in self._waiters:
                waiter.gate.release()
            self._waiters.clear()

    def drain(self, timeout: float) -> bool:
        """Waits until no slot is in use; tells whether that came true within `timeout` seconds."""
        end = monotonic() + timeout
        with self._changed:
            while len(self._free) < len(self._slots):
                if not self._changed.wait(max(0.0, end - monotonic())) and monotonic() >= end:
                    return False
        return True

    def _take(self, timeout: float, wanted: Slot | None) -> Slot:
        with self._lock:
            if self._refusing:
                raise HsmUnavailable
            if wanted is not None and wanted not in self._slots:
                wanted = None
            # A free slot that a waiting thread could use does not exist: `_give` hands it over.
            slot = (self._free[-1] if self._free else None) if wanted is None else wanted
            if slot in self._free:
                self._free.remove(slot)
                slot.busy_since = monotonic()
                if self.busy_since is None:
                    self.busy_since = slot.busy_since
                return slot
            waiter = _Waiter(wanted)
            self._waiters.append(waiter)
        waiter.gate.acquire(timeout=timeout)
        with self._lock:
            if waiter.slot is not None:
                return waiter.slot
            with suppress(ValueError):
                self._waiters.remove(waiter)
        raise HsmUnavailable("The hardware security module's sessions are all in use.")

    def _give(self, slot: Slot) -> None:
        if slot not in self._slots:
            for waiter in self._waiters:
                waiter.wanted = None if waiter.wanted is slot else waiter.wanted
            if self._free:
                self._give(self._free.pop())  # for those who waited for the retired one
            self._note_idle()
            return
        for waiter in self._waiters:
            if waiter.wanted in (None, slot):
                self._waiters.remove(waiter)
                waiter.slot = slot
                slot.busy_since = monotonic()
                waiter.gate.release()
                return
        slot.busy_since = None
        self._free.append(slot)
        self._note_idle()

    def _note_idle(self) -> None:
        if len(self._free) == len(self._slots):
            self.busy_since = None
            self._changed.notify_all()
