"""What a TLS server shows and whom it lets in, checked before it is used."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

TLS_KEYS = "RSA of 2,048 bits or more, P-256 and P-384"
_LEAST_RSA_BITS = 2048
_CURVES = frozenset({"secp256r1", "secp384r1"})


class TlsNotUsable(ValueError):  # noqa: N818
    """Certificate, key and CA cannot be used together; the message says why, without the key."""


@dataclass(frozen=True, kw_only=True)
class TlsIdentity:
    """The server's own certificate chain and key, and the CAs whose client certificates it takes, all PEM."""

    certificate_chain: bytes
    private_key: bytes = field(repr=False)
    client_ca: bytes


@dataclass(frozen=True, kw_only=True)
class TlsDates:
    """Until when a certificate of a TLS identity is good; `what` says which it is."""

    what: str
    expire_time: datetime


def check_tls(identity: TlsIdentity) -> None:
    """Checks that the key is the certificate's, and that all three can be read. Raises `TlsNotUsable`."""
    chain = _certificates(identity.certificate_chain, what="the certificate file")
    _certificates(identity.client_ca, what="the client CA file")
    if not has_tls_key(chain[0]):
        raise TlsNotUsable(f"the certificate's key is none of {TLS_KEYS}")
    try:
        key = load_pem_private_key(identity.private_key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TlsNotUsable("the key file holds no private key in PEM without a password") from None
    own, of_key = (
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for public in (chain[0].public_key(), key)
    )
    if own != of_key:
        raise TlsNotUsable("the key is not that of the certificate")


def has_tls_key(certificate: x509.Certificate) -> bool:
    """Tells whether gRPC's TLS makes connections with a certificate's key: RSA, P-256 or P-384, as was tried.

    Others, such as Ed25519 and P-521, are taken without a word, and then every handshake fails.
    """
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= _LEAST_RSA_BITS
    return isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES


def tls_dates(identity: TlsIdentity) -> Iterator[TlsDates]:
    """Yields the dates of the server's certificate, those above it, and the client CAs. Raises `TlsNotUsable`."""
    for kind, pem in (("server certificate", identity.certificate_chain), ("client CA", identity.client_ca)):
        for certificate in _certificates(pem, what=kind):
            subject = certificate.subject.rfc4514_string()
            yield TlsDates(what=f"{kind} {subject}", expire_time=certificate.not_valid_after_utc)


def _certificates(pem: bytes, *, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise TlsNotUsable(f"{what} holds no certificate in PEM, or one that cannot be read") from None
