"""Backups and restores that are killed, or whose disk fails, at their system calls."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.administration import Administrator, e_office, request_of
from tests.support.hosts import Host, empty_copy
from tests.support.sandbox import Installation, environment, running_sandbox

Record = Callable[[str, object], None]
pytestmark = [pytest.mark.slow, pytest.mark.promise("P5", "P8", "P10")]
_KILLED = -9
_BACKUP_CALLS = ("write", "fsync", "linkat", "openat")
_RESTORE_CALLS = ("pwrite64", "fdatasync", "openat", "rename")


def traced(arguments: list[object], *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the server under strace: the real interpreter, so that its own calls are counted."""
    command = ["strace", "-f", "-qqq", *options, sys.executable, "-m", "trien_server", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment(), check=False)


def calls_of(arguments: list[object], names: tuple[str, ...], folder: Path) -> Counter[str]:
    """Returns how often the command makes each of the calls."""
    log = folder / "calls"
    done = traced(arguments, "-o", str(log), "-e", f"trace={','.join(names)}")
    assert done.returncode == 0, done.stderr
    return Counter(re.findall(r"^\d+ +(\w+)\(", log.read_text(errors="replace"), re.MULTILINE))


def spread(count: int, most: int) -> list[int]:
    """Returns at most so many places among 1 to count, the last ones among them: there it matters."""
    late = list(range(max(1, count - most // 2 + 1), count + 1))
    early = [1 + number * max(1, count - len(late)) // max(1, most - len(late)) for number in range(most - len(late))]
    return sorted({place for place in (*early, *late) if 1 <= place <= count})


@pytest.fixture(name="box", scope="module")
def box_fixture(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    with running_sandbox(tmp_path_factory.mktemp("faults") / "box") as box:
        with Administrator(box) as administrator:
            person = administrator.create_person("faulted")
        with e_office(box) as client:
            client.sign(request_of(person, b"one"))
    return box


@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", "error=ENOSPC"])
def test_a_backup_is_there_whole_or_not_at_all(
    tmp_path: Path, box: Installation, fault: str, record_property: Record
) -> None:
    host = Host(tmp_path / "host")
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / "b.age"
    command = ["backup", "--config", box.directory / "trien.toml", "--out", path, "--recipient", host.recipient]
    counts = calls_of(command, _BACKUP_CALLS, tmp_path)
    path.unlink()
    told: Counter[str] = Counter()
    for call, count in sorted(counts.items()):
        for at in spread(count, 4):
            done = traced(command, "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={at}")
            found = list(folder.iterdir())
            assert found in ([], [path]), found
            whole = done.returncode == 0 or bool(found)
            if whole:
                shown = host.run("backup", "show", path, "--identity", host.identity)
                assert shown.returncode == 0, f"{call} {at}: {shown.stderr}"
                path.unlink()
            assert whole is bool(found), f"{call} {at}: {done.stderr}"
            told["whole" if whole else "nothing"] += 1
    record_property("count", f"backup, {fault} at {told.total()} calls: {dict(told)}")
    assert told["nothing"] >= 2
    assert told.total() >= 8


@pytest.mark.parametrize("fault", ["signal=KILL", "error=EIO", "error=ENOSPC"])
def test_a_restore_is_complete_or_no_server_starts_and_it_goes_on(
    tmp_path: Path, box: Installation, fault: str, record_property: Record
) -> None:
    host = Host(tmp_path / "host")
    path = host.backup(box, "b.age")
    trial = empty_copy(box, tmp_path / "trial")
    asked = empty_copy(box, tmp_path / "asked")
    approvals = [] if host.restore(path, asked).returncode == 0 else host.approvals(asked)

    def command(installation: Installation) -> list[object]:
        config = installation.directory / "trien.toml"
        given = ["--identity", host.identity, "--config", config, "--out-dir", host.folder]
        return ["restore", "--backup", path, *given, *approvals]

    counts = calls_of(command(trial), _RESTORE_CALLS, tmp_path)
    told: Counter[str] = Counter()
    for call, count in sorted(counts.items()):
        for at in spread(count, 3):
            new = empty_copy(box, tmp_path / f"{call}-{at}")
            inject = f"inject={call}:{fault}:when={at}"
            done = traced(command(new), "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
            said = host.run("fsck", "--config", new.directory / "trien.toml")
            state = said.stdout + said.stderr
            if "Nothing was found." in state:
                told["complete"] += 1
            else:
                assert done.returncode != 0, f"{call} {at}: {state}"
                told["half restored" if "half restored" in state else "empty"] += 1
            again = host.run(*command(new))
            assert again.returncode == 0, f"{call} {at}: {again.stderr}"
            assert "Nothing was found." in host.fsck(new), f"{call} {at}"
            shutil.rmtree(new.directory)
    record_property("count", f"restore, {fault} at {told.total()} calls: {dict(told)}")
    assert told.total() >= 8
    assert told["empty"] + told["half restored"] >= 2
