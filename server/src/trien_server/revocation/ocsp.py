"""OCSP (RFC 6960): what is asked, and what an answer has to be before it is believed."""

import hashlib
import os
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from trien_server.core import der
from trien_server.core.ports import RevocationAnswer
from trien_server.core.records import Revocation

MEDIA_TYPE = "application/ocsp-request"
LARGEST_ANSWER = 64 * 1024

_SKEW = timedelta(minutes=5)
_LONGEST_WITHOUT_END = timedelta(days=1)
"""How old an answer without nextUpdate may be."""
_WEAK = (hashes.MD5, hashes.SHA1)


class NotBelieved(Exception):  # noqa: N818
    """An answer or list that says nothing; the message is for operators."""


def make_request(certificate: x509.Certificate, issuer: x509.Certificate) -> tuple[bytes, bytes]:
    """Returns a request in DER and its nonce. The certificate is named with SHA-1, as every responder knows it."""
    nonce = os.urandom(32)
    built = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(certificate, issuer, hashes.SHA1())  # noqa: S303 - it names, and protects nothing
        .add_extension(x509.OCSPNonce(nonce), critical=False)
        .build()
    )
    return built.public_bytes(Encoding.DER), nonce


def read_answer(
    encoded: bytes, certificate: x509.Certificate, issuer: x509.Certificate, *, nonce: bytes, at: datetime, source: str
) -> RevocationAnswer:
    """Returns what an OCSP response (DER) says of a certificate. Raises `NotBelieved`."""
    try:
        response = ocsp.load_der_ocsp_response(encoded)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise NotBelieved(f"it answered {response.response_status.name}")
        single = _find(response, certificate, issuer)
        _check_nonce(response, nonce)
        _check_signature(response, issuer, at)
        return _read(response, single, at, source)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as fault:
        raise NotBelieved("its answer cannot be read") from fault


def _find(
    response: ocsp.OCSPResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> ocsp.OCSPSingleResponse:
    for single in response.responses:
        if single.serial_number != certificate.serial_number:
            continue
        algorithm = single.hash_algorithm
        name = hashlib.new(algorithm.name, issuer.subject.public_bytes()).digest()
        key = hashlib.new(algorithm.name, key_bits(issuer)).digest()
        if (single.issuer_name_hash, single.issuer_key_hash) == (name, key):
            return single
    raise NotBelieved("its answer is about another certificate")


def _check_nonce(response: ocsp.OCSPResponse, nonce: bytes) -> None:
    """A responder need not repeat the nonce (RFC 9654, section 2.1); then its dates alone say that it is fresh."""
    try:
        repeated = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return
    if repeated != nonce:
        raise NotBelieved("it answered another question")


def _check_signature(response: ocsp.OCSPResponse, issuer: x509.Certificate, at: datetime) -> None:
    """Checks that the issuer signed, or whom it appointed (RFC 6960, section 4.2.2.2)."""
    if _is_responder(response, issuer):
        signer = issuer
    else:
        found = [one for one in response.certificates if _is_responder(response, one)]
        if not found:
            raise NotBelieved("its answer names another signer than the CA, without a certificate")
        signer = found[0]
        _check_appointed(signer, issuer, at)
    algorithm = response.signature_hash_algorithm
    if isinstance(algorithm, _WEAK):
        raise NotBelieved("its answer is signed with a broken hash function")
    key, content, signature = signer.public_key(), response.tbs_response_bytes, response.signature
    try:
        if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
            key.verify(signature, content, padding.PKCS1v15(), algorithm)
        elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
            key.verify(signature, content, ec.ECDSA(algorithm))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, content)
        else:
            raise NotBelieved("its answer is signed in a way that is not known here")
    except InvalidSignature:
        raise NotBelieved("the signature of its answer does not verify") from None


def _check_appointed(signer: x509.Certificate, issuer: x509.Certificate, at: datetime) -> None:
    try:
        signer.verify_directly_issued_by(issuer)
        purposes = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        raise NotBelieved("the CA did not appoint who signed its answer") from None
    if ExtendedKeyUsageOID.OCSP_SIGNING not in purposes:
        raise NotBelieved("the CA did not appoint who signed its answer")
    if not signer.not_valid_before_utc <= at <= signer.not_valid_after_utc:
        raise NotBelieved("the certificate of who signed its answer is not valid now")


def _is_responder(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    if response.responder_name is not None:
        return response.responder_name == certificate.subject
    return response.responder_key_hash == hashlib.sha1(key_bits(certificate), usedforsecurity=False).digest()


def _read(response: ocsp.OCSPResponse, single: ocsp.OCSPSingleResponse, at: datetime, source: str) -> RevocationAnswer:
    begun = single.this_update_utc
    until = single.next_update_utc or begun + _LONGEST_WITHOUT_END
    if begun > at + _SKEW or response.produced_at_utc > at + _SKEW:
        raise NotBelieved("its answer is from the future")
    if until <= at:
        raise NotBelieved("its answer is too old")
    match single.certificate_status:
        case ocsp.OCSPCertStatus.GOOD:
            return RevocationAnswer(revocation=Revocation.GOOD, source=source, valid_until=until)
        case ocsp.OCSPCertStatus.REVOKED:
            return RevocationAnswer(
                revocation=Revocation.REVOKED,
                revoke_time=single.revocation_time_utc,
                on_hold=single.revocation_reason is x509.ReasonFlags.certificate_hold,
                source=source,
                valid_until=until,
            )
    raise NotBelieved("it does not know the certificate")


def key_bits(certificate: x509.Certificate) -> bytes:
    """Returns the contents of the BIT STRING of a certificate's public key: what key identifiers hash."""
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der.parse(spki).children()[1].content[1:]
