"""An older copy of the database is put in the place of the present one: the server sees it, at a start and running."""

import shutil
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.administration import Connection, Refused, request_of
from tests.support.sandbox import Installation, trien_server
from tests.support.workers import copy_people, running, wait_until

pytestmark = pytest.mark.promise("P10")
Record = Callable[[str, object], None]


class Copied:
    """An installation that published, was stopped, copied as it was then, and went on for a while."""

    def __init__(self, directory: Path) -> None:
        self.folder, self.old = directory / "log", directory / "old"
        self.folder.mkdir(mode=0o755)
        peopled = copy_people(directory / "installation")
        self.people = iter(peopled.people * 4)
        self.installation = Installation(peopled.directory, f"audit.tile_folder={self.folder}")
        with running(self.installation):
            self.sign()
            assert self.installation.stop() == 0
            shutil.copytree(self.installation.directory, self.old)
            self.installation.start()
            self.sign()
            assert self.installation.stop() == 0

    def sign(self) -> Any:
        token = self.installation.population["client"]["token"]
        with Connection(self.installation, token=token) as connection:
            return connection.sign(request_of(next(self.people), b"a document"), timeout=60)

    def put_back(self, name: str) -> None:
        """Puts what lies beside the server back as it was when it was copied."""
        there = self.installation.directory / name
        if there.is_dir():
            shutil.rmtree(there)
            shutil.copytree(self.old / name, there)
            return
        for ending in ("", "-wal", "-shm"):
            there.with_name(name + ending).unlink(missing_ok=True)
        shutil.copy2(self.old / name, there)

    def empty_folder(self) -> None:
        shutil.rmtree(self.folder)
        self.folder.mkdir(mode=0o755)

    def refused(self) -> str:
        """Starts the server, which refuses; returns its words."""
        config = self.installation.directory / "trien.toml"
        settings = [
            "server.token_address=127.0.0.1:0",
            "server.certificate_address=127.0.0.1:0",
            *self.installation.settings,
        ]
        arguments = [part for setting in settings for part in ("--set", setting)]
        ended = trien_server("run", "--config", str(config), *arguments, timeout=120)
        assert ended.returncode not in (0, -signal.SIGKILL), ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr


@pytest.fixture
def copied(tmp_path: Path) -> Copied:
    return Copied(tmp_path)


def test_a_server_does_not_start_on_yesterdays_database_while_a_witness_is_left(
    copied: Copied, record_property: Record
) -> None:
    refusals = 0
    copied.put_back("trien.db")
    words = copied.refused()
    assert "does not continue what is known of it: the token's checkpoint has" in words
    assert "bring back the right one, or put a backup back with `trien-server restore`" in words
    refusals += 1
    kept = shutil.copytree(copied.folder, copied.folder.with_name("kept"))
    copied.empty_folder()
    assert "the token's checkpoint has" in copied.refused(), "the token alone"
    refusals += 1
    copied.put_back("token")
    shutil.rmtree(copied.folder)
    shutil.copytree(kept, copied.folder)
    assert "the published checkpoint has" in copied.refused(), "the folder alone"
    refusals += 1
    copied.empty_folder()
    with running(copied.installation):  # without any witness nobody knows better: docs/threat-model.md
        copied.sign()
    record_property("count", f"SQLite: starts refused on an older copy {refusals}, started without witnesses 1")
    assert refusals == 3


@pytest.mark.slow
def test_a_server_stops_serving_when_yesterdays_database_is_put_under_it(
    copied: Copied, record_property: Record
) -> None:
    installation = copied.installation
    with running(installation):
        copied.sign()
        token = installation.population["client"]["token"]
        with Connection(installation, token=token) as connection:
            assert connection.serving()
            with (
                closing(sqlite3.connect(copied.old / "trien.db")) as source,
                closing(sqlite3.connect(installation.database, timeout=60)) as target,
            ):
                source.backup(target)
            seconds = wait_until(lambda: not connection.serving(), "the server stops serving")
            with pytest.raises(Refused, match="LOG_NOT_TRUSTED"):
                connection.sign(request_of(next(copied.people), b"another document"))
        assert any(line.get("event") == "log_not_trusted" for line in installation.lines())
    record_property("count", f"SQLite: not serving {seconds:.1f} s after the database was set back")
