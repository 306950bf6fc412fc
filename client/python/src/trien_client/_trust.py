"""Which certificate may verify a credential's signatures: the pinned one, or one that the trust anchors lead to.

The path is checked by pyhanko-certvalidator (RFC 5280) and not by `cryptography.x509.verification`: the latter follows
the profile of the Web PKI, which knows neither Ed25519 nor the certificates of document signing CAs, and it is the
validator that checks PDFs, so that signing and checking agree. Nothing is fetched, and revocation is not asked about
here: the server refuses a revoked credential, and whoever relies on a document asks the CA.

A chain up to an anchor shows that the CA vouches for the key, not that it is the person whom the application meant:
a server that was taken over could show another certificate of the same CA. A pin stops that too.
"""

import asyncio
import hashlib
import hmac
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from asn1crypto import x509 as asn1_x509  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import PathError, ValidationError

from trien_client._errors import TrustNotConfigured, VerificationError

CertificateSource = bytes | str | os.PathLike[str]
"""Certificates in PEM or DER as bytes, or the path of a file of them."""

T = TypeVar("T")
E = TypeVar("E", bound=x509.ExtensionType)

DOCUMENT_PURPOSES = frozenset(
    {
        "2.5.29.37.0",  # any (RFC 5280, section 4.2.1.12)
        "1.3.6.1.5.5.7.3.36",  # document signing (RFC 9336)
        "1.3.6.1.5.5.7.3.4",  # e-mail protection
        "1.2.840.113583.1.1.5",  # Adobe's authentic documents
        "1.3.6.1.4.1.311.10.3.12",  # Microsoft's document signing
    }
)
"""What an extended key usage has to name at least one of, where a signer's certificate has one."""


def load_certificates(source: CertificateSource) -> tuple[x509.Certificate, ...]:
    """Returns the certificates in `source`, at least one.

    Raises `ValueError` when there is none.
    """
    if isinstance(source, bytes):
        content = source
    else:
        with open(source, "rb") as file:
            content = file.read()
    if b"-----BEGIN" in content:
        return tuple(x509.load_pem_x509_certificates(content))
    return (x509.load_der_x509_certificate(content),)


def parse_pin(pin: CertificateSource | x509.Certificate) -> bytes:
    """Returns the SHA-256 fingerprint that `pin` names.

    A pin is a certificate (PEM, DER, or a `pathlib.Path` of such a file), the fingerprint's 32 bytes, or its 64 hex
    digits, with or without colons.
    """
    if isinstance(pin, x509.Certificate):
        return hashlib.sha256(pin.public_bytes(Encoding.DER)).digest()
    if isinstance(pin, bytes) and len(pin) == 32:
        return pin
    if isinstance(pin, str):
        return _fingerprint(pin)
    return hashlib.sha256(load_certificates(pin)[0].public_bytes(Encoding.DER)).digest()


def _fingerprint(text: str) -> bytes:
    try:
        value = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        value = b""
    if len(value) != 32:
        raise ValueError("a pin as text is a SHA-256 fingerprint: 64 hex digits")
    return value


class CertificateTrust:
    """The trust anchors and pins of one client."""

    def __init__(
        self,
        *,
        anchors: CertificateSource | Sequence[x509.Certificate] | None,
        pins: Mapping[str, CertificateSource | x509.Certificate],
    ) -> None:
        if anchors is None:
            self._anchors: tuple[x509.Certificate, ...] = ()
        elif isinstance(anchors, bytes | str | os.PathLike):
            self._anchors = load_certificates(anchors)
        else:
            self._anchors = tuple(anchors)
        self._pins = {credential: parse_pin(pin) for credential, pin in pins.items()}

    def require(self, credential: str) -> None:
        """Raises `TrustNotConfigured` when no certificate of `credential` could be trusted."""
        if not self._anchors and credential not in self._pins:
            raise TrustNotConfigured(
                f"There is nothing to verify the signatures of {credential} with. Pass trust_anchors= (the CA's"
                " certificate), or pinned_certificates= with this credential's certificate or its SHA-256 fingerprint."
            )

    def check(self, credential: str, chain: Sequence[bytes]) -> x509.Certificate:
        """Returns the certificate of `credential` when it is pinned, or valid now and issued under a trust anchor.

        Raises `VerificationError`, or `TrustNotConfigured`. A pin is enough by itself, and is not made up for by an
        anchor.
        """
        self.require(credential)
        if not chain:
            raise VerificationError(f"The server has no certificate of {credential}.")
        try:
            certificate = x509.load_der_x509_certificate(chain[0])
        except ValueError:
            raise VerificationError(f"The server sent no certificate for {credential} that can be read.") from None
        pin = self._pins.get(credential)
        if pin is not None:
            if not hmac.compare_digest(pin, hashlib.sha256(chain[0]).digest()):
                raise VerificationError(f"The certificate of {credential} is not the pinned one.")
            return certificate
        _require_signing_certificate(credential, certificate)
        self._validate_path(credential, chain)
        return certificate

    def _validate_path(self, credential: str, chain: Sequence[bytes]) -> None:
        try:
            context = ValidationContext(trust_roots=_asn1(self._anchors), allow_fetching=False)
            validator = CertificateValidator(
                asn1_x509.Certificate.load(chain[0], strict=True),
                intermediate_certs=[asn1_x509.Certificate.load(der, strict=True) for der in chain[1:]],
                validation_context=context,
            )
            run_to_completion(validator.async_validate_path())
        except (PathError, ValidationError, ValueError) as error:
            raise VerificationError(
                f"The certificate of {credential} does not lead to a trust anchor, or is not valid now: {error}"
            ) from error


def _require_signing_certificate(credential: str, certificate: x509.Certificate) -> None:
    # Without this, the certificate of a TLS server, of a TLS client or of a CA under the same anchor would pass.
    usage = _extension(certificate, x509.KeyUsage)
    purposes = _extension(certificate, x509.ExtendedKeyUsage)
    constraints = _extension(certificate, x509.BasicConstraints)
    for_signatures = usage is None or usage.content_commitment or usage.digital_signature
    for_documents = purposes is None or any(purpose.dotted_string in DOCUMENT_PURPOSES for purpose in purposes)
    if not (for_signatures and for_documents) or (constraints is not None and constraints.ca):
        raise VerificationError(f"The certificate of {credential} is not for signatures of documents.")


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _asn1(certificates: Iterable[x509.Certificate]) -> list[asn1_x509.Certificate]:
    return [
        asn1_x509.Certificate.load(certificate.public_bytes(Encoding.DER), strict=True) for certificate in certificates
    ]


def run_to_completion(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs `coroutine` and returns its result, also when this thread runs an event loop already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name="trien-certificate-path")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
