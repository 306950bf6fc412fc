"""`trien-server fsck` over a real server, its database and its token."""

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.administration import Administrator, Connection, request_of
from tests.support.sandbox import TRIEN_SERVER, Installation, environment, running_sandbox

pytestmark = pytest.mark.promise("P5")


def fsck(installation: Installation, *options: str) -> tuple[int, str]:
    """Runs the command beside the server, or without it; returns exit code and output."""
    command = [TRIEN_SERVER, "fsck", "--config", str(installation.directory / "trien.toml"), *options]
    settings = [option for setting in installation.settings for option in ("--set", setting)]
    done = subprocess.run(
        [*command, *settings], capture_output=True, text=True, timeout=120, env=environment(), check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def edit(installation: Installation, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(installation.database, timeout=30)) as connection, connection:
        assert connection.execute(statement, values).rowcount >= 1


def test_fsck_finds_nothing_where_nothing_was_done_and_names_what_was(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            person = administrator.create_person("fsck")
        with Connection(installation, token=installation.population["client"]["token"]) as client:
            client.sign(request_of(person, b"one"))
        code, output = fsck(installation)
        assert (code, output.splitlines()[-1]) == (0, "Nothing was found."), output
        assert "audit_entries" in output
        edit(installation, "UPDATE clients SET display_name = 'someone else' WHERE name = 'clients/e-office'")
        edit(installation, "DELETE FROM activators WHERE credential = ?", person.credential)
        code, output = fsck(installation)
        assert code == 1
        assert "clients clients/e-office: its seal does not verify [ROW]" in output
        assert f"activators {person.credential}/{person.name}: the row is missing" in output
        assert installation.stop() == 0
        code, output = fsck(installation, "--output", "json")
        found = json.loads(output)
        assert code == 1
        assert {(one["fault"], one["table"]) for one in found["findings"]} == {
            ("ROW", "clients"),
            ("DELETED", "activators"),
        }
        assert all(one["advice"] for one in found["findings"])
        assert found["looked_at"]["audit_entries"] > 10
        assert found["looked_at"]["key pairs on the token"] >= 3
        # Whose installation row the token did not seal, that database is not this token's.
        edit(installation, "UPDATE installations SET version = 2")
        code, output = fsck(installation)
        assert code == 1
        assert "Looked at" not in output
        # A trigger makes the whole database one that no server works on.
        edit_schema(installation)
        code, output = fsck(installation, "--output", "json")
        assert code == 1
        assert [one["fault"] for one in json.loads(output)["findings"]] == ["DATABASE"]


def edit_schema(installation: Installation) -> None:
    with closing(sqlite3.connect(installation.database)) as connection, connection:
        connection.execute("CREATE TRIGGER t AFTER UPDATE ON clients BEGIN SELECT 1; END")
