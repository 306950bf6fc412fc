"""The log as it was published in a tile folder (C2SP tlog-tiles): its checkpoint and its leaves, read."""

from functools import lru_cache
from pathlib import Path

from trien_server.core.merkle import TILE_WIDTH, Tile

_LARGEST_BUNDLE = TILE_WIDTH * (2 + 65_536)


class PublishedLog:
    """Reads a tile folder. What it finds is not verified: whoever uses a leaf recomputes the root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bundle = lru_cache(maxsize=4)(self._read_bundle)

    def checkpoint(self) -> str | None:
        """Returns the signed checkpoint; None when the folder has none. Raises `OSError`."""
        return self._text("checkpoint")

    def keys(self) -> str | None:
        """Returns the log's public keys as they were published; None when the folder has none. Raises `OSError`."""
        return self._text("log-keys")

    def _text(self, name: str) -> str | None:
        try:
            return (self._folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def leaf(self, position: int) -> bytes | None:
        """Returns the leaf at a position, or None when it is not there."""
        leaves = self._bundle(position // TILE_WIDTH)
        return leaves[position % TILE_WIDTH] if position % TILE_WIDTH < len(leaves) else None

    def _read_bundle(self, number: int) -> list[bytes]:
        """Returns the leaves of a bundle: the whole one, or the widest of the partial ones."""
        whole = self._folder / Tile(0, number).entries_path
        if whole.is_file():
            return _leaves(whole)
        partial = whole.with_name(f"{whole.name}.p")
        widths = [file for file in partial.glob("*") if file.name.isdecimal()] if partial.is_dir() else []
        return _leaves(max(widths, key=lambda file: int(file.name))) if widths else []


def _leaves(path: Path) -> list[bytes]:
    """Returns a bundle's leaves, each behind its length in two bytes, as far as they can be read."""
    if path.stat().st_size > _LARGEST_BUNDLE:
        return []
    content = path.read_bytes()
    leaves = []
    at = 0
    while at + 2 <= len(content):
        length = int.from_bytes(content[at : at + 2], "big")
        if at + 2 + length > len(content):
            break
        leaves.append(content[at + 2 : at + 2 + length])
        at += 2 + length
    return leaves
