"""Whether the database's log is the one that was seen before, grown (P10)."""

import threading
from collections.abc import Callable

from trien_server.core.checkpoints import Checkpoint
from trien_server.core.errors import LogNotTrusted, RecordNotTrusted
from trien_server.core.merkle import Frontier, GetTile, HashMissing, read_from_tiles, root_at
from trien_server.core.ports import Snapshot, Store
from trien_server.core.records import LogCheckpoint, LogHead, LogTile
from trien_server.services.seals import Seals

LOG_HEAD = "log"
"""The name of the one `LogHead`."""
LOG_CHECKPOINT = "checkpoint"
"""The name of the one `LogCheckpoint`."""


def tile_name(level: int, index: int) -> str:
    """Returns the name of a `LogTile`."""
    return f"logTiles/{level}/{index}"


def tiles_from(snapshot: Snapshot, seals: Seals) -> GetTile:
    """Returns what reads the log's tiles of a snapshot. It raises `RecordNotTrusted`, and may call the token."""

    def get(level: int, index: int) -> bytes:
        row = snapshot.get(LogTile, tile_name(level, index))
        if row is None:
            return b""
        if row.record.name != tile_name(level, index):
            raise seals.distrust(LogTile.table, tile_name(level, index), "another row's name came back")
        return seals.verify(row).hashes

    return get


def read_head(snapshot: Snapshot, seals: Seals) -> LogHead:
    """Returns the log's head, which agrees with itself. Raises `LogNotTrusted`; may call the token."""
    try:
        row = snapshot.get(LogHead, LOG_HEAD)
        if row is None:
            raise LogNotTrusted("the database has no head of the log")
        head = seals.verify(row)
        root = Frontier(head.size, head.frontier).root()
    except (RecordNotTrusted, ValueError) as fault:
        raise LogNotTrusted(f"the log's head cannot be trusted: {_finding(fault)}") from fault
    if root != head.root:
        raise LogNotTrusted("the log's head does not agree with itself")
    return head


def read_checkpoint(snapshot: Snapshot, seals: Seals) -> LogCheckpoint | None:
    """Returns the newest signed checkpoint in the database. Raises `LogNotTrusted`; may call the token."""
    try:
        row = snapshot.get(LogCheckpoint, LOG_CHECKPOINT)
        return None if row is None else seals.verify(row)
    except RecordNotTrusted as fault:
        raise LogNotTrusted(f"the stored checkpoint cannot be trusted: {fault.finding}") from fault


def require_extends(snapshot: Snapshot, seals: Seals, head: LogHead, earlier: Checkpoint, *, where: str) -> None:
    """Checks that the log of a snapshot, which has that head, begins with an earlier one. May call the token.

    Its tiles have to lead there too, unless the head itself says so.

    Raises `LogNotTrusted` with a finding for the operator; `where` says where the earlier one was seen.
    """
    if head.origin != earlier.origin:
        raise LogNotTrusted(f"{where} is of the log {earlier.origin}, the database has {head.origin}")
    if head.size < earlier.size:
        raise LogNotTrusted(f"{where} has {earlier.size} entries, the database's log only {head.size}")
    if (head.size, head.root) != (earlier.size, earlier.root) and _root(snapshot, seals, earlier.size) != earlier.root:
        raise LogNotTrusted(f"{where} has another root over the first {earlier.size} entries than the database")


def require_tiles(snapshot: Snapshot, seals: Seals, head: LogHead) -> None:
    """Checks that the log's tiles lead to its head. Raises `LogNotTrusted`; may call the token."""
    if _root(snapshot, seals, head.size) != head.root:
        raise LogNotTrusted("the log's tiles lead to another root than its head has")


def _root(snapshot: Snapshot, seals: Seals, size: int) -> bytes:
    try:
        return root_at(read_from_tiles(tiles_from(snapshot, seals)), size)
    except (RecordNotTrusted, HashMissing) as fault:
        raise LogNotTrusted(f"the log's tiles cannot be trusted: {_finding(fault)}") from fault


def checkpoint_of(record: LogHead | LogCheckpoint) -> Checkpoint:
    """Returns what a head or a stored checkpoint says of the log."""
    return Checkpoint(record.origin, record.size, record.root)


def _finding(fault: Exception) -> str:
    return fault.finding if isinstance(fault, RecordNotTrusted) else str(fault)


class LogHistory:
    """Remembers the largest log that this process saw. May be used from any thread."""

    def __init__(self, *, store: Store, seals: Seals) -> None:
        self._store = store
        self._seals = seals
        self._lock = threading.Lock()
        self._seen: Checkpoint | None = None

    def check(self, also: Callable[[Snapshot, LogHead], None] = lambda _, __: None) -> LogHead:
        """Reads the head of the log, and remembers it when it continues the one that was seen last.

        `also` looks at the same snapshot. Costs three or four rows when the log grew. Raises `LogNotTrusted`,
        `StoreUnavailable`, `HsmUnavailable`, and what `also` raises.
        """
        # Taken before the snapshot: one that began earlier than another thread's may be behind what that one saw.
        seen = self._seen

        def work(snapshot: Snapshot) -> LogHead:
            head = read_head(snapshot, self._seals)
            if seen is not None:
                require_extends(snapshot, self._seals, head, seen, where="what this process saw of the log")
            also(snapshot, head)
            return head

        head = self._store.read(work)
        with self._lock:
            if self._seen is None or head.size > self._seen.size:
                self._seen = checkpoint_of(head)
        return head
