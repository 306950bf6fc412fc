"""Which certificate may verify a credential's signatures."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.fakes.signing_service import CertificateAuthority

from trien_client import TrustNotConfigured, VerificationError
from trien_client._trust import DOCUMENT_PURPOSES, CertificateTrust, run_to_completion

NAME = "credentials/c"


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority("Trust")


def chain_of(authority: CertificateAuthority, **options: object) -> list[bytes]:
    key = options.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
    return [c.public_bytes(Encoding.DER) for c in authority.chain("signer", key, **options)]  # type: ignore[arg-type]


def trust(authority: CertificateAuthority) -> CertificateTrust:
    return CertificateTrust(anchors=authority.root_pem, pins={})


def test_a_chain_up_to_an_anchor_is_trusted_also_inside_an_event_loop(authority: CertificateAuthority) -> None:
    chain = chain_of(authority)

    async def inside() -> bytes:
        return trust(authority).check(NAME, chain).public_bytes(Encoding.DER)

    assert trust(authority).check(NAME, chain).public_bytes(Encoding.DER) == chain[0]
    assert asyncio.run(inside()) == chain[0]


def test_an_ed25519_certificate_is_trusted(authority: CertificateAuthority) -> None:
    trust(authority).check(NAME, chain_of(authority, key=ed25519.Ed25519PrivateKey.generate()))


@pytest.mark.promise("P6")
def test_what_does_not_lead_to_an_anchor_is_refused(authority: CertificateAuthority) -> None:
    other = CertificateAuthority("Other")
    good, foreign = chain_of(authority), chain_of(other)
    wrong = {
        "foreign": foreign,
        "foreign under our issuing CA": [foreign[0], good[1]],
        "intermediate left out": [good[0]],
        "expired": chain_of(authority, days=-1),
        "not for signatures": chain_of(authority, content_commitment=False),
        "the CA itself": [good[1]],
        "none": [],
        "no certificate": [b"no certificate"],
        "broken intermediate": [good[0], b"no certificate"],
    }
    for what, chain in wrong.items():
        with pytest.raises(VerificationError):
            pytest.fail(f"accepted: {what}: {trust(authority).check(NAME, chain)}")
    assert len(wrong) == 9


def issue(
    authority: CertificateAuthority, *, purposes: list[x509.ObjectIdentifier], ca: bool = False, usage: bool = True
) -> list[bytes]:
    """A certificate like a signer's, but for these extended key usages; `usage` is whether it names a key usage."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "signer")]))
        .issuer_name(authority.issuing.subject)
        .public_key(ec.generate_private_key(ec.SECP256R1()).public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if usage:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=True,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=ca,
                crl_sign=ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    chain = [builder.sign(authority._key, SHA256()), authority.issuing]
    return [certificate.public_bytes(Encoding.DER) for certificate in chain]


DOCUMENT_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.36")
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@pytest.mark.promise("P6")
@pytest.mark.parametrize("usage", [True, False], ids=["key usage", "no key usage"])
def test_a_certificate_that_is_not_for_documents_is_refused(authority: CertificateAuthority, usage: bool) -> None:
    wrong = {
        "TLS server": issue(authority, purposes=[SERVER], usage=usage),
        "TLS client": issue(authority, purposes=[CLIENT], usage=usage),
        "TLS server and client": issue(authority, purposes=[SERVER, CLIENT], usage=usage),
        "code signing": issue(authority, purposes=[ExtendedKeyUsageOID.CODE_SIGNING], usage=usage),
        "time stamping": issue(authority, purposes=[ExtendedKeyUsageOID.TIME_STAMPING], usage=usage),
        "a CA": issue(authority, purposes=[], ca=True, usage=usage),
        "a CA for documents": issue(authority, purposes=[DOCUMENT_SIGNING], ca=True, usage=usage),
    }
    for what, chain in wrong.items():
        with pytest.raises(VerificationError, match="not for signatures of documents"):
            pytest.fail(f"accepted: {what}: {trust(authority).check(NAME, chain)}")
    assert len(wrong) == 7


@pytest.mark.parametrize("usage", [True, False], ids=["key usage", "no key usage"])
@pytest.mark.parametrize("purpose", sorted(DOCUMENT_PURPOSES))
def test_a_certificate_for_documents_is_trusted_also_when_it_is_for_more(
    authority: CertificateAuthority, purpose: str, usage: bool
) -> None:
    identifier = x509.ObjectIdentifier(purpose)
    for purposes in ([identifier], [CLIENT, identifier], []):
        chain = issue(authority, purposes=purposes, usage=usage)
        assert trust(authority).check(NAME, chain).public_bytes(Encoding.DER) == chain[0]


def test_a_pin_is_a_certificate_a_file_or_a_fingerprint(authority: CertificateAuthority, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = authority.chain("signer", key)[0]
    der, pem = certificate.public_bytes(Encoding.DER), certificate.public_bytes(Encoding.PEM)
    (tmp_path / "pin.pem").write_bytes(pem)
    fingerprint = certificate.fingerprint(SHA256())
    pins = [certificate, der, pem, tmp_path / "pin.pem", fingerprint, fingerprint.hex(), fingerprint.hex(":").upper()]
    for pin in pins:
        CertificateTrust(anchors=None, pins={NAME: pin}).check(NAME, [der])  # type: ignore[dict-item]
    assert len(pins) == 7
    with pytest.raises(ValueError, match="fingerprint"):
        CertificateTrust(anchors=None, pins={NAME: "abcd"})


def test_a_pin_counts_for_its_own_credential_only(authority: CertificateAuthority) -> None:
    der = chain_of(authority)[0]
    with pytest.raises(TrustNotConfigured, match="credentials/other"):
        CertificateTrust(anchors=None, pins={NAME: der}).check("credentials/other", [der])


def test_a_failure_inside_the_helper_thread_reaches_the_caller() -> None:
    async def fails() -> None:
        raise KeyError("inside")

    async def outer() -> None:
        run_to_completion(fails())

    with pytest.raises(KeyError, match="inside"):
        asyncio.run(outer())
