"""The log's Merkle tree, against published vectors and against RFC 6962's definition in its own words."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trien_server.core.merkle import (
    EMPTY_ROOT,
    TILE_WIDTH,
    Frontier,
    GetTile,
    HashMissing,
    ProofNotValid,
    Tile,
    consistency_proof,
    frontier_at,
    grow_tiles,
    grown_tiles,
    hash_children,
    hash_leaf,
    hash_tile,
    inclusion_proof,
    read_from_hashes,
    read_from_tiles,
    root_at,
    tiles_of,
    verify_consistency,
    verify_inclusion,
)

pytestmark = pytest.mark.promise("P10")

# The reference tree of the Certificate Transparency project, which RFC 6962's authors wrote: leaves, the roots of its
# first 1 to 8 leaves, audit paths by leaf and size, consistency proofs by two sizes.
LEAVES = [
    bytes.fromhex(one)
    for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): PATHS[1, 5][1:],
}
MOST = 70


def leaf_hashes(count: int) -> list[bytes]:
    return [hash_leaf(b"leaf %d" % index) for index in range(count)]


def defined_root(hashes: list[bytes]) -> bytes:
    """MTH as section 2.1 defines it."""
    if len(hashes) <= 1:
        return hashes[0] if hashes else hashlib.sha256(b"").digest()
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return hash_children(defined_root(hashes[:split]), defined_root(hashes[split:]))


def reader(tiles: dict[tuple[int, int], bytes]) -> GetTile:
    return lambda level, index: tiles.get((level, index), b"")


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def test_the_reference_tree_has_its_published_roots() -> None:
    hashes = [hash_leaf(leaf) for leaf in LEAVES]
    assert EMPTY_ROOT.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for size, root in enumerate(ROOTS, start=1):
        assert root_at(read_from_hashes(hashes), size).hex() == root
        assert Frontier().extend(hashes[:size]).root().hex() == root


def test_the_reference_tree_has_its_published_proofs() -> None:
    read = read_from_hashes([hash_leaf(leaf) for leaf in LEAVES])
    for (index, size), path in PATHS.items():
        proof = inclusion_proof(read, index, size)
        assert [one.hex() for one in proof] == path
        verify_inclusion(hash_leaf(LEAVES[index]), index, size, proof, bytes.fromhex(ROOTS[size - 1]))
    for (first, second), path in CONSISTENCY.items():
        proof = consistency_proof(read, first, second)
        assert [one.hex() for one in proof] == path
        verify_consistency(first, second, bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[second - 1]), proof)


def test_every_leaf_of_every_tree_is_proven_and_nothing_else() -> None:
    hashes = leaf_hashes(MOST)
    read = read_from_hashes(hashes)
    proven = refused = 0
    for size in range(1, MOST + 1):
        root = root_at(read, size)
        assert root == defined_root(hashes[:size]) == Frontier().extend(hashes[:size]).root()
        for index in range(size):
            proof = inclusion_proof(read, index, size)
            verify_inclusion(hashes[index], index, size, proof, root)
            proven += 1
            wrong = [
                (hashes[index], index ^ 1, size, proof),
                (flipped(hashes[index], size % 32), index, size, proof),
                (hashes[index], index, size, (*proof, root)),
            ]
            wrong += [
                (hashes[index], index, size, (*proof[:at], flipped(one, index % 32), *proof[at + 1 :]))
                for at, one in enumerate(proof)
            ]
            wrong += [(hashes[index], index, size, proof[:-1])] if proof else []
            for claim in wrong:
                with pytest.raises(ProofNotValid):
                    verify_inclusion(*claim, root)
                refused += 1
    assert proven == MOST * (MOST + 1) // 2
    assert refused > 8 * proven


def test_every_later_tree_continues_every_earlier_one_and_no_other() -> None:
    hashes = leaf_hashes(MOST)
    read = read_from_hashes(hashes)
    roots = [root_at(read, size) for size in range(MOST + 1)]
    other = [root_at(read_from_hashes([hash_leaf(b"another"), *hashes[1:]]), size) for size in range(MOST + 1)]
    proven = 0
    for second in range(MOST + 1):
        for first in range(second + 1):
            proof = consistency_proof(read, first, second)
            verify_consistency(first, second, roots[first], roots[second], proof)
            proven += 1
            wrong = [(*proof[:at], flipped(one, second % 32), *proof[at + 1 :]) for at, one in enumerate(proof)]
            wrong += [(*proof, roots[first])] + ([proof[:-1]] if proof else [])
            for claim in wrong:
                with pytest.raises(ProofNotValid):
                    verify_consistency(first, second, roots[first], roots[second], claim)
            if first:
                with pytest.raises(ProofNotValid):
                    verify_consistency(first, second, other[first], roots[second], proof)
                with pytest.raises(ProofNotValid):
                    verify_consistency(first, second, roots[first], other[second], proof)
    assert proven == (MOST + 1) * (MOST + 2) // 2


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.integers(0, 600), max_size=8), data=st.data())
def test_tiles_grow_as_the_log_does_and_give_every_hash(parts: list[int], data: st.DataObject) -> None:
    hashes = leaf_hashes(sum(parts))
    tiles: dict[tuple[int, int], bytes] = {}
    frontier = Frontier()
    for part in parts:
        new = hashes[frontier.size : frontier.size + part]
        grown = grow_tiles(reader(tiles), frontier.size, new)
        assert sorted(grown) == sorted(grown_tiles(frontier.size, frontier.size + part))
        tiles.update({(tile.level, tile.index): content for tile, content in grown.items()})
        frontier = frontier.extend(new)
        assert all(len(grown[tile]) == tile.width * 32 for tile in grown)
    size = frontier.size
    assert {(tile.level, tile.index): tile.width * 32 for tile in tiles_of(size)} == {
        place: len(content) for place, content in tiles.items()
    }
    read = read_from_tiles(reader(tiles))
    assert root_at(read, size) == frontier.root() == hash_tile(b"".join(hashes))
    assert frontier_at(read, size) == frontier
    if size:
        index = data.draw(st.integers(0, size - 1))
        at = data.draw(st.integers(index + 1, size))
        root = root_at(read, at)
        verify_inclusion(hashes[index], index, at, inclusion_proof(read, index, at), root)
        verify_consistency(at, size, root, frontier.root(), consistency_proof(read, at, size))


def test_a_tree_has_the_tiles_that_the_specification_counts() -> None:
    """C2SP tlog-tiles, section "Partial tiles", has this example."""
    tiles = list(tiles_of(70_000))
    assert [len([tile for tile in tiles if tile.level == level and tile.full]) for level in range(3)] == [273, 1, 0]
    assert [tile for tile in tiles if not tile.full] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


def test_tiles_have_the_paths_of_the_specification() -> None:
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"
    assert Tile(1, 5, 17).path == "tile/1/005.p/17"
    assert Tile(0, 1000).entries_path == "tile/entries/x001/000"


def test_a_tile_without_the_hash_is_noticed() -> None:
    hashes = leaf_hashes(300)
    grown = grow_tiles(lambda level, index: b"", 0, hashes)
    tiles = {(tile.level, tile.index): content for tile, content in grown.items()}
    tiles[0, 1] = tiles[0, 1][:-32]
    read = read_from_tiles(reader(tiles))
    root_at(read, 299)
    with pytest.raises(HashMissing, match="tile 0/1 does not have hashes 40 to 43"):
        root_at(read, 300)
    with pytest.raises(HashMissing, match="tile 0/1 has fewer than 44 hashes"):
        grow_tiles(reader(tiles), 300, hashes[:1])


def test_a_frontier_of_the_wrong_number_of_hashes_is_refused() -> None:
    with pytest.raises(ValueError, match="a tree of 3 leaves does not have 1 complete subtrees"):
        Frontier(3, (bytes(32),))
    with pytest.raises(ValueError, match="a hash has 32 bytes"):
        Frontier(1, (bytes(31),))


def test_a_proof_is_asked_for_within_the_tree() -> None:
    read = read_from_hashes(leaf_hashes(4))
    with pytest.raises(ValueError, match="no leaf 4"):
        inclusion_proof(read, 4, 4)
    with pytest.raises(ValueError, match="cannot continue one of 5"):
        consistency_proof(read, 5, 4)
    with pytest.raises(ProofNotValid):
        verify_consistency(5, 4, bytes(32), bytes(32), ())
    with pytest.raises(ProofNotValid):
        verify_inclusion(bytes(32), 0, 0, (), EMPTY_ROOT)


def test_a_full_tile_is_one_hash_of_the_tile_above() -> None:
    hashes = leaf_hashes(TILE_WIDTH)
    random.Random(6962).shuffle(hashes)
    assert hash_tile(b"".join(hashes)) == defined_root(hashes)
