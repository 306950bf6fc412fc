"""CreateKey, and the generation that it starts."""

import queue
import threading
from contextlib import AbstractContextManager
from datetime import timedelta

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import Busy, HsmUnavailable, InvalidArgument, Refusal
from trien_server.core.ports import Clock, Hsm, Randomness, Report, WrappingNotSupported
from trien_server.core.principal import Principal
from trien_server.core.records import Key, KeyPurpose, KeyState, Lease, ProtectionLevel
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.services.sealing_generations import active_wrapping_generation
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

_RETRY_SECONDS = 2.0
_LONGEST_RETRY_SECONDS = 300.0
_LEASE_SECONDS = 10.0
"""How long to wait for another process's lease before another key gets its turn."""
_LONGEST_CLEARED = timedelta(days=1)
"""How old a key's record may be for what its attempts left to be destroyed."""
METHOD = "KeyService.CreateKey"
_PAGE = 100
"""How many of the keys that an earlier run left are looked for at a time."""


class KeyGeneration:
    """Generates pending keys, one at a time, in a thread of its own.

    Of all processes one at a time creates and destroys objects, under a lease. Since a paused process may outlive its
    lease, each attempt begins with a new version of the key's record and a fresh object id, and ends with one more
    version only if that is still the record in force. So of two processes that take up the same key one wins, and
    what the other made is destroyed: never an object that the record in force names. A crash leaves the key
    PENDING_GENERATION and perhaps objects on the token that no record names; the next attempt destroys those of
    the attempt before it. Not for ever: in a database that was set back, by a restored backup or by somebody who
    writes to it, a key that signs may look like one that was never finished.

    A WRAPPED key leaves nothing on the token, so it needs no lease: of two processes that make one, the record of
    one is put in force, and the other's pair is forgotten. A crash leaves it PENDING_GENERATION.
    """

    def __init__(
        self,
        *,
        hsm: Hsm,
        transactions: Transactions,
        changes: Changes,
        leases: Leases,
        clock: Clock,
        randomness: Randomness,
        report: Report,
    ) -> None:
        self._hsm = hsm
        self._randomness = randomness
        self._transactions = transactions
        self._changes = changes
        self._leases = leases
        self._clock = clock
        self._report = report
        self._names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-generation", daemon=True)

    def start(self) -> None:
        """Takes up what an earlier run left pending, and goes on with what is asked for."""
        self._thread.start()

    def ask(self, name: str) -> None:
        """Queues a pending key."""
        self._names.put(name)

    def stop(self) -> None:
        """Finishes the key that is being generated, and ends."""
        self._stopped.set()
        self._names.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def generate(self, name: str) -> None:
        """Generates one pending key and enables it.

        Raises `HsmUnavailable`, `StoreUnavailable`, or `Busy` when another process holds the lease: it stays pending.
        """
        pending = self._pending(name)
        if pending is None:
            return
        if pending.protection_level is ProtectionLevel.WRAPPED:
            self._wrap(pending)
            return
        with self._hold():
            left = self._attempt(name)
        if left is not None:
            # The lease lapsed meanwhile, and another attempt is in force: this one's object goes, under a new lease.
            try:
                with self._hold():
                    self._destroy(left, name)
            except Refusal as failure:
                self._report("key_object_left", {"key": name, "because": failure.reason})

    def _hold(self) -> AbstractContextManager[Lease]:
        return self._leases.hold(TOKEN_OBJECTS, wait=_LEASE_SECONDS, stopped=self._stopped)

    def _pending(self, name: str) -> Key | None:
        key = self._transactions.read(lambda view: view.get(Key, name))
        return key if key is not None and key.state is KeyState.PENDING_GENERATION else None

    def _attempt(self, name: str) -> bytes | None:
        """Generates a key that is still pending; returns the id of an object that no record names, or None."""
        before = self._pending(name)
        if before is None:
            return None
        attempt = next_version(before, object_id=self._randomness.bytes(16))
        if not self._put(before, attempt, kind="key_generation_begun"):
            return None
        if self._clock.now() - before.create_time <= _LONGEST_CLEARED:
            self._destroy(before.object_id, name)
        else:
            self._report("key_object_left", {"key": name, "because": "the key was asked for more than a day ago"})
        try:
            public_key = self._hsm.generate_key_pair(attempt.object_id, attempt.key_type)
        except HsmUnavailable:
            raise
        except Exception as fault:  # noqa: BLE001 - whatever the module cannot do ends this key, not the server
            self._fail(attempt, fault)
            return None
        made = next_version(attempt, state=KeyState.ENABLED, public_key=public_key)
        return None if self._put(attempt, made, kind="key_generated") else attempt.object_id

    def _wrap(self, pending: Key) -> None:
        """Generates a key pair whose private half is kept in the record, wrapped."""
        try:
            generation = self._transactions.read(active_wrapping_generation)
            pair = self._hsm.generate_wrapped_key_pair(pending.key_type, generation=generation)
        except Refusal:
            raise
        except Exception as fault:  # noqa: BLE001 - as above
            self._fail(pending, fault)
            return
        made = next_version(
            pending,
            state=KeyState.ENABLED,
            public_key=pair.public_key,
            wrapped_key=pair.wrapped_key,
            wrapping_generation=pair.wrapping_generation,
        )
        self._put(pending, made, kind="key_generated")

    def _fail(self, key: Key, fault: Exception) -> None:
        because = str(fault) if isinstance(fault, WrappingNotSupported) else type(fault).__name__
        self._report("key_generation_failed", {"key": key.name, "because": because})
        self._put(key, next_version(key, state=KeyState.GENERATION_FAILED), kind="key_generation_failed")

    def _destroy(self, object_id: bytes, name: str) -> None:
        """Destroys what an attempt left that no record in force names; an object that stays is reported."""
        try:
            self._hsm.destroy_key_pair(object_id)
        except Refusal:
            raise
        except Exception as fault:  # noqa: BLE001 - it is in nobody's way
            self._report("key_object_left", {"key": name, "because": type(fault).__name__})

    def _put(self, expected: Key, key: Key, *, kind: str) -> bool:
        """Puts a key in the place of the expected record; returns False when another record is in force."""
        return self._changes.swap("server", expected, key, kind=kind, deadline=Deadline(self._clock, 30.0))

    def _run(self) -> None:
        left: str | None = ""
        failures = 0
        while not self._stopped.is_set():
            name = None
            try:
                if left is not None and self._names.empty():
                    left = self._take_up(left)
                    continue
                name = self._names.get()
                if name is None:
                    return
                self.generate(name)
            except Busy:
                # Another process is at it: its keys and this one's take turns.
                self._again(name, _RETRY_SECONDS)
            except Exception as fault:  # noqa: BLE001 - the other keys are waiting
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("key_generation_delayed", {"key": name or "", "because": because})
                self._again(name, min(_RETRY_SECONDS * 2**failures, _LONGEST_RETRY_SECONDS))
                failures += 1
            else:
                failures = 0

    def _take_up(self, after: str) -> str | None:
        """Asks for a page of the keys that an earlier run left; returns its last name, or None when it is the last."""
        found = self._transactions.read(
            lambda view: view.find(Key, state=KeyState.PENDING_GENERATION, limit=_PAGE, after=after)
        )
        for key in found:
            self.ask(key.name)
        return found[-1].name if len(found) == _PAGE else None

    def _again(self, name: str | None, pause: float) -> None:
        if not self._stopped.wait(pause) and name is not None:
            self._names.put(name)


class CreateKey:
    """Starts the generation of keys."""

    def __init__(
        self,
        *,
        changes: Changes,
        transactions: Transactions,
        generation: KeyGeneration,
        hsm: Hsm,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._changes = changes
        self._transactions = transactions
        self._generation = generation
        self._hsm = hsm
        self._clock = clock
        self._randomness = randomness
        self._wraps: set[KeyType] = set()
        """The types of which the token was seen to wrap and unwrap a throw-away key."""

    def __call__(
        self,
        principal: Principal,
        *,
        name: str,
        key_type: KeyType,
        protection_level: ProtectionLevel = ProtectionLevel.TOKEN,
        deadline: Deadline,
    ) -> Key:
        """Returns the key in state PENDING_GENERATION.

        Raises `PermissionDenied`, `AlreadyExists`, and `InvalidArgument` with the token's answer when it does not wrap
        such keys.
        """
        if protection_level is ProtectionLevel.WRAPPED:
            self._transactions.read(lambda view: require_operator(view, principal, METHOD))
            self._require_wrapping(key_type)
        key = Key(
            name=name,
            key_type=key_type,
            purpose=KeyPurpose.SIGNING,
            protection_level=protection_level,
            object_id=self._randomness.bytes(16),
            public_key=b"",
            state=KeyState.PENDING_GENERATION,
            create_time=self._clock.now(),
        )

        def prepare(view: TrustedView) -> Change:
            require_operator(view, principal, METHOD)
            return Change(kind="key_created", slow=[key])

        self._changes.make(principal.name, prepare, deadline=deadline)
        self._generation.ask(name)
        return key

    def _require_wrapping(self, key_type: KeyType) -> None:
        """Finds out, once for a process, by a throw-away key; of RSA the smallest, for large ones take seconds."""
        tried = KeyType.RSA_2048 if key_type.is_rsa else key_type
        if tried in self._wraps:
            return
        try:
            self._hsm.generate_wrapped_key_pair(tried)
        except WrappingNotSupported as refusal:
            raise InvalidArgument("key.protection_level", f"WRAPPED is not possible: {refusal}") from refusal
        self._wraps.add(tried)
