"""CMS signed attributes, good ones and bad ones, built value by value."""

import hashlib
from collections.abc import Sequence

from trien_server.core.algorithms import HashFunction
from trien_server.core.der import INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, encode

CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52"
DATA = "1.2.840.113549.1.7.1"
SHA256_OID, SHA512_OID = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.3"


def oid(dotted: str) -> bytes:
    """Returns the DER of an object identifier."""
    arcs = [int(arc) for arc in dotted.split(".")]
    content = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(arc & 0x7F | 0x80)
        content += bytes(reversed(octets))
    return encode(OBJECT_IDENTIFIER, bytes(content))


def attribute(kind: str, *values: bytes) -> bytes:
    return encode(SEQUENCE, oid(kind), encode(SET, *sorted(values)))


def set_of(attributes: Sequence[bytes]) -> bytes:
    return encode(SET, *sorted(attributes))


def signing_certificate(certificate: bytes) -> bytes:
    """Returns the attribute that names a certificate by its SHA-256 (RFC 5035)."""
    identifier = encode(SEQUENCE, encode(OCTET_STRING, hashlib.sha256(certificate).digest()))
    return attribute(SIGNING_CERTIFICATE_V2, encode(SEQUENCE, encode(SEQUENCE, identifier)))


def algorithm_protection(hash_oid: str) -> bytes:
    """Returns the attribute that names the digest algorithm (RFC 6211)."""
    signature = encode(0xA1, oid("1.2.840.10045.4.3.2"))
    return attribute(ALGORITHM_PROTECTION, encode(SEQUENCE, encode(SEQUENCE, oid(hash_oid)), signature))


def message_digest(digest: bytes) -> bytes:
    return attribute(MESSAGE_DIGEST, encode(OCTET_STRING, digest))


def content_type(kind: str = DATA) -> bytes:
    return attribute(CONTENT_TYPE, oid(kind))


def signed_attributes(document_digest: bytes, certificate: bytes, function: HashFunction) -> bytes:
    """Returns attributes as pyHanko makes them: content type, digest, certificate, algorithm protection."""
    hash_oid = {HashFunction.SHA256: SHA256_OID, HashFunction.SHA512: SHA512_OID}[function]
    return set_of(
        [
            content_type(),
            message_digest(document_digest),
            signing_certificate(certificate),
            algorithm_protection(hash_oid),
        ]
    )


def bad_attributes(document_digest: bytes, certificate: bytes, other_certificate: bytes) -> dict[str, bytes]:
    """Returns attributes that must not be signed, by what is wrong with them."""
    good = [content_type(), message_digest(document_digest), signing_certificate(certificate)]
    whole = set_of(good)
    twice = message_digest(hashlib.sha256(b"another document").digest())
    long_length = bytes([whole[0], 0x82, 0x00, whole[2]]) + whole[3:] if whole[1] == 0x81 else b""
    return {
        "two message digests as two attributes": set_of([*good, twice]),
        "two message digests as two values": set_of(
            [
                good[0],
                attribute(
                    MESSAGE_DIGEST,
                    encode(OCTET_STRING, document_digest),
                    encode(OCTET_STRING, hashlib.sha256(b"another document").digest()),
                ),
                good[2],
            ]
        ),
        "not sorted": encode(SET, *sorted(good, reverse=True)),
        "a length that is not minimal": long_length,
        "an indefinite length": b"\x31\x80" + b"".join(sorted(good)) + b"\x00\x00",
        "the implicit tag of the SignerInfo": b"\xa0" + whole[1:],
        "a sequence instead of a set": b"\x30" + whole[1:],
        "bytes behind the end": whole + b"\x00",
        "cut off": whole[:-1],
        "empty": b"",
        "another certificate": set_of([good[0], good[1], signing_certificate(other_certificate)]),
        "no certificate": set_of(good[:2]),
        "no content type": set_of(good[1:]),
        "no message digest": set_of([good[0], good[2]]),
        "an unknown attribute": set_of([*good, attribute("1.2.3.4", encode(INTEGER, b"\x01"))]),
        "another content type": set_of([content_type("1.2.840.113549.1.9.16.1.4"), *good[1:]]),
        "algorithm protection for another hash": set_of([*good, algorithm_protection(SHA512_OID)]),
        "a message digest that is no octet string": set_of(
            [good[0], attribute(MESSAGE_DIGEST, encode(INTEGER, document_digest)), good[2]]
        ),
    }
