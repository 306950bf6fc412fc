"""Certificate, key and client CA are renewed while the server works: no call is refused, and all workers follow."""

import hashlib
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

import pytest
from tests.support.administration import Administrator, Connection, Refused, identity_of
from tests.support.sandbox import Installation, copy_sandbox
from tests.support.workers import running, serving_of, wait_until
from trien.v1 import credential_service_pb2

from trien_server.host.files import write_private
from trien_server.host.private_ca import Identity, PrivateCa

WORKERS = 2
CONNECTIONS = 12
RENEWALS = 2


@dataclass
class Load:
    """Calls without a pause, on one connection that stays and on new ones."""

    installation: Installation
    stopped: threading.Event = field(default_factory=threading.Event)
    calls: int = 0
    connections: int = 0
    refused: list[str] = field(default_factory=list)

    def run(self) -> None:
        request = credential_service_pb2.ListCredentialsRequest(page_size=1)
        with self._connect() as lasting:
            while not self.stopped.is_set():
                with self._connect() as fresh:
                    for connection in (lasting, fresh):
                        try:
                            connection.call(connection.credentials.ListCredentials, request)
                        except Refused as refused:
                            self.refused.append(str(refused))
                        self.calls += 1
                self.connections += 1

    def _connect(self) -> Connection:
        return Connection(self.installation, token=self.installation.population["client"]["token"])


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    directory = copy_sandbox(tmp_path_factory.mktemp("tls") / "installation")
    installation = Installation(directory, f"server.workers={WORKERS}")
    with running(installation):
        wait_until(lambda: serving_of(installation) == WORKERS, "all workers serve")
        yield installation


def events(installation: Installation, name: str) -> int:
    return sum(line.get("event") == name for line in installation.lines())


def fingerprints(installation: Installation) -> set[str]:
    """Returns the certificates that new connections see, of both ports and, by their number, of all workers."""
    seen = set()
    context = ssl.create_default_context(cafile=str(installation.directory / "tls" / "ca.pem"))
    for _ in range(CONNECTIONS):
        host, port = installation.address.split(":")
        raw = socket.create_connection((host, int(port)), timeout=10)
        with closing(raw), context.wrap_socket(raw, server_hostname=host) as connection:
            encoded = connection.getpeercert(binary_form=True)
            assert encoded is not None
            seen.add(hashlib.sha256(encoded).hexdigest())
    return seen


def write_pair(installation: Installation, identity: Identity) -> None:
    write_private(installation.directory / "tls" / "server.key", identity.private_key)
    time.sleep(0.1)  # nobody writes two files at once
    write_private(installation.directory / "tls" / "server.pem", identity.certificate)


def test_a_renewal_under_load_refuses_no_call_and_reaches_all_workers(
    installation: Installation, record_property: Callable[[str, object], None]
) -> None:
    tls = installation.directory / "tls"
    ca = PrivateCa(identity_of(tls / "ca.pem", tls / "ca.key"))
    load = Load(installation)
    thread = threading.Thread(target=load.run)
    with Administrator(installation) as administrator:
        thread.start()
        try:
            seen = [fingerprints(installation)]
            for number in range(1, RENEWALS + 1):
                renewed = ca.issue_server(["localhost", "127.0.0.1"])
                write_pair(installation, renewed)
                _wait_for_reload(installation, WORKERS * number)
                seen.append(fingerprints(installation))
                assert seen[-1] == {hashlib.sha256(renewed.certificate_der).hexdigest()}
        finally:
            load.stopped.set()
            thread.join(60)
        administrator.create_signer("after-the-renewal")  # on a connection from before
    record_property(
        "count",
        f"TLS renewals under load {RENEWALS}: calls {load.calls}, new connections"
        f" {load.connections}, refused {len(load.refused)}",
    )
    assert load.refused == []
    assert len(set.union(*seen)) == RENEWALS + 1
    assert load.connections >= 5
    assert load.calls == 2 * load.connections


def test_a_new_client_ca_lets_its_clients_in_and_the_old_ones_stay(installation: Installation) -> None:
    tls = installation.directory / "tls"
    other_ca = PrivateCa.create("Another CA")
    stranger = other_ca.issue_client("a client of the new CA")
    request = credential_service_pb2.ListCredentialsRequest()
    with Administrator(installation) as administrator:
        administrator.create_client("of-another-ca", fingerprint=hashlib.sha256(stranger.certificate_der).digest())
        with Connection(installation, identity=stranger) as early, pytest.raises(Refused, match="UNAVAILABLE"):
            early.call(early.credentials.ListCredentials, request, timeout=5)
    # The file that servers trust and the one that clients do are one in a sandbox: the CA's own comes first.
    reloaded = events(installation, "tls_reloaded")
    bundle = (tls / "ca.pem").read_bytes() + other_ca.identity.certificate
    write_private(tls / "ca.pem", bundle)
    _hang_up(installation)
    _wait_for_reload(installation, reloaded + WORKERS)
    let_in = 0
    for _ in range(CONNECTIONS):
        with Connection(installation, identity=stranger) as late:
            late.call(late.credentials.ListCredentials, request)
            let_in += 1
    assert let_in == CONNECTIONS
    with Administrator(installation) as administrator:
        administrator.create_signer("of-the-old-ca")


@pytest.mark.promise("P8")
def test_bad_files_keep_the_good_ones_in_use_and_are_reported_by_every_worker(installation: Installation) -> None:
    tls = installation.directory / "tls"
    good = fingerprints(installation)
    key = (tls / "server.key").read_bytes()
    failed = events(installation, "tls_reload_failed")
    write_private(tls / "server.key", PrivateCa.create("Another CA").issue_server(["localhost"]).private_key)
    wait_until(lambda: events(installation, "tls_reload_failed") >= failed + WORKERS, "all workers report the bad key")
    assert fingerprints(installation) == good
    write_private(tls / "server.key", key)
    with Administrator(installation) as administrator:
        administrator.create_signer("after-the-bad-key")
    assert key not in installation.log().encode()
    assert installation.process is not None
    assert installation.process.poll() is None


def _hang_up(installation: Installation) -> None:
    assert installation.process is not None
    os.kill(installation.process.pid, signal.SIGHUP)


def _wait_for_reload(installation: Installation, count: int) -> None:
    wait_until(lambda: events(installation, "tls_reloaded") >= count, "all workers have taken the renewed files")
