"""The log's Merkle tree: how it grows, its tiles, its proofs (RFC 6962, section 2.1; C2SP tlog-tiles).

A hash of the tree is named by its level and its index there: the hash over the 2^level leaves that begin at
index * 2^level. Such a hash never changes once all its leaves are there.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT

ReadHash = Callable[[int, int], bytes]
"""Returns the hash of a complete subtree by its level and index."""

GetTile = Callable[[int, int], bytes]
"""Returns the concatenated hashes of a tile by its level and index; b"" when there is none."""


class ProofNotValid(Exception):  # noqa: N818 - an answer, not a defect
    """A proof does not prove what it was given for; the message says what does not hold."""


class HashMissing(LookupError):  # noqa: N818
    """A tile does not have a hash that the tree has."""


def hash_leaf(leaf: bytes) -> bytes:
    """Returns the hash of a leaf: SHA-256 over 0x00 and the leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """Returns the hash of a node: SHA-256 over 0x01 and its children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True)
class Frontier:
    """The right edge of a tree of `size` leaves: the roots of its complete subtrees, the largest first.

    It is all that is needed to grow the tree. Raises `ValueError` when the number of hashes is not that of the size.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError(f"a tree of {self.size} leaves does not have {len(self.hashes)} complete subtrees")
        if any(len(one) != HASH_SIZE for one in self.hashes):
            raise ValueError(f"a hash has {HASH_SIZE} bytes")

    def extend(self, leaf_hashes: Iterable[bytes]) -> "Frontier":
        """Returns the edge of the tree with these leaves behind its last."""
        size, hashes = self.size, list(self.hashes)
        for node in leaf_hashes:
            full = size
            while full & 1:
                node = hash_children(hashes.pop(), node)
                full >>= 1
            hashes.append(node)
            size += 1
        return Frontier(size, tuple(hashes))

    def root(self) -> bytes:
        """Returns the root of the tree."""
        return _fold(self.hashes)


@dataclass(frozen=True, order=True)
class Tile:
    """A tile of a tree: its level, its index there, and how many hashes it has, 256 when it is full."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def full(self) -> bool:
        return self.width == TILE_WIDTH

    @property
    def path(self) -> str:
        """The path below the log's prefix: `tile/<L>/<N>[.p/<W>]`."""
        return f"tile/{self.level}/{_path(self.index, self.width)}"

    @property
    def entries_path(self) -> str:
        """The path of the leaves that a tile of level 0 hashes: `tile/entries/<N>[.p/<W>]`."""
        return f"tile/entries/{_path(self.index, self.width)}"


def tiles_of(size: int) -> Iterator[Tile]:
    """Yields every tile of a tree, level by level from the leaves; the last one of a level may be partial."""
    return grown_tiles(0, size)


def grown_tiles(first: int, second: int) -> Iterator[Tile]:
    """Yields the tiles of a tree of `second` leaves that it did not have, or not as wide, with `first` leaves."""
    level = 0
    while second > 0:
        index = first >> TILE_HEIGHT
        while index << TILE_HEIGHT < second:
            width = min(second - (index << TILE_HEIGHT), TILE_WIDTH)
            if (index << TILE_HEIGHT) + width > first:
                yield Tile(level, index, width)
            index += 1
        first, second, level = first >> TILE_HEIGHT, second >> TILE_HEIGHT, level + 1


def grow_tiles(get_tile: GetTile, size: int, leaf_hashes: Iterable[bytes]) -> dict[Tile, bytes]:
    """Returns the new content of every tile that changes when a tree of `size` leaves takes in more of them.

    `get_tile` is asked only for the last partial tile of each level. Raises `HashMissing` when one is not as wide
    as the tree says.
    """
    grown: dict[Tile, bytes] = {}
    level, new = 0, list(leaf_hashes)
    while new:
        index, width = divmod(size, TILE_WIDTH)
        content = get_tile(level, index)[: width * HASH_SIZE] if width else b""
        if len(content) != width * HASH_SIZE:
            raise HashMissing(f"tile {level}/{index} has fewer than {width} hashes")
        above = []
        for begin in range(0, width + len(new), TILE_WIDTH):
            fresh = new[max(begin - width, 0) : begin + TILE_WIDTH - width]
            content += b"".join(fresh)
            tile = Tile(level, index, len(content) // HASH_SIZE)
            grown[tile] = content
            if tile.full:
                above.append(hash_tile(content))
            index, content = index + 1, b""
        level, size, new = level + 1, size >> TILE_HEIGHT, above
    return grown


def split_tile(content: bytes) -> list[bytes]:
    """Returns the hashes of a tile."""
    return [content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE)]


def hash_tile(content: bytes) -> bytes:
    """Returns the root over a tile's hashes; of a full tile it is the hash that the tile above has."""
    hashes = split_tile(content)
    while len(hashes) > 1:
        odd = [hashes.pop()] if len(hashes) & 1 else []
        hashes = [hash_children(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)] + odd
    return hashes[0] if hashes else EMPTY_ROOT


def read_from_tiles(get_tile: GetTile) -> ReadHash:
    """Returns a reader of the hashes in tiles. It keeps the tiles that it got, so use one for one tree size.

    The reader raises `HashMissing` when a tile does not have the hashes.
    """
    get = lru_cache(maxsize=64)(get_tile)

    def read(level: int, index: int) -> bytes:
        tile_level, below = divmod(level, TILE_HEIGHT)
        first = index << below
        tile, offset = divmod(first, TILE_WIDTH)
        part = get(tile_level, tile)[offset * HASH_SIZE : (offset + (1 << below)) * HASH_SIZE]
        if len(part) != HASH_SIZE << below:
            raise HashMissing(f"tile {tile_level}/{tile} does not have hashes {offset} to {offset + (1 << below) - 1}")
        return hash_tile(part)

    return read


def read_from_hashes(leaf_hashes: Sequence[bytes]) -> ReadHash:
    """Returns a reader of the tree over a few leaves in memory."""

    def read(level: int, index: int) -> bytes:
        return hash_tile(b"".join(leaf_hashes[index << level : (index + 1) << level]))

    return read


def root_at(read: ReadHash, size: int) -> bytes:
    """Returns the root of the tree when it had `size` leaves."""
    return _root(read, 0, size)


def frontier_at(read: ReadHash, size: int) -> Frontier:
    """Returns the right edge of the tree when it had `size` leaves."""
    return Frontier(size, tuple(_complete(read, 0, size)))


def inclusion_proof(read: ReadHash, index: int, size: int) -> tuple[bytes, ...]:
    """Returns the audit path of leaf `index` in the tree of `size` leaves, from the leaf up (section 2.1.1).

    Raises `ValueError` unless `index` is below `size`.
    """
    if not 0 <= index < size:
        raise ValueError(f"a tree of {size} leaves has no leaf {index}")
    path = []
    begin, end = 0, size
    while end - begin > 1:
        middle = _split(begin, end)
        if index < middle:
            path.append(_root(read, middle, end))
            end = middle
        else:
            path.append(_root(read, begin, middle))
            begin = middle
    return tuple(reversed(path))


def consistency_proof(read: ReadHash, first: int, second: int) -> tuple[bytes, ...]:
    """Returns the proof that the tree of `second` leaves begins with the one of `first` leaves (section 2.1.2).

    It is empty when `first` is 0 or `second`. Raises `ValueError` when `first` is above `second`.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second} leaves cannot continue one of {first}")
    if first == 0:
        return ()
    path = []
    begin, end = 0, second
    while end != first:
        middle = _split(begin, end)
        if first <= middle:
            path.append(_root(read, middle, end))
            end = middle
        else:
            path.append(_root(read, begin, middle))
            begin = middle
    if begin:
        path.append(_root(read, begin, end))
    return tuple(reversed(path))


def root_of_proof(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Returns the root that an audit path leads to (RFC 9162, section 2.1.3.2).

    Raises `ProofNotValid` when its length is not that of a path of this leaf in a tree of this size.
    """
    if not 0 <= index < size:
        raise ProofNotValid(f"a tree of {size} leaves has no leaf {index}")
    root, at, last = leaf_hash, index, size - 1
    for one in proof:
        if last == 0:
            raise ProofNotValid("the proof has too many hashes")
        if at & 1 or at == last:
            root = hash_children(one, root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = hash_children(root, one)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofNotValid("the proof has too few hashes")
    return root


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verifies that a leaf stands at `index` in the tree with this root. Raises `ProofNotValid`."""
    if root_of_proof(leaf_hash, index, size, proof) != root:
        raise ProofNotValid(f"the leaf is not at {index} in the tree of {size} leaves with this root")


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Verifies that the tree with the second root begins with the one with the first (RFC 9162, section 2.1.4.2).

    Raises `ProofNotValid`.
    """
    if not 0 <= first <= second:
        raise ProofNotValid(f"a tree of {second} leaves cannot continue one of {first}")
    if first in {0, second}:
        expected = second_root if first else EMPTY_ROOT
        if proof or first_root != expected:
            raise ProofNotValid(f"the tree of {second} leaves does not begin with that of {first}")
        return
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    hashes = list(proof)
    if at == 0:
        # The earlier tree is one complete subtree of the later: its root is where the proof begins.
        hashes.insert(0, first_root)
    if not hashes:
        raise ProofNotValid("the proof has too few hashes")
    old = new = hashes[0]
    for one in hashes[1:]:
        if last == 0:
            raise ProofNotValid("the proof has too many hashes")
        if at & 1 or at == last:
            old, new = hash_children(one, old), hash_children(one, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = hash_children(new, one)
        at, last = at >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise ProofNotValid(f"the tree of {second} leaves does not begin with that of {first}")


def _path(index: int, width: int) -> str:
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03d}")
    return "/".join(parts) + (f".p/{width}" if width < TILE_WIDTH else "")


def _split(begin: int, end: int) -> int:
    """Where a tree of these leaves divides: at the largest power of two below their number."""
    return begin + (1 << (end - begin - 1).bit_length() - 1)


def _complete(read: ReadHash, begin: int, end: int) -> Iterator[bytes]:
    """The roots of the complete subtrees that make up the leaves from `begin`, where a subtree begins, to `end`."""
    while begin < end:
        level = (end - begin).bit_length() - 1
        yield read(level, begin >> level)
        begin += 1 << level


def _root(read: ReadHash, begin: int, end: int) -> bytes:
    return _fold(tuple(_complete(read, begin, end)))


def _fold(hashes: Sequence[bytes]) -> bytes:
    """The root over complete subtrees, the largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = hash_children(left, root)
    return root
