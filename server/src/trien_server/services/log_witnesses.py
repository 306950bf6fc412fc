"""The last checkpoint where the database's writer cannot change it: on the token, and where the log is published (P10).

A database that was set back has a log that does not continue it.
"""

import threading
from collections.abc import Sequence
from datetime import timedelta

from trien_server.core.checkpoints import (
    Checkpoint,
    LogKey,
    NoteNotValid,
    open_checkpoint,
    parse_checkpoint,
    parse_note,
)
from trien_server.core.errors import Busy, LogNotTrusted, Refusal
from trien_server.core.ports import Clock, Hsm, LogPublication, Report, Snapshot, Store
from trien_server.core.records import LogCheckpoint, LogHead
from trien_server.services.leases import TOKEN_OBJECTS, Leases
from trien_server.services.log_guard import LogGuard
from trien_server.services.log_history import read_checkpoint, read_head, require_extends
from trien_server.services.log_integrity import Witness
from trien_server.services.log_keys import log_key_of, read_log_keys
from trien_server.services.seals import Seals
from trien_server.services.transactions import Transactions

LABEL = "trien log checkpoint"
"""The label of the data object on the token."""
EVERY = timedelta(seconds=60)


class LogWitnesses:
    """Compares the log with the checkpoints that are kept elsewhere, and keeps the newest one on the token.

    What a witness says is taken when it reads as a checkpoint. One that is missing or garbled says nothing: whoever can
    garble it can remove it, so that is reported and refuses nothing. One of an earlier origin is from before a restore,
    on which operators decided: it is reported, and replaced. One of this origin has to be signed by a key that the
    database knows, for a database that was set back to before a rotation knows only the older ones; and the log has to
    continue it. One of any other origin refuses.
    """

    def __init__(
        self,
        *,
        hsm: Hsm,
        store: Store,
        seals: Seals,
        transactions: Transactions,
        leases: Leases,
        guard: LogGuard,
        publication: LogPublication | None,
        every: timedelta,
        clock: Clock,
        report: Report,
    ) -> None:
        """The token's checkpoint is written at most once in `every`: its memory wears out."""
        self._hsm = hsm
        self._store = store
        self._seals = seals
        self._transactions = transactions
        self._leases = leases
        self._guard = guard
        self._publication = publication
        self._every = every.total_seconds()
        self._clock = clock
        self._report = report
        self._stopped = threading.Event()
        self._kept: tuple[str, int] | None = None
        self._next = clock.monotonic()

    def read(self) -> list[Witness]:
        """Returns what the witnesses say, unverified. Raises `OSError`, `HsmUnavailable`."""
        found = self._on_token()
        if self._publication is not None:
            note = self._publication.checkpoint()
            if note is not None:
                found.append(Witness(where="the published checkpoint", note=note))
        return found

    def _on_token(self) -> list[Witness]:
        values = self._hsm.read_data(LABEL)
        return [Witness(where="the token's checkpoint", note=value.decode(errors="replace")) for value in values]

    def check(self) -> None:
        """Compares the log with every witness.

        Raises `LogNotTrusted`, whose finding says what was found; `OSError`, `HsmUnavailable`, `StoreUnavailable`.
        """
        self._compare(self.read())

    def _compare(self, witnesses: Sequence[Witness]) -> list[Checkpoint]:
        """Returns what the witnesses of this log's origin say, which the log continues. Raises `LogNotTrusted`."""
        # The witnesses were read before: what another process keeps meanwhile would be ahead of this snapshot.
        keys = [log_key_of(key) for key in self._transactions.read(read_log_keys) if key.public_key is not None]

        def work(snapshot: Snapshot) -> list[Checkpoint]:
            head = read_head(snapshot, self._seals)
            known = []
            for witness in witnesses:
                said = self._said(witness, head, keys)
                if said is not None:
                    require_extends(snapshot, self._seals, head, said, where=witness.where)
                    known.append(said)
            return known

        return self._store.read(work)

    def _said(self, witness: Witness, head: LogHead, keys: Sequence[LogKey]) -> Checkpoint | None:
        try:
            said = parse_checkpoint(parse_note(witness.note).body)
        except NoteNotValid as fault:
            self._report("log_witness_garbled", {"witness": witness.where, "because": str(fault)})
            return None
        if said.origin != head.origin and _is_earlier(said.origin, head.origin):
            self._report("log_witness_of_earlier_origin", {"witness": witness.where, "origin": said.origin})
            return None
        if said.origin == head.origin:
            try:
                return open_checkpoint(witness.note, keys)
            except NoteNotValid as fault:
                raise LogNotTrusted(
                    f"{witness.where} is not signed by a key that the database knows: {fault}"
                ) from fault
        return said

    def keep(self, checkpoint: LogCheckpoint) -> None:
        """Keeps a signed checkpoint on the token, unless one was kept lately, or one that is not older.

        Raises `LogNotTrusted`, and the server then refuses until the log continues what is there; `HsmUnavailable`.
        """
        if self._clock.monotonic() >= self._next:
            self._keep(checkpoint)

    def _keep(self, checkpoint: LogCheckpoint, *, wait: float = 0.0) -> None:
        if self._kept == (checkpoint.origin, checkpoint.size):
            return
        try:
            with self._leases.hold(TOKEN_OBJECTS, wait=wait, stopped=self._stopped):
                there = self._on_token()
                try:
                    known = self._compare(there)
                except LogNotTrusted as refusal:
                    self._guard.distrust(refusal.finding)
                    raise
                self._guard.trust_again()
                if len(there) != 1 or not known or known[0].size < checkpoint.size:
                    self._hsm.write_data(LABEL, checkpoint.note.encode())
        except Busy:
            return  # somebody makes a key: the next pass tries again
        self._kept = checkpoint.origin, checkpoint.size
        self._next = self._clock.monotonic() + self._every

    def keep_newest(self, *, wait: float = 0.0) -> None:
        """Keeps the newest checkpoint, when it can; waits so many seconds for who makes objects on the token."""
        try:
            checkpoint = self._store.read(lambda snapshot: read_checkpoint(snapshot, self._seals))
            if checkpoint is not None:
                self._keep(checkpoint, wait=wait)
        except Refusal as failure:
            self._report("log_checkpoint_not_kept", {"because": failure.reason})


def _is_earlier(origin: str, present: str) -> bool:
    """Tells whether a log's origin is that of the same log before a restore: these count up."""
    return _base(origin) == _base(present) and _number(origin) < _number(present)


def _base(origin: str) -> list[str]:
    return origin.split("/")[:3]


def _number(origin: str) -> int:
    """Returns the number at the origin's end: `<host>/trien/<16 hex>/<number>-<nonce>`; 1 without one."""
    parts = origin.split("/")
    number = parts[3].partition("-")[0] if len(parts) == 4 else "1"
    return int(number) if number.isdecimal() and len(number) < 9 else 1
