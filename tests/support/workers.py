"""Sandboxes with people of their own, and servers of several processes on them."""

import atexit
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from tests.promises.checker import assert_promises
from tests.promises.evidence import read_evidence
from tests.promises.history import History
from tests.support.administration import Administrator, CounterAuthenticator, Person, identity_of
from tests.support.sandbox import Installation, running_sandbox

from trien_server import config as configuration
from trien_server.host.files import read_secret, write_private
from trien_server.host.private_ca import PrivateCa
from trien_server.hsm import Pkcs11Hsm, find_softhsm_module
from trien_server.hsm.softhsm import write_softhsm_configuration
from trien_server.store.urls import open_store

PEOPLE = 8


@dataclass(frozen=True)
class Peopled:
    """A sandbox's folder and people whom no code was taken of."""

    directory: Path
    people: tuple[Person, ...]


@cache
def _original() -> Peopled:
    """Makes people by one process, so that no other one misses their keys; once in a run."""
    folder = Path(tempfile.mkdtemp(prefix="trien-people-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with running_sandbox(folder / "installation") as installation:
        with Administrator(installation) as administrator:
            people = tuple(administrator.create_person(f"person-{number}") for number in range(PEOPLE))
        if installation.stop() != 0:
            raise AssertionError(installation.log())
    return Peopled(installation.directory, people)


def copy_people(directory: Path) -> Peopled:
    """Copies the sandbox with its people into the new folder `directory`."""
    original = _original()
    shutil.copytree(original.directory, directory)
    write_softhsm_configuration(directory / "token")
    return Peopled(directory, tuple(_fresh(person) for person in original.people))


def _fresh(person: Person) -> Person:
    used = person.authenticator
    return replace(person, authenticator=CounterAuthenticator(used.name, used.secret, used.digits, used.counter))


@contextmanager
def running(*installations: Installation) -> Iterator[None]:
    """Starts servers, one after the other; ends them and all their workers, also those that hang or are paused."""
    try:
        for installation in installations:
            installation.start()
        yield
    finally:
        for installation in installations:
            left = workers_of(installation)
            installation.kill()
            for pid in left:
                with suppress(ProcessLookupError, FileNotFoundError):
                    if b"trien_server" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        os.kill(pid, signal.SIGKILL)


def workers_of(installation: Installation) -> list[int]:
    """Returns the worker processes that were started and did not end, oldest first."""
    pids: list[int] = []
    for line in installation.lines():
        match line.get("event"):
            case "worker_started":
                pids.append(int(line["pid"]))
            case "worker_ended":
                pids.remove(int(line["pid"]))
    return pids


def alive(pid: int) -> bool:
    """Tells whether a process runs, hangs or is paused; not whether its parent took note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def serving_of(installation: Installation) -> int:
    """Returns how many workers ever began to serve."""
    return sum(line.get("event") == "serving" and "workers" not in line for line in installation.lines())


def wait_until(done: Callable[[], bool], what: str, *, seconds: float = 60.0) -> float:
    """Waits until something is so; returns after how many seconds."""
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return time.monotonic() - begun


@contextmanager
def judge(installation: Installation, *, url: str | None = None) -> Iterator[Callable[..., None]]:
    """Gives what judges a history by the installation's database and token; `url` is the database's."""
    config = configuration.load(installation.directory / "trien.toml", environment={}).config
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(config.token.softhsm_configuration_file)
    store = open_store(url or config.store.url, on_fatal=lambda reason: None)
    try:
        hsm = Pkcs11Hsm(
            module_path=find_softhsm_module(),
            pin=read_secret(config.token.pin_file),
            token_label=config.token.label,
            self_test=False,
        )
        try:

            def check(history: History, **options: Any) -> None:
                assert_promises(history, read_evidence(store), authenticate=hsm.authenticate, **options)

            yield check
        finally:
            hsm.close()
    finally:
        store.close()
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before


def beside(first: Installation, *settings: str, **environment: str) -> Installation:
    """Returns a second server on the same folder, with ports of its own."""
    second = Installation(first.directory, *settings, **environment)
    second.log_path = first.log_path.with_name(f"{first.directory.name}-second.log")
    return second


def second_node(first: Installation, directory: Path, *settings: str, **environment: str) -> Installation:
    """Sets a second node up as docs/postgresql.md says: its own folder and TLS identity, the first one's token."""
    (directory / "tls").mkdir(parents=True)
    ca = PrivateCa(identity_of(first.directory / "tls" / "ca.pem", first.directory / "tls" / "ca.key"))
    identity = ca.issue_server(["localhost", "127.0.0.1"])
    write_private(directory / "tls" / "server.pem", identity.certificate)
    write_private(directory / "tls" / "server.key", identity.private_key)
    for name in ("trien.toml", "token-pin", "tls/ca.pem", "population.json"):
        shutil.copy2(first.directory / name, directory / name)
    for held_by_people in ("operators", "signing-ca"):
        shutil.copytree(first.directory / held_by_people, directory / held_by_people)
    token = f"token.softhsm_configuration_file={first.directory / 'token' / 'softhsm2.conf'}"
    return Installation(directory, token, *settings, **environment)
