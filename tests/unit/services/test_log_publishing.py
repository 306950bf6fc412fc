"""The log as files: what is published verifies, step by step and after faults (P10, P12)."""

import dataclasses
import errno
import fcntl
import hashlib
import itertools
import os
import shutil
import stat
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import independent_log
from tests.support.independent_log import from_folder
from tests.support.log_keys import LogKeyPair
from tests.support.sealed_log import SealedLog
from tests.support.world import CHAIR, OFFICE, P256, Event, World, digests, populated

from trien_server.audit.tile_folder import TileFolder
from trien_server.core.algorithms import KeyType
from trien_server.core.errors import LogNotTrusted
from trien_server.core.records import AuditEntry, LogHead, LogTile
from trien_server.services.log_history import tile_name
from trien_server.services.log_publishing import LogPublisher

pytestmark = pytest.mark.promise("P10")


@pytest.fixture
def world() -> World:
    return populated()


@pytest.fixture
def log(world: World) -> SealedLog:
    sealed = SealedLog(world)
    sealed.enter_key()
    return sealed


def publisher(world: World, folder: Path) -> LogPublisher:
    return LogPublisher(
        publication=TileFolder(folder),
        transactions=world.use.transactions,
        clock=world.clock,
        report=lambda name, fields: world.events.append(Event(name, dict(fields))),
    )


@pytest.mark.promise("P8")
@pytest.mark.parametrize("what", ["checkpoint", "tile/0/000.p/1"])
@pytest.mark.parametrize("trap", ["pipe", "link"])
def test_what_is_no_file_in_the_folder_holds_nobody_up_and_is_not_followed(
    world: World, log: SealedLog, tmp_path: Path, what: str, trap: str
) -> None:
    """Whoever may write into the folder must not stop a server, nor have it read or write elsewhere."""
    log.seal()
    width = published_width(world)
    folder, elsewhere = tmp_path / "tiles", tmp_path / "elsewhere"
    target = folder / what.replace("/1", f"/{width}")
    target.parent.mkdir(parents=True)
    elsewhere.write_text("a note")
    if trap == "pipe":
        os.mkfifo(target)
    else:
        target.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"no file|symbolic links"):
        publisher(world, folder).publish()
    assert elsewhere.read_text() == "a note"


@pytest.mark.parametrize("link", ["tile", "tile/0"])
def test_no_tile_is_written_through_a_link_to_another_folder(
    world: World, log: SealedLog, tmp_path: Path, link: str
) -> None:
    log.seal()
    folder, elsewhere = tmp_path / "tiles", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / link).parent.mkdir(parents=True)
    (folder / link).symlink_to(elsewhere)
    with pytest.raises(OSError, match="a link to elsewhere"):
        publisher(world, folder).publish()
    assert list(elsewhere.iterdir()) == []


def test_no_partial_tile_is_removed_through_a_link_to_another_folder(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    log.seal()
    folder, elsewhere = tmp_path / "tiles", tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder.mkdir()
    (elsewhere / "16384").write_text("somebody's table")
    publisher(world, folder).publish()
    shutil.rmtree(folder / "tile/0/000.p")
    (folder / "tile/0/000.p").symlink_to(elsewhere)
    write_entries(world, 300)
    log.seal()
    publisher(world, folder).publish()
    assert (elsewhere / "16384").read_text() == "somebody's table"


def published_width(world: World) -> int:
    """Returns how many entries the first tile has that is published next."""
    return min(world.store.rows(LogHead)[0].record.size, 255)


def write_entries(world: World, count: int) -> None:
    """Writes entries about nothing, many at once."""

    def work(ledger: Any) -> None:
        for number in range(count):
            ledger.record("test", {"number": number})

    world.use.transactions.run(work, timeout=30.0)


def published(folder: Path, log: SealedLog) -> independent_log.Found:
    found = independent_log.verify(from_folder(folder), first_key=log.pairs[0].key.vkey)
    assert found is not None
    return found


def test_what_is_published_verifies_from_the_specifications_alone(
    world: World, log: SealedLog, tmp_path: Path, record_property: Any
) -> None:
    one = publisher(world, tmp_path)
    tiles = rounds = 0
    sizes = set()
    for most in (1, 1, 2, 30, 200, 30, 256, 1, 255, 700):
        write_entries(world, most)
        made = log.seal(most=most)
        assert one.publish()
        found = published(tmp_path, log)
        assert (found.size, found.root) == (made.size, made.root)
        tiles, rounds = tiles + found.tiles, rounds + 1
        sizes.add(found.size)
        assert not one.publish(), "the same checkpoint is published twice"
    log.seal()
    assert one.publish()
    assert published(tmp_path, log).size > max(sizes) >= 1476
    record_property("count", f"checkpoints published and verified by the RFC {rounds}, tiles {tiles}")


def test_every_file_is_one_of_the_specification_and_may_be_read_by_a_web_server(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    folder = tmp_path / "log"
    folder.mkdir(mode=0o755)
    before = os.umask(0o077)
    try:
        for most in (200, 200, 200):
            write_entries(world, most)
            log.seal(most=most)
            publisher(world, folder).publish()
    finally:
        os.umask(before)
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    assert set(files) == {
        ".lock",
        "checkpoint",
        "log-keys",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/1",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    }
    for path in folder.rglob("*"):
        wanted = 0o755 if path.is_dir() else 0o644
        assert path.name == ".lock" or stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_node_that_lagged_catches_up_and_one_that_is_behind_publishes_nothing_older(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    write_entries(world, 300)
    old = log.seal(most=100)
    ahead, behind = publisher(world, tmp_path), TileFolder(tmp_path)
    log.seal()
    ahead.publish()
    newest = (tmp_path / "checkpoint").read_bytes()
    asked: list[str | None] = []

    def late(present: str | None) -> None:
        asked.append(present)

    assert not behind.publish(late)
    assert asked == [newest.decode()]
    assert old.note.encode() != newest
    write_entries(world, 600)
    log.seal()
    assert publisher(world, tmp_path).publish()
    assert published(tmp_path, log).size > 900


def test_a_database_that_was_set_back_publishes_nothing_and_says_so(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    write_entries(world, 10)
    log.seal()
    publisher(world, tmp_path).publish()
    before = _content(tmp_path)
    earlier = SealedLog(populated(), pairs=log.pairs)
    earlier.enter_key()
    earlier.seal(most=5)
    with pytest.raises(LogNotTrusted) as refused:
        publisher(earlier.world, tmp_path).publish()
    assert "set back" in refused.value.finding
    empty = populated()
    with pytest.raises(LogNotTrusted):
        publisher(empty, tmp_path).publish()
    assert _content(tmp_path) == before
    assert [event.name for event in earlier.world.events][-1] == "log_not_trusted"


def test_a_second_history_is_not_published(world: World, log: SealedLog, tmp_path: Path) -> None:
    write_entries(world, 10)
    log.seal()
    publisher(world, tmp_path).publish()
    before = _content(tmp_path)
    other = SealedLog(populated(), pairs=log.pairs)
    other.enter_key()
    write_entries(other.world, 20)
    assert other.seal().size > log.sign().size
    with pytest.raises(LogNotTrusted):
        publisher(other.world, tmp_path).publish()
    assert _content(tmp_path) == before


@pytest.mark.parametrize("case", ["other key", "other origin", "no note"])
def test_what_is_not_this_logs_is_left_alone_and_reported(
    world: World, log: SealedLog, tmp_path: Path, case: str
) -> None:
    size = log.seal()
    note = {
        "other key": LogKeyPair.generate().checkpoint(size.size, size.root),
        "other origin": LogKeyPair(f"{log.key.origin}/2", log.key.private).checkpoint(size.size, size.root),
        "no note": "It works!\n",
    }[case]
    (tmp_path / "checkpoint").write_text(note, encoding="utf-8")
    with pytest.raises(LogNotTrusted):
        publisher(world, tmp_path).publish()
    assert _content(tmp_path) == {"checkpoint": note.encode(), ".lock": b""}


def test_a_rotated_key_is_followed_from_the_first(world: World, log: SealedLog, tmp_path: Path) -> None:
    log.seal()
    publisher(world, tmp_path).publish()
    log.rotate(LogKeyPair.generate(KeyType.EC_P256))
    log.seal()
    publisher(world, tmp_path).publish()
    log.rotate(LogKeyPair.generate())
    log.seal()
    publisher(world, tmp_path).publish()
    assert len((tmp_path / "log-keys").read_text(encoding="utf-8").split("trien log succession")) == 3
    assert published(tmp_path, log).size > 0


@pytest.mark.promise("P12")
def test_what_is_published_tells_nothing(world: World, log: SealedLog, tmp_path: Path, record_property: Any) -> None:
    """Every text and digest of every entry is searched for in every byte that is published."""
    wanted = digests(20)
    world.sign(list(wanted))
    authorization = world.authorize(digests(2, of="canary"), title="Quyết định canary")
    world.approve(authorization, password=(world.next_step(), world.code())[1])
    log.seal()
    publisher(world, tmp_path).publish()
    everything = b"\n".join(_content(tmp_path).values())
    secrets: set[bytes] = {*wanted, *digests(2, of="canary"), hashlib.sha256(b"document 0").digest()}
    for row in world.store.rows(AuditEntry):
        entry = row.record
        secrets |= {entry.kind.encode(), entry.details.encode(), entry.salt, entry.head_salt}
        secrets |= {
            str(entry.time.timestamp()).encode(),
            entry.time.isoformat().encode(),
            (entry.subject or CHAIR).encode(),
        }
        secrets |= {part.encode() for part in entry.details.split('"') if len(part) > 3}
    secrets |= {name.encode() for name in (CHAIR, OFFICE.name, P256, "Hoàng Trịnh Đôn", "signing_granted")}
    secrets |= {digest.hex().encode() for digest in wanted}
    # An entry's name is random and is public; it is the only thing of it that is in its leaf.
    names = {row.record.name.encode() for row in world.store.rows(AuditEntry)}
    searched = [secret for secret in secrets - names if len(secret) > 3]
    assert [secret for secret in searched if secret in everything] == []
    assert all(name in everything for name in names)
    record_property("count", f"texts, salts and digests searched for in what is published {len(searched)}")
    assert len(searched) > 200


@pytest.mark.parametrize("level", [0, 1])
def test_a_tile_or_leaf_that_does_not_lead_to_the_signed_root_is_not_published(
    world: World, log: SealedLog, tmp_path: Path, level: int
) -> None:
    write_entries(world, 600)
    log.seal()
    seals, at = world.use.seals, world.clock.now()
    row = world.store.read(lambda snapshot: snapshot.get(LogTile, tile_name(level, 0)))
    changed = dataclasses.replace(row.record, hashes=bytes(32) + row.record.hashes[32:])
    world.store.overwrite(seals.seal_hot(changed, at=at))
    with pytest.raises(LogNotTrusted):
        publisher(world, tmp_path).publish()
    assert not (tmp_path / "checkpoint").exists()
    world.store.overwrite(row)
    _, leaf = world.store.read(lambda snapshot: snapshot.log(3, limit=1))[0]
    world.store.overwrite(
        seals.seal_hot(dataclasses.replace(leaf.record, leaf=leaf.record.leaf[:-1] + b"!"), at=leaf.record.time)
    )
    with pytest.raises(LogNotTrusted) as refused:
        publisher(world, tmp_path).publish()
    assert "position 3" in refused.value.finding
    assert not (tmp_path / "checkpoint").exists()
    world.store.overwrite(leaf)
    assert publisher(world, tmp_path).publish()
    published(tmp_path, log)


def test_a_fault_at_any_step_leaves_a_published_log_that_verifies_and_goes_on(
    world: World, log: SealedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    """Each call that changes the folder fails once, as a full or broken disk makes it, before or after its effect."""
    write_entries(world, 250)
    before = log.seal(most=250)
    publisher(world, tmp_path).publish()
    write_entries(world, 20)
    after = log.seal()
    update = publisher(world, tmp_path)._update(before.note)
    assert update is not None
    update = dataclasses.replace(update, files=list(update.files))
    assert update.outdated
    start = _content(tmp_path)
    faults: Counter[str] = Counter()
    for number in itertools.count(1):
        for persisted in (False, True):
            _put_back(tmp_path, start)
            breaker = _Breaker(number, persisted=persisted)
            with monkeypatch.context() as patch:
                breaker.install(patch)
                failed = False
                try:
                    TileFolder(tmp_path).publish(lambda _: update)
                except OSError:
                    failed = True
            faults[breaker.broke] += 1
            # A folder that could not be removed harms nobody, nor does a file that was not there to be removed.
            assert failed or breaker.broke in {"", "rmdir", "unlink"}, breaker.broke
            assert published(tmp_path, log).size in (before.size, after.size)
            TileFolder(tmp_path).publish(lambda _: update)
            assert published(tmp_path, log).size == after.size
        if not breaker.broke:
            break
    record_property("count", f"steps of publishing that failed, before or after their effect: {dict(faults)}")
    assert faults.total() > 60


class _Breaker:
    """Lets the n-th call that changes something fail, with its effect or without."""

    def __init__(self, number: int, *, persisted: bool) -> None:
        self.left = number
        self.broke = ""
        self.persisted = persisted

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("fsync", "fchmod", "mkdir", "chmod", "rename", "replace", "unlink", "rmdir"):
            patch.setattr(os, name, self._breaking(getattr(os, name)))

    def _breaking(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def broken(*arguments: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.broke = call.__name__
                if self.persisted:
                    call(*arguments, **named)
                raise OSError(errno.ENOSPC, "no space left on device")
            return call(*arguments, **named)

        return broken


def test_a_folder_that_cannot_be_used_is_reported_and_used_again_when_it_can(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    log.seal()
    folder = tmp_path / "log"
    one = publisher(world, folder)
    with pytest.raises(FileNotFoundError):
        one.publish()
    assert not folder.exists(), "a folder that is not mounted must not be made beside the mount"
    folder.write_text("a file")
    with pytest.raises(NotADirectoryError):
        one.publish()
    folder.unlink()
    folder.mkdir()
    (folder / "tile").write_text("somebody's file")
    with pytest.raises(OSError, match=r"exists|directory"):
        one.publish()
    assert not (folder / "checkpoint").exists()
    (folder / "tile").unlink()
    (folder / "index.html").write_text("ours")
    assert one.publish()
    published(folder, log)
    assert (folder / "index.html").read_text() == "ours"


def test_the_thread_reports_once_goes_on_and_reports_that_it_publishes_again(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    log.seal()
    folder = tmp_path / "log"
    one = publisher(world, folder)
    one.start()
    try:
        _until(lambda: bool(world.events))
        time.sleep(1.2)
        assert [event.name for event in world.events] == ["log_not_published"]
        assert "FileNotFoundError" in world.events[0].fields["because"]
        folder.mkdir()
        _until(lambda: len(world.events) == 2)
        assert world.events[1].name == "log_published_again"
        assert published(folder, log).size > 0
    finally:
        one.stop()


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_one_process_publishes_at_a_time_and_one_that_hangs_is_reported(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    log.seal()
    descriptor = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        one = publisher(world, tmp_path)
        with pytest.raises(BlockingIOError):
            one.publish()
        one.start()
        try:
            world.clock.advance(timedelta(minutes=2))
            _until(lambda: bool(world.events))
        finally:
            one.stop()
        assert "a minute" in world.events[0].fields["because"]
        assert not (tmp_path / "checkpoint").exists()
    finally:
        os.close(descriptor)
    assert publisher(world, tmp_path).publish()


def test_who_lost_the_lock_while_stopped_does_not_put_an_older_checkpoint_back(
    world: World, log: SealedLog, tmp_path: Path
) -> None:
    write_entries(world, 5)
    log.seal(most=5)
    slow = TileFolder(tmp_path)
    slow_publisher = publisher(world, tmp_path)

    def stopped_meanwhile(present: str | None) -> Any:
        update = slow_publisher._update(present)
        (tmp_path / ".lock").unlink()  # as a file server forgets a lock
        log.seal()
        assert publisher(world, tmp_path).publish()
        return update

    with pytest.raises(BlockingIOError):
        slow.publish(stopped_meanwhile)
    assert published(tmp_path, log).size > 5


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _put_back(folder: Path, content: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    for name, found in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found)
        path.chmod(0o644)
