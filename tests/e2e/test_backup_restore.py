"""Backups and restores by their commands: over a running server, both databases, and a second token."""

import json
import shutil
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
from tests.support.administration import Administrator, Person, Refused, e_office, request_of
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401
from tests.support.sandbox import TRIEN_SERVER, Installation, copy_sandbox, environment, running_sandbox

from trien_server.hsm.softhsm import write_softhsm_configuration

pytestmark = pytest.mark.promise("P2", "P5", "P10")
TRIEN = str(Path(TRIEN_SERVER).parent / "trien")


@dataclass
class Host:
    """A machine with a recipient's identity, and the commands that run there."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        identity = pyrage.x25519.Identity.generate()
        self.recipient = str(identity.to_public())
        self.identity = self.folder / "identity.txt"
        self.identity.write_text(f"{identity}\n")
        self.identity.chmod(0o600)

    def run(self, *arguments: object, program: str = TRIEN_SERVER) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [program, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=180,
            env=environment(),
            check=False,
            cwd=self.folder,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def backup(self, installation: Installation, name: str) -> Path:
        path = self.folder / name
        settings = [option for setting in installation.settings for option in ("--set", setting)]
        config = installation.directory / "trien.toml"
        done = self.run("backup", "--config", config, "--out", path, "--recipient", self.recipient, *settings)
        assert done.returncode == 0, done.stderr
        return path

    def restore(self, backup: Path, installation: Installation, *options: object) -> subprocess.CompletedProcess[str]:
        settings = [option for setting in installation.settings for option in ("--set", setting)]
        config = installation.directory / "trien.toml"
        return self.run(
            "restore", "--backup", backup, "--identity", self.identity, "--config", config,
            "--out-dir", self.folder, *settings, *options,
        )  # fmt: skip

    def approvals(self, installation: Installation) -> list[object]:
        """Has both officers approve the one statement that lies there; returns the options that say so."""
        (statement,) = self.folder.glob("*.statement.json")
        digest = subprocess.run(["sha256sum", statement], capture_output=True, text=True, check=True).stdout[:64]
        options: list[object] = []
        for name in ("first", "second"):
            out = self.folder / f"{statement.stem}.{name}.json"
            out.unlink(missing_ok=True)
            operators = installation.directory / "operators"
            done = self.run(
                "proposals", "approve-statement", statement, "--out", out, "--digest", digest,
                "--certificate-file", operators / f"{name}.pem", "--key-file", operators / f"{name}.key",
                program=TRIEN,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            options += ["--approval", out]
        statement.unlink()
        return options

    def agreed_restore(self, backup: Path, installation: Installation) -> str:
        asked = self.restore(backup, installation)
        assert asked.returncode == 1, asked.stdout
        assert "Nothing was changed" in asked.stdout, asked.stderr
        done = self.restore(backup, installation, *self.approvals(installation))
        assert done.returncode == 0, done.stderr
        return done.stdout


def empty_copy(of: Installation, folder: Path, *settings: str) -> Installation:
    """Returns an installation's folder on another machine: its files and a copy of its token, without a database."""
    shutil.copytree(of.directory, folder)
    for path in folder.glob("trien.db*"):
        path.unlink()
    write_softhsm_configuration(folder / "token")
    return Installation(folder, *settings)


@contextmanager
def running(installation: Installation) -> Iterator[Installation]:
    installation.start()
    try:
        yield installation
    finally:
        installation.kill()


@contextmanager
def signing_all_the_time(installation: Installation, people: Sequence[Person]) -> Iterator[list[int]]:
    """Signs in the background, one thread a person; yields how many signatures each made."""
    counts = [0 for _ in people]
    ended = threading.Event()

    def work(number: int) -> None:
        with e_office(installation) as client:
            while not ended.is_set():
                client.sign(request_of(people[number], uuid.uuid4().bytes), timeout=60)
                counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(people))]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def wait_for(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def signs_again(installation: Installation, person: Person) -> None:
    """Two codes in a row bring a counter back into step; one alone does not."""
    with e_office(installation) as client:
        with pytest.raises(Refused):
            client.sign(request_of(person, b"first"))
        assert client.sign(request_of(person, b"second")).signatures


def fsck(host: Host, installation: Installation) -> str:
    settings = [option for setting in installation.settings for option in ("--set", setting)]
    return host.run("fsck", "--config", installation.directory / "trien.toml", *settings).stdout


def test_a_backup_under_load_comes_back_in_the_other_database_and_from_there_in_this_one(
    tmp_path: Path, postgres: PostgresServer, record_property: Callable[[str, object], None]
) -> None:
    host = Host(tmp_path / "host")
    with running_sandbox(tmp_path / "first") as first:
        with Administrator(first) as administrator:
            people = [administrator.create_person(f"load-{number}") for number in range(2)]
            idle = administrator.create_person("idle")
        with signing_all_the_time(first, people) as counts:
            wait_for(lambda: min(counts) >= 3)
            before = sum(counts)
            path = host.backup(first, "first.age")
            during = sum(counts) - before
            wait_for(lambda: sum(counts) >= before + during + 2)
    record_property("count", f"signatures during a backup: {during}")
    assert path.stat().st_mode & 0o777 == 0o600
    shown = json.loads(host.run("backup", "show", path, "--identity", host.identity, "--output", "json").stdout)
    assert shown["tables"]["granted_requests"] >= before
    assert {key["name"] for key in shown["keys"]} >= {"installationKeys/sealing-1", "keys/idle"}

    second = empty_copy(first, tmp_path / "second", f"store.url={postgres.url(postgres.copy())}")
    report = host.agreed_restore(path, second)
    assert "What people have to do now" in report
    with running(second):
        for person in (idle, people[0]):
            signs_again(second, person)
        assert "Nothing was found." in fsck(host, second)
        path = host.backup(second, "second.age")
    third = empty_copy(second, tmp_path / "third")
    host.agreed_restore(path, third)
    with running(third):
        signs_again(third, idle)
        assert "Nothing was found." in fsck(host, third)


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    host, other = Host(tmp_path / "host"), Host(tmp_path / "other")
    box = Installation(copy_sandbox(tmp_path / "box"))
    path = host.backup(box, "b.age")
    again = host.run("backup", "--config", box.directory / "trien.toml", "--out", path, "--recipient", host.recipient)
    assert (again.returncode, "nothing was written" in again.stderr) == (1, True)
    nobody = host.run("backup", "--config", box.directory / "trien.toml", "--out", host.folder / "n.age")
    assert (nobody.returncode, "recipient" in nobody.stderr) == (1, True)
    assert not (host.folder / "n.age").exists()
    new = empty_copy(box, tmp_path / "new")
    refused = other.restore(path, new)
    assert (refused.returncode, "not for this identity" in refused.stderr) == (1, True)
    content = path.read_bytes()
    bad = host.folder / "bad.age"
    bad.write_bytes(content[:-1])
    shown = host.run("backup", "show", bad, "--identity", host.identity)
    bad.write_bytes(content[:-5] + b"12345")
    for done in (shown, host.restore(bad, new)):
        assert (done.returncode, "not whole, or was changed" in done.stderr) == (1, True), done.stderr
    host.restore(path, box)
    done = host.restore(path, box, *host.approvals(box))
    assert (done.returncode, "not empty" in done.stderr) == (1, True)
    # A token of another installation.
    strange = empty_copy(box, tmp_path / "strange")
    shutil.rmtree(strange.directory / "token")
    strange.directory.joinpath("token-pin").unlink()
    made = host.run("init", "--dir", tmp_path / "elsewhere")
    assert made.returncode == 0, made.stderr
    for name in ("token", "token-pin"):
        source, target = tmp_path / "elsewhere" / name, strange.directory / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    (strange.directory / "token-pin").chmod(0o600)
    write_softhsm_configuration(strange.directory / "token")
    lacking = host.restore(path, strange)
    assert lacking.returncode == 1
    assert "one-time password key 'trien one-time password key 1'" in lacking.stderr, lacking.stderr
    assert "two custodians" in lacking.stderr


@pytest.mark.slow
def test_a_restore_that_is_killed_at_any_time_begins_anew_or_goes_on(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    host = Host(tmp_path / "host")
    with running_sandbox(tmp_path / "box") as box:
        with Administrator(box) as administrator:
            person = administrator.create_person("killed")
        with e_office(box) as client:
            client.sign(request_of(person, b"one"))
    path = host.backup(box, "b.age")
    trial = empty_copy(box, tmp_path / "trial")
    host.restore(path, trial)
    options = host.approvals(trial)
    begun = time.monotonic()
    assert host.restore(path, trial, *options).returncode == 0
    whole = time.monotonic() - begun
    kills, half, completed = 0, 0, 0
    rounds = 24
    for number in range(rounds):
        new = empty_copy(box, tmp_path / f"new-{number}")
        command = [
            TRIEN_SERVER, "restore", "--backup", path, "--identity", host.identity,
            "--config", new.directory / "trien.toml", "--out-dir", host.folder, *options,
        ]  # fmt: skip
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        )
        try:
            process.wait(whole * (0.4 + 0.6 * number / rounds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            said = host.run("run", "--config", new.directory / "trien.toml").stderr if process.returncode else ""
            half += "half restored" in said
        done = host.restore(path, new, *options)
        assert done.returncode == 0, done.stderr
        completed += 1
        assert "Nothing was found." in fsck(host, new)
        shutil.rmtree(new.directory)
    record_property("count", f"restores killed {kills} of {rounds}, of them half done {half}, all completed")
    assert kills >= rounds // 3
    assert completed == rounds
