"""The judge of a real installation: its database by its own adapter, its seals by its own token."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.promises.checker import assert_promises
from tests.promises.evidence import Evidence, read_evidence
from tests.promises.history import History

from trien_server.core.records import GrantedRequest
from trien_server.store.urls import open_store

ROOT = Path(__file__).parents[2]


class Judge:
    """Checks an installation as often as asked; the token is asked once for each message."""

    def __init__(self, url: str, token: subprocess.Popen[str]) -> None:
        self._url = url
        self._token = token
        self._known: dict[bytes, bytes] = {}

    def evidence(self) -> Evidence:
        """Reads the database. The server has to run: whoever opens a crashed database first repairs it."""
        store = open_store(self._url, on_fatal=lambda reason: None)
        try:
            return read_evidence(store)
        finally:
            store.close()

    def at_work(self, request: str) -> bool:
        """Tells whether a request is granted, and somebody has the lease to complete it."""
        store = open_store(self._url, on_fatal=lambda reason: None)
        try:
            granted = store.read(lambda snapshot: snapshot.get(GrantedRequest, request))
            now = store.now()
        finally:
            store.close()
        return granted is not None and not granted.record.completed and granted.record.lease_expire_time > now

    def check(self, history: History, *, settled: bool = True) -> Evidence:
        """Reads and judges. Raises `PromisesBroken`."""
        evidence = self.evidence()
        assert_promises(history, evidence, authenticate=self.authenticate, settled=settled)
        return evidence

    def authenticate(self, message: bytes) -> bytes:
        """HMAC-SHA256 by the installation's sealing key, in a process of its own: a module lives once in a process."""
        if message not in self._known:
            assert self._token.stdin is not None
            assert self._token.stdout is not None
            self._token.stdin.write(message.hex() + "\n")
            self._token.stdin.flush()
            self._known[message] = bytes.fromhex(self._token.stdout.readline())
            assert len(self._known[message]) == 32, "the token's process ended"
        return self._known[message]


@contextmanager
def judge_of(directory: Path, *, url: str | None = None) -> Iterator[Judge]:
    """Yields the judge of the installation in a folder; `url` is its database, by default the folder's SQLite file."""
    command = [sys.executable, "-m", "tests.promises.token_child", str(directory / "trien.toml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as token:
        try:
            yield Judge(url or f"sqlite:///{directory / 'trien.db'}", token)
        finally:
            assert token.stdin is not None
            token.stdin.close()
            token.wait(20)
