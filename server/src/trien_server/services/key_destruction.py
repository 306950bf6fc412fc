"""Destroys keys whose time has come."""

import threading
from collections.abc import Iterator
from datetime import timedelta

from trien_server.core.errors import Busy, HsmUnavailable, Refusal
from trien_server.core.ports import Clock, Hsm, KeyMismatch, Report
from trien_server.core.records import Key, KeyState, ProtectionLevel
from trien_server.core.sealing import CLOCK_TOLERANCE
from trien_server.services.changes import Changes
from trien_server.services.deadline import Deadline
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.services.transactions import Transactions, next_version

STEADY = timedelta(hours=1)
"""How long a key has to be due, by a clock that did not jump, before it is destroyed."""
LATEST = timedelta(days=7)
"""How long after its time a key is still destroyed."""
_LOOK_SECONDS = 60.0
_LEASE_SECONDS = 10.0
_PAGE = 100


class KeyDestruction:
    """Looks for keys whose time has come, in a thread of its own, and destroys them, one at a time among all nodes.

    What is destroyed cannot be had again, so before it a key's record has to be the one that the log names last, its
    time has to have come an hour ago by a clock that did not jump since (a clock that was set ahead by mistake may
    be set right meanwhile), and not longer ago than a week: in a database that was set back, by a restored backup or by
    somebody who writes to it, a key that was kept may look like one that is due. Then it is reported, and an operator
    decides.

    First the record says DESTROYING: from then on nothing keeps the key, and who cancelled before has kept it. Then the
    object goes from the token, which a second attempt finds done. Then the record says DESTROYED. A crash between them
    leaves it DESTROYING, and the next look goes on. A WRAPPED key is in its record alone: it goes in one step.
    """

    def __init__(
        self, *, hsm: Hsm, transactions: Transactions, changes: Changes, leases: Leases, clock: Clock, report: Report
    ) -> None:
        self._hsm = hsm
        self._transactions = transactions
        self._changes = changes
        self._leases = leases
        self._clock = clock
        self._report = report
        self._due: dict[tuple[str, int], float] = {}
        """For each version of a record that was seen due: since when, by the monotonic clock."""
        self._told: set[tuple[str, int]] = set()
        self._last = (clock.now(), clock.monotonic())
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-destruction", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the key that is being destroyed, and ends."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> int:
        """Looks once at all scheduled keys; returns how many it destroyed.

        A key that cannot be destroyed now is reported, and the others get their turn. Raises `StoreUnavailable`,
        `ClockNotTrusted`, `RecordNotTrusted`.
        """
        if self._jumped():
            self._due.clear()
        scheduled = list(self._in_state(KeyState.DESTROY_SCHEDULED))
        seen = {(key.name, key.version) for key in scheduled}
        self._due = {version: since for version, since in self._due.items() if version in seen}
        ready = [key.name for key in self._in_state(KeyState.DESTROYING)]
        ready += [key.name for key in scheduled if self._is_ready(key)]
        return sum(self._attempt(name) for name in ready if not self._stopped.is_set())

    def _in_state(self, state: KeyState) -> Iterator[Key]:
        after: str | None = ""
        while after is not None:
            found = self._page(state, after)
            yield from found
            after = found[-1].name if len(found) == _PAGE else None

    def _page(self, state: KeyState, after: str) -> list[Key]:
        return self._transactions.read(lambda view: view.find(Key, state=state, limit=_PAGE, after=after))

    def _jumped(self) -> bool:
        """Tells whether the clock went other than the monotonic one since the last look."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        (last_now, last_monotonic), self._last = self._last, (now, monotonic)
        return abs((now - last_now) - timedelta(seconds=monotonic - last_monotonic)) > CLOCK_TOLERANCE

    def _is_ready(self, key: Key) -> bool:
        """Tells whether a scheduled key was due for long enough, and not for too long."""
        version = (key.name, key.version)
        late = self._late(key)
        if late < timedelta(0):
            self._due.pop(version, None)
            return False
        if late > LATEST:
            self._tell_once(key, "key_destruction_overdue", "its time came more than a week ago")
            return False
        if version not in self._due:
            self._report(
                "key_destruction_due", {"key": key.name, "at": f"in {STEADY.total_seconds() / 60:.0f} minutes"}
            )
        since = self._due.setdefault(version, self._clock.monotonic())
        return self._clock.monotonic() - since >= STEADY.total_seconds()

    def _late(self, key: Key) -> timedelta:
        if key.destroy_time is None:
            raise AssertionError("a scheduled key has a time")
        return self._clock.now() - key.destroy_time

    def _attempt(self, name: str) -> bool:
        try:
            with self._leases.hold(TOKEN_OBJECTS, wait=_LEASE_SECONDS, stopped=self._stopped):
                return self._destroy(name)
        except (Busy, HsmUnavailable) as refusal:
            self._report("key_destruction_delayed", {"key": name, "because": refusal.reason})
            return False

    def _destroy(self, name: str) -> bool:
        """Destroys a key, in as many steps as it is away from that; returns whether this process ended it."""
        key = self._transactions.read(lambda view: view.require(Key, name))
        if key.state is KeyState.DESTROY_SCHEDULED:
            if not self._is_ready(key):
                return False
            if key.protection_level is ProtectionLevel.WRAPPED:
                destroyed = next_version(key, state=KeyState.DESTROYED, wrapped_key=None)
                return self._put(key, destroyed, kind="key_destroyed")
            begun = next_version(key, state=KeyState.DESTROYING)
            if not self._put(key, begun, kind="key_destruction_begun"):
                return False
            key = begun
        if key.state is not KeyState.DESTROYING or not self._remove(key):
            return False
        return self._put(key, next_version(key, state=KeyState.DESTROYED), kind="key_destroyed")

    def _remove(self, key: Key) -> bool:
        """Removes the key's object from the token, unless it may be another key's; returns whether it is gone."""
        named = self._transactions.read(lambda view: view.find(Key, object_id=key.object_id, limit=2))
        if [other.name for other in named] != [key.name]:
            self._tell_once(key, "key_object_left", "another record names the object")
            return False
        try:
            public_key = self._hsm.public_key(key.object_id)
            if public_key is not None and public_key != key.public_key:
                self._tell_once(key, "key_object_left", "the token holds another key under its id")
                return False
            self._hsm.destroy_key_pair(key.object_id)
        except Refusal:
            raise
        except (KeyMismatch, ValueError) as fault:
            self._tell_once(key, "key_object_left", str(fault) or type(fault).__name__)
            return False
        return self._hsm.public_key(key.object_id) is None

    def _put(self, expected: Key, key: Key, *, kind: str) -> bool:
        """Puts a key in the place of the expected record; returns False when another record is in force."""
        return self._changes.swap("server", expected, key, kind=kind, deadline=Deadline(self._clock, 30.0))

    def _tell_once(self, key: Key, event: str, because: str) -> None:
        if (key.name, key.version) not in self._told:
            self._told.add((key.name, key.version))
            self._report(event, {"key": key.name, "because": because})

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            try:
                self.look()
            except Exception as fault:  # noqa: BLE001 - the next look comes
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("key_destruction_delayed", {"key": "", "because": because})
