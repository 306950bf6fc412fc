"""Remote keys in the hands of code that knows only `cryptography`."""

import copy
import pickle
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from tests.fakes.signing_service import CertificateAuthority, FakeSigningService, Tamper

from trien_client import Client, InvalidArgument, OneTimePasswordContext, OneTimePasswordRejected, VerificationError
from trien_client.keys import remote_key

NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Hoàng Trình Đôn")])
KEYS: dict[str, tuple[type, hashes.HashAlgorithm | None]] = {
    "rsa": (rsa.RSAPrivateKey, hashes.SHA256()),
    "p256": (ec.EllipticCurvePrivateKey, hashes.SHA256()),
    "p384": (ec.EllipticCurvePrivateKey, hashes.SHA384()),
    "ed25519": (ed25519.Ed25519PrivateKey, None),
}


class Ask:
    """Gives each code once, and remembers what for."""

    def __init__(self, service: FakeSigningService) -> None:
        self.codes = sorted(service.codes)
        self.contexts: list[OneTimePasswordContext] = []

    def __call__(self, context: OneTimePasswordContext) -> str:
        self.contexts.append(context)
        return self.codes.pop()


@pytest.fixture
def ask(service: FakeSigningService) -> Ask:
    return Ask(service)


def openssl(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", KEYS)
def test_a_certificate_signing_request_is_signed_remotely(client: Client, ask: Ask, tmp_path: Path, name: str) -> None:
    kind, function = KEYS[name]
    key: Any = remote_key(client, f"credentials/{name}", one_time_password=ask)
    assert isinstance(key, kind)
    request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(key, function)  # type: ignore[arg-type]
    assert request.is_signature_valid
    (tmp_path / "request.pem").write_bytes(request.public_bytes(Encoding.PEM))
    assert "verify OK" in openssl(tmp_path, "req", "-verify", "-noout", "-in", "request.pem")
    assert request.public_key() == key.public_key() == client.trusted_certificate(f"credentials/{name}").public_key()
    assert len(ask.contexts) == 1
    assert key.result.audit_entry == "auditEntries/e1"


def test_a_request_may_be_padded_by_pss(client: Client, ask: Ask, tmp_path: Path) -> None:
    key: Any = remote_key(client, "credentials/rsa", one_time_password=ask)
    for salt, length in ((padding.PSS.DIGEST_LENGTH, 64), (20, 20), (padding.PSS.MAX_LENGTH, 3072 // 8 - 64 - 2)):
        pss = padding.PSS(padding.MGF1(hashes.SHA512()), salt)
        request = x509.CertificateSigningRequestBuilder().subject_name(NAME).sign(
            key, hashes.SHA512(), rsa_padding=pss
        )  # fmt: skip
        assert request.is_signature_valid
        assert key.result.pss_salt_length == length
        (tmp_path / "request.pem").write_bytes(request.public_bytes(Encoding.PEM))
        assert "verify OK" in openssl(tmp_path, "req", "-verify", "-noout", "-in", "request.pem")


@pytest.mark.parametrize("name", ["rsa", "p256", "p384"])
def test_a_pkcs7_signature_is_made_remotely(
    client: Client, ask: Ask, authority: CertificateAuthority, tmp_path: Path, name: str
) -> None:
    key: Any = remote_key(client, f"credentials/{name}", one_time_password=ask)
    function: Any = KEYS[name][1]
    chain = [x509.load_der_x509_certificate(der) for der in client.trusted_chain(f"credentials/{name}")]
    builder = pkcs7.PKCS7SignatureBuilder().set_data(b"content").add_signer(key.certificate, key, function)
    for certificate in chain[1:]:
        builder = builder.add_certificate(certificate)
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
    (tmp_path / "content.p7s").write_bytes(builder.sign(Encoding.DER, options))
    (tmp_path / "content").write_bytes(b"content")
    (tmp_path / "root.pem").write_bytes(authority.root_pem)
    verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", "content.p7s", "-content", "content"]
    verify += ["-CAfile", "root.pem", "-purpose", "any", "-out", "signed"]
    assert "successful" in openssl(tmp_path, *verify)
    assert len(ask.contexts) == 1


def test_a_builder_that_takes_no_ed25519_key_takes_no_remote_one(client: Client) -> None:
    key: Any = remote_key(client, "credentials/ed25519")
    with pytest.raises(TypeError, match="RSA & EC"):
        pkcs7.PKCS7SignatureBuilder().set_data(b"c").add_signer(key.certificate, key, hashes.SHA512())


def test_a_digest_that_is_there_already_is_signed_as_it_is(client: Client, ask: Ask) -> None:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"text")
    value, prehashed = digest.finalize(), utils.Prehashed(hashes.SHA256())
    curve: Any = remote_key(client, "credentials/p256", one_time_password=ask)
    assert (curve.key_size, curve.curve.name) == (256, "secp256r1")
    curve.public_key().verify(curve.sign(value, ec.ECDSA(prehashed)), b"text", ec.ECDSA(hashes.SHA256()))
    modulus: Any = remote_key(client, "credentials/rsa", one_time_password=ask)
    assert modulus.key_size == 3072
    signature = modulus.sign(value, padding.PKCS1v15(), prehashed)
    modulus.public_key().verify(signature, b"text", padding.PKCS1v15(), hashes.SHA256())
    edwards: Any = remote_key(client, "credentials/ed25519", one_time_password=ask)
    edwards.public_key().verify(edwards.sign(bytearray(b"text")), b"text")
    assert [context.digests for context in ask.contexts[:2]] == [(value,)] * 2


@pytest.mark.parametrize("name", KEYS)
def test_what_needs_the_private_key_is_refused(client: Client, name: str) -> None:
    key: Any = remote_key(client, f"credentials/{name}")
    attempts = [lambda: key.private_bytes(Encoding.PEM, None, None)]
    if name == "ed25519":
        attempts.append(key.private_bytes_raw)
    else:
        attempts.append(key.private_numbers)
    if name == "rsa":
        attempts.append(lambda: key.decrypt(b"", padding.PKCS1v15()))
    if name.startswith("p"):
        attempts.append(lambda: key.exchange(ec.ECDH(), key.public_key()))
    for attempt in attempts:
        with pytest.raises(UnsupportedAlgorithm, match="never leaves"):
            attempt()
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)
    assert copy.copy(key) is copy.deepcopy(key) is key
    assert repr(key).endswith(f"('credentials/{name}')")


def test_what_trien_does_not_sign_is_refused_before_anyone_is_asked(client: Client, ask: Ask) -> None:
    modulus: Any = remote_key(client, "credentials/rsa", one_time_password=ask)
    curve: Any = remote_key(client, "credentials/p256", one_time_password=ask)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    for attempt in (
        lambda: modulus.sign(b"", padding.PKCS1v15(), hashes.SHA1()),
        lambda: modulus.sign(b"", padding.PKCS1v15(), utils.NoDigestInfo()),
        lambda: modulus.sign(b"", oaep, hashes.SHA256()),
        lambda: modulus.sign(b"", padding.PSS(padding.MGF1(hashes.SHA1()), 20), hashes.SHA256()),
        lambda: curve.sign(b"", ec.ECDSA(hashes.SHA512())),
        lambda: curve.sign(b"", ec.ECDSA(hashes.SHA256(), deterministic_signing=True)),
    ):
        with pytest.raises(UnsupportedAlgorithm, match="Trien"):
            attempt()
    with pytest.raises(ValueError, match="for verification"):
        modulus.sign(b"", padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO), hashes.SHA256())
    assert ask.contexts == []


@pytest.mark.promise("P6")
def test_errors_of_the_sdk_pass_through_the_builders(client: Client, ask: Ask, service: FakeSigningService) -> None:
    key: Any = remote_key(client, "credentials/p256", one_time_password=ask)
    builder = x509.CertificateSigningRequestBuilder().subject_name(NAME)
    service.plan("SignDigests", Tamper(lambda answer: answer.ClearField("signatures")))
    with pytest.raises(VerificationError):
        builder.sign(key, hashes.SHA256())
    wrong: Any = remote_key(client, "credentials/p256", one_time_password="000000")
    with pytest.raises(OneTimePasswordRejected):
        builder.sign(wrong, hashes.SHA256())
    nobody: Any = remote_key(client, "credentials/p256")
    with pytest.raises(InvalidArgument, match="one-time password is needed"):
        builder.sign(nobody, hashes.SHA256())
