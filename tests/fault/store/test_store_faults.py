"""SQLite when the process is killed at a system call, and when the disk fails or is full."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.store_factories import sqlite_template_fixture  # noqa: F401
from tests.contract.store_records import attempts, entry, example, sealed

from trien_server.core.errors import StoreUnavailable
from trien_server.core.ports import Transaction
from trien_server.core.records import AuditEntry, SignerAttempts
from trien_server.store.schema import migrate
from trien_server.store.sqlite.store import SqliteStore

ROOT = Path(__file__).parents[3]


@dataclass
class Run:
    """What a child under fault injection said before it ended, and what is in the database afterwards."""

    code: int
    lines: list[str]
    found: set[str]

    def said(self, word: str) -> list[str]:
        return [line.partition(" ")[2] for line in self.lines if line.partition(" ")[0] == word]

    def check(self) -> None:
        """Whatever happened: acknowledged means there, and a transaction is there as a whole or not at all."""
        for name in self.said("ack"):
            assert {f"{name}/first", f"{name}/second"} <= self.found, f"{name} was acknowledged and is lost"
        halves = {name.rpartition("/")[0] for name in self.found}
        assert len(self.found) == 2 * len(halves), "a transaction is there by half"


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    shutil.copy(sqlite_template, tmp_path / "trien.db")
    return tmp_path / "trien.db"


def inject(path: Path, rule: str, *, threads: int, times: int, endings: tuple[str, ...] = ("", "-wal", "-shm")) -> Run:
    """Runs a child that inserts pairs, under strace with one rule for some files; then looks into the database."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    calls = rule.partition(":")[0]
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={calls}",
        "-e",
        f"inject={rule}",
        *(part for ending in endings for part in ("-P", f"{path}{ending}")),
        os.path.realpath(sys.executable),
        "-m",
        "tests.contract.store_child",
        "insert",
        f"sqlite:///{path}",
        "n",
        str(threads),
        str(times),
    ]
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "ptrace" in finished.stderr or "PTRACE" in finished.stderr:
        pytest.skip("strace may not trace here")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {name for (name,) in connection.execute("SELECT name FROM signer_attempts")}
    return Run(finished.returncode, finished.stdout.splitlines(), found)


@pytest.mark.promise("P1")
@pytest.mark.parametrize("calls", ["pwrite64", "fdatasync,fsync", "fcntl", "ftruncate,unlink,openat"])
def test_a_kill_at_any_system_call_on_the_database_loses_nothing(path: Path, sqlite_template: Path, calls: str) -> None:
    """Kills at the first, second, … call until the child gets through unharmed."""
    limit, step = 200, {"fcntl": 3}.get(calls, 1)
    killed = acknowledged = 0
    for when in range(1, limit, step):
        for file in path.parent.glob("trien.db*"):
            file.unlink()
        shutil.copy(sqlite_template, path)
        run = inject(path, f"{calls}:signal=KILL:when={when}", threads=1, times=3)
        run.check()
        acknowledged += len(run.said("ack"))
        if run.code == 0:
            assert len(run.said("ack")) == 3
            break
        assert run.code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        killed += 1
    else:
        pytest.fail("the child never got through")
    assert killed >= 2
    assert acknowledged >= 3


@pytest.mark.promise("P1", "P8")
@pytest.mark.parametrize("when", ["1", "1+", "2+", "3", "3+", "6+"])
def test_a_failed_flush_is_fatal_and_nobody_is_acknowledged(path: Path, when: str) -> None:
    """Also when only one flush fails: the kernel may say yes the next time although the data is gone."""
    run = inject(path, f"fsync,fdatasync:error=EIO:when={when}", threads=1, times=10)
    run.check()
    flushed = int(when.rstrip("+")) - 1
    assert run.code == 3
    assert [bool(re.search("IOERR", reason)) for reason in run.said("fatal")] == [True]
    assert len(run.said("ack")) <= flushed
    assert len(run.said("ack")) + len(run.said("refused")) == 10 + 3 + 1
    assert "read" in run.said("refused"), "a read was answered after the disk had failed"
    assert not any(name.startswith("after-fatal") for name in run.found)


@pytest.mark.promise("P1", "P8")
@pytest.mark.parametrize("rule", ["fdatasync:error=EIO:when=4+", "pwrite64:error=EIO:when=30+"])
def test_a_failing_disk_refuses_all_who_share_the_commit(path: Path, rule: str) -> None:
    threads, times = 16, 20
    run = inject(path, rule, threads=threads, times=times)
    run.check()
    acknowledged, refused = run.said("ack"), run.said("refused")
    assert run.code == 3
    assert len(run.said("fatal")) == 1
    assert len(acknowledged) + len(refused) == threads * times + 4
    assert len(refused) >= threads, "those who waited for the failed commit were not all refused"
    after = run.lines.index(f"fatal {run.said('fatal')[0]}")
    # Who was answered before may say so later: each thread once at most.
    assert sum(line.startswith("ack") for line in run.lines[after:]) <= threads
    assert not any(name.startswith("after-fatal") for name in run.found)


@pytest.mark.promise("P1", "P8")
@pytest.mark.parametrize("rule", ["fdatasync,fsync:error=EIO:when=1", "pwrite64:error=EIO:when=2"])
def test_a_failed_checkpoint_is_fatal_and_loses_nothing(path: Path, rule: str) -> None:
    """The checkpoint writes and flushes the database itself, behind the answers: SQLite's own way would hide it."""
    run = inject(path, rule, threads=1, times=300, endings=("",))
    run.check()
    assert run.code == 3
    assert len(run.said("fatal")) == 1
    assert 200 <= len(run.said("ack")) < 300
    assert len(run.said("ack")) + len(run.said("refused")) == 300 + 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.promise("P8")
def test_a_full_disk_refuses_within_a_bounded_wait_and_recovers_by_itself(small_disk: Path) -> None:
    path = small_disk / "trien.db"
    migrate(f"sqlite:///{path}")
    fatal: list[str] = []
    store = SqliteStore(path, on_fatal=fatal.append)
    (small_disk / "ballast").write_bytes(bytes(3 * 1024 * 1024))

    def work(transaction: Transaction, number: int) -> None:
        transaction.insert(sealed(example(AuditEntry, f"e{number}", details="x" * 20_000)))
        transaction.insert(attempts(f"s{number}"))

    def insert(number: int) -> bool:
        try:
            store.transact(lambda transaction: work(transaction, number), timeout=10)
        except StoreUnavailable:
            return False
        return True

    began = time.monotonic()
    acknowledged = [number for number in range(200) if insert(number)]
    waited = time.monotonic() - began
    refused = 200 - len(acknowledged)
    assert refused > 20
    assert len(acknowledged) > 10
    assert waited < 60
    rows = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=999))
    assert {row.record.name for row in rows} >= {f"s{number}" for number in acknowledged}

    (small_disk / "ballast").unlink()
    acknowledged += [number for number in range(1000, 1010) if insert(number)]
    assert acknowledged[-10:] == list(range(1000, 1010))
    store.close()
    assert fatal == []

    store = SqliteStore(path, on_fatal=fatal.append)
    entries = store.read(lambda snapshot: snapshot.find(AuditEntry, limit=999))
    rows = store.read(lambda snapshot: snapshot.find(SignerAttempts, limit=999))
    store.transact(lambda transaction: transaction.insert(entry("last")), timeout=10)
    store.close()
    assert {row.record.name for row in rows} >= {f"s{number}" for number in acknowledged}
    assert [row.record.name[1:] for row in entries] == [row.record.name[1:] for row in rows]
