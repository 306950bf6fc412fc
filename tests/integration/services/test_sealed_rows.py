"""What writing to the database gives: nothing (P5). A real SQLite file, edited behind the server's back."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support.world import CHAIR, CLERK, OFFICE, OPERATOR, P256, SEAL, World, digests, new_request_id

from trien_server.core import errors
from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.ports import KeyReference
from trien_server.core.records import (
    Authorization,
    AuthorizationState,
)
from trien_server.core.sealing import activation_data_message
from trien_server.core.secret import Secret
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store

pytestmark = pytest.mark.promise("P5")


class Database:
    """A world on a SQLite file, and the file as its administrator sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        url = f"sqlite:///{path}"
        migrate(url)
        self.world = World(store=open_store(url, on_fatal=lambda reason: pytest.fail(reason)))
        self.world.store.now = self.world.clock.now
        self.world.populate()

    def edit(self, statement: str, *values: object) -> int:
        """Runs one statement on the file; returns how many rows it changed."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, values).rowcount

    def rows(self, table: str) -> list[dict[str, object]]:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY name")]

    def insert(self, table: str, row: dict[str, object]) -> None:
        columns = ", ".join(f'"{column}"' for column in row)
        marks = ", ".join("?" for _ in row)
        assert self.edit(f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row.values()) == 1

    def refused(self, call: Callable[[], object], *kinds: type[errors.Refusal]) -> errors.Refusal:
        """Asserts that a call is refused, and that no signature was made for it."""
        made = self.world.hsm.signatures
        with pytest.raises(kinds or (errors.RecordNotTrusted,)) as caught:
            call()
        assert self.world.hsm.signatures == made
        return caught.value

    def reported(self) -> list[tuple[str, str]]:
        return [
            (event.fields["table"], event.fields["name"])
            for event in self.world.events
            if event.name == "record_not_trusted"
        ]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "trien.db")
    yield database
    database.world.store.close()


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "after a restart"])
def test_an_invented_approval_gives_no_signature(database: Database, warm: bool) -> None:
    world = database.world
    real = world.authorize(digests(1))
    world.approve(real)
    pending = world.authorize(digests(1, of="forged"))
    if not warm:
        world.use = world.new_process()
    database.edit(
        "UPDATE authorizations SET state = 'APPROVED', approval = (SELECT approval FROM authorizations WHERE name = ?) "
        "WHERE name = ?",
        real.name,
        pending.name,
    )
    database.refused(lambda: world.activation_data(pending))
    database.refused(lambda: world.sign(digests(1, of="forged"), activated=(pending.name, Secret(b"x" * 32))))
    # Even with the secret that the token derives for it, an insider in one process aside.
    data = Secret(world.use.seals.authenticate(activation_data_message(pending)))
    database.refused(lambda: world.sign(digests(1, of="forged"), activated=(pending.name, data)))
    assert database.reported() == [("authorizations", pending.name)] * 3


def test_an_invented_authorization_with_a_copied_seal_gives_no_signature(database: Database) -> None:
    world = database.world
    real = world.authorize(digests(1))
    world.approve(real)
    (row,) = database.rows("authorizations")
    forged = f"{P256}/authorizations/forged"
    database.insert("authorizations", {**row, "name": forged})
    authorization = Authorization(**{**vars(real), "name": forged, "state": AuthorizationState.APPROVED})
    data = Secret(world.use.seals.authenticate(activation_data_message(authorization)))
    database.refused(lambda: world.sign(digests(1), activated=(authorization.name, data)))
    assert database.reported() == [("authorizations", forged)]


def test_an_invented_request_id_gives_no_signature(database: Database) -> None:
    """Whoever could complete a request that nobody approved would need no one-time password."""
    world = database.world
    granted_id, forged_id = new_request_id(), new_request_id()
    world.sign(digests(1), request_id=granted_id)
    (row,) = database.rows("granted_requests")
    forged = str(row["name"]).replace(granted_id, forged_id)
    database.insert("granted_requests", {**row, "name": forged, "completed": 0})
    database.refused(lambda: world.sign(digests(1), request_id=forged_id, password="000000"))
    assert database.reported() == [("granted_requests", forged)]


def test_an_outcome_that_was_replaced_is_not_handed_out(database: Database) -> None:
    world = database.world
    request_id, code = new_request_id(), world.code()
    world.sign(digests(1), request_id=request_id, password=code)
    world.next_step()
    world.sign(digests(1, of="another"))
    assert (
        database.edit(
            "UPDATE outcomes SET signatures = (SELECT signatures FROM outcomes WHERE request NOT LIKE ?) "
            "WHERE request LIKE ?",
            f"%{request_id}",
            f"%{request_id}",
        )
        == 1
    )
    database.refused(lambda: world.sign(digests(1), request_id=request_id, password=code), errors.HsmUnavailable)


@pytest.mark.requirement("NIST 800-63B-4 3.1.4.2 secrets")
@pytest.mark.parametrize("warm", [True, False], ids=["warm", "after a restart"])
def test_a_swapped_authenticator_secret_opens_nothing(database: Database, warm: bool) -> None:
    """The clerk's secret under the chair's name: her phone's codes must not approve for him."""
    world = database.world
    if warm:
        world.sign(digests(1))
        world.next_step()
    else:
        world.use = world.new_process()
    changed = database.edit(
        "UPDATE authenticators SET encrypted_secret = (SELECT encrypted_secret FROM authenticators WHERE signer = ?) "
        "WHERE signer = ?",
        CLERK,
        CHAIR,
    )
    assert changed == 1
    database.refused(lambda: world.sign(digests(1), password=world.code(CLERK)))
    assert database.reported() == [("authenticators", f"{CHAIR}/authenticators/phone")]


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "after a restart"])
def test_a_credential_pointed_at_another_key_signs_nothing(database: Database, warm: bool) -> None:
    world = database.world
    if warm:
        world.sign(digests(1))
        world.next_step()
    else:
        world.use = world.new_process()
    seal_key = world.key(SEAL).name
    assert database.edit("UPDATE credentials SET key = ? WHERE name = ?", seal_key, P256) == 1
    database.refused(lambda: world.sign(digests(1)))
    assert database.reported() == [("credentials", P256)]


def test_a_clerk_made_activator_of_the_chairs_credential_approves_nothing(database: Database) -> None:
    world = database.world
    row = next(row for row in database.rows("activators") if row["credential"] == P256)
    forged = f"{P256}/{CLERK}"
    database.insert("activators", {**row, "name": forged, "signer": CLERK})
    database.refused(lambda: world.sign(digests(1), signer=CLERK, password=world.code(CLERK)))
    assert ("activators", forged) in database.reported()


def test_yesterdays_row_of_a_revoked_client_does_not_pass(database: Database) -> None:
    world = database.world
    before = next(row for row in database.rows("clients") if row["name"] == OFFICE.name)
    world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
    assert database.edit(
        "UPDATE clients SET version = ?, state = ?, seal = ?, seal_key = ? WHERE name = ?",
        before["version"],
        before["state"],
        before["seal"],
        before["seal_key"],
        OFFICE.name,
    )
    for use in (world.use, world.new_process()):
        database.refused(lambda use=use: world.sign(digests(1), use=use))
        database.refused(lambda use=use: use.authenticate.by_token(Secret(world.tokens[OFFICE.name].encode())))
    assert database.reported() == [("clients", OFFICE.name)] * 4


def test_a_key_that_is_made_to_look_unfinished_is_not_destroyed(database: Database) -> None:
    world = database.world
    unfinished: list[dict[str, object]] = []
    generate = world.hsm.generate_key_pair

    def watched(object_id: bytes, key_type: KeyType) -> bytes:
        unfinished.extend(row for row in database.rows("keys") if row["name"] == "keys/live")
        return generate(object_id, key_type)

    world.hsm.generate_key_pair = watched
    world.use.create_key(OPERATOR, name="keys/live", key_type=KeyType.EC_P256, deadline=world.deadline())
    world.use.key_generation.generate("keys/live")
    world.hsm.generate_key_pair = generate
    live = world.use.get_key(OPERATOR, "keys/live")
    (row,) = unfinished
    assert row["object_id"] == live.object_id
    world.clock.advance(timedelta(days=2))
    # As the threat model says, yesterday's row passes when the newest entries about it are gone.
    forgotten = "DELETE FROM audit_entries WHERE subject = ? AND subject_version > ?"
    assert database.edit(forgotten, live.name, row["version"]) == 1
    assert database.edit("DELETE FROM keys WHERE name = ?", live.name) == 1
    database.insert("keys", row)
    other = world.new_process()
    other.key_generation.generate("keys/live")
    assert other.get_key(OPERATOR, "keys/live").object_id != live.object_id
    assert [event.fields["key"] for event in world.events if event.name == "key_object_left"] == ["keys/live"]
    # The object is still there: once the rows are set right, it signs.
    reference = KeyReference(object_id=live.object_id, key_type=live.key_type, public_key=live.public_key)
    made = world.hsm.sign(reference, SignatureAlgorithm.ECDSA_P256_SHA256, digests(1), pss_salt_length=None)
    assert len(made) == 1


def test_a_replay_memory_set_back_is_refused(database: Database) -> None:
    world = database.world
    code = world.code()
    world.sign(digests(1), password=code)
    assert database.edit("UPDATE authenticator_states SET next_value = 0") == 2
    database.refused(lambda: world.sign(digests(1), password=code))
    assert database.edit("DELETE FROM authenticator_states") == 2
    database.refused(lambda: world.sign(digests(1), password=code))
    assert database.edit("DELETE FROM signer_attempts") == 3
    database.refused(lambda: world.sign(digests(1), password=code))


def test_hot_rows_sealed_on_an_earlier_day_are_still_trusted(database: Database) -> None:
    world = database.world
    authorization = world.authorize(digests(1), lifetime=timedelta(hours=24))
    world.clock.advance(timedelta(hours=20))
    world.use = world.new_process()
    world.approve(authorization)
    data = world.activation_data(authorization)
    assert world.sign(digests(1), activated=(authorization.name, data)).signatures
    seal_keys = {str(row["seal_key"]) for row in database.rows("audit_entries")}
    assert len(seal_keys) == 2


def test_two_processes_on_one_database_share_the_replay_memory(database: Database) -> None:
    world = database.world
    store = open_store(f"sqlite:///{database.path}", on_fatal=lambda reason: pytest.fail(reason))
    store.now = world.clock.now  # type: ignore[method-assign]
    try:
        other = world.new_process(store=store)
        code = world.code()
        world.sign(digests(1), password=code)
        database.refused(lambda: world.sign(digests(1), password=code, use=other), errors.OneTimePasswordRejected)
        world.use.disable_client(OPERATOR, OFFICE.name, deadline=world.deadline())
        world.next_step()
        database.refused(lambda: world.sign(digests(1), use=other), errors.PermissionDenied)
    finally:
        store.close()
    assert len(database.rows("approvals")) == 1
