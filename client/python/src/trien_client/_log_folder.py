"""A whole log from its published files: every entry, every tile, and the signed checkpoint (C2SP tlog-tiles)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from trien_client._errors import LogNotValid, ProofNotValid
from trien_client._log_entries import OpenedEntry, open_entry
from trien_client._log_notes import LARGEST_NOTE, Checkpoint, LogKey, open_checkpoint, read_text
from trien_client._log_tree import HASH_SIZE, TILE_HEIGHT, TILE_WIDTH, hash_leaf, root_at, root_of, split_hashes

_LARGEST_BUNDLE = TILE_WIDTH * (2 + 0xFFFF)

Progress = Callable[[int], None]
"""Is told how many more entries were looked at."""


@dataclass(frozen=True, kw_only=True)
class VerifiedLog:
    """What was found to hold: the signed checkpoint, the earlier ones that it continues, the entries it holds."""

    checkpoint: Checkpoint
    continued: tuple[Checkpoint, ...]
    opened: int
    """How many entries that were given are in the log at their positions, as they are told."""
    erased: int
    """How many of them have their details erased: of those only time, kind and subject are known."""


class TileFolder:
    """The published files of a log, on this computer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def checkpoint_note(self) -> str:
        return read_text(self._folder / "checkpoint", LARGEST_NOTE)

    def tile(self, level: int, index: int, width: int) -> bytes:
        """Returns a tile's first `width` hashes. Raises `FileNotFoundError` when it is not there."""
        content = self._read(f"tile/{level}", index, width, TILE_WIDTH * HASH_SIZE)
        return content[: width * HASH_SIZE]

    def leaves(self, index: int, width: int) -> list[bytes]:
        """Returns up to `width` leaves of a bundle: fewer when it ends early, or in the middle of one."""
        content = self._read("tile/entries", index, width, _LARGEST_BUNDLE)
        leaves: list[bytes] = []
        at = 0
        while len(leaves) < width and at + 2 <= len(content):
            begin = at + 2
            at = begin + int.from_bytes(content[at:begin], "big")
            if at > len(content):
                break
            leaves.append(content[begin:at])
        return leaves

    def _read(self, kind: str, index: int, width: int, most: int) -> bytes:
        path = self._folder / kind / _index_path(index)
        partial = path.with_name(f"{path.name}.p") / str(width)
        # A log that has grown since may have the full tile alone.
        chosen = partial if width < TILE_WIDTH and not path.exists() else path
        with chosen.open("rb") as file:
            return file.read(most)


def verify_log(
    folder: Path,
    keys: Sequence[LogKey],
    *,
    since: Iterable[str] = (),
    entries: Iterable[str] = (),
    progress: Progress = lambda _: None,
) -> VerifiedLog:
    """Recomputes a whole log from its leaves and compares everything with it.

    `since` are notes of checkpoints that were kept from earlier, `entries` lines of exported entries (JSON, as
    `trien audit export` writes them), whose salts open what the log commits to.

    Raises `LogNotValid`, whose `first` and `last` tell where the first wrong entry is; `ProofNotValid` when a
    checkpoint is not signed by the log's keys; `OSError` when a file is missing.
    """
    files = TileFolder(folder)
    checkpoint = open_checkpoint(files.checkpoint_note, keys)
    kept = sorted((open_checkpoint(note, keys) for note in since), key=lambda one: one.size)
    root = _verify_tiles(files, checkpoint.size, progress)

    @lru_cache(maxsize=1024)
    def get_tile(level: int, index: int) -> bytes:
        return files.tile(level, index, min((checkpoint.size >> TILE_HEIGHT * level) - index * TILE_WIDTH, TILE_WIDTH))

    broken = _first_broken([*kept, checkpoint], checkpoint, root, get_tile)
    opened = erased = 0
    for entry in _opened(entries):
        if entry.position >= checkpoint.size:
            raise LogNotValid(
                f"Entry {entry.position} ({entry.name}) is not in the log, which has {checkpoint.size} entries.",
                first=checkpoint.size,
            )
        tile, at = divmod(entry.position, TILE_WIDTH)
        if split_hashes(get_tile(0, tile))[at] != hash_leaf(entry.leaf):
            raise LogNotValid(f"Entry {entry.position} ({entry.name}) is another one in the log.", first=entry.position)
        if entry.fault is not None:
            raise LogNotValid(f"Entry {entry.position} ({entry.name}): {entry.fault}", first=entry.position)
        opened, erased = opened + 1, erased + entry.erased
    if broken is not None:
        raise broken
    return VerifiedLog(checkpoint=checkpoint, continued=tuple(kept), opened=opened, erased=erased)


def _opened(lines: Iterable[str]) -> Iterator[OpenedEntry]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield open_entry(line)
            except ProofNotValid as fault:
                raise ProofNotValid(f"Line {number} of the entries: {fault}") from None


def _verify_tiles(files: TileFolder, size: int, progress: Progress) -> bytes:
    """Compares every tile with the entries, level by level as they fill. Returns the root over the entries."""
    levels: list[list[bytes]] = [[]]
    for bundle in range(-(-size // TILE_WIDTH)):
        begin = bundle * TILE_WIDTH
        width = min(size - begin, TILE_WIDTH)
        leaves = files.leaves(bundle, width)
        hashes = [hash_leaf(leaf) for leaf in leaves]
        tiled = split_hashes(files.tile(0, bundle, width))
        for index, (computed, told) in enumerate(zip(hashes, tiled, strict=False)):
            if computed != told:
                raise LogNotValid(
                    f"Entry {begin + index} is not what its tile says: one of them was changed.", first=begin + index
                )
        if len(hashes) < width or len(tiled) < width:
            short = begin + min(len(hashes), len(tiled))
            raise LogNotValid(f"Entry {short} is missing.", first=short)
        levels[0] = hashes
        if width == TILE_WIDTH:
            _carry(files, levels, bundle)
        progress(width)
    for level in range(1, len(levels)):
        # What is left is a partial tile; nothing when the last one is full.
        if levels[level]:
            index = size >> TILE_HEIGHT * (level + 1)
            _compare(files, level, index, levels[level])
    rest: list[bytes] = []
    for hashes in levels:
        if hashes or rest:
            rest = [root_of([*hashes, *rest])]
    return root_of(rest)


def _carry(files: TileFolder, levels: list[list[bytes]], index: int) -> None:
    """Hands the hash of a full tile to the level above, and so on while those are full."""
    level = 0
    while len(levels[level]) == TILE_WIDTH:
        if level:
            _compare(files, level, index, levels[level])
        if level + 1 == len(levels):
            levels.append([])
        levels[level + 1].append(root_of(levels[level]))
        levels[level] = []
        level, index = level + 1, index >> TILE_HEIGHT


def _compare(files: TileFolder, level: int, index: int, hashes: Sequence[bytes]) -> None:
    told = split_hashes(files.tile(level, index, len(hashes)))
    for at, computed in enumerate(hashes):
        if at >= len(told) or told[at] != computed:
            span = 1 << TILE_HEIGHT * level
            first = (index * TILE_WIDTH + at) * span
            raise LogNotValid(
                f"The entries {first} to {first + span - 1} are not those of tile {level}/{index}: one of them, or the"
                " tile, was changed.",
                first=first,
                last=first + span - 1,
            )


def _first_broken(
    signed: Sequence[Checkpoint], newest: Checkpoint, root: bytes, get_tile: Callable[[int, int], bytes]
) -> LogNotValid | None:
    """Returns what is wrong with the earliest signed checkpoint that the entries do not come to."""
    holds = 0
    for checkpoint in signed:
        if checkpoint.size > newest.size:
            return LogNotValid(
                f"The log has {newest.size} entries, and had {checkpoint.size} when an earlier checkpoint was signed.",
                first=newest.size,
            )
        computed = root if checkpoint.size == newest.size else root_at(get_tile, checkpoint.size)
        if computed != checkpoint.root:
            which = "the signed checkpoint" if checkpoint is newest else "an earlier signed checkpoint"
            return LogNotValid(
                f"The first {checkpoint.size} entries are not those of {which}: the first wrong one is from {holds} to"
                f" {checkpoint.size - 1}.",
                first=holds,
                last=max(checkpoint.size - 1, holds),
            )
        holds = checkpoint.size
    return None


def _index_path(index: int) -> Path:
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03d}")
    return Path(*parts)
