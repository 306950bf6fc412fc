"""Looks at the whole log at rest (P10): its entries by position, tiles and head, and what was seen of it before."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from trien_server.core.checkpoints import Checkpoint, NoteNotValid, open_checkpoint
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.merkle import HASH_SIZE, TILE_WIDTH, Frontier, hash_leaf, hash_tile, split_tile
from trien_server.core.ports import Sealed, Snapshot, Store
from trien_server.core.records import AuditEntry, LogCheckpoint, LogHead, LogTile
from trien_server.services.audit_entries import LOG_HEAD
from trien_server.services.findings import Fault, Finding
from trien_server.services.log_history import LOG_CHECKPOINT, tile_name
from trien_server.services.seals import Seals
from trien_server.services.signed_log import LogKeys, read_published_keys
from trien_server.services.trusted import TrustedView

PAGE = TILE_WIDTH
"""How many entries are read from one snapshot: those of a tile."""
_MOST_WAITING = 100_000
MOST_TOLD = 100
"""How many positions are told of one by one; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class Witness:
    """A signed checkpoint that is kept where the database's writer cannot change it."""

    where: str
    note: str


@dataclass(frozen=True, kw_only=True)
class _Mark:
    """What the log has to come to at a size, and who says so."""

    size: int
    root: bytes
    table: str
    name: str
    where: str


@dataclass(kw_only=True)
class _Begun:
    """What one snapshot says of the log as a whole."""

    head: LogHead | None = None
    keys: LogKeys | None = None
    stored: LogCheckpoint | None = None
    found: list[Finding] = field(default_factory=list)


@dataclass(kw_only=True)
class _Walk:
    """How far the walk has come. `entries` is grown of the leaves, `tiles` of what the tiles say, where they say it."""

    size: int
    marks: list[_Mark]
    entries: Frontier = field(default_factory=Frontier)
    tiles: Frontier = field(default_factory=Frontier)
    roots: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)
    wrong: list[Finding] = field(default_factory=list)
    uncounted: int = 0
    above: list[bytes] = field(default_factory=list)
    """The hashes of the next level, of the tiles of this one."""

    def stops(self) -> list[int]:
        """The sizes at which a root is compared."""
        return sorted({mark.size for mark in self.marks if 0 < mark.size <= self.size} | {self.size})

    def tell(self, finding: Finding) -> None:
        if len(self.wrong) < MOST_TOLD:
            self.wrong.append(finding)
        else:
            self.uncounted += 1


class CheckLog:
    """Checks that the log is whole and the one that was signed, in pages, also while servers run. Changes nothing.

    The entries are walked by position: none is missing, and each leaf is the one of its tile. The root over the leaves
    is the head's, the signed checkpoint's and that of every witness at its size. Where they are not, the first
    position is named whose leaf is another than its tile has.
    """

    def __init__(self, *, store: Store, seals: Seals, witnesses: Callable[[], Sequence[Witness]]) -> None:
        """`witnesses` returns what was published of the log; it may raise `OSError`."""
        self._store = store
        self._seals = seals
        self._witnesses = witnesses
        self.counts: Counter[str] = Counter()
        """How many positions and witnesses were looked at, and how many entries have no position yet."""

    def __call__(self, looked: Callable[[str, int], None] = lambda _, __: None) -> Iterator[Finding]:
        """Yields what is wrong. `looked` hears how many positions were looked at.

        Raises `StoreUnavailable` or `HsmUnavailable`: then not everything was looked at.
        """
        seen: Sequence[Witness] = ()
        try:
            seen = self._witnesses()  # before the head: what is published meanwhile would be ahead of it
        except OSError as fault:
            text = f"what was published cannot be read: {fault}"
            yield Finding(fault=Fault.LOG, table="log", name="witnesses", text=text)
        begun = self._store.read(self._begin)
        yield from begun.found
        if begun.head is None:
            return
        walk = _Walk(size=begun.head.size, marks=[_mark_of(begun.head)])
        yield from self._add_marks(walk, begun, seen)
        head = begun.head
        for first in range(0, head.size, PAGE):
            self._store.read(lambda snapshot, first=first: self._page(snapshot, walk, first))  # type: ignore[misc]
            looked("the log", min(PAGE, head.size - first))
        self.counts["positions of the log"] += head.size
        yield from self._upper_tiles(walk)
        yield from _verdict(walk)

    def _begin(self, snapshot: Snapshot) -> "_Begun":
        """Reads the head, the log's keys and its signed checkpoint, and what is wrong with them and behind its end."""
        begun = _Begun()
        found = begun.found
        begun.keys = self._keys(snapshot, found)
        begun.stored = self._get(snapshot, LogCheckpoint, LOG_CHECKPOINT)
        head = begun.head = self._get(snapshot, LogHead, LOG_HEAD)
        with suppress(RecordNotTrusted):  # one of them is no record: told of where its table is walked
            self.counts["entries without a position yet"] += len(snapshot.unsealed(limit=_MOST_WAITING))
        if head is None:
            if _positions(snapshot, 0, 1):
                found.append(_about_head("the log has entries, and no head that can be trusted"))
            return begun
        try:
            if Frontier(head.size, head.frontier).root() != head.root:
                found.append(_about_head("its frontier does not lead to its root"))
        except ValueError as fault:
            found.append(_about_head(str(fault)))
        if _positions(snapshot, head.size, 1):
            found.append(_about_head(f"there is an entry at position {head.size}, behind the end of the log"))
        return begun

    def _keys(self, snapshot: Snapshot, found: list[Finding]) -> LogKeys | None:
        try:
            return read_published_keys(TrustedView(snapshot, self._seals))
        except NoteNotValid as fault:
            text = f"the log's keys do not follow each other: {fault}"
            found.append(Finding(fault=Fault.LOG, table="installation_keys", name="log", text=text))
        except RecordNotTrusted:
            pass  # told of where its table is walked
        return None

    def _get(self, snapshot: Snapshot, kind: type[Any], name: str) -> Any | None:
        """Returns a row that can be trusted; what is wrong with it is told of where its table is walked."""
        try:
            row = snapshot.get(kind, name)
            return None if row is None else self._seals.verify(row)
        except RecordNotTrusted:
            return None

    def _add_marks(self, walk: _Walk, begun: "_Begun", witnesses: Sequence[Witness]) -> Iterator[Finding]:
        """Adds what the signed checkpoint and the witnesses say, where their signature verifies."""
        head, stored = begun.head, begun.stored
        known = () if begun.keys is None else begun.keys.keys
        notes: list[tuple[str, str, str, str]] = []
        if stored is not None:
            notes.append((LogCheckpoint.table, LOG_CHECKPOINT, "the signed checkpoint", stored.note))
        notes += [("log", one.where, one.where, one.note) for one in witnesses]
        for table, name, where, note in notes:
            self.counts["signed checkpoints"] += 1
            try:
                seen = open_checkpoint(note, known)
            except NoteNotValid as fault:
                yield Finding(fault=Fault.LOG, table=table, name=name, text=f"it does not verify: {fault}")
                continue
            if stored is not None and note is stored.note and _says(stored) != seen:
                yield Finding(fault=Fault.LOG, table=table, name=name, text="the row says something else than its note")
            finding = None if head is None else _compare_with_head(seen, head, where)
            if finding is not None:
                yield Finding(fault=Fault.LOG, table=table, name=name, text=finding)
            elif seen.size:
                walk.marks.append(_Mark(size=seen.size, root=seen.root, table=table, name=name, where=where))

    def _page(self, snapshot: Snapshot, walk: _Walk, first: int) -> None:
        """Looks at the entries of one tile."""
        end = min(first + PAGE, walk.size)
        rows = dict(_positions(snapshot, first, end - first))
        tile = self._tile(snapshot, walk, 0, first // TILE_WIDTH, end - first)
        leaves: list[bytes] = []
        for position in range(first, end):
            row = rows.get(position)
            expected = tile[position - first] if tile else None
            if row is None:
                text = f"there is no entry that can be read at position {position} of the log"
                walk.tell(Finding(fault=Fault.LOG, table=AuditEntry.table, name=f"position {position}", text=text))
                leaves.append(expected or bytes(HASH_SIZE))
                continue
            leaf = hash_leaf(row.record.leaf)
            if expected not in {None, leaf}:
                text = f"its leaf is not the one of the log at position {position}"
                walk.tell(Finding(fault=Fault.LOG, table=AuditEntry.table, name=row.record.name, text=text))
            leaves.append(leaf)
        hashes = tile or leaves
        begin = first
        for stop in [*(stop for stop in walk.stops() if first < stop < end), end]:
            walk.entries = walk.entries.extend(leaves[begin - first : stop - first])
            walk.tiles = walk.tiles.extend(hashes[begin - first : stop - first])
            walk.roots[stop] = (walk.entries.root(), walk.tiles.root())
            begin = stop
        if end not in walk.stops():
            del walk.roots[end]
        if end - first == TILE_WIDTH:
            walk.above.append(hash_tile(b"".join(hashes)))

    def _tile(self, snapshot: Snapshot, walk: _Walk, level: int, index: int, width: int) -> list[bytes]:
        """Returns the hashes of a tile; [] when it has not so many, which is told."""
        name = tile_name(level, index)
        tile = self._get(snapshot, LogTile, name)
        hashes = [] if tile is None else split_tile(tile.hashes)[:width]
        if len(hashes) < width or any(len(one) != HASH_SIZE for one in hashes):
            walk.tell(Finding(fault=Fault.LOG, table=LogTile.table, name=name, text=f"it has not its {width} hashes"))
            return []
        return hashes

    def _upper_tiles(self, walk: _Walk) -> Iterator[Finding]:
        """Compares the tiles of the higher levels with what the ones below come to."""
        level = 1
        while walk.above:
            below, walk.above = walk.above, []
            for begin in range(0, len(below), TILE_WIDTH):
                expected = below[begin : begin + TILE_WIDTH]
                index = begin // TILE_WIDTH
                found = self._store.read(partial(self._tile, walk=walk, level=level, index=index, width=len(expected)))
                if found and found != expected:
                    text = "it is not made of the tiles below"
                    yield Finding(fault=Fault.LOG, table=LogTile.table, name=tile_name(level, index), text=text)
                if len(expected) == TILE_WIDTH:
                    walk.above.append(hash_tile(b"".join(expected)))
            level += 1


def _positions(snapshot: Snapshot, first: int, limit: int) -> list[tuple[int, Sealed[AuditEntry]]]:
    """Returns positions with their entries; without those that cannot be read, which are told of elsewhere."""
    try:
        return snapshot.log(first, limit=limit)
    except RecordNotTrusted:
        if limit == 1:
            return []
        half = limit // 2
        found = _positions(snapshot, first, half) + _positions(snapshot, first + half, limit - half)
        return sorted(dict(found).items())


def _mark_of(head: LogHead) -> _Mark:
    return _Mark(size=head.size, root=head.root, table=LogHead.table, name=LOG_HEAD, where="the log's head")


def _says(stored: LogCheckpoint) -> Checkpoint:
    return Checkpoint(stored.origin, stored.size, stored.root)


def _compare_with_head(seen: Checkpoint, head: LogHead, where: str) -> str | None:
    if seen.origin != head.origin:
        return f"{where} is of the log {seen.origin}, the database has {head.origin}"
    if seen.size > head.size:
        return f"{where} has {seen.size} entries, the database's log only {head.size}: the newest are missing"
    return None


def _about_head(text: str) -> Finding:
    return Finding(fault=Fault.LOG, table=LogHead.table, name=LOG_HEAD, text=text)


def _verdict(walk: _Walk) -> Iterator[Finding]:
    """Yields what the walk found, and whose root the log does not come to."""
    yield from walk.wrong
    if walk.uncounted:
        yield _about_head(f"{walk.uncounted} more positions and tiles are wrong in the same ways")
    for mark in walk.marks:
        of_entries, of_tiles = walk.roots.get(mark.size, (b"", b""))
        if mark.size and of_entries != mark.root:
            blamed = "; its tiles do: the entries are wrong" if of_tiles == mark.root else ", nor do its tiles"
            text = f"the first {mark.size} entries do not come to the root of {mark.where}{blamed}"
            yield Finding(fault=Fault.LOG, table=mark.table, name=mark.name, text=text)
        elif mark.size and of_tiles != mark.root:
            text = f"the tiles over the first {mark.size} entries do not come to the root of {mark.where}"
            yield Finding(fault=Fault.LOG, table=mark.table, name=mark.name, text=text)
