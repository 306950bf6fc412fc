"""What the doctor says of TLS certificates in files."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.support.subjects import found, subject_of, texts

from trien_server.cli.doctor.certificates import tls_certificates
from trien_server.cli.doctor.findings import Severity

NOW = datetime.now(UTC)


class Made:
    """A certificate and its key."""

    def __init__(
        self,
        name: str,
        *,
        issuer: "Made | None" = None,
        ca: bool = False,
        key: Any = None,
        names: Sequence[str] = ("sign.district.example",),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        begins: datetime = NOW - timedelta(days=100),
        ends: datetime = NOW + timedelta(days=100),
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            if names:
                alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
                builder = builder.add_extension(alternatives, critical=False)
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


CA = Made("CA", ca=True)
GOOD = Made("good", issuer=CA)


def look(folder: Path, chain: Sequence[Made], authorities: Sequence[Made] = (CA,), **sections: Any) -> Any:
    (folder / "server.pem").write_bytes(b"".join(one.pem for one in chain))
    (folder / "ca.pem").write_bytes(b"".join(one.pem for one in authorities))
    return found(tls_certificates, subject_of(folder, **sections))


def test_a_good_chain_has_no_finding(tmp_path: Path) -> None:
    assert look(tmp_path, [GOOD]) == []
    assert (
        look(tmp_path, [GOOD, CA], web={"address": "0.0.0.0:8445", "public_url": "https://sign.district.example"}) == []
    )


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ([Made("a", issuer=CA, ends=NOW - timedelta(days=1))], "expired on"),
        ([Made("a", issuer=CA, begins=NOW + timedelta(days=1))], "is not valid before"),
        ([GOOD, Made("stranger", ca=True)], "certificate 2 of the file, CN=stranger, did not issue"),
        ([Made("a", issuer=CA, names=())], "has no name or address"),
        ([Made("a", issuer=CA, usage=ExtendedKeyUsageOID.CLIENT_AUTH)], "is not for servers"),
        ([Made("a", issuer=CA, key=ed25519.Ed25519PrivateKey.generate())], "every connection fails"),
    ],
)
def test_each_fault_of_the_servers_chain_is_one_error(chain: Sequence[Made], words: str, tmp_path: Path) -> None:
    (told,) = texts(look(tmp_path, chain))
    assert words in told


def test_what_ends_within_thirty_days_is_a_warning_with_the_days(tmp_path: Path) -> None:
    soon = Made("a", issuer=CA, ends=NOW + timedelta(days=12, hours=12))
    (told,) = texts(look(tmp_path, [soon]), Severity.WARNING)
    assert "in 12 days" in told


def test_names_that_nobody_connects_to_are_a_warning(tmp_path: Path) -> None:
    local = Made("a", issuer=CA, names=("localhost",))
    assert look(tmp_path, [local]) == []
    (told,) = texts(look(tmp_path, [local], server={"token_address": "0.0.0.0:8443"}), Severity.WARNING)
    assert "names this machine: localhost" in told
    page = {"address": "0.0.0.0:8445", "public_url": "https://other.example"}
    (told,) = texts(look(tmp_path, [GOOD], web=page), Severity.WARNING)
    assert "does not name other.example" in told
    starred = Made("a", issuer=CA, names=("*.district.example",))
    for host, findings in (("x.district.example", 0), ("x.y.district.example", 1), ("district.example", 1)):
        assert len(look(tmp_path, [starred], web={**page, "public_url": f"https://{host}"})) == findings


def test_a_client_ca_that_is_none_or_has_expired_is_an_error(tmp_path: Path) -> None:
    (told,) = texts(look(tmp_path, [GOOD], [GOOD]))
    assert "is no CA's" in told
    (told,) = texts(look(tmp_path, [GOOD], [CA, Made("old", ca=True, ends=NOW - timedelta(days=1))]))
    assert "CN=old expired on" in told
