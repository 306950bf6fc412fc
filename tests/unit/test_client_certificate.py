"""Certificates for keys that their owners keep."""

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.support.openssl import openssl

from trien_server.cli.client_certificate import certify
from trien_server.host.files import write_private
from trien_server.host.private_ca import PrivateCa


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    identity = PrivateCa.create("Test CA").identity
    write_private(tmp_path / "ca.pem", identity.certificate)
    write_private(tmp_path / "ca.key", identity.private_key)
    return tmp_path


def make(folder: Path, request: bytes) -> bytes:
    (folder / "b.csr").write_bytes(request)
    certify(folder / "b.csr", ca_certificate=folder / "ca.pem", ca_key=folder / "ca.key", out=folder / "b.pem")
    return (folder / "b.pem").read_bytes()


def request_of(*names: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    # What a request asks for besides its key and name is not taken over.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(Encoding.PEM)


def test_a_request_by_openssl_becomes_a_certificate_of_its_key_and_name_and_nothing_else(folder: Path) -> None:
    openssl(
        folder, "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-keyout", "b.key",
        "-subj", "/O=Somebody/CN=Tran Thi B", "-out", "o.csr",
    )  # fmt: skip
    made = make(folder, (folder / "o.csr").read_bytes())
    assert "OK" in openssl(folder, "verify", "-CAfile", "ca.pem", "-purpose", "sslclient", "b.pem")
    certificate = x509.load_pem_x509_certificate(made)
    assert certificate.subject.rfc4514_string() == "CN=Tran Thi B"
    assert openssl(folder, "pkey", "-in", "b.key", "-pubout") == openssl(
        folder, "x509", "-in", "b.pem", "-pubkey", "-noout"
    )


def test_no_request_makes_a_ca(folder: Path) -> None:
    certificate = x509.load_pem_x509_certificate(make(folder, request_of("B")))
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("bad", ["no request", "no name", "two names", "another signature", "a weak key"])
def test_a_request_that_is_not_good_makes_nothing(folder: Path, bad: str) -> None:
    request = request_of("B")
    match bad:
        case "no request":
            request = b"nonsense"
        case "no name":
            request = request_of()
        case "two names":
            request = request_of("A", "B")
        case "another signature":
            der = bytearray(x509.load_pem_x509_csr(request).public_bytes(Encoding.DER))
            at = der.index(b"B", der.index(b"\x55\x04\x03"))
            der[at] = ord("C")
            request = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
        case _:
            request = request_of("B", key=rsa.generate_private_key(65537, 1024))
    with pytest.raises(ValueError, match=r".+"):
        make(folder, request)
    assert not (folder / "b.pem").exists()


def test_a_certificate_is_never_written_over_a_file(folder: Path) -> None:
    make(folder, request_of("B"))
    with pytest.raises(FileExistsError):
        make(folder, request_of("C"))
