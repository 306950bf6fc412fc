"""A fake server with one credential of each kind of key, and a client that is connected to it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.documents.producers import libreoffice_document
from tests.fakes.signing_service import (
    TOKEN,
    CertificateAuthority,
    FakeCredential,
    FakeServer,
    FakeSigningService,
    PrivateKey,
)
from tests.integration.client.command import URI, Trien

from trien_client import Client, RetryPolicy

FAST = RetryPolicy(first_wait=timedelta(milliseconds=5), longest_wait=timedelta(milliseconds=20))


@pytest.fixture(scope="session")
def authority() -> CertificateAuthority:
    return CertificateAuthority("Test")


@pytest.fixture(scope="session")
def stranger() -> CertificateAuthority:
    return CertificateAuthority("Stranger")


@pytest.fixture(scope="session")
def keys() -> dict[str, PrivateKey]:
    return {
        "rsa": rsa.generate_private_key(public_exponent=65537, key_size=3072),
        "p256": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture
def credentials(authority: CertificateAuthority, keys: dict[str, PrivateKey]) -> list[FakeCredential]:
    return [
        FakeCredential(f"credentials/{name}", key, authority.chain(f"Hoàng Trình Đôn {name}", key))
        for name, key in keys.items()
    ]


@pytest.fixture
def service(credentials: list[FakeCredential]) -> FakeSigningService:
    return FakeSigningService(credentials)


@pytest.fixture
def server(service: FakeSigningService, authority: CertificateAuthority) -> Iterator[FakeServer]:
    with FakeServer(service, authority) as running:
        yield running


@pytest.fixture
def client(server: FakeServer, authority: CertificateAuthority) -> Iterator[Client]:
    with Client(
        server.address,
        ca_certificates=authority.root_pem,
        token=TOKEN,
        trust_anchors=authority.root_pem,
        timeout=10,
        retries=FAST,
    ) as connected:
        yield connected


@pytest.fixture
def trien(server: FakeServer, tmp_path: Path) -> Trien:
    (tmp_path / "sandbox").mkdir()
    return Trien(server.write_connection_file(tmp_path / "sandbox", otpauth_uri=URI))


@pytest.fixture
def document(tmp_path: Path) -> Path:
    return libreoffice_document(tmp_path / "quyết định.pdf")
