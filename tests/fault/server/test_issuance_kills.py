"""The server is killed while it issues certificates: each that was agreed on is issued once, as it was fixed."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.support.administration import Administrator, Refused
from tests.support.sandbox import Installation, running_sandbox, trien_server
from trien.v1 import credential_service_pb2, key_service_pb2, proposal_service_pb2

Record = Callable[[str, object], None]
PROPOSAL = proposal_service_pb2.Proposal
ISSUED = credential_service_pb2.IssuedCertificate
ROUNDS = 8


def create_ca(installation: Installation, administrator: Administrator) -> None:
    """Makes a CA on the host and has it agreed on."""
    names = ("--common-name", "Phú Lâm", "--organization", "UBND xã Phú Lâm", "--key-type", "EC_P256")
    done = trien_server("ca", "create", *names, "--config", str(installation.directory / "trien.toml"))
    assert done.returncode == 0, done.stderr
    request = proposal_service_pb2.GetProposalRequest(name=done.stdout.split()[-1])
    proposal = administrator.connection.call(administrator.connection.proposals.GetProposal, request)
    assert administrator.approve(proposal).state == PROPOSAL.EXECUTED


def propose(administrator: Administrator, key: str, signer: str) -> Any:
    request = credential_service_pb2.IssueCertificateRequest(key=key, signer=signer)
    return administrator.connection.call(administrator.connection.credentials.IssueCertificate, request, wait=True)


def wait_until_issued(administrator: Administrator, name: str) -> x509.Certificate:
    request = credential_service_pb2.GetIssuedCertificateRequest(name=name)
    end = time.monotonic() + 120
    while True:
        found = administrator.connection.call(
            administrator.connection.credentials.GetIssuedCertificate, request, wait=True
        )
        if found.state == ISSUED.ISSUED:
            return x509.load_der_x509_certificate(found.certificate_chain[0])
        assert time.monotonic() < end, found
        time.sleep(0.1)


def stored(installation: Installation, name: str) -> tuple[str, int, bytes] | None:
    """Returns a certificate's state, version and what is to be signed, as the database has them."""
    with installation.read_database() as database:
        query = "select state, version, to_be_signed from issued_certificates where name = ?"
        row: tuple[str, int, bytes] | None = database.execute(query, (name,)).fetchone()
        return row


def kill_while(installation: Installation, delay: float, work: Callable[[], object]) -> None:
    """Kills the server some time after a call began."""

    def call() -> None:
        with suppress(Refused):
            work()

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(delay)
    installation.kill()
    thread.join(60)


@pytest.mark.slow
@pytest.mark.promise("P1", "P9")
def test_a_kill_while_certificates_are_issued_leaves_each_issued_once(tmp_path: Path, record_property: Record) -> None:
    found: Counter[str] = Counter()
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            create_ca(installation, administrator)
            signer = administrator.create_signer("bui-van-ca")
            key = administrator.create_key("bui-van-ca").name
        names = set()
        for number in range(ROUNDS):
            with Administrator(installation) as administrator:
                proposal = propose(administrator, key, signer)
                (name,) = proposal.resources
                kill_while(installation, 0.004 * number, lambda one=administrator, what=proposal: one.approve(what))
            left = stored(installation, name)
            found["not agreed on" if left is None else left[0]] += 1
            installation.start()
            with Administrator(installation) as administrator:
                if left is None:
                    assert administrator.approve(proposal).state == PROPOSAL.EXECUTED
                certificate = wait_until_issued(administrator, name)
            now = stored(installation, name)
            assert now is not None
            assert now[1] == 2
            assert certificate.tbs_certificate_bytes == now[2]
            assert left is None or left[2] == now[2]
            assert f"{certificate.serial_number:040x}" == name.rpartition("/")[2]
            names.add(name)
        assert len(names) == ROUNDS == found.total()
    record_property("count", f"SQLite: {ROUNDS} kills while a certificate was issued, found {dict(found)}")


@pytest.mark.slow
@pytest.mark.promise("P1", "P9")
def test_what_a_kill_left_pending_is_issued_as_it_was_fixed(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "installation") as installation:
        with Administrator(installation) as administrator:
            create_ca(installation, administrator)
            signer = administrator.create_signer("bui-van-ca")
            key = administrator.create_key("bui-van-ca").name
            keys = administrator.connection.keys
            administrator.connection.call(keys.DisableKey, key_service_pb2.DisableKeyRequest(name="keys/ca-1"))
            proposal = propose(administrator, key, signer)
            (name,) = administrator.approve(proposal).resources
        before = stored(installation, name)
        assert before is not None
        assert before[:2] == ("PENDING_ISSUANCE", 1)
        installation.kill()
        installation.start()
        with Administrator(installation) as administrator:
            assert stored(installation, name) == before
            keys = administrator.connection.keys
            administrator.agree(keys.EnableKey, key_service_pb2.EnableKeyRequest(name="keys/ca-1"))
            certificate = wait_until_issued(administrator, name)
        assert certificate.tbs_certificate_bytes == before[2]
