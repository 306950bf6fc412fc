"""A whole log from its published files: what was changed in it is found, and where."""

import base64
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.log_keys import LogKeyPair
from tests.support.published_logs import (
    PublishedLog,
    bundle,
    document_digests,
    exported,
    make_entries,
    write,
)

from trien_client.log import LogNotValid, ProofNotValid, follow_keys, verify_log
from trien_server.core.audit_lines import json_line
from trien_server.core.merkle import Tile, tiles_of
from trien_server.core.receipts import items_root

pytestmark = pytest.mark.promise("P10")

SIZE = 700
ENTRIES = make_entries(SIZE)
LEAVES = [entry.leaf for entry in ENTRIES]
LOG = PublishedLog(LEAVES)
KEYS = follow_keys(LOG.pair.key.vkey)
FIRST, SECOND, LAST = Tile(0, 0), Tile(0, 1), Tile(0, 2, SIZE - 512)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return LOG.publish(tmp_path_factory.mktemp("log"))


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "log"))


def test_a_log_as_it_was_signed_is_good(published: Path) -> None:
    seen: list[int] = []
    erased = dataclasses.replace(ENTRIES[6], details="", salt=b"")
    lines = [exported(position, entry) for position, entry in enumerate(ENTRIES) if position != 6]
    kept = [LOG.checkpoint(size) for size in (600, 1, 256, 700)]
    verified = verify_log(
        published, KEYS, since=kept, entries=[*lines, "\n", exported(6, erased)], progress=seen.append
    )
    assert verified.checkpoint.root == LOG.root()
    assert [one.size for one in verified.continued] == [1, 256, 600, 700]
    assert (verified.opened, verified.erased) == (SIZE, 1)
    assert seen == [256, 256, 188]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512])
def test_a_log_of_any_size_is_good(size: int, tmp_path: Path) -> None:
    log = PublishedLog(LEAVES[:size], LOG.pair)
    verified = verify_log(log.publish(tmp_path), KEYS, since=[log.checkpoint(size // 2)])
    assert (verified.checkpoint.size, verified.checkpoint.root) == (size, log.root())


def test_the_servers_export_is_what_is_verified(published: Path) -> None:
    lines = [json_line(position, entry).decode() for position, entry in enumerate(ENTRIES[:5])]
    assert [json.loads(line) for line in lines] == [
        json.loads(exported(position, entry)) for position, entry in enumerate(ENTRIES[:5])
    ]
    assert verify_log(published, KEYS, entries=lines).opened == 5


def test_a_folder_that_has_grown_beyond_its_checkpoint_is_good(folder: Path) -> None:
    """Tiles are published first and the checkpoint last; a full tile may have taken the place of a partial one."""
    longer = make_entries(768)
    PublishedLog([entry.leaf for entry in longer], LOG.pair).publish(folder)
    write(folder / "checkpoint", LOG.checkpoint().encode())
    for tile in (LAST, Tile(1, 0, 2)):
        shutil.rmtree((folder / tile.path).parent, ignore_errors=tile is LAST)
    shutil.rmtree(folder / "tile/entries/002.p")
    write(folder / Tile(1, 0, 2).path, LOG.tiles[1, 0])
    assert verify_log(folder, KEYS).checkpoint.size == SIZE


EDITED = [*LEAVES[:300], b"edited", *LEAVES[301:]]
REORDERED = [*LEAVES[:400], LEAVES[401], LEAVES[400], *LEAVES[402:]]
REMOVED = [*LEAVES[:299], *LEAVES[300:]]


def bundles(leaves: list[bytes]) -> Callable[[Path], None]:
    """Rewrites the bundles of entries and leaves the tiles as they were."""

    def change(folder: Path) -> None:
        for tile in (FIRST, SECOND, LAST):
            write(folder / tile.entries_path, bundle(leaves[tile.index * 256 : tile.index * 256 + tile.width]))

    return change


def lowest_tiles(leaves: list[bytes]) -> Callable[[Path], None]:
    """Rewrites the bundles and the tiles of the leaves' hashes, and leaves the tiles above as they were."""

    def change(folder: Path) -> None:
        other = PublishedLog(leaves)
        bundles(leaves)(folder)
        for tile in tiles_of(len(leaves)):
            if tile.level == 0:
                write(folder / tile.path, other.tiles[0, tile.index])

    return change


def all_tiles(leaves: list[bytes]) -> Callable[[Path], None]:
    """Rewrites everything but the signed checkpoint."""

    def change(folder: Path) -> None:
        note = (folder / "checkpoint").read_bytes()
        PublishedLog(leaves).publish(folder)
        write(folder / "checkpoint", note)

    return change


def signed_again(leaves: list[bytes]) -> Callable[[Path], None]:
    """Rewrites everything, and has the log's own key sign another history."""
    return lambda folder: (shutil.rmtree(folder), PublishedLog(leaves, LOG.pair).publish(folder))[0]


@pytest.mark.parametrize(
    ("leaves", "exact"), [(EDITED, 300), (REORDERED, 400), (REMOVED, 299)], ids=["edited", "reordered", "removed"]
)
def test_the_first_wrong_entry_is_named(leaves: list[bytes], exact: int, folder: Path) -> None:
    lines = [exported(position, entry) for position, entry in enumerate(ENTRIES)]
    kept = [LOG.checkpoint(size) for size in (100, 290, 450, 600)]
    padded = [*leaves, LEAVES[-1]][:SIZE]
    bundles(padded)(folder)
    with pytest.raises(LogNotValid, match=f"Entry {exact} is not what its tile says") as found:
        verify_log(folder, KEYS)
    assert (found.value.first, found.value.last) == (exact, exact)

    lowest_tiles(padded)(folder)
    with pytest.raises(LogNotValid, match="entries 256 to 511 are not those of tile 1/0") as found:
        verify_log(folder, KEYS, since=kept)
    assert (found.value.first, found.value.last) == (256, 511)

    for change in (all_tiles(padded), signed_again(padded), signed_again(leaves)):
        change(folder)
        # Of what was signed before, checkpoints tell a span, and exported entries the entry itself.
        with pytest.raises(LogNotValid, match="an earlier signed checkpoint: the first wrong one is from 290") as found:
            verify_log(folder, KEYS, since=kept)
        assert (found.value.first, found.value.last) == (290, 449)
        with pytest.raises(LogNotValid, match=rf"Entry {exact} \(auditEntries/.*\) is another one in the log") as found:
            verify_log(folder, KEYS, since=kept, entries=lines)
        assert (found.value.first, found.value.last) == (exact, exact)


def test_a_rewritten_log_does_not_come_to_the_signed_root(folder: Path) -> None:
    all_tiles(EDITED)(folder)
    with pytest.raises(LogNotValid, match="not those of the signed checkpoint") as found:
        verify_log(folder, KEYS)
    assert (found.value.first, found.value.last) == (0, SIZE - 1)


def test_a_log_that_was_cut_off_is_shorter_than_an_earlier_checkpoint(folder: Path) -> None:
    signed_again(LEAVES[:600])(folder)
    assert verify_log(folder, KEYS).checkpoint.size == 600
    with pytest.raises(LogNotValid, match="has 600 entries, and had 700") as found:
        verify_log(folder, KEYS, since=[LOG.checkpoint()])
    assert found.value.first == 600
    with pytest.raises(LogNotValid, match=r"Entry 650 .* is not in the log, which has 600 entries") as found:
        verify_log(folder, KEYS, entries=[exported(650, ENTRIES[650])])
    assert found.value.first == 600


@pytest.mark.parametrize("tile", list(tiles_of(SIZE)), ids=lambda tile: tile.path)
@pytest.mark.parametrize("at", [0, -1])
def test_a_changed_hash_of_any_tile_is_found(tile: Tile, at: int, folder: Path) -> None:
    content = bytearray((folder / tile.path).read_bytes())
    content[at] ^= 1
    (folder / tile.path).write_bytes(content)
    with pytest.raises(LogNotValid) as found:
        verify_log(folder, KEYS)
    place = tile.index * 256 + (0 if at == 0 else tile.width - 1)
    assert found.value.first == place * 256**tile.level
    assert found.value.last == (place + 1) * 256**tile.level - 1


def test_a_file_that_ends_early_or_is_missing_is_found(folder: Path) -> None:
    path = folder / SECOND.entries_path
    whole = path.read_bytes()
    for cut in (whole[:-1], bundle(LEAVES[256:511]), bundle(LEAVES[256:511]) + b"\0"):
        path.write_bytes(cut)
        with pytest.raises(LogNotValid, match="Entry 511 is missing") as found:
            verify_log(folder, KEYS)
        assert found.value.first == 511
    path.unlink()
    with pytest.raises(FileNotFoundError):
        verify_log(folder, KEYS)


def test_the_checkpoints_have_to_be_signed_by_the_logs_key(folder: Path) -> None:
    stranger = LogKeyPair.generate()
    with pytest.raises(ProofNotValid, match="None of the log's keys"):
        verify_log(folder, follow_keys(stranger.key.vkey))
    with pytest.raises(ProofNotValid, match="None of the log's keys"):
        verify_log(folder, KEYS, since=[stranger.checkpoint(1, bytes(32))])
    (folder / "checkpoint").write_bytes(b"\xff")
    with pytest.raises(ProofNotValid, match="is not a text"):
        verify_log(folder, KEYS)


@pytest.mark.parametrize(
    ("position", "changes", "why"),
    [
        (3, {"time": "2026-11-25T08:00:03.000004Z"}, "time, kind or subject"),
        (3, {"kind": "refused"}, "time, kind or subject"),
        (4, {"subject": "credentials/other"}, "time, kind or subject"),
        (4, {"subject_version": 5}, "time, kind or subject"),
        (4, {"subject": None}, "time, kind or subject"),
        (3, {"name": ENTRIES[4].name}, "name is not the one"),
        (3, {"details": ENTRIES[3].details.replace("office", "other")}, "details are not what"),
        (3, {"details": ""}, "details are not what"),
        (3, {"salt": ""}, "details are not what"),
        (3, {"items_root": ""}, "root over its digests is not the one"),
        (3, {"leaf": "AAAA"}, "is another one in the log"),
        (3, {"position": 4}, "is another one in the log"),
        (3, {"leaf": base64.b64encode(ENTRIES[4].leaf).decode()}, "is another one in the log"),
    ],
)
def test_an_exported_entry_that_is_told_otherwise_is_named(
    position: int, changes: dict[str, object], why: str, published: Path
) -> None:
    lines = [exported(0, ENTRIES[0]), exported(position, ENTRIES[position], **changes)]
    with pytest.raises(LogNotValid, match=why) as found:
        verify_log(published, KEYS, entries=lines)
    assert found.value.first == changes.get("position", position)


def test_the_digests_of_an_entry_are_those_under_its_root(tmp_path: Path) -> None:
    """A server that tells of other digests than it committed to is found out when the entries are opened."""
    from trien_server.core.audit import leaf_of

    lying = dataclasses.replace(ENTRIES[3], items_root=items_root(ENTRIES[3].salt, document_digests(4, 2)))
    lying = dataclasses.replace(lying, leaf=leaf_of(lying))
    folder = PublishedLog([lying.leaf], LOG.pair).publish(tmp_path)
    with pytest.raises(LogNotValid, match="digests are not those"):
        verify_log(folder, KEYS, entries=[exported(0, lying)])


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "[]",
        "{}",
        "null",
        exported(0, ENTRIES[0], position="0"),
        exported(0, ENTRIES[0], position=True),
        exported(0, ENTRIES[0], position=-1),
        exported(0, ENTRIES[0], time="2026-11-25T08:00:03"),
        exported(0, ENTRIES[0], kind="\ud800"),
        exported(0, ENTRIES[0], salt="A"),
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_entry_is_named(line: str, published: Path) -> None:
    with pytest.raises(ProofNotValid, match="Line 2 of the entries") as found:
        verify_log(published, KEYS, entries=[exported(0, ENTRIES[0]), line])
    assert not isinstance(found.value, LogNotValid)
