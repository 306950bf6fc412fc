"""Takes audit entries into the log: gives them positions, grows the tree, and has its head signed (P10)."""

import dataclasses
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from trien_server.core.errors import LogNotTrusted, RecordNotTrusted, Refusal
from trien_server.core.merkle import Frontier, HashMissing, grow_tiles, hash_leaf
from trien_server.core.ports import Clock, Hsm, NameTaken, Randomness, Report, Sealed, Snapshot, Store, VersionConflict
from trien_server.core.records import AuditEntry, Lease, LogCheckpoint, LogHead, LogTile
from trien_server.services.identifiers import new_id
from trien_server.services.log_history import (
    LOG_CHECKPOINT,
    LOG_HEAD,
    LogHistory,
    checkpoint_of,
    read_checkpoint,
    read_head,
    require_extends,
    require_tiles,
    tile_name,
    tiles_from,
)
from trien_server.services.log_keys import active_log_key, read_log_keys, sign_note
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.unsealed_entries import EntriesInTheWay, UnsealedEntries

LOG_SEALING = "leases/log-sealing"
LEASE_SECONDS = 10.0
"""How long the process that sealed last is alone at it; one that stands still longer is replaced."""
PASS_SECONDS = 0.4
"""Between two looks: an entry is in the log within a second of its commit."""
LARGEST_PASS = 2_000
"""How many entries a transaction takes in: more would keep requests waiting."""
_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What a pass is going to write, on the head that it read."""

    head: LogHead
    entries: tuple[str, ...]
    tiles: tuple[LogTile, ...]
    """Each with the version that it gets."""
    grown: Frontier


class LogSealing:
    """Seals and signs the log, in a thread of its own; of all processes one at a time, under a lease.

    The lease saves work: that there is one history the head's compare-and-swap sees to. A pass reads the head, the
    entries and the last tiles in a snapshot; one transaction then checks that the head is still the one that was
    read, and writes positions, tiles and the new head, or nothing. A process that was paused anywhere finds another
    head when it wakes, and gives up. Only a head that was read back from what is committed is signed, and a checkpoint
    takes only the place of a smaller one. A crash leaves entries without positions, or a head without a signature; the
    next pass of any process goes on from there.
    """

    def __init__(
        self,
        *,
        hsm: Hsm,
        store: Store,
        seals: Seals,
        transactions: Transactions,
        history: LogHistory,
        clock: Clock,
        randomness: Randomness,
        report: Report,
        afterwards: Callable[[LogCheckpoint], None] = lambda _: None,
    ) -> None:
        """`afterwards` is called by the process that holds the lease, after each pass, with the stored checkpoint."""
        self._hsm = hsm
        self._store = store
        self._seals = seals
        self._transactions = transactions
        self._history = history
        self._clock = clock
        self._report = report
        self._afterwards = afterwards
        self._holder = new_id(randomness)
        self._unsealed = UnsealedEntries(seals=seals, report=report)
        self._told: str | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-sealing", daemon=True)

    def start(self) -> None:
        """Begins to seal."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the pass that is under way, and ends."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
            self._release()

    def _release(self) -> None:
        """Ends the lease, so that others need not wait for its end; a failure only makes them wait."""

        def work(ledger: Ledger) -> None:
            lease = ledger.get(Lease, LOG_SEALING)
            if lease is not None and lease.holder == self._holder and lease.expire_time > ledger.at:
                ledger.replace(next_version(lease, expire_time=ledger.at))

        with suppress(Refusal):
            self._transactions.run(work, timeout=_SECONDS)

    def catch_up(self, *, timeout: float, tell: bool = True) -> None:
        """Seals what an earlier run left, for `timeout` seconds at most; the rest is sealed while the server serves.

        Without `tell`, no checkpoint goes where others keep it.
        """
        end = self._clock.monotonic() + timeout
        while self._clock.monotonic() < end and self._try(tell):
            pass

    def work_off(self, tell: bool = True) -> int:
        """Does one pass now, unless another process is at it; returns how many entries it sealed.

        Raises `LogNotTrusted`, `StoreUnavailable`, `HsmUnavailable`.
        """
        self._transactions.keep_up()
        if not self._store.read(self._may):
            return 0
        self._history.check()  # a log that was set back gets no entry more
        sealed = self.seal()
        self.sign()
        checkpoint = self._store.read(lambda snapshot: read_checkpoint(snapshot, self._seals))
        if checkpoint is not None and tell:
            self._afterwards(checkpoint)
        return sealed

    def _may(self, snapshot: Snapshot) -> bool:
        """Tells whether no other process holds the lease."""
        row = snapshot.get(Lease, LOG_SEALING)
        if row is None:
            return True
        lease = self._seals.verify(row)
        return lease.holder == self._holder or lease.expire_time <= self._clock.now()

    def seal(self) -> int:
        """Gives waiting entries positions, in one transaction; returns how many got theirs.

        Raises `LogNotTrusted`, `StoreUnavailable`.
        """
        prepared = self._store.read(self._prepare)
        if prepared is None:
            return 0

        def work(ledger: Ledger) -> int:
            return self._write(ledger, prepared)

        try:
            return self._transactions.run(work, timeout=_SECONDS)
        except VersionConflict:
            return 0  # another process was at it meanwhile
        except NameTaken:
            self._leave_out_positioned(prepared)
            return 0

    def _prepare(self, snapshot: Snapshot) -> _Prepared | None:
        """Reads and verifies what a pass needs, outside its transaction; None when there is nothing to do."""
        entries = []
        with suppress(EntriesInTheWay):  # reported; what waits behind them has the guard refuse
            for entry in self._unsealed.walk(snapshot):
                entries.append(entry)
                if len(entries) == LARGEST_PASS:
                    break
        if not entries:
            return None
        entries.sort(key=lambda entry: (entry.time, entry.name))
        head = read_head(snapshot, self._seals)
        hashes = [hash_leaf(entry.leaf) for entry in entries]
        get_tile = tiles_from(snapshot, self._seals)
        try:
            grown = grow_tiles(get_tile, head.size, hashes)
        except (HashMissing, RecordNotTrusted) as fault:
            raise LogNotTrusted(f"the log's tiles cannot be trusted: {fault}") from fault
        tiles = []
        for tile, content in grown.items():
            name = tile_name(tile.level, tile.index)
            before = snapshot.get(LogTile, name)
            version = 1 if before is None else before.record.version + 1
            tiles.append(LogTile(name=name, version=version, hashes=content, time=head.time))
        return _Prepared(
            head=head,
            entries=tuple(entry.name for entry in entries),
            tiles=tuple(tiles),
            grown=Frontier(head.size, head.frontier).extend(hashes),
        )

    def _write(self, ledger: Ledger, prepared: _Prepared) -> int:
        """Writes a pass, or raises `VersionConflict` when the log is another by now."""
        self._renew(ledger)
        head, grown = prepared.head, prepared.grown
        if ledger.get(LogHead, LOG_HEAD) != head:
            raise VersionConflict("the log's head is another")
        ledger.replace(next_version(head, size=grown.size, root=grown.root(), frontier=grown.hashes, time=ledger.at))
        for tile in prepared.tiles:
            ledger.put_or_keep(dataclasses.replace(tile, time=ledger.at))
        ledger.assign_positions(head.size, prepared.entries)
        return len(prepared.entries)

    def _renew(self, ledger: Ledger) -> None:
        """Takes or renews the lease. Raises `VersionConflict` when another process holds it."""
        until = ledger.at + timedelta(seconds=LEASE_SECONDS)
        lease = ledger.get(Lease, LOG_SEALING)
        if lease is None:
            ledger.insert(Lease(name=LOG_SEALING, holder=self._holder, expire_time=until))
        elif lease.holder == self._holder or lease.expire_time <= ledger.at:
            ledger.replace(next_version(lease, holder=self._holder, expire_time=until))
        else:
            raise VersionConflict("another process seals")

    def _leave_out_positioned(self, prepared: _Prepared) -> None:
        """Leaves out what has a position already, and stands among those without one nevertheless."""

        def work(snapshot: Snapshot) -> list[Sealed[AuditEntry]]:
            names = [name for name in prepared.entries if snapshot.position(name) is not None]
            waiting = (snapshot.get(AuditEntry, name) for name in names)
            return [row for row in waiting if row is not None]

        head = self._history.check()
        if head != prepared.head:
            return  # they got their positions meanwhile
        for row in self._store.read(work):
            self._unsealed.refuse((row.record.name, row.seal))
            finding = "it has a position in the log, and is listed as if it had none"
            self._report("log_entry_refused", {"name": row.record.name, "finding": finding})

    def sign(self) -> bool:
        """Has the committed head signed, and keeps the checkpoint, if it is larger; returns whether it did.

        Raises `LogNotTrusted`, `StoreUnavailable`, `HsmUnavailable`.
        """
        ahead = False

        def look(snapshot: Snapshot, head: LogHead) -> None:
            nonlocal ahead
            stored = read_checkpoint(snapshot, self._seals)
            ahead = _is_ahead(head, stored)
            if ahead:
                require_tiles(snapshot, self._seals, head)
                if stored is not None and stored.origin == head.origin:
                    require_extends(snapshot, self._seals, head, checkpoint_of(stored), where="the stored checkpoint")

        head = self._history.check(look)
        if not ahead:
            return False
        key = active_log_key(self._transactions.read(read_log_keys))
        if key is None or key.origin != head.origin:
            return False  # it is being made
        note = sign_note(self._hsm, key, checkpoint_of(head).body)

        def work(ledger: Ledger) -> bool:
            before = ledger.get(LogCheckpoint, LOG_CHECKPOINT)
            if not _is_ahead(head, before):
                return False
            values = {"origin": head.origin, "size": head.size, "root": head.root, "note": note, "time": ledger.at}
            if before is None:
                ledger.insert(LogCheckpoint(name=LOG_CHECKPOINT, **values))  # type: ignore[arg-type]
            else:
                ledger.replace(next_version(before, **values))
            return True

        try:
            return self._transactions.run(work, timeout=_SECONDS)
        except (VersionConflict, NameTaken):
            return False  # another process put one there meanwhile

    def _try(self, tell: bool = True) -> bool:
        """Does a pass; returns whether there may be more to do. What keeps it from its work is reported when new."""
        try:
            sealed = self.work_off(tell)
        except Exception as fault:  # noqa: BLE001 - it is tried again
            because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
            finding = {"finding": fault.finding} if isinstance(fault, LogNotTrusted | RecordNotTrusted) else {}
            if because != self._told:
                self._report("log_sealing_delayed", {"because": because, **finding})
            self._told = because
            return False
        if self._told is not None:
            self._told = None
            self._report("log_sealed_again", {})
        return sealed > 0

    def _run(self) -> None:
        while not self._stopped.is_set():
            if not self._try():
                self._stopped.wait(PASS_SECONDS)


def _is_ahead(head: LogHead, stored: LogCheckpoint | None) -> bool:
    """Tells whether a head has entries that no checkpoint of its log covers."""
    if stored is None or stored.origin != head.origin:
        return head.size > 0
    return head.size > stored.size
