"""Details of audit entries are erased through the command line, over a real server, and the log stays whole."""

import hashlib
import json
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.administration import Administrator, Connection, request_of
from tests.support.sandbox import TRIEN_SERVER, Installation, environment, running_sandbox

TRIEN = Path(TRIEN_SERVER).with_name("trien")
WHY = "left in 2026, request 12/2027"


def trien(installation: Installation, *arguments: str, operator: str = "first") -> str:
    """Runs the command as an officer; returns what it printed."""
    done = subprocess.run(
        [TRIEN, *arguments, "--as", operator],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(TRIEN_CONNECTION=str(installation.directory / "connection.json")),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(done: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


def query(installation: Installation, sql: str, *values: Any) -> list[Any]:
    with installation.read_database() as database:
        return database.execute(sql, values).fetchall()


@pytest.mark.promise("P9", "P10")
def test_a_person_who_left_is_erased_and_receipts_still_verify(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            person = administrator.create_person("left")
        with Connection(installation, token=installation.population["client"]["token"]) as client:
            entry = client.sign(request_of(person, b"a document")).audit_entry
        until(lambda: query(installation, "SELECT count(*) FROM unsealed_entries") == [(0,)])
        before = dict(query(installation, "SELECT name, leaf FROM audit_entries"))
        wanted = query(installation, "SELECT count(*) FROM audit_entries WHERE details LIKE ?", f'%"{person.name}%')[0][
            0
        ]
        time.sleep(1)
        until_time = (datetime.now(UTC) - timedelta(milliseconds=500)).isoformat()

        proposed = json.loads(
            trien(
                installation, "audit", "erase", "--resource", person.name, "--until", until_time, "--because", WHY,
                "--output", "json",
            )
        )  # fmt: skip
        statement = json.loads(proposed["statement"])
        digest = hashlib.sha256(proposed["statement"].encode()).hexdigest()
        assert f"The details of {len(statement['request']['audit_entries'])} audit entries" in statement["remarks"][0]
        assert len(statement["request"]["audit_entries"]) >= wanted > 2
        assert entry in statement["request"]["audit_entries"]
        trien(installation, "proposals", "approve", proposed["name"], "--digest", digest, operator="second")
        until(lambda: query(installation, "SELECT state FROM audit_erasures") == [("DONE",)])

        ((erased, named),) = query(installation, "SELECT erased, audit_entries FROM audit_erasures")
        assert erased == len(json.loads(named)) == len(statement["request"]["audit_entries"])
        assert query(installation, "SELECT details, length(salt) FROM audit_entries WHERE name = ?", entry) == [("", 0)]
        after = dict(query(installation, "SELECT name, leaf FROM audit_entries"))
        assert {name: leaf for name, leaf in after.items() if name in before} == before
        shown = trien(installation, "audit", "show", entry)
        assert "erased" in shown
        assert installation.stop() == 0
        done = subprocess.run(
            [TRIEN_SERVER, "fsck", "--config", str(installation.directory / "trien.toml"), "--output", "json"],
            capture_output=True, text=True, timeout=120, env=environment(), check=False,
        )  # fmt: skip
        assert json.loads(done.stdout)["findings"] == [], done.stdout
        assert done.stderr == ""
        assert json.loads(done.stdout)["looked_at"]["positions of the log"] > len(before) - 5
    record_property("count", f"entries erased through the command line {erased}")
