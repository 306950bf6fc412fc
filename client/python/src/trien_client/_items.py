"""What is signed, and the digests of it that are computed here."""

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import google_crc32c
from trien.v1 import authorization_service_pb2, signing_service_pb2

from trien_client._algorithms import HashFunction, SignatureAlgorithm
from trien_client._errors import AlgorithmMismatch, InvalidArgument, InvalidDigest, TooManyDigests

MAX_ITEMS = 1000
MAX_DATA = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class SignedAttributes:
    """CMS signed attributes (RFC 5652, section 5.3) and the digest of the document that they are for."""

    document_digest: bytes
    der: bytes
    """The attributes as DER with the SET OF tag (RFC 5652, section 5.4)."""


@dataclass(frozen=True)
class Data:
    """For Ed25519, which signs no digest: the data itself, at most 64 KiB."""

    value: bytes


Item = bytes | SignedAttributes | Data
"""A digest, signed attributes, or data."""


def digest_bytes(data: bytes, hash_function: HashFunction) -> bytes:
    """Returns the digest of `data`."""
    return hashlib.new(hash_function.hashlib_name, data).digest()


def digest_file(path: str | os.PathLike[str], hash_function: HashFunction) -> bytes:
    """Returns the digest of the file at `path`, which is read in pieces and never as a whole."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, hash_function.hashlib_name).digest()


@dataclass(frozen=True)
class Items:
    """The items of one request, checked: 1 to 1,000, of one kind, of the algorithm's lengths."""

    algorithm: SignatureAlgorithm
    values: tuple[Item, ...]

    def signed_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each signature is over: a digest of the algorithm's hash, or Ed25519's data."""
        return tuple(self._signed_bytes(item) for item in self.values)

    def _signed_bytes(self, item: Item) -> bytes:
        hash_function = self.algorithm.hash_function
        if isinstance(item, SignedAttributes):
            if hash_function is None:  # parse_items refused it
                raise AlgorithmMismatch("Ed25519 signs data, not signed attributes.")
            return digest_bytes(item.der, hash_function)
        return item.value if isinstance(item, Data) else item

    def document_digests(self) -> tuple[bytes, ...]:
        """What a person is shown before approving: the digest of each document (SHA-512 of Ed25519's data)."""
        return tuple(
            item.document_digest
            if isinstance(item, SignedAttributes)
            else digest_bytes(item.value, HashFunction.SHA512)
            if isinstance(item, Data)
            else item
            for item in self.values
        )

    def crc32c(self) -> int:
        """CRC32C over the items' bytes, each preceded by its length as 8 bytes, big endian (`items_crc32c`)."""
        checksum = 0
        for item in self.values:
            content = _content(item)
            checksum = google_crc32c.extend(google_crc32c.extend(checksum, struct.pack(">Q", len(content))), content)
        return checksum

    def to_sign(self) -> list[signing_service_pb2.SignItem]:
        """The items as SignDigests takes them."""
        return [_sign_item(item) for item in self.values]

    def to_authorize(self) -> list[authorization_service_pb2.AuthorizedItem]:
        """The items as CreateAuthorization takes them."""
        return [_authorized_item(item) for item in self.values]


def parse_items(items: Iterable[Item], algorithm: SignatureAlgorithm) -> Items:
    """Returns `items` when they can be signed with `algorithm`.

    Raises what the server would answer: `TooManyDigests`, `InvalidDigest`, `AlgorithmMismatch`, `InvalidArgument`.
    """
    if isinstance(items, bytes | bytearray | str):
        raise InvalidArgument("items: expected a list of digests, not one value", metadata={"field": "items"})
    values: Sequence[Item] = tuple(items)
    if not values:
        raise InvalidArgument("items: nothing to sign", metadata={"field": "items"})
    if len(values) > MAX_ITEMS:
        raise TooManyDigests(f"items: {len(values)}, and at most {MAX_ITEMS} go into one request")
    if len({type(item) for item in values}) > 1:
        raise AlgorithmMismatch("items: all items of a request are of one kind")
    hash_function = algorithm.hash_function
    for position, item in enumerate(values):
        field = f"items[{position}]"
        if hash_function is None:
            if not isinstance(item, Data):
                raise AlgorithmMismatch(f"{field}: {algorithm} signs data, not a digest: pass Data(…)")
            if len(item.value) > MAX_DATA:
                raise InvalidArgument(f"{field}: {len(item.value)} bytes of data, and at most {MAX_DATA} can be signed")
            continue
        if isinstance(item, Data):
            raise AlgorithmMismatch(f"{field}: {algorithm} signs a digest, not data: hash it first")
        digest = item.document_digest if isinstance(item, SignedAttributes) else item
        if not isinstance(digest, bytes):
            raise InvalidArgument(f"{field}: expected bytes, not {type(item).__name__}")
        if len(digest) != hash_function.size:
            raise InvalidDigest(
                f"{field}: a {hash_function} digest has {hash_function.size} bytes, not {len(digest)}",
                metadata={"field": field},
            )
    return Items(algorithm, tuple(values))


def _content(item: Item) -> bytes:
    if isinstance(item, SignedAttributes):
        return item.der
    return item.value if isinstance(item, Data) else item


def _sign_item(item: Item) -> signing_service_pb2.SignItem:
    if isinstance(item, SignedAttributes):
        return signing_service_pb2.SignItem(
            signed_attributes=signing_service_pb2.SignedAttributes(document_digest=item.document_digest, der=item.der)
        )
    if isinstance(item, Data):
        return signing_service_pb2.SignItem(data=item.value)
    return signing_service_pb2.SignItem(digest=item)


def _authorized_item(item: Item) -> authorization_service_pb2.AuthorizedItem:
    if isinstance(item, SignedAttributes):
        return authorization_service_pb2.AuthorizedItem(document_digest=item.document_digest)
    if isinstance(item, Data):
        return authorization_service_pb2.AuthorizedItem(data_digest=digest_bytes(item.value, HashFunction.SHA512))
    return authorization_service_pb2.AuthorizedItem(digest=item)
