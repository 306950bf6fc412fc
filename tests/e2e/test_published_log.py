"""Receipts and the published log, of a real server on a real token, checked by those who only have a web server."""

import dataclasses
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.client.command import Trien
from tests.support import independent_log
from tests.support.moving import move_to_postgresql
from tests.support.postgres import PostgresServer, postgres_fixture
from tests.support.sandbox import Installation
from tests.support.workers import copy_people, running, second_node, wait_until
from trien.v1 import audit_service_pb2

from trien_client import Client, ConnectionFile, PermissionDenied, ProofNotValid, SignatureAlgorithm, TrienError
from trien_client.log import hash_leaf, read_log_keys, verify_consistency, verify_log
from trien_client.operators import OperatorClient

__all__ = ["postgres_fixture"]
pytestmark = pytest.mark.promise("P10")
ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256
STARTING = re.compile(r"port (\d+)")


@dataclass
class Published:
    """A server, or two nodes, with one folder that both publish the log in."""

    nodes: tuple[Installation, ...]
    folder: Path
    people: tuple[Any, ...]
    taken: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def key(self) -> str:
        """The log's first key, as somebody kept it who trusted the folder once."""
        wait_until(lambda: (self.folder / "checkpoint").exists(), "the log is published")
        return (self.folder / "log-keys").read_text(encoding="utf-8").splitlines()[0]

    def file(self, node: int = 0) -> ConnectionFile:
        file = ConnectionFile.load(self.nodes[0].directory / "connection.json")
        return dataclasses.replace(file, address=self.nodes[node].address, log_key=self.key())

    def sign(self, client: Client, digests: list[bytes]) -> Any:
        person = self.people[next(self.taken) % len(self.people)]
        return client.sign_digests(
            person.credential, ALGORITHM, digests, one_time_password=person.authenticator.take(), timeout=120
        )

    def size(self) -> int:
        note = (self.folder / "checkpoint").read_text(encoding="utf-8")
        return int(note.splitlines()[1])

    def verified(self) -> independent_log.Found:
        found = independent_log.verify(independent_log.from_folder(self.folder), first_key=self.key())
        assert found is not None
        return found


@pytest.fixture(
    scope="module", params=["SQLite", pytest.param("PostgreSQL, two nodes on one folder", marks=pytest.mark.slow)]
)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    path = tmp_path_factory.mktemp("published")
    folder = path / "log"
    folder.mkdir(mode=0o755)
    peopled = copy_people(path / "first")
    settings = [f"audit.tile_folder={folder}"]
    if request.param == "SQLite":
        nodes: tuple[Installation, ...] = (Installation(peopled.directory, *settings),)
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.url(postgres.copy())
        move_to_postgresql(peopled.directory / "trien.db", url)
        (peopled.directory / "trien.db").unlink()
        first = Installation(peopled.directory, f"store.url={url}", *settings)
        nodes = (first, second_node(first, path / "second", f"store.url={url}", *settings))
    with running(*nodes):
        yield Published(nodes, folder, peopled.people)


def digests_of(count: int, text: str) -> list[bytes]:
    return [hashlib.sha256(f"{text} {number}".encode()).digest() for number in range(count)]


def test_a_call_of_a_thousand_digests_gives_a_receipt_of_each(published: Published, record_property: Any) -> None:
    wanted = digests_of(1000, "thousand")
    keys = read_log_keys(published.key())
    largest = verified = 0
    with Client.from_connection_file(published.file()) as client:
        signed = published.sign(client, wanted)
        for index in (0, 1, 2, 255, 256, 511, 512, 998, 999):
            found = client.receipt(signed, item=index)
            assert found.receipt.verify(keys).size > found.receipt.position
            found.receipt.require_digest(wanted[index])
            assert found.receipt.leaf_hash == signed.leaf_hash
            largest, verified = max(largest, len(found.text.encode())), verified + 1
        alone = client.receipt(signed)
        assert alone.receipt.item is None
        assert alone.receipt.leaf_hash == signed.leaf_hash
        with pytest.raises(IndexError):
            client.receipt(signed, item=1000)
        with pytest.raises(ProofNotValid):
            client.receipt(dataclasses.replace(signed, digests=tuple(reversed(wanted))), item=0)
        with pytest.raises(PermissionDenied):
            client.receipt("auditEntries/there-is-none")
    record_property("count", f"receipts of one call of 1,000 digests {verified}, the largest of {largest} bytes")
    assert verified == 9
    assert largest < 2048


def test_a_receipt_is_not_accepted_with_another_logs_key(published: Published) -> None:
    file = published.file()
    name, key_id, key = published.key().split("+", 2)
    with Client.from_connection_file(file) as client:
        signed = published.sign(client, digests_of(1, "other key"))
        client.receipt(signed, item=0)
    other = dataclasses.replace(file, log_key=_another_key(name))
    with Client.from_connection_file(other) as client, pytest.raises(ProofNotValid):
        client.receipt(signed, item=0)
    assert key_id
    assert key


def test_who_has_a_web_server_alone_verifies_the_whole_log(
    published: Published, tmp_path: Path, record_property: Any
) -> None:
    with Client.from_connection_file(published.file()) as client:
        entries = [published.sign(client, digests_of(1, f"web {number}")) for number in range(6)]
        receipts = [client.receipt(signed, item=0) for signed in entries]
    covered = max(found.checkpoint.size for found in receipts)
    wait_until(lambda: published.size() >= covered, "the checkpoint of the receipts is published")
    with web_server(published.folder) as prefix:
        found = independent_log.verify(independent_log.from_web(prefix), first_key=published.key())
    assert found is not None
    hashes = [hash_leaf(leaf) for leaf in found.leaves]
    for signed, one in zip(entries, receipts, strict=True):
        assert hashes.index(signed.leaf_hash) == one.receipt.position
    copy = shutil.copytree(published.folder, tmp_path / "copy")
    verified = verify_log(copy, read_log_keys(published.key()), since=[one.receipt.checkpoint_note for one in receipts])
    assert verified.checkpoint.size >= covered
    record_property(
        "count", f"entries {found.size} and tiles {found.tiles} verified over HTTP by the specifications alone"
    )


def test_each_checkpoint_of_a_run_continues_each_earlier_one(published: Published, record_property: Any) -> None:
    seen: dict[int, bytes] = {}
    with _operator(published) as me, Client.from_connection_file(published.file(-1)) as client:
        for number in range(8):
            signed = published.sign(client, digests_of(1, f"run {number}"))
            client.receipt(signed)
            checkpoint = me.call(me.audit.GetCheckpoint, audit_service_pb2.GetCheckpointRequest())
            seen[checkpoint.size] = checkpoint.root
        pairs = list(itertools.combinations_with_replacement(sorted(seen), 2))
        for first, second in pairs:
            proof = me.call(
                me.audit.GetConsistencyProof,
                audit_service_pb2.GetConsistencyProofRequest(first_size=first, second_size=second),
            )
            verify_consistency(first, second, seen[first], seen[second], list(proof.hashes))
    record_property("count", f"consistency proofs between {len(seen)} checkpoints {len(pairs)}")
    assert len(seen) >= 5


def test_the_commands_sign_with_a_receipt_and_check_it(published: Published, tmp_path: Path) -> None:
    connection = published.nodes[0].directory / "connection.json"
    trien = Trien(connection)
    keys, kept = tmp_path / "log-keys", tmp_path / "kept"
    trien("audit", "keys", "--as", "first", "--out", keys)
    assert keys.read_text(encoding="utf-8").splitlines()[0] == published.key()
    trien("audit", "checkpoint", "--as", "first", "--out", kept)
    document, receipt = tmp_path / "contract.txt", tmp_path / "contract.receipt"
    document.write_text("contract")
    person = published.people[0]
    signing = ["sign", "digest", "--credential", person.credential, "--file", document, "--signer", person.name]
    code = person.authenticator.take()
    trien(*signing, "--receipt", receipt, "--otp-file", "-", code=code, exit_code=2)
    trien(*signing, "--receipt", receipt, "--log-key", keys, "--otp-file", "-", code=code)
    trien("verify", "receipt", receipt, "--log-key", keys, "--document", document)
    entry = re.search(r"entry: (\S+)", receipt.read_text(encoding="utf-8"))
    assert entry is not None
    again = tmp_path / "again"
    trien("audit", "receipt", entry[1], "--item", 0, "--as", "first", "--out", again)
    trien("verify", "receipt", again, "--log-key", keys, "--document", document)
    shown = trien("audit", "receipt", entry[1], "--as", "first", "--log-key", keys).stdout
    assert shown.startswith(f"trien receipt 1\nentry: {entry[1]}\n")
    copy = shutil.copytree(published.folder, tmp_path / "copy")
    trien("audit", "verify", "--tiles", copy, "--log-key", keys, "--since", kept)


def test_the_server_goes_on_without_the_folder_and_catches_up(published: Published) -> None:
    """The log itself is sealed in the database: that it is published late is reported, and refuses nothing."""
    away = published.folder.with_name("away")
    before = published.verified().size
    key = published.key()
    file = published.file()
    published.folder.rename(away)
    try:
        with Client.from_connection_file(file) as client:
            signed = published.sign(client, digests_of(1, "away"))
            position = client.receipt(signed, item=0).receipt.position
        wait_until(lambda: _reported(published, "log_not_published"), "the missing folder is reported")
    finally:
        away.rename(published.folder)
    wait_until(lambda: published.size() > position, "the log is published again")
    assert published.key() == key
    found = published.verified()
    assert found.size > before
    assert hash_leaf(found.leaves[position]) == signed.leaf_hash
    wait_until(lambda: _reported(published, "log_published_again"), "that it is published again is reported")


@pytest.mark.slow
def test_a_server_killed_under_load_leaves_a_published_log_that_verifies(
    published: Published, record_property: Callable[[str, object], None]
) -> None:
    rounds, size = 0, 0
    for number in range(12):
        node = published.nodes[number % len(published.nodes)]
        with Client.from_connection_file(published.file(number % len(published.nodes))) as client, suppress(TrienError):
            for turn in range(1 + number % 4):
                published.sign(client, digests_of(20, f"kill {number} {turn}"))
        node.kill()
        found = published.verified()
        assert found.size >= size
        size, rounds = found.size, rounds + 1
        node.start()
    with Client.from_connection_file(published.file()) as client:
        signed = published.sign(client, digests_of(1, "behind the kills"))
        position = client.receipt(signed, item=0).receipt.position
    wait_until(lambda: published.size() > position, "the log is published")
    assert hash_leaf(published.verified().leaves[position]) == signed.leaf_hash
    record_property("count", f"servers killed while they publish {rounds}")
    assert rounds == 12


def _reported(published: Published, event: str) -> bool:
    return any(line.get("event") == event for node in published.nodes for line in node.lines())


@contextmanager
def _operator(published: Published) -> Iterator[OperatorClient]:
    file = published.file()
    identity = file.certificate_of("operators/first")
    client = OperatorClient(
        file.mutual_tls_address or "",
        ca_certificates=file.ca_file,
        certificate=identity.certificate_file,
        key=identity.key_file,
    )
    try:
        yield client
    finally:
        client.close()


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Serves a folder as any web server does; returns where."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = STARTING.search(process.stdout.readline())
        assert found is not None
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def _another_key(origin: str) -> str:
    from tests.support.log_keys import LogKeyPair

    return LogKeyPair.generate(origin=origin).key.vkey
