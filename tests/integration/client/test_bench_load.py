"""What the generator of `trien bench` counts, against the fake server."""

import base64
from pathlib import Path
from typing import Any

import pyotp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.fakes.signing_service import (
    SIGNER,
    TOKEN,
    CertificateAuthority,
    FakeCredential,
    FakeServer,
    FakeSigningService,
    Refuse,
    Tamper,
)

from trien_client.bench.load import Generator

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
STEP = {"key_type": "EC_P256", "algorithm": "ECDSA_P256_SHA256", "digests": 3, "seconds": 0.6, "warm_up_seconds": 0.2}


@pytest.fixture
def generator(
    server: FakeServer,
    service: FakeSigningService,
    credentials: list[FakeCredential],
    authority: CertificateAuthority,
    tmp_path: Path,
) -> Generator:
    """One client that verifies the signatures of every second request."""
    service.codes = {pyotp.HOTP(SECRET).at(counter) for counter in range(5000)}
    (tmp_path / "ca.pem").write_bytes(authority.root_pem)
    [credential] = [one for one in credentials if one.name == "credentials/p256"]
    certificate = base64.b64encode(credential.chain[0].public_bytes(Encoding.DER)).decode()
    person = {
        "signer": SIGNER,
        "secret": SECRET,
        "digits": 6,
        "token": TOKEN,
        "credentials": {"EC_P256": {"name": credential.name, "certificate": certificate}},
    }
    return Generator(
        {
            "address": server.address,
            "ca_file": str(tmp_path / "ca.pem"),
            "verified_every": 2,
            "persons": [person],
        }
    )


def test_every_signature_is_counted_and_a_part_of_them_verified_again(
    generator: Generator, service: FakeSigningService
) -> None:
    counted = generator.measure(STEP)
    requests = service.requests("SignDigests")
    assert len(requests) > 2
    assert counted["errors"] == {}
    assert counted["signatures_in_all"] == 3 * len(requests)
    assert counted["verified"] == 3 * -(-len(requests) // 2)
    assert 0 < counted["requests"] < len(requests), "those of the warm-up are not measured"
    assert counted["signatures"] == 3 * counted["requests"] == 3 * len(counted["latencies"])
    assert all(0 < latency < 30 for latency in counted["latencies"])
    codes = [request.one_time_password.code for request in requests]
    assert codes == [pyotp.HOTP(SECRET).at(counter) for counter in range(1, 1 + len(requests))]


def test_a_refusal_and_a_wrong_answer_are_errors_and_not_tried_again(
    generator: Generator, service: FakeSigningService
) -> None:
    def other_signature(response: Any) -> None:
        response.signatures[0].CopyFrom(response.signatures[1])

    def fewer(response: Any) -> None:
        del response.signatures[2:]

    # The first request's signatures are verified: the server's mistake in them is found.
    service.plan("SignDigests", Tamper(other_signature), Refuse("BUSY", retry_after=0.01), Tamper(fewer))
    counted = generator.measure(STEP)
    assert counted["errors"] == {"VerificationError": 2, "BUSY": 1}
    assert counted["signatures_in_all"] == 3 * (len(service.requests("SignDigests")) - 3)
    assert counted["signatures_in_all"] > 0
