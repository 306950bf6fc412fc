"""Publishes the log as files, for everyone to check with (C2SP tlog-tiles)."""

import threading
from collections.abc import Iterator
from functools import lru_cache

from trien_server.core.checkpoints import Checkpoint, NoteNotValid, open_checkpoint
from trien_server.core.errors import LogNotTrusted, RecordNotTrusted, Refusal
from trien_server.core.merkle import (
    HASH_SIZE,
    TILE_HEIGHT,
    TILE_WIDTH,
    HashMissing,
    ProofNotValid,
    Tile,
    consistency_proof,
    grown_tiles,
    hash_leaf,
    hash_tile,
    read_from_tiles,
    root_at,
    split_tile,
    tiles_of,
    verify_consistency,
)
from trien_server.core.ports import Clock, LogPublication, LogUpdate, Report
from trien_server.core.records import LogTile
from trien_server.services.log_history import tile_name
from trien_server.services.signed_log import LogFaults, SignedLog, distrust_log, read_signed_log
from trien_server.services.transactions import Transactions

LOG_KEYS = "log-keys"
_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 60.0
"""How long others may be publishing before that is reported: one of them may hang."""
_LENGTH_SIZE = 2


class LogPublisher:
    """Keeps what is published up with the newest checkpoint, in a thread of its own.

    What is published is looked at, and not remembered: so a crash, another node's work or an emptied folder needs no
    repair. That it cannot be published is reported and refuses nothing: the log itself is sealed in the database.
    """

    def __init__(
        self, *, publication: LogPublication, transactions: Transactions, clock: Clock, report: Report
    ) -> None:
        self._publication = publication
        self._transactions = transactions
        self._clock = clock
        self._report = report
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-publisher", daemon=True)

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def stop(self) -> None:
        """Ends behind the file that is being written; the next start goes on there."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def publish(self) -> bool:
        """Publishes what the newest checkpoint covers; tells whether something was new.

        Raises `OSError` when it cannot be written, `BlockingIOError` while another process is at it; `LogNotTrusted`,
        after reporting it, when the log does not lead to what the token signed, or what is published is no part of it.
        """
        try:
            return self._publication.publish(self._update)
        except LogFaults as fault:
            raise distrust_log(self._report, fault) from fault

    def check(self) -> None:
        """Checks that what is published is a part of the log, and writes nothing.

        Raises `OSError` when it cannot be read, and one of `LogFaults`.
        """
        present = self._publication.checkpoint()
        self._transactions.read(lambda view: _wanted(read_signed_log(view), present))

    def _update(self, present: str | None) -> LogUpdate | None:
        """Returns what is to be published.

        It reads the database after `present` was read: only one that was set back is behind it.
        """
        wanted = self._transactions.read(lambda view: _wanted(read_signed_log(view), present))
        if wanted is None:
            return None
        log, first = wanted
        tiles = list(grown_tiles(first, log.size))
        return LogUpdate(
            files=self._files(log, tiles),
            outdated=[path for tile in tiles if tile.full for path in _partial_folders(tile)],
            checkpoint=log.note,
        )

    def _files(self, log: SignedLog, tiles: list[Tile]) -> Iterator[tuple[str, bytes]]:
        """Yields the files, one by one: the database is asked for each, for the tree does not change any more."""
        verified = _VerifiedTiles(self._transactions, log.size, log.checkpoint.root)
        yield LOG_KEYS, log.keys.text.encode()
        for tile in tiles:
            if self._stopped.is_set():
                raise InterruptedError("the server stops")
            hashes = verified.get(tile.level, tile.index)
            yield tile.path, hashes
            if tile.level == 0:
                yield tile.entries_path, self._bundle(tile, hashes)

    def _bundle(self, tile: Tile, hashes: bytes) -> bytes:
        """Returns a tile's leaves, each behind its length as 2 bytes; each has the hash that the tile says."""
        begin = tile.index << TILE_HEIGHT
        found = self._transactions.read(lambda view: view.log(begin, begin + tile.width))
        parts = []
        for (position, entry), expected in zip(found, split_tile(hashes), strict=True):
            if isinstance(entry, RecordNotTrusted):
                raise ProofNotValid(f"the entry at position {position} of the log: {entry.finding}")
            if hash_leaf(entry.leaf) != expected:
                raise ProofNotValid(f"the entry at position {position} of the log is not the one that was signed")
            parts.append(len(entry.leaf).to_bytes(_LENGTH_SIZE, "big") + entry.leaf)
        return b"".join(parts)

    def _run(self) -> None:
        told = ""
        published = self._clock.monotonic()
        while not self._stopped.is_set():
            because = ""
            try:
                self.publish()
            except BlockingIOError:
                if self._clock.monotonic() - published > _PATIENCE_SECONDS:
                    because = "another process has been publishing for a minute"
            except InterruptedError:
                return
            except Exception as fault:  # noqa: BLE001 - the next look repeats it
                because = _because(fault)
            else:
                published = self._clock.monotonic()
            if because and because != told:
                self._report("log_not_published", {"because": because})
            elif told and not because:
                self._report("log_published_again", {})
            told = because
            self._stopped.wait(_LOOK_SECONDS)


class _VerifiedTiles:
    """The tiles of a signed log, each led to its root: the last ones of each level by it, a full one by that above."""

    def __init__(self, transactions: Transactions, size: int, root: bytes) -> None:
        """Raises one of `LogFaults`."""
        self._transactions = transactions
        self._size = size
        self.get = lru_cache(maxsize=64)(self._get)
        # The last, partial tiles of each level are read once, for the root is made of all their hashes.
        self._last = {
            (tile.level, tile.index): self._read(tile.level, tile.index, tile.width)
            for tile in tiles_of(size)
            if not tile.full
        }
        if root_at(read_from_tiles(lambda level, index: self._last[level, index]), size) != root:
            raise ProofNotValid("the last tiles of the log do not lead to the root that was signed")

    def _get(self, level: int, index: int) -> bytes:
        last = self._last.get((level, index))
        if last is not None:
            return last
        content = self._read(level, index, TILE_WIDTH)
        above, offset = divmod(index, TILE_WIDTH)
        if split_tile(self.get(level + 1, above))[offset] != hash_tile(content):
            raise ProofNotValid(f"tile {level}/{index} does not lead to the root that was signed")
        return content

    def _read(self, level: int, index: int, width: int) -> bytes:
        row = self._transactions.read(lambda view: view.get(LogTile, tile_name(level, index)))
        content = b"" if row is None else row.hashes[: width * HASH_SIZE]
        if len(content) != width * HASH_SIZE:
            raise HashMissing(f"tile {level}/{index} has fewer than {width} hashes")
        return content


def _wanted(log: SignedLog | None, present: str | None) -> tuple[SignedLog, int] | None:
    """Returns the log, and how much of it is published; None when all of it is. Raises one of `LogFaults`."""
    if log is None:
        if present is not None:
            raise ProofNotValid("a log is published, and the database has signed none: it was set back")
        return None
    if log.note == present:
        return None
    return log, 0 if present is None else _published_part(log, present)


def _published_part(log: SignedLog, present: str) -> int:
    """Returns the size of what is published, which the log continues. Raises `ProofNotValid` when it does not."""
    try:
        published = open_checkpoint(present, log.keys.keys)
    except NoteNotValid as fault:
        raise NoteNotValid(f"what is published is not this log's: {fault}") from None
    _require_continued(published, log)
    return published.size


def _require_continued(published: Checkpoint, log: SignedLog) -> None:
    if published.origin != log.checkpoint.origin:
        raise ProofNotValid(f"{published.origin} is published there: {log.checkpoint.origin} needs a folder of its own")
    if published.size > log.size:
        raise ProofNotValid(
            f"{published.size} entries are published, and the database has signed {log.size}: it was set back"
        )
    proof = consistency_proof(log.read, published.size, log.size)
    verify_consistency(published.size, log.size, published.root, log.checkpoint.root, proof)


def _partial_folders(tile: Tile) -> list[str]:
    paths = [tile.path, *([tile.entries_path] if tile.level == 0 else [])]
    return [f"{path}.p" for path in paths]


def _because(fault: Exception) -> str:
    """Says why, without anything that a row or a file may hold (P12)."""
    match fault:
        case LogNotTrusted():
            return f"{fault.reason}: {fault.finding}"
        case Refusal():
            return f"{fault.reason}: {fault.message}"
        case OSError():
            return f"{type(fault).__name__}: {fault.strerror}"
    return type(fault).__name__
