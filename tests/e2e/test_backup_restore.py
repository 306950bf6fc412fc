"""Backups and restores by their commands: over a running server, both databases, and a second token."""

import hashlib
import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from tests.support.administration import Administrator, Connection, Person, Refused, e_office, request_of
from tests.support.ceremony import OFFICERS, Ceremony
from tests.support.hosts import Host, empty_copy, running
from tests.support.postgres import PostgresServer, postgres_fixture  # noqa: F401
from tests.support.sandbox import Installation, copy_sandbox, running_sandbox
from tests.support.softhsm import MODULE
from trien.v1 import key_service_pb2, organization_service_pb2

from trien_server.core.secret import Secret
from trien_server.hsm import create_softhsm_token
from trien_server.hsm.softhsm import write_softhsm_configuration

pytestmark = pytest.mark.promise("P2", "P5", "P10")


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
        assert "Nothing was found." in host.fsck(second)
        path = host.backup(second, "second.age")
    third = empty_copy(second, tmp_path / "third")
    host.agreed_restore(path, third)
    with running(third):
        signs_again(third, idle)
        assert "Nothing was found." in host.fsck(third)


@pytest.mark.slow
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
    done = host.tried_restore(path, box)
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
@pytest.mark.promise("P4")
def test_custodians_and_a_backup_bring_an_empty_token_to_sign_by_a_wrapped_key(tmp_path: Path) -> None:
    host, held = Host(tmp_path / "host"), Ceremony(tmp_path / "ceremony")
    done = held.hold()
    assert done.returncode == 0, done.stderr
    first = Installation(held.installation)
    for name, officer in (("first", OFFICERS[0]), ("second", OFFICERS[1])):
        operators = held.installation / "operators"
        shutil.copy(operators / f"{officer}.pem", operators / f"{name}.pem")
        shutil.copy(held.folder / f"{officer}.key", operators / f"{name}.key")
    with running(first), Administrator(first) as administrator:
        organization = organization_service_pb2.Organization(display_name="Ủy ban nhân dân xã Phú Lâm")
        request = organization_service_pb2.CreateOrganizationRequest(
            organization_id=administrator.organization.partition("/")[2], organization=organization
        )
        administrator.connection.call(administrator.connection.organizations.CreateOrganization, request)
        client, token = administrator.create_client("portal")
        person = administrator.create_person(
            "chair", protection_level=key_service_pb2.WRAPPED, clients=(client,), client_collected_otp=True
        )
        kept = administrator.create_person("clerk", clients=(client,))
        with Connection(first, token=token) as portal:
            assert portal.sign(request_of(person, b"one")).signatures
            assert portal.sign(request_of(kept, b"one")).signatures
        path = host.backup(first, "b.age")
    second = empty_copy(first, tmp_path / "second")
    shutil.rmtree(second.directory / "token")
    (second.directory / "exported-keys.toml").unlink()
    pins = [Secret((second.directory / name).read_bytes().strip()) for name in ("token-pin", "token-so-pin")]
    create_softhsm_token(second.directory / "token", label="trien", pin=pins[0], so_pin=pins[1], module_path=MODULE)
    config = second.directory / "trien.toml"
    brought = host.run(
        "token", "import-keys", "--config", config, "--export", held.export,
        "--so-pin-file", second.directory / "token-so-pin", "--share", held.shares[0], "--share", held.shares[1],
    )  # fmt: skip
    assert brought.returncode == 0, brought.stderr
    report = host.agreed_restore(path, second)
    assert "The token lacks these keys" in report
    assert "signing key keys/clerk" in report
    assert "keys/chair" not in report
    with running(second), Connection(second, token=token) as portal:
        with pytest.raises(Refused):
            portal.sign(request_of(person, b"first"))
        signature = portal.sign(request_of(person, b"second")).signatures[0].value
        digest = hashlib.sha256(b"second").digest()
        public_key = person.certificate.public_key()
        assert isinstance(public_key, ec.EllipticCurvePublicKey)
        public_key.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
        with pytest.raises(Refused):
            portal.sign(request_of(kept, b"first"))
        with pytest.raises(Refused):
            portal.sign(request_of(kept, b"second"))
