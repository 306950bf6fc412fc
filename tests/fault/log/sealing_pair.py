"""Two serving processes on one database and one token, of which one seals the log, and what anyone saw of the log."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.promises.history import History
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer
from tests.support.sandbox import Installation
from tests.support.workers import beside, copy_people, judge, running, second_node, wait_until

from trien_client.log import read_log_keys, verify_log
from trien_server.core.records import Lease, LogCheckpoint, LogHead
from trien_server.services.log_history import LOG_CHECKPOINT, LOG_HEAD
from trien_server.services.log_sealing import LOG_SEALING
from trien_server.store.urls import open_store

CALLS = {
    ("KILL", "sqlite"): "pwrite64,fdatasync,ftruncate",
    ("STOP", "sqlite"): "fcntl,pwrite64",
    ("STOP", "postgresql"): "sendto,sendmsg",
}
"""The system calls to act at. A process is killed where it makes something last. SQLite's locks are taken by fcntl,
also for reading: one that is stopped while it has the lock for writing keeps all others from writing."""


@dataclass(frozen=True)
class State:
    """What the database says of the log."""

    holder: str
    size: int
    signed: int
    waiting: int


@dataclass
class Pair:
    """Both processes, people and what was seen."""

    nodes: tuple[Installation, Installation]
    people: tuple[Any, ...]
    url: str
    folder: Path
    database: str
    history: History = field(default_factory=History)
    seen: set[str] = field(default_factory=set)
    _store: Any = None

    def state(self) -> State:
        """Reads the database, and remembers the signed checkpoint."""

        def work(snapshot: Any) -> State:
            lease, head = snapshot.get(Lease, LOG_SEALING), snapshot.get(LogHead, LOG_HEAD)
            stored = snapshot.get(LogCheckpoint, LOG_CHECKPOINT)
            if stored is not None:
                self.seen.add(stored.record.note)
            signed = 0 if stored is None else stored.record.size
            holder = "" if lease is None else lease.record.holder
            return State(holder, head.record.size, signed, len(snapshot.unsealed(limit=1000)))

        found: State = self._store.read(work)
        return found

    def look(self, stop: threading.Event) -> None:
        """Collects every checkpoint that anyone could have seen, in the database and in the folder."""
        while not stop.wait(0.1):
            with suppress(FileNotFoundError):
                self.seen.add((self.folder / "checkpoint").read_text())
            with suppress(Exception):  # a store that is in use by a stopped process; the next look comes soon
                self.state()

    def judge(self) -> int:
        """Judges the whole log when both run; returns how many different checkpoints were seen."""
        wait_until(lambda: self.state().waiting == 0, "every entry is sealed", seconds=90.0)
        wait_until(lambda: (found := self.state()).size == found.signed, "the head is signed", seconds=90.0)
        covered = self.state().signed
        wait_until(lambda: self._published() >= covered, "the checkpoint is published", seconds=90.0)
        copy = self.folder.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        for _ in range(20):  # one that is copied while it grows may lack a tile of its newest checkpoint
            shutil.copytree(self.folder, copy)
            if (copy / "checkpoint").read_bytes() == (self.folder / "checkpoint").read_bytes():
                break
            shutil.rmtree(copy)
        keys = read_log_keys((copy / "log-keys").read_text())
        newest = verify_log(copy, keys).checkpoint.size
        seen = [note for note in self.seen if int(note.splitlines()[1]) <= newest]
        verify_log(copy, keys, since=seen)
        with judge(self.nodes[0], url=self.url) as check:
            check(self.history)
        return len(seen)

    def _published(self) -> int:
        return int((self.folder / "checkpoint").read_text().splitlines()[1])


@contextmanager
def sealing_pair(directory: Path, database: str, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Runs two processes that publish in one folder, and looks at the log all the while."""
    folder = directory / "log"
    folder.mkdir(mode=0o755, parents=True)
    peopled = copy_people(directory / "first")
    settings = [f"audit.tile_folder={folder}"]
    url = f"sqlite:///{peopled.directory / 'trien.db'}"
    if database == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
        move_to_postgresql(peopled.directory / "trien.db", url)
        (peopled.directory / "trien.db").unlink()
        settings.append(f"store.url={url}")
    first = Installation(peopled.directory, *settings)
    second = beside(first, *settings)
    if database == "postgresql":
        second = second_node(first, directory / "second", *settings)
    with running(first, second):
        store = open_store(url, on_fatal=lambda _: None)
        pair = Pair((first, second), peopled.people, url, folder, database, _store=store)
        stop = threading.Event()
        looking = threading.Thread(target=pair.look, args=(stop,))
        looking.start()
        try:
            yield pair
        finally:
            stop.set()
            looking.join(60)
            for node in pair.nodes:
                if node.process is not None:
                    with suppress(ProcessLookupError):
                        os.kill(node.process.pid, signal.SIGCONT)
            store.close()


def signal_at(pid: int, sent: str, calls: str, at: int, *, file: Path | None, seconds: float) -> bool:
    """Sends a signal to a process at its `at`-th call, counted by thread; returns whether it came so far in time."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={calls}"]
    command += ["-e", f"inject={calls}:signal={sent}:when={at}", "-p", str(pid)]
    for ending in ("", "-wal") if file is not None else ():
        command += ["-P", f"{file}{ending}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as tracer:
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                if tracer.poll() is not None and "permitted" in (tracer.stderr.read() if tracer.stderr else ""):
                    pytest.skip("strace may not trace here")
                if has_got(pid):
                    return True
                time.sleep(0.01)
            return False
        finally:
            tracer.terminate()
            tracer.wait(20)


def has_got(pid: int) -> bool:
    """Tells whether a process is stopped, or ended."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        states = [(thread / "stat").read_text().rpartition(")")[2].split()[0] for thread in threads]
    except FileNotFoundError:
        return True
    return not states or all(state in "TtZX" for state in states)
