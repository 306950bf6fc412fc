"""Officers give the installation's own keys new generations while people sign through two workers on SoftHSM."""

import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.e2e.test_keys import Officer, digest_of
from tests.promises.history import History
from tests.support.administration import Administrator
from tests.support.load import PASSING, Caller, load
from tests.support.sandbox import Installation, trien_server
from tests.support.workers import copy_people, judge, running, wait_until, workers_of
from trien.v1 import key_service_pb2

from trien_server.core.records import SLOW_RECORDS
from trien_server.core.sealing import HANDOVER
from trien_server.services.resealing import UNDATED

PATIENCE = 120.0


def generations(installation: Installation) -> Counter[str]:
    """Counts by which generation of the sealing key the rows are sealed that a rotation seals anew."""
    found: Counter[str] = Counter()
    with closing(sqlite3.connect(f"file:{installation.database}?mode=ro", uri=True, timeout=30)) as connection:
        for kind in (*SLOW_RECORDS, *UNDATED):
            query = f"SELECT seal_key, count(*) FROM {kind.table} GROUP BY 1"
            for seal_key, count in connection.execute(query):
                found[seal_key.partition("/")[0]] += count
    return found


def wrapped_by(installation: Installation) -> Counter[int]:
    """Counts the wrapped keys by the generation of their wrapping key."""
    query = "SELECT wrapping_generation, count(*) FROM keys WHERE wrapped_key IS NOT NULL GROUP BY 1"
    with closing(sqlite3.connect(f"file:{installation.database}?mode=ro", uri=True, timeout=30)) as connection:
        return Counter(dict(connection.execute(query).fetchall()))


def propose_and_approve(installation: Installation, purpose: str) -> str:
    """Rotates by the commands of two officers; returns what the second one read."""
    first, second = Officer(installation, "first"), Officer(installation, "second")
    text = first.text("keys", "installation", "rotate", "--purpose", purpose)
    name = next(word.rstrip(":") for word in text.split() if word.startswith("proposals/"))
    shown = second.text("proposals", "show", name)
    second.text("proposals", "approve", name, "--digest", digest_of(shown))
    return shown


def signed(callers: list[Caller]) -> int:
    return sum(len(caller.signed) for caller in callers)


def sign_on(callers: list[Caller], count: int) -> int:
    """Waits until each caller signed some more; returns how many were signed meanwhile."""
    before = {caller.person.name: len(caller.signed) for caller in callers}

    def each_signed() -> bool:
        return all(len(caller.signed) >= before[caller.person.name] + count for caller in callers)

    wait_until(each_signed, f"each caller signs {count} more", seconds=PATIENCE)
    return signed(callers) - sum(before.values())


@pytest.mark.requirement("ASVS 5.0.0-11.2.2", "ASVS 5.0.0-13.3.4")
@pytest.mark.promise("P5")
@pytest.mark.promise("P4")
@pytest.mark.parametrize("to_the_end", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_people_sign_on_while_the_sealing_and_the_wrapping_key_are_replaced(
    tmp_path: Path, to_the_end: bool, record_property: Callable[[str, object], None]
) -> None:
    peopled = copy_people(tmp_path / "installation")
    installation = Installation(peopled.directory, "server.workers=2", "log.format=json")
    history = History()
    with running(installation):
        with Administrator(installation) as administrator:
            wrapped = [
                administrator.create_person(f"wrapped-{number}", protection_level=key_service_pb2.WRAPPED)
                for number in range(2)
            ]
        with load([installation], [*peopled.people[:2], *wrapped], history) as callers:
            before = sign_on(callers, 2)
            assert set(generations(installation)) == {"1"}
            assert "SEALING" in propose_and_approve(installation, "sealing")
            wait_until(lambda: set(generations(installation)) == {"2"}, "rows are sealed anew", seconds=PATIENCE)
            resealed = generations(installation)["2"]
            during = sign_on(callers, 3)

            assert wrapped_by(installation) == {1: 2}
            made = trien_server(
                *("token", "add-wrapping-key", "--config", str(installation.directory / "trien.toml")),
                *("--so-pin-file", str(installation.directory / "token-so-pin")),
            )
            assert (made.returncode, made.stderr) == (0, ""), made.stderr
            assert "generation 2" in made.stdout
            assert "WRAPPING" in propose_and_approve(installation, "wrapping")
            wait_until(lambda: wrapped_by(installation) == {2: 2}, "keys are wrapped anew", seconds=PATIENCE)
            after = sign_on(callers, 3)
            if to_the_end:
                end = time.monotonic() + HANDOVER.total_seconds() + PATIENCE
                officer = Officer(installation, "second")
                while (text := officer.text("keys", "installation", "list")).count("RETIRED") < 2:
                    assert time.monotonic() < end, text
                    time.sleep(2.0)
                # The log's key is among them, and stays.
                assert text.count("ACTIVE") == 3
                after += sign_on(callers, 5)
        listed = Officer(installation, "first").json("keys", "installation", "list")
        refused = sum((caller.refused for caller in callers), Counter[str]())
        assert [caller.unexpected for caller in callers] == [[], [], [], []]
        assert set(refused) <= PASSING, refused
        assert [event for event in installation.lines() if event.get("event") == "record_not_trusted"] == []
    names = {key["name"].rpartition("/")[2] for key in listed}
    assert names == {"sealing-1", "sealing-2", "wrapping-1", "wrapping-2", "log-1"}
    with judge(installation) as check:
        check(history)
    name = "sealing and wrapping key replaced" + (" to the end" if to_the_end else "")
    record_property(
        "count",
        f"{name}: signatures before {before}, with the sealing key {during}, with the wrapping key {after}; "
        f"rows sealed anew {resealed}, refused and repeated {dict(refused)}",
    )
    assert min(before, during, after) >= 8
    assert resealed > 50


@pytest.mark.slow
@pytest.mark.promise("P8")
def test_a_worker_that_is_killed_while_rows_are_sealed_anew_loses_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    peopled = copy_people(tmp_path / "installation")
    installation = Installation(peopled.directory, "server.workers=2", "log.format=json")
    history = History()
    killed = 0
    with running(installation):
        with load([installation], peopled.people[:4], history) as callers:
            sign_on(callers, 2)
            propose_and_approve(installation, "sealing")
            end = time.monotonic() + 2 * PATIENCE
            while set(generations(installation)) != {"2"}:
                assert time.monotonic() < end
                alive = workers_of(installation)
                if killed < 6 and len(alive) == 2:
                    os.kill(alive[killed % 2], signal.SIGKILL)
                    killed += 1
                time.sleep(0.3)
            after = sign_on(callers, 3)
        refused = sum((caller.refused for caller in callers), Counter[str]())
        assert [caller.unexpected for caller in callers] == [[], [], [], []]
        assert [event for event in installation.lines() if event.get("event") == "record_not_trusted"] == []
    with judge(installation) as check:
        check(history)
    record_property(
        "count", f"workers killed while rows are sealed anew: {killed}, signatures after it {after}, {dict(refused)}"
    )
    assert killed >= 1
