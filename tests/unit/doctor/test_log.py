"""What the doctor says of an audit log that was tampered with."""

import dataclasses
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.sealed_log import SealedLog
from tests.support.subjects import found, texts
from tests.support.world import World, populated

from trien_server.audit.tile_folder import TileFolder
from trien_server.cli.doctor.findings import NotLookedAt, Severity
from trien_server.cli.doctor.log import log as look
from trien_server.cli.doctor.log import log_key
from trien_server.core.audit import make_entry
from trien_server.core.records import LogHead
from trien_server.services.examine_log import NEWEST
from trien_server.services.log_history import LOG_HEAD

pytestmark = pytest.mark.promise("P10")


@pytest.fixture
def world() -> World:
    return populated()


@pytest.fixture
def sealed(world: World) -> SealedLog:
    made = SealedLog(world)
    made.enter_key()
    made.seal()
    return made


def errors(world: World, folder: Path | None = None) -> list[str]:
    use = world.new_process(log_publication=None if folder is None else TileFolder(folder))
    if folder is not None and not (folder / "checkpoint").exists():
        assert use.log_publisher is not None
        use.log_publisher.publish()
    return texts(found(look, SimpleNamespace(instance=SimpleNamespace(use=use))))


def write(world: World, count: int) -> None:
    def work(ledger: Any) -> None:
        for number in range(count):
            ledger.record("test", {"number": number})

    world.use.transactions.run(work, timeout=30.0)


def test_a_log_in_order_has_no_finding_also_when_it_is_longer_than_what_is_looked_at(
    world: World, sealed: SealedLog, tmp_path: Path
) -> None:
    assert errors(world, tmp_path) == []
    write(world, NEWEST + 100)
    assert sealed.seal().size > NEWEST + 100
    assert errors(world, tmp_path) == []


def test_before_the_first_checkpoint_there_is_nothing_to_look_at(world: World) -> None:
    with pytest.raises(NotLookedAt, match="no checkpoint was signed yet"):
        errors(world)


def test_an_entry_with_a_good_seal_that_the_log_did_not_take_in_is_found(world: World, sealed: SealedLog) -> None:
    world.clock.advance(timedelta(seconds=1))
    write(world, 1)
    size = sealed.seal().size
    ((position, row),) = world.store.read(lambda snapshot: snapshot.log(size - 1, limit=1))
    other = make_entry(
        name=row.record.name, time=row.record.time, kind="other", details={}, head_salt=bytes(16), salt=bytes(32)
    )
    swapped = world.use.seals.seal_hot(dataclasses.replace(other, version=row.record.version), at=row.record.time)
    world.store.overwrite(swapped)
    (told,) = errors(world)
    assert f"position {position} of the log, {row.record.name}, is not the one that the token signed" in told


def test_a_database_that_was_set_back_behind_what_is_published_is_found(
    world: World, sealed: SealedLog, tmp_path: Path
) -> None:
    before = world.store.reopened()
    write(world, 3)
    sealed.seal()
    assert errors(world, tmp_path) == []
    world.store = before
    world.use = world.new_process()
    (told,) = errors(world, tmp_path)
    assert "it was set back" in told


def test_an_entry_whose_seal_does_not_verify_is_found_and_hides_no_other(world: World, sealed: SealedLog) -> None:
    world.clock.advance(timedelta(seconds=1))
    write(world, 3)  # behind the entries that records rest on
    size = sealed.seal().size
    for _, row in world.store.read(lambda snapshot: snapshot.log(size - 3, limit=2)):
        world.store.overwrite(dataclasses.replace(row, seal=bytes(32)))
    told = errors(world)
    assert [text.split(" of the log")[0] for text in told] == [
        f"The entry at position {size - 3}",
        f"The entry at position {size - 2}",
    ]


def test_a_log_key_that_the_token_lacks_or_holds_as_another_one_is_found(world: World) -> None:
    subject = SimpleNamespace(instance=SimpleNamespace(use=world.use, hsm=world.hsm))
    with pytest.raises(NotLookedAt, match="no key yet"):
        found(log_key, subject)
    sealed = SealedLog(world)
    sealed.enter_key()
    object_id = bytes([1]) * 16  # what `SealedLog` names
    (told,) = texts(found(log_key, subject))
    assert "it is not on the token" in told
    world.hsm.generate_key_pair(object_id, sealed.key.key.key_type)
    (told,) = texts(found(log_key, subject))
    assert "the token has another one" in told


def test_an_entry_that_waits_for_its_place_for_more_than_a_minute_is_a_warning(world: World, sealed: SealedLog) -> None:
    write(world, 1)
    subject = SimpleNamespace(instance=SimpleNamespace(use=world.use))
    assert found(look, subject) == []
    world.clock.advance(timedelta(seconds=61))
    (told,) = texts(found(look, subject), Severity.WARNING)
    assert "waited for its place in the log" in told


def test_a_log_whose_head_does_not_agree_with_itself_is_one_on_which_no_server_serves(
    world: World, sealed: SealedLog
) -> None:
    row = world.store.read(lambda snapshot: snapshot.get(LogHead, LOG_HEAD))
    changed = dataclasses.replace(row.record, root=bytes(32))
    world.store.overwrite(world.use.seals.seal_hot(changed, at=world.clock.now()))
    (told,) = errors(world)
    assert told == "No server serves on this log: the log's head does not agree with itself."
