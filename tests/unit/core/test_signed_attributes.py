"""Strict DER, and what attributes may be signed."""

import hashlib

import pytest
from asn1crypto import cms, core, tsp
from hypothesis import given
from hypothesis import strategies as st
from tests.support import attributes

from trien_server.core import der
from trien_server.core.algorithms import HashFunction
from trien_server.core.errors import DigestsNotAuthorized, InvalidSignedAttributes, Refusal
from trien_server.core.signed_attributes import digest_signed_attributes

DOCUMENT = hashlib.sha256(b"a decision").digest()
CERTIFICATE, OTHER = b"certificate", b"another certificate"


def digest(encoded: bytes, *, document: bytes = DOCUMENT, certificate: bytes = CERTIFICATE) -> bytes:
    return digest_signed_attributes(
        encoded,
        hash_function=HashFunction.SHA256,
        document_digest=document,
        certificate=certificate,
        field="items[0]",
        budget=der.Budget(1000),
    )


def test_good_attributes_are_hashed_as_they_are() -> None:
    encoded = attributes.signed_attributes(DOCUMENT, CERTIFICATE, HashFunction.SHA256)
    assert digest(encoded) == hashlib.sha256(encoded).digest()
    assert len(cms.CMSAttributes.load(encoded)) == 4


@pytest.mark.parametrize("fault", attributes.bad_attributes(DOCUMENT, CERTIFICATE, OTHER))
def test_bad_attributes_are_refused(fault: str) -> None:
    with pytest.raises(InvalidSignedAttributes):
        digest(attributes.bad_attributes(DOCUMENT, CERTIFICATE, OTHER)[fault])


def test_another_documents_digest_has_its_own_reason() -> None:
    encoded = attributes.signed_attributes(DOCUMENT, CERTIFICATE, HashFunction.SHA256)
    with pytest.raises(DigestsNotAuthorized):
        digest(encoded, document=hashlib.sha256(b"another").digest())


@given(st.data())
def test_no_changed_byte_leaves_the_attributes_acceptable_with_the_same_meaning(data: st.DataObject) -> None:
    """Whatever is accepted names this document and this certificate, by another parser's reading."""
    encoded = bytearray(attributes.signed_attributes(DOCUMENT, CERTIFICATE, HashFunction.SHA256))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        digest(bytes(encoded))
    except Refusal:
        return
    assert tsp.SigningCertificateV2  # importing it teaches asn1crypto the attribute
    values = {found["type"].native: found["values"] for found in cms.CMSAttributes.load(bytes(encoded), strict=True)}
    assert values["message_digest"].native == [DOCUMENT]
    assert values["content_type"].native == ["data"]
    (certificate,) = values["signing_certificate_v2"]
    assert certificate["certs"][0]["cert_hash"].native == hashlib.sha256(CERTIFICATE).digest()


@given(st.binary(max_size=200))
def test_no_input_ends_in_anything_but_a_refusal(encoded: bytes) -> None:
    with pytest.raises(Refusal):
        digest(encoded)


@given(
    st.recursive(
        st.binary(max_size=8).map(core.OctetString),
        lambda inner: st.lists(inner, max_size=4).map(lambda values: core.SequenceOf(values, spec=core.Any)),
        max_leaves=12,
    )
)
def test_what_another_encoder_writes_as_der_is_read_back(value: core.Asn1Value) -> None:
    encoded = value.dump()
    assert der.parse(encoded).encoded == encoded


@pytest.mark.parametrize(
    "encoded",
    [
        b"\x01\x01\x01",  # a boolean that is neither 00 nor FF
        b"\x02\x02\x00\x01",  # an integer with a needless zero
        b"\x02\x00",
        b"\x04\x81\x01\x00",  # a long length that is not needed
        b"\x24\x02\x04\x00",  # a constructed octet string
        b"\x10\x00",  # a primitive sequence
        b"\x05\x01\x00",
        b"\x06\x01\x80",
        b"\x06\x00",
        b"\x1f\x01\x00",
        b"\x03\x02\x01\x01",  # unused bits that are not zero
        b"\x00\x00",
        b"\x30\x80\x00\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30" * 100,
        b"\x30\x1e" + b"\x30\x1c" * 0 + b"\x30\x02" * 15,
    ],
)
def test_other_encodings_are_not_der(encoded: bytes) -> None:
    with pytest.raises(der.NotDer):
        der.parse(encoded)


def test_an_object_identifier_with_an_endless_arc_is_refused_at_once() -> None:
    """Its arcs would be read in time that grows with the square of their length."""
    kind = der.encode(der.OBJECT_IDENTIFIER, b"\x2a" + b"\xff" * 200_000 + b"\x7f")
    attribute = der.encode(der.SEQUENCE, kind, der.encode(der.SET, der.encode(der.INTEGER, b"\x01")))
    with pytest.raises(InvalidSignedAttributes):
        digest(der.encode(der.SET, attribute))


def test_more_values_than_the_budget_are_refused() -> None:
    der.parse(der.encode(der.SEQUENCE, b"\x05\x00" * 9), der.Budget(10))
    with pytest.raises(der.NotDer, match="too many"):
        der.parse(der.encode(der.SEQUENCE, b"\x05\x00" * 10), der.Budget(10))


def test_nesting_is_bounded() -> None:
    value = b""
    for _ in range(40):
        value = der.encode(der.SEQUENCE, value)
    with pytest.raises(der.NotDer):
        der.parse(value)
