"""A private CA in files, for a first start and for the sandbox. It is no public CA."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=365)
_CA_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    private_key: bytes

    @property
    def certificate_der(self) -> bytes:
        return x509.load_pem_x509_certificate(self.certificate).public_bytes(Encoding.DER)


class PrivateCa:
    """Issues certificates with a P-256 key that is held in memory and kept in a file."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self._certificate = x509.load_pem_x509_certificate(identity.certificate)
        key = load_pem_private_key(identity.private_key, None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the private CA's key is not an elliptic curve key")
        self._key = key

    @classmethod
    def create(cls, common_name: str) -> "PrivateCa":
        """Makes a new CA of that name, valid for ten years."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(common_name)
        usage = _key_usage(key_cert_sign=True, crl_sign=True)
        certificate = (
            _builder(name, name, key.public_key(), _CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(_identity(certificate, key))

    def issue_server(self, hosts: Sequence[str]) -> Identity:
        """Returns a TLS server's identity for host names and IP addresses."""
        return self._issue(hosts[0], ExtendedKeyUsageOID.SERVER_AUTH, [_general_name(host) for host in hosts])

    def issue_client(self, common_name: str) -> Identity:
        """Returns a TLS client's identity."""
        return self._issue(common_name, ExtendedKeyUsageOID.CLIENT_AUTH, [])

    def certify_client(self, signing_request: bytes) -> bytes:
        """Returns a TLS client's certificate (PEM) for a request (PEM) of somebody who keeps the key.

        Of the request only the key and the common name are taken over. Raises `ValueError` for a request that cannot be
        read, is not signed by its own key, or names nobody.
        """
        request = x509.load_pem_x509_csr(signing_request)
        if not request.is_signature_valid:
            raise ValueError("the certificate signing request's signature does not verify")
        names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if len(names) != 1 or not isinstance(names[0].value, str):
            raise ValueError("the certificate signing request has not one common name")
        builder = self._peer_builder(names[0].value, request.public_key(), ExtendedKeyUsageOID.CLIENT_AUTH)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue_signer(self, signing_request: bytes) -> bytes:
        """Returns a document signer's certificate (DER) for a request (DER). Raises `ValueError` for an invalid one."""
        request = x509.load_der_x509_csr(signing_request)
        if not request.is_signature_valid:
            raise ValueError("the certificate signing request's signature does not verify")
        public_key = request.public_key()
        certificate = (
            _builder(request.subject, self._certificate.subject, public_key, _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True, content_commitment=True), critical=True)
            .add_extension(self._authority_key(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(Encoding.DER)

    def _issue(self, common_name: str, usage: x509.ObjectIdentifier, names: list[x509.GeneralName]) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._peer_builder(common_name, key.public_key(), usage)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _identity(builder.sign(self._key, hashes.SHA256()), key)

    def _peer_builder(
        self, common_name: str, public_key: object, usage: x509.ObjectIdentifier
    ) -> x509.CertificateBuilder:
        return (
            _builder(_name(common_name), self._certificate.subject, public_key, _LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(self._authority_key(), critical=False)
        )

    def _authority_key(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def _builder(subject: x509.Name, issuer: x509.Name, public_key: object, lifetime: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)  # type: ignore[arg-type]
    )


def _identity(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    return Identity(
        certificate=certificate.public_bytes(Encoding.PEM),
        private_key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(
    *,
    digital_signature: bool = False,
    content_commitment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
