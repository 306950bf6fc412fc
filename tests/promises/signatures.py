"""Every signature, verified by `cryptography` alone, over what was authorized (P3, P6)."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.promises.evidence import Evidence
from tests.promises.history import SIGN, Content, History
from tests.promises.violations import Broken, Violation

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.records import Authorization, Credential, GrantedRequest, ItemKind, Key

_HASHES = {32: hashes.SHA256, 48: hashes.SHA384, 64: hashes.SHA512}


@lru_cache(maxsize=1024)
def _certificate_key(certificate: bytes) -> Any:
    return x509.load_der_x509_certificate(certificate).public_key()


@lru_cache(maxsize=65_536)
def verifies(
    certificate: bytes, algorithm: SignatureAlgorithm, salt: int | None, message: bytes, signature: bytes
) -> bool:
    """Tells whether a certificate's key made a signature over a digest (Ed25519: over the data)."""
    key = _certificate_key(certificate)
    try:
        if algorithm is SignatureAlgorithm.ED25519:
            if not isinstance(key, ed25519.Ed25519PublicKey):
                return False
            key.verify(signature, message)
            return True
        name = algorithm.name.rpartition("_")[2]
        function = _HASHES[len(message)]()
        if function.name != name.lower():
            return False
        digest = utils.Prehashed(function)
        if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.name.startswith("ECDSA_"):
            key.verify(signature, message, ec.ECDSA(digest))
        elif isinstance(key, rsa.RSAPublicKey) and algorithm.name.startswith("RSA_PKCS1_"):
            key.verify(signature, message, padding.PKCS1v15(), digest)
        elif isinstance(key, rsa.RSAPublicKey) and algorithm.name.startswith("RSA_PSS_"):
            length = function.digest_size if salt is None else salt
            key.verify(signature, message, padding.PSS(padding.MGF1(function), salt_length=length), digest)
        else:
            return False
    except (InvalidSignature, KeyError):
        return False
    return True


def check_outcomes(evidence: Evidence) -> Iterator[Violation]:
    """Every recorded signature verifies over the digest that its authorization has in its place."""
    for granted in evidence.of(GrantedRequest).values():
        authorization = evidence.of(Authorization).get(granted.subject)
        outcome = evidence.outcomes.get(granted.name)
        if granted.method != SIGN or outcome is None or authorization is None:
            continue
        if authorization.item_kind is ItemKind.DATA:
            continue  # the database has only the data's hash; `check_answers` has the data
        messages = [authorization.signed_digests[int(position)] for position in granted.positions]
        yield from _verify(evidence, granted.name, authorization, messages, outcome.signatures)


def check_answers(evidence: Evidence, history: History) -> Iterator[Violation]:
    """Every signature that a client got verifies over what it asked for, which is what was authorized."""
    granted, authorizations = evidence.of(GrantedRequest), evidence.of(Authorization)
    for operation in history:
        answer, content = operation.answer, operation.content
        if answer is None or content.method != SIGN:
            continue
        where = f"operation {operation.number} ({operation.request})"
        authorization = authorizations.get(answer.authorizations[0])
        if authorization is None:
            yield Violation(Broken.DIGESTS, f"{where}: there is no {answer.authorizations[0]}")
            continue
        yield from _verify(evidence, where, authorization, content.messages, answer.signatures)
        if operation.request in granted:
            positions = [int(position) for position in granted[operation.request].positions]
            if not same_work(authorization, positions, content, client=operation.client):
                yield Violation(Broken.DIGESTS, f"{where}: {authorization.name} authorizes something else")


def same_work(authorization: Authorization, positions: list[int], content: Content, *, client: str) -> bool:
    """Tells whether an authorization allows its client exactly this, in this order."""
    authorized = tuple(authorization.digests[position] for position in positions)
    written = tuple(authorization.signed_digests[position] for position in positions)
    salt = authorization.pss_salt_length if content.pss_salt_length is None else content.pss_salt_length
    asked = (client, content.credential, content.algorithm, salt, content.kind, content.digests)
    signed = tuple(
        hashlib.sha512(message).digest() if content.kind is ItemKind.DATA else message for message in content.messages
    )
    return written == signed and asked == (
        authorization.client,
        authorization.credential,
        authorization.algorithm,
        authorization.pss_salt_length,
        authorization.item_kind,
        authorized,
    )


def _verify(
    evidence: Evidence,
    where: str,
    authorization: Authorization,
    messages: list[bytes] | tuple[bytes, ...],
    signatures: tuple[bytes, ...],
) -> Iterator[Violation]:
    credential = evidence.of(Credential).get(authorization.credential)
    key = None if credential is None else evidence.of(Key).get(credential.key)
    if credential is None or key is None:
        yield Violation(Broken.SIGNATURE, f"{where}: {authorization.credential} or its key is gone")
        return
    certificate = credential.certificate_chain[0]
    certified = _certificate_key(certificate).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certified != key.public_key:
        yield Violation(Broken.SIGNATURE, f"{where}: the certificate of {credential.name} is for another key")
    if len(messages) != len(signatures) or not signatures:
        yield Violation(Broken.SIGNATURE, f"{where}: {len(signatures)} signatures for {len(messages)} items")
    for position, (message, signature) in enumerate(zip(messages, signatures, strict=False)):
        if not verifies(certificate, authorization.algorithm, authorization.pss_salt_length, message, signature):
            yield Violation(Broken.SIGNATURE, f"{where}: item {position}")
