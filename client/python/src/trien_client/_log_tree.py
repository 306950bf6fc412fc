"""The hashes of a log's Merkle tree and its proofs (RFC 6962, section 2.1; RFC 9162, sections 2.1.3 and 2.1.4)."""

import hashlib
from collections.abc import Callable, Sequence

from trien_client._errors import ProofNotValid

HASH_SIZE = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()


def hash_leaf(leaf: bytes) -> bytes:
    """Returns the hash of a leaf: SHA-256 over 0x00 and the leaf."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    """Returns the hash of a node: SHA-256 over 0x01 and its children's hashes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_hashes(content: bytes) -> list[bytes]:
    """Returns the hashes that stand behind one another."""
    return [content[at : at + HASH_SIZE] for at in range(0, len(content), HASH_SIZE)]


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Returns the root over hashes of subtrees of one size, of which the last may be smaller."""
    level = list(hashes)
    while len(level) > 1:
        odd = [level.pop()] if len(level) & 1 else []
        level = [hash_children(left, right) for left, right in zip(level[::2], level[1::2], strict=True)] + odd
    return level[0] if level else EMPTY_ROOT


def root_at(get_tile: Callable[[int, int], bytes], size: int) -> bytes:
    """Returns the root of the tree when it had `size` leaves, from the hashes of its tiles.

    `get_tile` returns the concatenated hashes of a tile by its level and index.
    """
    rest: list[bytes] = []
    level = 0
    while size:
        index, width = divmod(size, TILE_WIDTH)
        hashes = split_hashes(get_tile(level, index)[: width * HASH_SIZE]) if width else []
        if hashes or rest:
            rest = [root_of([*hashes, *rest])]
        level, size = level + 1, index
    return rest[0] if rest else EMPTY_ROOT


def root_of_proof(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """Returns the root that the path of leaf `index` of `size` leads to. Raises `ProofNotValid` for a wrong length."""
    if not 0 <= index < size:
        raise ProofNotValid(f"A tree of {size} leaves has no leaf {index}.")
    root, at, last = leaf_hash, index, size - 1
    for one in proof:
        if last == 0:
            raise ProofNotValid("The proof has too many hashes.")
        if at & 1 or at == last:
            root = hash_children(one, root)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            root = hash_children(root, one)
        at, last = at >> 1, last >> 1
    if last:
        raise ProofNotValid("The proof has too few hashes.")
    return root


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Verifies that a leaf is at `index` in the log of `size` entries with this root. Raises `ProofNotValid`."""
    if root_of_proof(leaf_hash, index, size, proof) != root:
        raise ProofNotValid(f"The entry is not at position {index} of the log of {size} entries.")


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Verifies that the log with the second root continues the one with the first. Raises `ProofNotValid`."""
    not_continued = ProofNotValid(f"The log of {second} entries does not continue the one of {first} entries.")
    if not 0 <= first <= second:
        raise not_continued
    if first in {0, second}:
        if proof or first_root != (second_root if first else EMPTY_ROOT):
            raise not_continued
        return
    at, last = first - 1, second - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    # Where the earlier tree is one complete subtree of the later one, its root is where the proof begins.
    hashes = [*([] if at else [first_root]), *proof]
    if not hashes:
        raise not_continued
    old = new = hashes[0]
    for one in hashes[1:]:
        if last == 0:
            raise not_continued
        if at & 1 or at == last:
            old, new = hash_children(one, old), hash_children(one, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = hash_children(new, one)
        at, last = at >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise not_continued
