"""Every row of every table, changed behind the server's back: refused and reported, or found by fsck (P5).

Tables and columns come from the live schema of both databases: one that nobody classified fails here.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.sealed_log import SealedLog
from tests.support.tampering import Row, Tampered, TamperedPostgresql, TamperedSqlite, fields_of, other_value
from tests.support.world import CHAIR, CLERK, P256, SEAL, World, digests, new_request_id

from trien_server.core import errors
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    AuditEntry,
    AuditErasure,
    AuditExport,
    CertificateAuthority,
    CertificateStatus,
    Challenge,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    IssuedCertificate,
    IssuedCertificateState,
    Lease,
    LogTile,
    Notice,
    Organization,
    Record,
    RequestPurge,
    Revocation,
)
from trien_server.services.changes import Change
from trien_server.services.findings import Fault, Finding
from trien_server.services.integrity import REQUEST_PURGE
from trien_server.services.integrity_rules import REFERENCES, kind_of
from trien_server.services.transactions import next_version
from trien_server.store.mapping import mapping_of
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P5")

KINDS: dict[str, type[Record]] = {kind.table: kind for kind in (*SLOW_RECORDS, *HOT_RECORDS)}
THREAT_MODEL = Path(__file__).parents[3] / "docs" / "threat-model.md"
ONLY_ONE = {"installations", "request_purges", "log_heads", "log_checkpoints"}
"""Tables that have one row."""


@dataclass
class Case:
    """A world with rows in every table, and its database as the administrator sees it."""

    name: str
    world: World
    tampered: Tampered

    def found(self) -> list[Finding]:
        """Returns what fsck of another process finds."""
        return list(self.world.new_process().check_integrity())

    def get(self, kind: type[Record], name: str) -> Record | None:
        """Reads a row as a request does, in a process that has seen it before."""
        return self.world.use.transactions.read(lambda view: view.get(kind, name))

    def is_refused(self, kind: type[Record], name: str) -> bool:
        """Tells whether the row is refused; asserts that it is then reported with table and name."""
        self.world.events.clear()
        try:
            self.get(kind, name)
        except errors.RecordNotTrusted:
            told = [
                (event.fields["table"], event.fields["name"])
                for event in self.world.events
                if event.name == "record_not_trusted"
            ]
            assert told in ([], [(kind.table, name)]), told
            return True
        return False

    def update(self, kind: type[Record], name: str) -> Row:
        """Has the server make the row's next version; returns the row as it was."""
        before = self.row(kind, name)
        use = self.world.use
        if kind in HOT_RECORDS:
            use.transactions.run(lambda ledger: ledger.replace(next_version(ledger.require(kind, name))), timeout=30.0)
        else:
            use.changes.make(
                "test",
                lambda view: Change(kind="test", slow=[next_version(view.require(kind, name))]),
                deadline=self.world.deadline(),
            )
        assert self.row(kind, name)["version"] == before["version"] + 1
        return before

    def row(self, kind: type[Record], name: str) -> Row:
        return next(row for row in self.tampered.rows(kind.table) if row["name"] == name)

    def put_back(self, kind: type[Record], row: Row) -> None:
        self.tampered.update(kind.table, row["name"], {column: row[column] for column in row if column != "name"})


@pytest.fixture(params=["SQLite", pytest.param("PostgreSQL", marks=pytest.mark.slow)], scope="module")
def populated(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    if request.param == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        database = postgres.copy()
        url = postgres.url(database)
        tampered: Any = TamperedPostgresql(postgres.url(database, "postgres"))
    else:
        path = tmp_path_factory.mktemp("tampering") / "trien.db"
        url = f"sqlite:///{path}"
        migrate(url)
        tampered = TamperedSqlite(path)
    world = World(store=open_store(url, on_fatal=lambda reason: pytest.fail(reason)))
    world.store.now = world.clock.now
    world.populate()
    _fill(world)
    yield Case(request.param, world, tampered)
    world.store.close()
    if isinstance(tampered, TamperedPostgresql):
        tampered.close()


@pytest.fixture
def case(populated: Case) -> Iterator[Case]:
    """Every test leaves the database as it was, so that fsck finds nothing."""
    assert populated.found() == []
    yield populated
    assert populated.found() == []


def _fill(world: World) -> None:
    """Puts at least one row into every table, by the use cases where there are any."""
    world.sign(digests(1))
    world.next_step()
    world.sign(digests(2, of="seal"), credential=SEAL)
    for of in ("one", "other"):
        world.next_step()
        authorization = world.authorize(digests(2, of=of))
        world.approve(authorization)
        data = world.activation_data(authorization)
        world.sign(digests(1, of=of), activated=(authorization.name, data), request_id=new_request_id())
    for signer in (CHAIR, CLERK):
        with pytest.raises(errors.OneTimePasswordRejected):
            world.sign(digests(1), credential=P256 if signer == CHAIR else SEAL, password=world.wrong_code(signer))
    world.add_ocra()
    asked = world.authorize(digests(1, of="asked"))
    made = world.challenge(asked)
    world.approve(asked, password=world.answer(made), challenge=made.challenge.name)
    for signer, credential in ((CHAIR, P256), (CLERK, SEAL)):
        world.add_delivery(signer)
        world.send(world.authorize(digests(1, of="sent"), credential=credential), signer=signer)
    at, certificate, key = world.clock.now(), world.certificate(P256), world.key(P256).name
    authorities = [
        CertificateAuthority(
            name=f"certificateAuthorities/{name}", key=key, certificate_chain=(certificate,), create_time=at
        )
        for name in ("one", "two")
    ]
    slow: list[Record] = [
        Organization(name="organizations/district", display_name="Huyện", create_time=at),
        *authorities,
        *(
            IssuedCertificate(
                name=f"{authority.name}/certificates/one",
                authority=authority.name,
                key=key,
                signer=CHAIR,
                to_be_signed=certificate,
                certificate=certificate,
                state=IssuedCertificateState.ISSUED,
                expire_time=at + timedelta(days=30),
                create_time=at,
            )
            for authority in authorities
        ),
        *(
            InstallationKey(
                name=f"installationKeys/test-{number}",
                purpose=InstallationKeyPurpose.WRAPPING,
                generation=number,
                state=InstallationKeyState.RETIRED,
                state_time=at,
                create_time=at,
            )
            for number in (71, 72)
        ),
    ]
    world.use.changes.make("test", lambda _: Change(kind="test", slow=slow), deadline=world.deadline())
    hot: list[Record] = [
        *(
            CertificateStatus(
                name=f"{credential}/certificateStatus",
                credential=credential,
                chain_hash=bytes(32),
                revocation=Revocation.GOOD,
                source="crl",
                check_time=at,
                valid_until=at + timedelta(days=1),
            )
            for credential in (P256, SEAL)
        ),
        *(Notice(name=f"{P256}/notices/{what}", create_time=at) for what in ("expires-30", "expires-7")),
        *(Lease(name=f"test-{number}", holder="test", expire_time=at + timedelta(seconds=30)) for number in (1, 2)),
    ]
    for record in hot:
        world.use.transactions.run(lambda ledger, record=record: ledger.insert(record), timeout=30.0)  # type: ignore[misc]
    _seal(world)


def _seal(world: World) -> None:
    """Seals the log, and enters what is kept of it and beside it."""
    log = SealedLog(world)
    world.hsm.add_key(bytes([1]) * 16, log.key.private)
    log.enter_key()
    log.seal()
    at = world.clock.now()
    entries = world.store.read(lambda snapshot: snapshot.log(0, limit=4))
    slow: list[Record] = [
        RequestPurge(name=REQUEST_PURGE, purged_before=at - timedelta(days=400), time=at),
        *(
            AuditErasure(
                name=f"auditErasures/{number}",
                audit_entries=(entries[number][1].record.name,),
                justification="asked for",
                create_time=at,
            )
            for number in (1, 2)
        ),
    ]
    world.use.changes.make("test", lambda _: Change(kind="test", slow=slow), deadline=world.deadline())
    hot: list[Record] = [
        *(AuditExport(name=f"auditExports/{sink}", position=3, time=at) for sink in ("file", "syslog")),
        LogTile(name="logTiles/9/9", hashes=bytes(32), time=at),
    ]
    for record in hot:
        world.use.transactions.run(lambda ledger, record=record: ledger.insert(record), timeout=30.0)  # type: ignore[misc]


@pytest.mark.parametrize("database", ["SQLite", "PostgreSQL"])
def test_the_live_schema_has_no_table_and_no_column_that_no_seal_covers(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if database == "PostgreSQL":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        on_postgresql = TamperedPostgresql(postgres.url(postgres.copy(), "postgres"))
        columns = on_postgresql.columns()
        on_postgresql.close()
    else:
        migrate(f"sqlite:///{tmp_path / 'trien.db'}")
        columns = TamperedSqlite(tmp_path / "trien.db").columns()
    assert set(columns) - set(KINDS) == {"outcomes", "log_positions", "unsealed_entries"}, "nobody classified it"
    for table, kind in KINDS.items():
        assert set(columns[table]) == {*fields_of(kind), "seal", "seal_key"}, table
    assert set(columns["outcomes"]) == {"request", "signatures", "create_time"}
    assert set(columns["log_positions"]) == {"position", "entry"}
    assert set(columns["unsealed_entries"]) == {"entry"}


def test_every_table_has_rows_to_try_on(case: Case) -> None:
    for table in KINDS:
        rows = case.tampered.rows(table)
        assert len(rows) >= (1 if table in ONLY_ONE else 2), f"{table} has {len(rows)} rows"


@pytest.mark.requirement("ASVS 5.0.0-16.3.3")
def test_a_change_of_any_column_of_any_table_is_refused_and_found(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    changed = 0
    for table, kind in sorted(KINDS.items()):
        mapping = mapping_of(kind)
        row = case.tampered.rows(table)[0]
        record = mapping.sealed([row[column.name] for column in mapping.all_columns]).record
        for column in row:
            if column in {"seal", "seal_key"}:
                other = row[column] + (b"x" if column == "seal" else "x")
            else:
                value = other_value(kind, column, getattr(record, column))
                other = f"{row[column]}x" if value is None else mapping.by_name[column].encode(value)
            assert other != row[column], (table, column)
            case.tampered.update(table, row["name"], {column: other})
            name = other if column == "name" else row["name"]
            assert case.is_refused(kind, name), f"{table}.{column}"
            if column == "seal":
                found = [(finding.fault, finding.table, finding.name) for finding in case.found()]
                assert (Fault.ROW, table, name) in found, f"{table}.{column}"
            case.tampered.update(table, name, {column: row[column]})
            changed += 1
    record_property("count", f"{case.name}: tables {len(KINDS)}, columns changed {changed}")
    assert changed > 250


@pytest.mark.requirement("ASVS 5.0.0-16.4.2")
def test_rows_swapped_between_two_records_of_a_table_are_refused_and_found(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    swapped = 0
    for table, kind in sorted(KINDS.items()):
        if table in ONLY_ONE:
            continue
        first, second = case.tampered.rows(table)[:2]
        pairs = ((first, second), (second, first))
        unique = dict.fromkeys({"token_hash"} & set(first))
        if unique:
            for row in (first, second):
                case.tampered.update(table, row["name"], unique)
        for target, source in pairs:
            values = {column: source[column] for column in source if column != "name"}
            case.tampered.update(table, target["name"], values)
        for row in (first, second):
            assert case.is_refused(kind, row["name"]), table
        found = {(finding.fault, finding.name) for finding in case.found() if finding.table == table}
        assert {(Fault.ROW, first["name"]), (Fault.ROW, second["name"])} <= found
        if unique:
            for row in (first, second):
                case.tampered.update(table, row["name"], unique)
        for row in (first, second):
            case.put_back(kind, row)
        swapped += 1
    record_property("count", f"{case.name}: tables swapped {swapped}")
    assert swapped == len(KINDS) - len(ONLY_ONE)


@pytest.mark.requirement("ASVS 5.0.0-16.4.2")
def test_an_invented_row_with_a_copied_seal_is_refused_and_found(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    invented = 0
    for table, kind in sorted(KINDS.items()):
        row = dict(case.tampered.rows(table)[0])
        if "token_hash" in row:
            row["token_hash"] = None
        row["name"] = f"{row['name']}-invented"
        case.tampered.insert(table, row)
        assert case.is_refused(kind, row["name"]), table
        found = {(finding.fault, finding.name) for finding in case.found() if finding.table == table}
        assert (Fault.ROW, row["name"]) in found
        case.tampered.delete(table, row["name"])
        invented += 1
    record_property("count", f"{case.name}: rows invented {invented}")
    assert invented == len(KINDS)


def test_an_older_version_of_any_slow_row_is_refused_and_found(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    tried = 0
    for kind in SLOW_RECORDS:
        name = case.tampered.rows(kind.table)[0]["name"]
        before = case.update(kind, name)
        now = case.row(kind, name)
        case.put_back(kind, before)
        assert case.is_refused(kind, name), kind.table
        found = [finding for finding in case.found() if (finding.table, finding.name) == (kind.table, name)]
        assert [finding.fault for finding in found] == [Fault.ROW], found
        assert f"the log names {now['version']} last" in found[0].text
        case.put_back(kind, now)
        tried += 1
    record_property("count", f"{case.name}: slow tables put back {tried}")
    assert tried == len(SLOW_RECORDS)


def test_a_deleted_slow_row_of_any_table_is_found(case: Case, record_property: Callable[[str, object], None]) -> None:
    for kind in SLOW_RECORDS:
        row = case.tampered.delete(kind.table, case.tampered.rows(kind.table)[0]["name"])
        found = {(finding.fault, finding.table, finding.name) for finding in case.found()}
        assert (Fault.DELETED, kind.table, row["name"]) in found, kind.table
        case.tampered.insert(kind.table, row)
    record_property("count", f"{case.name}: slow tables with a row deleted {len(SLOW_RECORDS)}")


HOT_TABLES = re.compile(r"^\| `([a-z_]+)` \| (.+?) \| (.+?) \|$", re.MULTILINE)


def documented() -> dict[str, tuple[str, str]]:
    """Returns what the threat model says of each hot table: put back, and deleted."""
    text = THREAT_MODEL.read_text(encoding="utf-8")
    section = text.partition("### What hot rows that are put back or deleted give")[2].partition("\n## ")[0]
    return {table: (back, deleted) for table, back, deleted in HOT_TABLES.findall(section)}


def test_the_threat_model_names_every_hot_table() -> None:
    assert set(documented()) == {kind.table for kind in HOT_RECORDS}


def test_an_older_version_of_a_hot_row_is_what_the_threat_model_says(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    """The row that a decision changed last, set back to what it was before the decision."""
    world, passed = case.world, Counter[str]()
    world.next_step()
    set_back: dict[str, tuple[Row, Row]] = {}
    watched = {kind.table: kind for kind in HOT_RECORDS}

    def versions() -> dict[tuple[str, str], Row]:
        return {(table, row["name"]): row for table in watched for row in case.tampered.rows(table)}

    authorization = world.authorize(digests(1, of="set back"))
    asked = world.authorize(digests(1, of="asked again"))
    challenge = world.challenge(asked)
    approved = world.authorize(digests(1, of="used"))
    world.approve(approved)
    before = versions()
    world.approve(asked, password=world.answer(challenge), challenge=challenge.challenge.name)
    world.next_step()
    world.approve(authorization)
    world.sign(digests(1, of="used"), activated=(approved.name, world.activation_data(approved)))
    with pytest.raises(errors.OneTimePasswordRejected):
        world.sign(digests(1), password=world.wrong_code())
    after = versions()
    for key, row in before.items():
        if after[key] != row:
            set_back[key[0] + " " + key[1]] = (row, after[key])
    used = set_back[f"authorizations {approved.name}"]
    by_table = {place.split(" ")[0]: pair for place, pair in set_back.items()} | {"authorizations": used}
    by_table |= {"challenges": set_back[f"challenges {challenge.challenge.name}"]}
    memory = next(
        pair for place, pair in set_back.items() if place == f"authenticator_states {CHAIR}/authenticators/phone"
    )
    by_table["authenticator_states"] = memory
    for table, (old, new) in sorted(by_table.items()):
        case.put_back(watched[table], old)
        assert not case.is_refused(watched[table], old["name"]), table
        faults = {finding.fault for finding in case.found() if finding.table == table}
        found = "found by `fsck`" in documented()[table][0]
        assert bool(faults) is found, (table, faults)
        passed[table] += 1
        case.put_back(watched[table], new)
    record_property("count", f"{case.name}: hot rows put back {dict(passed)}")
    assert {"authenticator_states", "authorizations", "challenges", "signer_attempts"} <= set(passed)


def test_a_deleted_hot_row_is_what_the_threat_model_says(
    case: Case, record_property: Callable[[str, object], None]
) -> None:
    found_of: dict[str, bool] = {}
    for kind in HOT_RECORDS:
        finds = []
        for name in _some_of(kind, case.tampered.rows(kind.table)):
            row = case.tampered.delete(kind.table, name)
            finds.append(bool(case.found()))
            case.tampered.insert(kind.table, row)
        told = documented()[kind.table][1]
        if "found by `fsck`" in told:
            assert any(finds), kind.table
            if "when" not in told:
                assert all(finds), kind.table
        else:
            assert not any(finds), kind.table
        found_of[kind.table] = any(finds)
    record_property(
        "count", f"{case.name}: hot tables with rows deleted {len(found_of)}, found {sum(found_of.values())}"
    )


def _some_of(kind: type[Record], rows: list[Row]) -> list[str]:
    """Returns names of rows: of entries and challenges also those that a decision rests on."""
    if kind is AuditEntry:
        subjects = [row["name"] for row in rows if row["subject"] is not None]
        granted = [row["name"] for row in rows if row["kind"] == "signing_granted"]
        refused = [row["name"] for row in rows if row["kind"] == "refused"]
        return [subjects[0], granted[0], refused[0]]
    if kind is Challenge:
        return [max(rows, key=lambda row: bool(row["answered"]))["name"], rows[0]["name"]]
    return [rows[0]["name"], rows[-1]["name"]]


def test_a_deleted_or_replaced_outcome_is_found(case: Case) -> None:
    rows = case.tampered.rows("outcomes", "request")
    assert len(rows) >= 2
    gone = case.tampered.delete("outcomes", rows[0]["request"], "request")
    assert {finding.fault for finding in case.found()} == {Fault.OUTCOME}
    case.tampered.insert("outcomes", {**gone, "signatures": rows[1]["signatures"]})
    assert {finding.fault for finding in case.found()} == {Fault.OUTCOME}
    case.tampered.delete("outcomes", gone["request"], "request")
    case.tampered.insert("outcomes", gone)


def test_a_row_that_is_no_record_does_not_hide_the_others(case: Case) -> None:
    first, *_, last = case.tampered.rows("clients")
    for row, column in ((first, "state"), (last, "display_name")):
        case.tampered.update("clients", row["name"], {column: "MANGLED"})
    found = {(finding.table, finding.name) for finding in case.found() if finding.fault is Fault.ROW}
    assert {("clients", first["name"]), ("clients", last["name"])} <= found
    for row in (first, last):
        case.put_back(KINDS["clients"], row)


def test_a_key_that_left_the_token_and_one_that_nobody_knows_are_found(case: Case) -> None:
    world = case.world
    key = world.key(P256)
    private = world.hsm._keys.pop(key.object_id)
    world.hsm._keys[b"stranger"] = private
    found = {(finding.fault, finding.name) for finding in case.found()}
    assert found == {(Fault.KEY_MISSING, key.name), (Fault.KEY_UNKNOWN, b"stranger".hex())}
    del world.hsm._keys[b"stranger"]
    world.hsm._keys[key.object_id] = world.hsm._keys[world.key(SEAL).object_id]
    assert {(finding.fault, finding.name) for finding in case.found()} == {(Fault.KEY_MISSING, key.name)}
    world.hsm._keys[key.object_id] = private


def test_a_key_that_is_made_or_destroyed_while_fsck_reads_is_no_finding(case: Case) -> None:
    world = case.world
    key = world.key(P256)
    pairs, private = world.hsm.key_pairs, world.hsm._keys[key.object_id]
    early = iter([{object_id: public for object_id, public in pairs().items() if object_id != key.object_id}])
    late = iter([{**pairs(), b"just destroyed": b""}])
    for first in (early, late):
        world.hsm.key_pairs = lambda first=first: next(first, None) or pairs()
        assert case.found() == []
        world.hsm.key_pairs = pairs
    assert world.hsm._keys[key.object_id] is private


def test_every_field_that_names_a_record_is_looked_up() -> None:
    """A field that is called like a kind of record is one of the references."""
    words = {
        "organization",
        "parent",
        "successor",
        "signer",
        "credential",
        "client",
        "key",
        "authority",
        "authenticator",
        "authorizations",
        "approval",
        "approver",
        "audit_entry",
        "replaces",
    }
    agreed = {("enrolments", "approver")}  # an operator, who is never deleted
    for kind in (*SLOW_RECORDS, *HOT_RECORDS):
        named = {field for field in fields_of(kind) if field in words and (kind.table, field) not in agreed}
        assert named == set(REFERENCES.get(kind, {})), kind.table


def test_every_slow_record_is_known_by_its_name(case: Case) -> None:
    for kind in SLOW_RECORDS:
        for row in case.tampered.rows(kind.table):
            assert kind_of(row["name"]) is kind, row["name"]


def test_fsck_reads_in_pages(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pages of three rows it finds the same, and nothing twice."""
    from trien_server.services import integrity

    whole = case.world.new_process().check_integrity
    assert list(whole()) == []
    monkeypatch.setattr(integrity, "PAGE", 3)
    row = case.tampered.rows("clients")[1]
    case.tampered.update("clients", row["name"], {"display_name": "edited"})
    paged = case.world.new_process().check_integrity
    found = list(paged())
    case.put_back(KINDS["clients"], row)
    assert [(finding.table, finding.name) for finding in found if finding.fault is Fault.ROW] == [
        ("clients", row["name"])
    ]
    assert paged.counts == whole.counts
    assert sum(whole.counts.values()) > 100
