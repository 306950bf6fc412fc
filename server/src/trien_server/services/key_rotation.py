"""Carries rotations of the installation's own keys out: from the record that two operators agreed on to its end."""

import threading
from collections.abc import Callable, Iterator

from trien_server.core.errors import Busy, Refusal
from trien_server.core.installation_keys import active_of
from trien_server.core.ports import Clock, Hsm, Report, SecurityOfficerNeeded, WrappingNotSupported
from trien_server.core.records import InstallationKey, InstallationKeyPurpose, InstallationKeyState, Record
from trien_server.core.sealing import HANDOVER
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.services.log_keys import LogKeyGeneration
from trien_server.services.resealing import Left, Resealing, Rewrapping
from trien_server.services.sealing_generations import read_generations
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

KEY_ROTATION = "leases/key-rotation"
_LOOK_SECONDS = 5.0
_LEASE_SECONDS = 10.0
_TURN_SECONDS = 20.0
"""How long rows are made anew before the lease is taken again: less than a lease lasts."""
_PAUSE_SECONDS = 0.005
"""Between two transactions, so that requests get theirs."""


class KeyRotation:
    """Looks for rotations, in a thread of its own, and carries them out; of all processes one at a time, under leases.

    Those of the log's key, which holds nothing that could be made anew, `LogKeyGeneration` carries out.

    What is to be done stands in the records, and each step leaves them so that any process goes on from there:

    1. PENDING_GENERATION. The token gets the key, unless it has it: a crash leaves a key that the next attempt finds.
    2. One transaction makes it ACTIVE and the one before RETIRING. Every process learns of it within seconds; rows by
       both verify. New rows and keys use the active one.
    3. Row by row, key by key, what the one before sealed or wrapped is made anew, each in a transaction with its audit
       entry. A crash leaves the rest for the next pass.
    4. A pass that began `HANDOVER` after step 2 and found nothing left makes the one before RETIRED. It stays on the
       token: a sealing key for entries from before, a wrapping key for the keys in backups.
    """

    def __init__(
        self,
        *,
        hsm: Hsm,
        transactions: Transactions,
        changes: Changes,
        leases: Leases,
        log_keys: LogKeyGeneration,
        clock: Clock,
        report: Report,
    ) -> None:
        self._hsm = hsm
        self._log_keys = log_keys
        self._transactions = transactions
        self._changes = changes
        self._leases = leases
        self._clock = clock
        self._report = report
        self._resealing = Resealing(transactions=transactions, changes=changes, clock=clock)
        self._rewrapping = Rewrapping(hsm=hsm, transactions=transactions, changes=changes, clock=clock, report=report)
        self._passed: set[tuple[str, int]] = set()
        """The versions of RETIRING records after whose last pass nothing was left."""
        self._told: set[str] = set()
        self._asked = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-rotation", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def ask(self) -> None:
        """Looks at once."""
        self._asked.set()

    def stop(self) -> None:
        """Finishes the transaction that is under way, and ends; another process or the next start goes on."""
        self._stopped.set()
        self._log_keys.stop()
        self._asked.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Does what is to be done now. Raises `Busy` while another process is at it, and refusals of its ports."""
        self._log_keys.look()
        for purpose in (InstallationKeyPurpose.WRAPPING, InstallationKeyPurpose.SEALING):
            keys = self._generations(purpose)
            if keys and keys[-1].state is InstallationKeyState.PENDING_GENERATION and self._activate(keys[-1]):
                keys = self._generations(purpose)
            for old in [key for key in keys if key.state is InstallationKeyState.RETIRING]:
                self._replace(old, active_of(keys).generation)

    def _generations(self, purpose: InstallationKeyPurpose) -> list[InstallationKey]:
        return self._transactions.read(lambda view: read_generations(view, purpose))

    def _activate(self, pending: InstallationKey) -> bool:
        """Makes a key on the token and puts it in use; returns False when the token's officer has to make it."""
        try:
            with self._leases.hold(TOKEN_OBJECTS, wait=_LEASE_SECONDS, stopped=self._stopped):
                self._hsm.make_installation_key(pending.purpose, pending.generation)
        except SecurityOfficerNeeded:
            if pending.name not in self._told:
                self._told.add(pending.name)
                self._report(
                    "security_officer_needed",
                    {"key": pending.name, "run": f"trien-server token add-{pending.purpose.value.lower()}-key"},
                )
            return False
        if pending.purpose is InstallationKeyPurpose.SEALING:
            self._hsm.authenticate(b"", generation=pending.generation)  # no row is sealed by a key that this one misses

        def prepare(view: TrustedView) -> Change:
            keys = read_generations(view, pending.purpose)
            if keys[-1] != pending:
                return Change(kind="installation_key_activated", slow=[])
            at = self._clock.now()
            before = next_version(active_of(keys), state=InstallationKeyState.RETIRING, state_time=at)
            after = next_version(pending, state=InstallationKeyState.ACTIVE, state_time=at)
            return Change(kind="installation_key_activated", slow=[before, after])

        self._make(prepare)
        return True

    def _replace(self, old: InstallationKey, active: int) -> None:
        """Makes anew what an old key still holds; retires the key when nothing is left."""
        begun = self._clock.now()
        late = begun - old.state_time >= HANDOVER
        if not late and (old.name, old.version) in self._passed:
            return
        left = Left()
        sealing = old.purpose is InstallationKeyPurpose.SEALING
        try:
            if not self._drive((self._resealing if sealing else self._rewrapping).steps(active, left)):
                return
        except WrappingNotSupported as refusal:
            if old.name not in self._told:
                self._told.add(old.name)
                self._report("keys_not_rewrapped", {"key": old.name, "because": str(refusal)})
            return
        if left.waiting:
            return
        if late and not left.done:
            self._retire(old)
        else:
            name = old.name
            current = self._transactions.read(lambda view: view.require(InstallationKey, name))
            self._passed.add((current.name, current.version))

    def _drive(self, steps: Iterator[None]) -> bool:
        """Takes the steps under the lease, which it takes anew now and then; returns whether it came to the end."""
        while not self._stopped.is_set():
            with self._leases.hold(KEY_ROTATION, wait=0.0, stopped=self._stopped):
                end = self._clock.monotonic() + _TURN_SECONDS
                while self._clock.monotonic() < end:
                    if next(steps, _END) is _END:
                        return True
                    if self._stopped.wait(_PAUSE_SECONDS):
                        return False
        return False

    def _retire(self, old: InstallationKey) -> None:
        def prepare(view: TrustedView) -> Change:
            current = view.require(InstallationKey, old.name)
            slow: list[Record] = []
            if current.state is InstallationKeyState.RETIRING:
                slow.append(next_version(current, state=InstallationKeyState.RETIRED, state_time=self._clock.now()))
            return Change(kind="installation_key_retired", slow=slow)

        self._make(prepare)

    def _make(self, prepare: Callable[[TrustedView], Change]) -> None:
        self._changes.make("server", prepare, deadline=Deadline(self._clock, 30.0))
        self._transactions.follow()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Busy:
                pass  # another process is at it
            except Exception as fault:  # noqa: BLE001 - it is looked at again
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("key_rotation_delayed", {"because": because})
            self._asked.wait(_LOOK_SECONDS)
            self._asked.clear()


_END = object()
