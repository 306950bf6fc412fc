"""Which CMS signed attributes may be signed (RFC 5652, section 5.3; RFC 5035; RFC 8933).

The attributes are checked so strictly that what was seen, the document's digest, is what is signed.
"""

import hashlib
import hmac

from trien_server.core import der
from trien_server.core.algorithms import HashFunction
from trien_server.core.errors import DigestsNotAuthorized, InvalidSignedAttributes

LARGEST = 256 * 1024
_LONGEST_OID = 32

_CONTENT_TYPE = "1.2.840.113549.1.9.3"
_MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
_SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
_ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52"
_DATA = "1.2.840.113549.1.7.1"

_REQUIRED = {_CONTENT_TYPE, _MESSAGE_DIGEST, _SIGNING_CERTIFICATE_V2}
_ALLOWED = _REQUIRED | {
    _ALGORITHM_PROTECTION,
    "1.2.840.113549.1.9.5",  # signingTime (RFC 5652, section 11.3)
    "1.2.840.113549.1.9.16.2.15",  # signature policy identifier (RFC 5126, section 5.8.1)
    "1.2.840.113549.1.9.16.2.16",  # commitment type indication (RFC 5126, section 5.11.1)
    "1.2.840.113549.1.9.16.2.17",  # signer location (RFC 5126, section 5.11.2)
    "1.2.840.113549.1.9.16.2.20",  # content time stamp (RFC 5126, section 5.11.4)
    "0.4.0.19122.1.1",  # signer attributes v2 (ETSI EN 319 122-1, clause 5.2.6.1)
    "1.2.840.113583.1.1.8",  # Adobe's archived revocation information (ISO 32000-2, clause 12.8.3.3.2)
}
_HASH_OIDS = {
    "2.16.840.1.101.3.4.2.1": HashFunction.SHA256,
    "2.16.840.1.101.3.4.2.2": HashFunction.SHA384,
    "2.16.840.1.101.3.4.2.3": HashFunction.SHA512,
}


def digest_signed_attributes(
    encoded: bytes,
    *,
    hash_function: HashFunction,
    document_digest: bytes,
    certificate: bytes,
    field: str,
    budget: der.Budget,
) -> bytes:
    """Returns the digest to sign: `hash_function` over the attributes as they are.

    Raises `InvalidSignedAttributes` unless they are a DER SET OF attributes of allowed types, each once
    and single-valued, with the content type `id-data` and a signingCertificateV2 of `certificate`
    (DER); `DigestsNotAuthorized` when their messageDigest is another document's.
    """
    if len(encoded) > LARGEST:
        raise InvalidSignedAttributes(field, f"more than {LARGEST} bytes")
    try:
        attributes = _read(encoded, field, budget)
        if _oid(attributes[_CONTENT_TYPE]) != _DATA:
            raise InvalidSignedAttributes(field, "the content type is not id-data")
        _check_certificate(attributes[_SIGNING_CERTIFICATE_V2], certificate, field)
        if _ALGORITHM_PROTECTION in attributes:
            _check_protection(attributes[_ALGORITHM_PROTECTION], hash_function, field)
        message_digest = attributes[_MESSAGE_DIGEST]
        if message_digest.tag != der.OCTET_STRING:
            raise InvalidSignedAttributes(field, "the message digest is not an octet string")
    except (der.NotDer, IndexError) as fault:
        raise InvalidSignedAttributes(field, f"not DER, or not the attributes' syntax: {fault}") from fault
    if not hmac.compare_digest(message_digest.content, document_digest):
        raise DigestsNotAuthorized(f"{field}: the attributes are for another document's digest.")
    return hashlib.new(hash_function.hashlib_name, encoded).digest()


def _read(encoded: bytes, field: str, budget: der.Budget) -> dict[str, der.Element]:
    """Returns each attribute's only value by its type."""
    outer = der.parse(encoded, budget)
    if outer.tag != der.SET:
        raise InvalidSignedAttributes(field, "expected the SET OF tag, 0x31 (RFC 5652, section 5.4)")
    values: dict[str, der.Element] = {}
    for attribute in outer.children():
        parts = attribute.children() if attribute.tag == der.SEQUENCE else []
        if len(parts) != 2 or parts[1].tag != der.SET:
            raise InvalidSignedAttributes(field, "an attribute is a SEQUENCE of a type and a SET of values")
        kind = _oid(parts[0])
        if kind not in _ALLOWED:
            raise InvalidSignedAttributes(field, f"attributes of type {kind} are not signed here")
        if kind in values:
            raise InvalidSignedAttributes(field, f"the attribute {kind} occurs twice")
        content = parts[1].children()
        if len(content) != 1:
            raise InvalidSignedAttributes(field, f"the attribute {kind} has {len(content)} values")
        values[kind] = content[0]
    missing = sorted(_REQUIRED - values.keys())
    if missing:
        raise InvalidSignedAttributes(field, f"required attributes are missing: {', '.join(missing)}")
    return values


def _check_certificate(value: der.Element, certificate: bytes, field: str) -> None:
    """Checks the first ESSCertIDv2 (RFC 5035, section 3): SEQUENCE { SEQUENCE OF { [hash], certHash, … } }."""
    identifier = _children(_children(value)[0])[0]
    parts = _children(identifier)
    function = HashFunction.SHA256
    if parts[0].tag == der.SEQUENCE:
        known = _HASH_OIDS.get(_oid(parts[0].children()[0]))
        if known is None:
            raise InvalidSignedAttributes(field, "the signing certificate is named by an unknown hash")
        function, parts = known, parts[1:]
    expected = hashlib.new(function.hashlib_name, certificate).digest()
    if parts[0].tag != der.OCTET_STRING or not hmac.compare_digest(parts[0].content, expected):
        raise InvalidSignedAttributes(field, "they name another certificate than the credential's")


def _check_protection(value: der.Element, hash_function: HashFunction, field: str) -> None:
    """Checks the digest algorithm of CMSAlgorithmProtection (RFC 6211, section 2)."""
    if _HASH_OIDS.get(_oid(_children(_children(value)[0])[0])) is not hash_function:
        raise InvalidSignedAttributes(field, "their algorithm protection names another hash")


def _children(element: der.Element) -> list[der.Element]:
    if element.tag != der.SEQUENCE:
        raise der.NotDer("expected a SEQUENCE")
    return element.children()


def _oid(element: der.Element) -> str:
    """Returns the dotted form of an object identifier (X.690, clause 8.19)."""
    if element.tag != der.OBJECT_IDENTIFIER or len(element.content) > _LONGEST_OID:
        raise der.NotDer("expected an object identifier of usual length")
    arcs, arc = [], 0
    for octet in element.content:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))
