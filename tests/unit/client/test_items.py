"""What is signed, and the digests and checksums of it."""

import hashlib
import random
from pathlib import Path

import google_crc32c
import pytest

from trien_client import Data, HashFunction, InvalidArgument, SignatureAlgorithm, SignedAttributes, digest_file
from trien_client._items import parse_items


def test_the_checksum_is_over_each_length_and_content_in_order() -> None:
    items = [hashlib.sha256(bytes([number])).digest() for number in range(5)]
    expected = google_crc32c.value(b"".join((32).to_bytes(8, "big") + item for item in items))
    assert parse_items(items, SignatureAlgorithm.RSA_PSS_SHA256).crc32c() == expected
    assert parse_items(items[::-1], SignatureAlgorithm.RSA_PSS_SHA256).crc32c() != expected


def test_the_checksum_of_signed_attributes_is_over_their_der() -> None:
    item = SignedAttributes(document_digest=bytes(32), der=b"attributes")
    assert parse_items([item], SignatureAlgorithm.ECDSA_P256_SHA256).crc32c() == google_crc32c.value(
        (10).to_bytes(8, "big") + b"attributes"
    )


def test_what_is_signed_is_the_digest_of_the_attributes_or_the_data_itself() -> None:
    attributes = SignedAttributes(document_digest=bytes(48), der=b"attributes")
    parsed = parse_items([attributes], SignatureAlgorithm.ECDSA_P384_SHA384)
    assert parsed.signed_bytes() == (hashlib.sha384(b"attributes").digest(),)
    assert parsed.document_digests() == (bytes(48),)
    assert parsed.to_authorize()[0].document_digest == bytes(48)
    data = parse_items([Data(b"data")], SignatureAlgorithm.ED25519)
    assert data.signed_bytes() == (b"data",)
    assert data.document_digests() == (hashlib.sha512(b"data").digest(),)
    assert data.to_authorize()[0].data_digest == hashlib.sha512(b"data").digest()


@pytest.mark.parametrize("items", [bytes(32), "text", bytearray(32)])
def test_one_value_is_not_taken_for_a_list(items: bytes) -> None:
    with pytest.raises(InvalidArgument, match="list of digests"):
        parse_items(items, SignatureAlgorithm.RSA_PSS_SHA256)  # type: ignore[arg-type]


@pytest.mark.parametrize("function", HashFunction)
def test_a_file_is_hashed_in_pieces(tmp_path: Path, function: HashFunction) -> None:
    content = random.Random(1).randbytes(3_000_001)
    path = tmp_path / "file"
    path.write_bytes(content)
    assert digest_file(path, function) == hashlib.new(function.hashlib_name, content).digest()
    assert len(digest_file(path, function)) == function.size
