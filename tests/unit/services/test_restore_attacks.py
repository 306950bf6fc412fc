"""Who has the host and a recipient's public half, and no officer: backups that they made or mixed themselves."""

import hashlib
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.support.restoring import Restoring, approval, backup, exported, known, seal_log
from tests.support.world import OPERATOR, SECOND, World, digests, populated

from trien_server.core.audit import make_entry
from trien_server.core.backups import KeptRow, NotABackup
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import KeyMismatch, Sealed
from trien_server.core.records import InstallationKeyPurpose, Operator, Record, State
from trien_server.core.restores import KnownCheckpoint, NotRestorable
from trien_server.core.roles import Role
from trien_server.core.sealing import HANDOVER, day_key_message, day_seal, day_seal_key, encode_row, slow_seal_key
from trien_server.host.private_ca import PrivateCa
from trien_server.services.operators import OperatorValues
from trien_server.store.lines import line_of

pytestmark = pytest.mark.promise("P5", "P9", "P10")


def a_world() -> World:
    return populated()


def made_of(content: bytes, rows: list[bytes], **said: object) -> bytes:
    """Returns a backup of those rows, with a manifest that fits them, but for what it is to say."""
    manifest = json.loads(content.splitlines()[0])
    tables: dict[str, int] = {}
    for row in rows:
        table = json.loads(row)[0]
        tables[table] = tables.get(table, 0) + 1
    manifest |= {"digest": hashlib.sha256(b"".join(rows)).hexdigest(), "tables": tables, **said}
    first = json.dumps(manifest, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    return first + b"\n" + b"".join(rows)


def rows_of(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)[1:]


def row_named(rows: list[bytes], table: str, name: str) -> int:
    (found,) = [at for at, row in enumerate(rows) if json.loads(row)[0] == table and json.loads(row)[1][0] == name]
    return found


def of_subject(rows: list[bytes], subject: str) -> list[int]:
    return [
        at for at, row in enumerate(rows) if json.loads(row)[0] == "audit_entries" and subject in json.loads(row)[1]
    ]


def with_second_disabled() -> tuple[World, bytes, bytes]:
    """Returns a world, a backup from before its second officer was disabled, and one from after."""
    world = a_world()
    seal_log(world)
    before = backup(world)
    world.use.disable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    seal_log(world)
    return world, before, backup(world)


def test_an_officer_disabled_in_the_backup_does_not_come_back_by_the_row_of_before_and_a_changed_entry() -> None:
    world, before, after = with_second_disabled()
    old, rows = rows_of(before), rows_of(after)
    rows[row_named(rows, "operators", SECOND.name)] = old[row_named(old, "operators", SECOND.name)]
    *_, disabling = of_subject(rows, SECOND.name)
    rows[disabling] = rows[disabling].replace(f'"{SECOND.name}"'.encode(), b'"operators/nobody"')
    with pytest.raises(NotABackup):
        Restoring(made_of(after, rows), world).run()


def test_an_officer_disabled_in_the_backup_does_not_come_back_by_rows_in_another_order() -> None:
    world, before, after = with_second_disabled()
    old, rows = rows_of(before), rows_of(after)
    row = old[row_named(old, "operators", SECOND.name)]
    enabling = of_subject(old, SECOND.name)[-1]
    again = old[enabling].rpartition(b",")[0] + b",null]\n"
    del rows[row_named(rows, "operators", SECOND.name)]
    # The entry that disables stands before the row, where nobody looks for it; one of before, behind it.
    for mixed in ([*rows, row, again], [*rows, row]):
        with pytest.raises(NotABackup):
            Restoring(made_of(after, mixed), world).run()


def test_a_row_that_is_there_twice_is_refused() -> None:
    world, before, after = with_second_disabled()
    old, rows = rows_of(before), rows_of(after)
    at = row_named(rows, "operators", SECOND.name)
    twice = [*rows[: at + 1], old[row_named(old, "operators", SECOND.name)], *rows[at + 1 :]]
    with pytest.raises(NotABackup):
        Restoring(made_of(after, twice), world).run()


def rotated(world: World) -> None:
    world.agree(world.use.rotate_installation_key(OPERATOR, InstallationKeyPurpose.SEALING, deadline=world.deadline()))
    for _ in range(3):
        world.use.key_rotation.look()
        world.clock.advance(HANDOVER)
    world.use.key_rotation.look()


def test_officers_agree_also_after_the_sealing_key_was_replaced_twice() -> None:
    world = a_world()
    rotated(world)
    rotated(world)
    world.clock.advance(timedelta(minutes=1))
    seal_log(world)
    restoring = Restoring(backup(world), world)
    use = restoring.use()
    examined = restoring.examine(use)
    given = [approval(examined, "first"), approval(examined, "second")]
    assert use.officers(examined, given) == ["operators/first", "operators/second"]
    assert restoring.run().left == []
    restored = restoring.restored
    world.clock.advance(timedelta(minutes=5))
    restored.use = restored.new_process()
    restored.use.check_start()
    assert restored.sign(digests(1)).signatures


def sealed_by_first(world: World, record: Record) -> Sealed[Any]:
    """Returns a record sealed by the first sealing key, as who had the PIN at its time can have had it sealed."""
    if not record.hot:
        key = slow_seal_key(1)
        return Sealed(record=record, seal_key=key, seal=world.hsm.authenticate(encode_row(record, key), generation=1))
    key = day_seal_key(world.clock.now(), 1)
    of_day = world.hsm.authenticate(day_key_message(key), generation=1)
    return Sealed(record=record, seal_key=key, seal=day_seal(of_day, record, key))


def test_a_retired_sealing_key_makes_no_officers_for_a_restore() -> None:
    world = a_world()
    rotated(world)
    world.use.disable_operator(OPERATOR, SECOND.name, deadline=world.deadline())
    seal_log(world)
    content = backup(world)
    disabled = next(row.record for row in world.store.rows(Operator) if row.record.name == SECOND.name)
    enabled = replace(disabled, state=State.ENABLED, version=disabled.version + 1)
    entry = make_entry(
        name="auditEntries/forged",
        time=world.clock.now(),
        kind="operator_enabled",
        subject=enabled.name,
        subject_version=enabled.version,
        details={},
        head_salt=b"h" * 16,
        salt=b"s" * 32,
    )
    rows = rows_of(content)
    at = row_named(rows, "operators", SECOND.name)
    rows[at] = line_of(KeptRow(content=sealed_by_first(world, enabled)))
    rows.append(line_of(KeptRow(content=sealed_by_first(world, entry))))
    restoring = Restoring(made_of(content, rows), world)
    use = restoring.use()
    examined = restoring.examine(use)
    with pytest.raises(RecordNotTrusted) as refused:
        use.officers(examined, [approval(examined, "first"), approval(examined, "second")])
    assert refused.value.finding == "its seal is by a retired key"


def said_by(note: str, *, on_token: bool) -> KnownCheckpoint:
    return replace(known(note), on_token=on_token)


def test_a_checkpoint_that_whoever_restores_brings_along_spares_no_officer() -> None:
    world = a_world()
    own = seal_log(world)
    content = backup(world)
    world.sign(digests(1))
    seal_log(world)
    brought = said_by(own, on_token=False)
    kept = said_by(own, on_token=True)
    unsigned = replace(kept, note="".join([*own.splitlines(keepends=True)[:-1], "— somebody " + "A" * 92 + "\n"]))
    for what, older in (([brought], True), ([unsigned], True), ([brought, kept], False)):
        restoring = Restoring(content, world, known=what)
        assert restoring.examine(restoring.use()).older is older, what


def test_an_officer_whose_key_or_roles_were_changed_since_does_not_count() -> None:
    world = a_world()
    size = known(seal_log(world)).size
    content = backup(world)
    renewed = OperatorValues(
        name=SECOND.name,
        display_name="Second",
        certificate=PrivateCa.create("CA").issue_client("second, renewed").certificate_der,
        roles=(Role.SECURITY_OFFICER,),
    )
    world.agree(world.use.update_operator(OPERATOR, renewed, deadline=world.deadline()))
    last = known(seal_log(world))
    restoring = Restoring(content, world, known=[last], lost=exported(world, size))
    with pytest.raises(NotRestorable, match="operators/second was changed"):
        restoring.run()


def test_a_clock_behind_the_lost_entries_is_refused() -> None:
    world = a_world()
    size = known(seal_log(world)).size
    content = backup(world)
    world.clock.advance(timedelta(hours=3))
    world.use.disable_client(OPERATOR, "clients/portal", deadline=world.deadline())
    last = known(seal_log(world))
    lost = exported(world, size)
    world.clock.advance(timedelta(hours=-2))
    with pytest.raises(NotRestorable, match="clock"):
        Restoring(content, world, known=[last], lost=lost).run()


def test_the_statement_says_of_when_the_last_entry_is_and_the_manifest_cannot_make_a_backup_another_ones() -> None:
    world = a_world()
    seal_log(world)
    content = backup(world)
    made = world.clock.now()
    world.clock.advance(timedelta(days=30))
    later = made_of(content, rows_of(content), createTime=world.clock.now().isoformat())
    restoring = Restoring(later, world)
    said = json.loads(restoring.examine(restoring.use()).statement)["backup"]
    assert said["lastEntryTime"] <= made.isoformat()
    foreign = made_of(content, rows_of(content), installationTime=world.clock.now().isoformat())
    with pytest.raises(NotABackup):
        Restoring(foreign, world).run()


def test_a_wrapping_key_that_somebody_planted_is_none_that_custodians_brought() -> None:
    world = a_world()
    seal_log(world)
    content = backup(world)
    hsm = world.hsm.copied()

    def planted(purpose: InstallationKeyPurpose, generation: int) -> bool:
        raise KeyMismatch(f"'trien wrapping key {generation}' has not the attributes of its purpose: LOCAL")

    hsm.has_installation_key = planted  # type: ignore[method-assign]
    rows = [row for row in rows_of(content) if json.loads(row)[0] != "keys"]
    with pytest.raises(NotRestorable, match="wrapping key 'trien wrapping key 1'"):
        Restoring(made_of(content, rows), world, hsm=hsm).run()
