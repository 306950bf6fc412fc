"""fsck walks the whole log: what was changed, removed, reordered or signed anew is found, and the first place named."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.support.log_keys import LogKeyPair
from tests.support.sealed_log import SealedLog
from tests.support.world import World, populated

from trien_server.core.audit import make_entry
from trien_server.core.merkle import Frontier, grow_tiles, hash_leaf
from trien_server.core.records import AuditEntry, InstallationKey, LogCheckpoint, LogHead, LogTile
from trien_server.services.findings import Fault, Finding
from trien_server.services.log_history import tile_name
from trien_server.services.log_integrity import MOST_TOLD, CheckLog, Witness
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger
from trien_server.store.mapping import LOG_POSITIONS, UNSEALED_ENTRIES

pytestmark = pytest.mark.promise("P10")
ENTRIES = 700


@dataclasses.dataclass
class Case:
    """A log of some hundred entries, and what somebody who writes to the database does with it."""

    world: World
    log: SealedLog

    def found(self, *witnesses: str) -> list[Finding]:
        seen: Sequence[Witness] = [Witness(where="the published checkpoint", note=note) for note in witnesses]
        seals = Seals(hsm=self.world.hsm, report=lambda *_: None)
        return list(CheckLog(store=self.world.store, seals=seals, witnesses=lambda: seen)())

    def write(self, table: str, rows: dict[Any, Any]) -> None:
        self.world.store._tables = {**self.world.store._tables, table: rows}

    def rows(self, table: str) -> dict[Any, Any]:
        return dict(self.world.store._tables[table])

    @property
    def head(self) -> LogHead:
        head: LogHead = self.world.store.rows(LogHead)[0].record
        return head

    def at(self, position: int) -> str:
        ((_, row),) = self.world.store.read(lambda snapshot: snapshot.log(position, limit=1))
        return str(row.record.name)

    def seal(self, record: Any) -> None:
        """Puts a row in with the day's key, which a worker's memory holds."""
        at = self.world.clock.now()
        self.world.use.seals.prepare(at)
        self.world.store.overwrite(self.world.use.seals.seal_hot(record, at=at))

    def forge(self, position: int) -> str:
        """Puts another entry in the place of one, with its leaf and a good seal."""
        name = self.at(position)
        was = self.world.store.read(lambda snapshot: snapshot.get(AuditEntry, name)).record
        other = make_entry(
            name=was.name,
            time=was.time,
            kind=was.kind,
            details={"forged": True},
            head_salt=was.head_salt,
            salt=was.salt,
            subject=was.subject,
            subject_version=was.subject_version,
        )
        self.seal(other)
        return name


def grow(world: World, count: int) -> None:
    def work(ledger: Ledger) -> None:
        for number in range(count):
            ledger.record("test", {"number": number})

    world.use.transactions.run(work, timeout=30.0)


@pytest.fixture
def case() -> Case:
    world = populated()
    log = SealedLog(world)
    log.enter_key()
    log.seal()
    size = world.store.rows(LogHead)[0].record.size
    grow(world, 300)
    log.seal()
    grow(world, ENTRIES - 300 - size)
    log.seal()
    made = Case(world, log)
    assert made.head.size == ENTRIES
    assert made.found() == []
    return made


def test_a_whole_log_has_no_finding_at_any_size(record_property: Callable[[str, object], None]) -> None:
    sizes = 0
    for extra in (0, 1, 254, 255, 256, 257, 511, 512, 513):
        world = populated()
        log = SealedLog(world)
        log.enter_key()
        have = world.store.read(lambda snapshot: len(snapshot.unsealed(limit=9999)))
        grow(world, max(extra - have, 0))
        checkpoint = log.seal()
        case = Case(world, log)
        assert case.found(checkpoint.note) == []
        grow(world, 3)
        assert case.found(checkpoint.note) == []  # three wait for their place
        log.assign()
        assert case.found(checkpoint.note) == []  # and have it, while no checkpoint covers them
        sizes += 1
    record_property("count", f"sizes of whole logs {sizes}")
    assert sizes == 9


def test_an_entry_that_was_removed_is_named_by_its_position(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    removed = 0
    for position in (0, 1, 255, 256, 511, 512, 698, 699):
        entries, positions = case.rows(AuditEntry.table), case.rows(LOG_POSITIONS)
        name = case.at(position)
        case.write(AuditEntry.table, {key: row for key, row in entries.items() if key != name})
        for rows in (positions, {key: value for key, value in positions.items() if value != name}):
            case.write(LOG_POSITIONS, rows)
            found = case.found()
            assert found[0].name == f"position {position}"
            assert found[0].fault is Fault.LOG
            removed += 1
        case.write(AuditEntry.table, entries)
        case.write(LOG_POSITIONS, positions)
    assert case.found() == []
    record_property("count", f"entries removed from a log and found {removed}")
    assert removed == 16


def test_the_newest_entries_that_were_removed_are_found(case: Case) -> None:
    """Also together with the rows that they put in force: the log's head knows how many there were."""
    entries, positions = case.rows(AuditEntry.table), case.rows(LOG_POSITIONS)
    newest = [case.at(position) for position in range(690, ENTRIES)]
    case.write(AuditEntry.table, {key: row for key, row in entries.items() if key not in newest})
    case.write(LOG_POSITIONS, {key: value for key, value in positions.items() if value not in newest})
    assert [finding.name for finding in case.found()][:10] == [f"position {number}" for number in range(690, ENTRIES)]


def test_an_entry_with_another_content_is_named_first(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    """Its seal is good: somebody had the day's key out of a worker's memory."""
    forged = 0
    entries = case.rows(AuditEntry.table)
    for position in (0, 255, 256, 600, 699):
        name = case.forge(position)
        later = case.forge(min(position + 3, 699))
        found = case.found()
        assert found[0].name == name
        assert f"position {position}" in found[0].text
        assert {finding.name for finding in found} >= {name, later, "log"}
        assert any("its tiles do: the entries are wrong" in finding.text for finding in found)
        case.write(AuditEntry.table, entries)
        forged += 1
    assert case.found() == []
    record_property("count", f"entries forged with a good seal and found {forged}")
    assert forged == 5


def test_entries_that_changed_places_are_found(case: Case) -> None:
    positions = case.rows(LOG_POSITIONS)
    first, second = case.at(40), case.at(41)
    case.write(LOG_POSITIONS, {**positions, 40: second, 41: first})
    assert case.at(40) == second
    assert [finding.name for finding in case.found()][:2] == [second, first]


def test_a_tile_a_head_and_a_checkpoint_that_were_changed_are_found(case: Case) -> None:
    for tile in case.world.store.rows(LogTile):
        content = bytearray(tile.record.hashes)
        content[5] ^= 1
        case.seal(dataclasses.replace(tile.record, hashes=bytes(content)))
        assert case.found(), tile.record.name
        case.seal(dataclasses.replace(tile.record, hashes=tile.record.hashes[:-32]))
        assert case.found(), tile.record.name
        case.world.store.delete(LogTile, tile.record.name)
        assert case.found(), tile.record.name
        case.world.store.overwrite(tile)
    assert case.found() == []
    (head,) = case.world.store.rows(LogHead)
    for change in (
        {"root": bytes(32)},
        {"size": ENTRIES - 1},
        {"size": ENTRIES + 1},
        {"frontier": head.record.frontier[:-1]},
        {"frontier": (bytes(32), *head.record.frontier[1:])},
        {"origin": "elsewhere"},
    ):
        case.seal(dataclasses.replace(head.record, **change))
        assert case.found(), change
    case.world.store.delete(LogHead, "log")
    assert case.found()
    case.world.store.overwrite(head)
    (checkpoint,) = case.world.store.rows(LogCheckpoint)
    other = LogKeyPair.generate().checkpoint(ENTRIES, head.record.root)
    for change in (
        {"root": bytes(32)},
        {"size": 7},
        {"note": other},
        {"note": "nonsense"},
        {"note": checkpoint.record.note.replace("\n\n", "\nx\n\n")},
    ):
        case.seal(dataclasses.replace(checkpoint.record, **change))
        assert case.found(), change
    case.world.store.overwrite(checkpoint)
    assert case.found() == []


def test_a_checkpoint_that_was_signed_over_another_history_is_found(case: Case) -> None:
    """Somebody used the log's key: signature and row are good, and the entries do not come to it."""
    case.log.put_checkpoint(600, bytes(range(32)))
    (finding,) = case.found()
    assert "the first 600 entries do not come to the root of the signed checkpoint" in finding.text


def test_a_database_from_before_what_was_published_is_found(case: Case) -> None:
    earlier = case.world.store.reopened()
    published = case.world.store.rows(LogCheckpoint)[0].record.note
    grow(case.world, 10)
    later = case.log.seal().note
    assert case.found(published, later) == []
    old = Case(case.world, case.log)
    case.world.store._tables = earlier._tables
    assert old.found(published) == []
    (finding,) = old.found(later)
    assert f"has {ENTRIES + 10} entries, the database's log only {ENTRIES}" in finding.text


def test_a_history_that_was_made_anew_is_found_by_what_was_published(case: Case) -> None:
    """All rows fit each other, and the log's key signed: only what is elsewhere tells."""
    published = case.world.store.rows(LogCheckpoint)[0].record.note
    name = case.forge(100)
    leaves = [
        hash_leaf(row.record.leaf) for _, row in case.world.store.read(lambda snapshot: snapshot.log(0, limit=9999))
    ]
    for tile, content in grow_tiles(lambda *_: b"", 0, leaves).items():
        at = case.world.clock.now()
        case.seal(LogTile(name=tile_name(tile.level, tile.index), hashes=content, time=at))
    grown = Frontier().extend(leaves)
    case.seal(dataclasses.replace(case.head, root=grown.root(), frontier=grown.hashes))
    case.log.sign()
    assert case.found() == []
    found = case.found(published)
    assert [finding.name for finding in found] == ["the published checkpoint"]
    assert name


def test_keys_that_do_not_follow_each_other_are_found(case: Case) -> None:
    case.log.rotate(LogKeyPair.generate())
    case.log.seal()
    assert case.found() == []
    name = sorted(row.record.name for row in case.world.store.rows(InstallationKey) if row.record.succession)[0]
    record = next(row.record for row in case.world.store.rows(InstallationKey) if row.record.name == name)
    stranger = LogKeyPair.generate().succeed(case.log.key.key)
    row = case.world.use.seals.seal(dataclasses.replace(record, version=record.version + 1, succession=stranger))
    case.world.use.transactions.run(lambda ledger: ledger.put(row, kind="test", details={}), timeout=10.0)
    assert "installation_keys" in {finding.table for finding in case.found()}


def test_an_entry_behind_the_end_and_one_without_a_place_are_found(case: Case) -> None:
    grow(case.world, 1)
    unsealed = case.rows(UNSEALED_ENTRIES)
    assert len(unsealed) == 1
    case.write(UNSEALED_ENTRIES, {})
    whole = list(case.world.new_process().check_integrity())
    assert [finding.text for finding in whole if finding.fault is Fault.LOG] == [
        "it has no place in the log, and waits for none"
    ]
    case.write(UNSEALED_ENTRIES, unsealed)
    head = case.head
    case.log.assign()
    case.seal(head)
    assert any("behind the end of the log" in finding.text for finding in case.found())


def test_a_waiting_row_that_is_no_record_hides_nothing(case: Case) -> None:
    grow(case.world, 1)
    (waiting,) = case.rows(UNSEALED_ENTRIES)
    case.world.store.mangle(AuditEntry, waiting)
    case.forge(3)
    assert any("position 3" in finding.text for finding in case.found())
    assert waiting in {finding.name for finding in case.world.new_process().check_integrity()}


def test_an_unreadable_witness_is_told_and_hides_nothing(case: Case) -> None:
    def unreadable() -> Sequence[Witness]:
        raise OSError("no such folder")

    case.forge(3)
    seals = Seals(hsm=case.world.hsm, report=lambda *_: None)
    found = list(CheckLog(store=case.world.store, seals=seals, witnesses=unreadable)())
    assert "no such folder" in found[0].text
    assert any("position 3" in finding.text for finding in found)


def test_of_many_wrong_positions_some_are_told_and_the_others_counted(case: Case) -> None:
    entries = case.rows(AuditEntry.table)
    keep = {case.at(position) for position in range(500)}
    case.write(AuditEntry.table, {key: row for key, row in entries.items() if key in keep})
    found = case.found()
    assert sum(finding.name.startswith("position ") for finding in found) == MOST_TOLD
    assert any(f"{200 - MOST_TOLD} more positions" in finding.text for finding in found)


def test_the_walk_says_how_far_it_is(case: Case) -> None:
    heard: list[tuple[str, int]] = []
    whole = case.world.new_process().check_integrity
    total = whole.total()
    list(whole(looked=lambda table, rows: heard.append((table, rows))))
    assert sum(rows for _, rows in heard) == total
    assert sum(rows for table, rows in heard if table == "the log") == ENTRIES
