"""Request records go from a real server's database when their time is over, also when it is killed again and again."""

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.administration import Administrator, Connection, request_of
from tests.support.fake_clock import FakeClock
from tests.support.sandbox import TRIEN_SERVER, Installation, environment, running_sandbox

TABLES = ("granted_requests", "outcomes", "signature_uses", "authorizations", "approvals")
DAYS = 34
SETTING = "retention.request_days=30"


def counts(installation: Installation) -> dict[str, int]:
    with installation.read_database() as database:
        return {table: database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}


def fsck(installation: Installation) -> list[dict[str, str]]:
    """Returns what `trien-server fsck` finds, by the server's clock."""
    done = subprocess.run(
        [TRIEN_SERVER, "fsck", "--config", str(installation.directory / "trien.toml"), "--output", "json"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(**installation.environment),
        check=False,
    )
    found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    return found


def until(done: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def removed_by_entries(installation: Installation) -> int:
    with installation.read_database() as database:
        rows = database.execute("SELECT details FROM audit_entries WHERE kind = 'request_records_removed'").fetchall()
    return sum(json.loads(details)["count"] for (details,) in rows)


def signed_before(installation: Installation, count: int) -> dict[str, int]:
    """Signs so often, and stops the server."""
    with Administrator(installation) as administrator:
        person = administrator.create_person("kept")
    with Connection(installation, token=installation.population["client"]["token"]) as client:
        for number in range(count):
            client.sign(request_of(person, f"document {number}".encode()))
    assert installation.stop() == 0
    made = counts(installation)
    assert all(made[table] >= count for table in TABLES), made
    return made


@pytest.mark.promise("P7")
def test_what_is_over_goes_when_the_server_runs_a_month_later(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    clock = FakeClock(tmp_path)
    with running_sandbox(tmp_path / "installation", SETTING, **clock.environment) as installation:
        made = signed_before(installation, 4)
        clock.set(DAYS * 86_400)
        installation.start()
        until(lambda: not any(counts(installation).values()))
        assert fsck(installation) == []
        # An outcome goes with its request, and is not counted by itself.
        until(lambda: removed_by_entries(installation) >= sum(made.values()) - made["outcomes"])
        assert installation.stop() == 0
        assert fsck(installation) == []
    record_property("count", f"request records removed by a real server {sum(made.values())}")


@pytest.mark.slow
@pytest.mark.promise("P5", "P7", "P8")
def test_a_server_that_is_killed_while_it_removes_goes_on(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    source, clock = random.Random(7), FakeClock(tmp_path)
    with running_sandbox(tmp_path / "installation", SETTING, **clock.environment) as installation:
        made = signed_before(installation, 60)
        clock.set(DAYS * 86_400)
        kills = middle = 0
        while any(counts(installation).values()) and kills < 60:
            # The lease of the process that was killed lapses within a minute.
            clock.set(clock.offset + 70)
            installation.start()
            begun = counts(installation)
            until(lambda begun=begun: counts(installation) != begun, seconds=30)  # type: ignore[misc]
            time.sleep(source.uniform(0, 0.03))
            installation.kill()
            kills += 1
            left = sum(counts(installation).values())
            middle += 0 < left < sum(made.values())
            assert fsck(installation) == []
        clock.set(clock.offset + 70)
        installation.start()
        until(lambda: not any(counts(installation).values()))
        assert installation.stop() == 0
        assert fsck(installation) == []
        assert removed_by_entries(installation) >= sum(made.values()) - made["outcomes"]
    record_property("count", f"servers killed while they removed {kills}, in the middle {middle}")
    assert middle >= 1
