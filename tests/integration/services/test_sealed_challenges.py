"""What writing to the database does to challenges: no code opens more, and none opens twice (P2, P5)."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.services.test_sealed_rows import Database
from tests.support.world import CHAIR, OFFICE, PORTAL, digests

from trien_server.core import errors
from trien_server.core.encoding import microseconds


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "trien.db")
    database.world.add_ocra()
    database.world.add_delivery()
    yield database
    database.world.store.close()


@pytest.mark.promise("P2")
@pytest.mark.parametrize("delivered", [False, True], ids=["OCRA", "delivered"])
def test_callers_of_two_processes_with_one_code_make_one_approval(
    database: Database, delivered: bool, record_property: Callable[[str, object], None]
) -> None:
    world = database.world
    other = world.new_process()
    rounds = 3
    for number in range(rounds):
        authorization = world.authorize(digests(1, of=f"round {number}"))
        if delivered:
            made, taken = world.send(authorization)
            code = taken.code
            world.next_step()
        else:
            made = world.challenge(authorization)
            code = world.answer(made)

        def attempt(caller: int, authorization=authorization, made=made, code=code) -> str:  # type: ignore[no-untyped-def]
            try:
                use = (world.use, other)[caller % 2]
                world.approve(authorization, password=code, challenge=made.challenge.name, use=use)
            except errors.Refusal as refusal:
                return refusal.reason
            return "approved"

        with ThreadPoolExecutor(64) as callers:
            outcomes = list(callers.map(attempt, range(64)))
        assert outcomes.count("approved") == 1
        assert set(outcomes) <= {"approved", "CHALLENGE_NOT_PENDING", "AUTHORIZATION_NOT_PENDING", "BUSY"}
        assert len(database.rows("approvals")) == number + 1
    record_property("count", f"one challenge's code, 64 callers: {rounds} rounds")


@pytest.mark.promise("P2", "P5")
def test_a_challenge_that_was_answered_and_is_made_to_wait_again_is_refused(database: Database) -> None:
    world = database.world
    first, second = world.authorize(digests(1)), world.authorize(digests(1, of="other"))
    made = world.challenge(first)
    code = world.answer(made)
    (before,) = database.rows("challenges")
    world.approve(first, password=code, challenge=made.challenge.name)
    edits = [
        ("UPDATE challenges SET answered = 0", ()),
        ("UPDATE challenges SET answered = 0, authorizations = ?", (f'["{second.name}"]',)),
        ("UPDATE challenges SET expire_time = ?", (microseconds(world.clock.now() + timedelta(days=1)),)),
    ]
    for edit, values in edits:
        (kept,) = database.rows("challenges")
        assert database.edit(edit, *values) == 1
        for use in (world.use, world.new_process()):
            database.refused(
                lambda use=use: world.approve(second, password=code, challenge=made.challenge.name, use=use)
            )
        assert database.edit("DELETE FROM challenges") == 1
        database.insert("challenges", kept)
    # The whole row of before, its seal included, can be put back: then the authorizations' own rows refuse.
    assert database.edit("DELETE FROM challenges") == 1
    database.insert("challenges", before)
    database.refused(
        lambda: world.approve(first, password=code, challenge=made.challenge.name), errors.AuthorizationNotPending
    )
    database.refused(
        lambda: world.approve(second, password=code, challenge=made.challenge.name), errors.ChallengeNotPending
    )
    assert len(database.rows("approvals")) == 1


@pytest.mark.promise("P3", "P5")
def test_a_list_that_is_swapped_behind_the_server_is_refused(database: Database) -> None:
    world = database.world
    seen, swapped = world.authorize(digests(1)), world.authorize(digests(1, of="swapped"))
    made, delivered = world.send(seen)
    rows = {str(row["name"]): row for row in database.rows("authorizations")}
    for column in ("digests", "credential", "algorithm", "approver"):
        value = {"approver": CHAIR}.get(column, rows[swapped.name][column])
        changed = f"{value}x" if value == rows[seen.name][column] else value
        assert database.edit(f"UPDATE authorizations SET {column} = ? WHERE name = ?", changed, seen.name) == 1
        database.refused(lambda: world.approve(seen, password=delivered.code, challenge=made.challenge.name))
        database.edit(f"UPDATE authorizations SET {column} = ? WHERE name = ?", rows[seen.name][column], seen.name)
    assert world.approve(seen, password=delivered.code, challenge=made.challenge.name)


@pytest.mark.promise("P5")
def test_an_invented_challenge_or_one_moved_to_another_is_refused(database: Database) -> None:
    world = database.world
    authorization = world.authorize(digests(1))
    of_portal = world.authorize(digests(1), principal=PORTAL)
    made = world.challenge(of_portal, principal=PORTAL)
    sent, delivered = world.send(of_portal, principal=PORTAL)
    rows = {str(row["name"]): row for row in database.rows("challenges")}
    code = {made.challenge.name: world.answer(made), sent.challenge.name: delivered.code}
    tried = 0
    for name, row in rows.items():
        for number, changes in enumerate(
            (
                {"client": OFFICE.name},
                {"client": OFFICE.name, "authorizations": f'["{authorization.name}"]'},
                {"client": OFFICE.name, "code_mac": rows[sent.challenge.name]["code_mac"]},
            )
        ):
            forged = f"{CHAIR}/challenges/forged{tried}{number}"
            database.insert("challenges", {**row, **changes, "name": forged})
            database.refused(
                lambda forged=forged, name=name: world.approve(authorization, password=code[name], challenge=forged)
            )
            tried += 1
    assert tried == 6
    assert not database.rows("approvals")


@pytest.mark.promise("P5")
def test_counts_of_deliveries_that_were_lowered_are_refused(database: Database) -> None:
    world = database.world
    authorization = world.authorize(digests(1))
    world.send(authorization)
    world.next_step()
    carrier = world.deliveries[next(iter(world.deliveries))]
    for column, value in (("sent", 0), ("last_time", 0), ("day", "2020-01-01")):
        kept = {str(row["name"]): row[column] for row in database.rows("delivery_counts")}
        assert len(kept) == 3
        assert database.edit(f"UPDATE delivery_counts SET {column} = ?", value) == 3
        before = len(carrier.taken)
        database.refused(lambda: world.send(authorization))
        assert len(carrier.taken) == before
        for name, old in kept.items():
            database.edit(f"UPDATE delivery_counts SET {column} = ? WHERE name = ?", old, name)
    assert world.send(authorization)


@pytest.mark.promise("P5")
def test_a_changed_address_of_an_authenticator_gets_no_code(database: Database) -> None:
    world = database.world
    authorization = world.authorize(digests(1))
    sms = f"{CHAIR}/authenticators/sms"
    for edit in (
        "UPDATE authenticators SET address = '+84999999999' WHERE name = ?",
        "UPDATE authenticators SET address = '+84912345678', kind = 'EMAIL' WHERE name = ?",
    ):
        assert database.edit(edit, sms) == 1
        database.refused(lambda: world.send(authorization))
    assert database.edit("UPDATE authenticators SET kind = 'SMS' WHERE name = ?", sms) == 1
    made, delivered = world.send(authorization)
    assert delivered.address == "+84912345678"
    assert world.approve(authorization, password=delivered.code, challenge=made.challenge.name)
    assert sum(len(carrier.taken) for carrier in world.deliveries.values()) == 1
