"""What the doctor says of real databases with real faults."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from tests.contract.store_factories import postgres_fixture  # noqa: F401 - the fixture `postgres`
from tests.fakes.clock import ManualClock
from tests.support.postgres import PostgresServer
from tests.support.subjects import found, subject_of, texts

from trien_server.cli.doctor.database import clock, database, database_place
from trien_server.cli.doctor.findings import Severity
from trien_server.store.schema import migrate


@pytest.mark.promise("P1")
def test_every_setting_that_loses_what_was_signed_for_is_told_at_once(postgres: PostgresServer, tmp_path: Path) -> None:
    name = postgres.copy()
    subject = subject_of(tmp_path, store={"url": postgres.url(name)})
    assert found(database, subject) == []
    assert found(clock, subject) == []
    assert found(database_place, subject) == []
    subject.close()
    postgres.admin("ALTER ROLE trien_server SET synchronous_commit = off")
    postgres.admin("ALTER ROLE trien_server SET default_transaction_read_only = on")
    postgres.admin(
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", database=name
    )
    postgres.admin(
        "CREATE TRIGGER quietly BEFORE INSERT ON clients FOR EACH ROW EXECUTE FUNCTION nothing()", database=name
    )
    try:
        told = texts(found(database, subject))
    finally:
        postgres.admin("ALTER ROLE trien_server RESET ALL")
    subject.close()
    assert len(told) == 3
    for words in ("read-only", "changed by something else than a migration", "synchronous_commit is 'off'"):
        assert [text for text in told if words in text]


def test_a_database_that_is_away_or_of_another_version_is_told_with_what_to_do(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.url("nowhere")
    (finding,) = found(database, subject_of(tmp_path, store={"url": url}))
    assert 'database "nowhere" does not exist' in finding.text
    name = postgres.copy()
    postgres.admin("DELETE FROM alembic_version", database=name)
    (finding,) = found(database, subject_of(tmp_path, store={"url": postgres.url(name)}))
    assert (finding.text, finding.advice) == (
        "The database has no schema.",
        "Run `trien-server migrate` (`init` at first).",
    )
    (told,) = texts(found(database, subject_of(tmp_path, store={"url": "mysql://here"})))
    assert "expected a database URL" in told


@pytest.mark.promise("P8")
def test_a_clock_that_differs_from_the_databases_is_told_with_both(postgres: PostgresServer, tmp_path: Path) -> None:
    subject = subject_of(tmp_path, store={"url": postgres.url(postgres.copy())})
    subject.clock = ManualClock(subject.store.now())  # type: ignore[assignment]
    assert found(clock, subject) == []
    subject.clock.advance(timedelta(seconds=60))  # type: ignore[attr-defined]
    (told,) = texts(found(clock, subject))
    subject.close()
    assert "The clock is not to be trusted" in told
    assert subject.now.isoformat() in told


@pytest.mark.promise("P5")
def test_a_sqlite_database_with_another_schema_or_no_database_at_all_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "trien.db"
    subject = subject_of(tmp_path)
    path.write_bytes(b"this is no database, and long enough for SQLite to see that it is none" * 20)
    (told,) = texts(found(database, subject))
    assert "not a database" in told
    path.unlink()
    migrate(f"sqlite:///{path}")
    assert found(database, subject) == []
    assert texts(found(database_place, subject)) == []
    subject.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TRIGGER quietly AFTER INSERT ON clients BEGIN DELETE FROM clients; END")
    (told,) = texts(found(database, subject_of(tmp_path)))
    assert "changed by something else than a migration" in told


def test_a_database_in_memory_is_warned_about(tmp_path: Path) -> None:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        pytest.skip("no file system in memory")
    subject = subject_of(tmp_path, store={"url": f"sqlite:///{memory / 'trien-doctor-test.db'}"})
    (told,) = texts(found(database_place, subject), Severity.WARNING)
    assert "is in memory (tmpfs)" in told
