"""What is to be signed, as values that cannot be wrong (P3)."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from trien_server.core.algorithms import KeyType, SignatureAlgorithm, largest_pss_salt
from trien_server.core.der import Budget
from trien_server.core.errors import AlgorithmMismatch, InvalidArgument, InvalidDigest, TooManyDigests
from trien_server.core.records import ItemKind
from trien_server.core.signed_attributes import digest_signed_attributes

MOST_ITEMS = 1000
LARGEST_DATA = 64 * 1024
MOST_VALUES_OF_A_REQUEST = 100_000
"""All DER values in the attributes of a request together; a signature of a PDF has about 60."""


@dataclass(frozen=True, kw_only=True)
class SignatureScheme:
    """A complete algorithm; `pss_salt_length` in bytes is there for RSASSA-PSS alone."""

    algorithm: SignatureAlgorithm
    pss_salt_length: int | None

    @classmethod
    def parse(
        cls, algorithm: SignatureAlgorithm, pss_salt_length: int | None, *, key_type: KeyType
    ) -> "SignatureScheme":
        """Returns the scheme, with the digest's length as the salt's default.

        Raises `AlgorithmMismatch` when the key cannot do it, `InvalidArgument` for a salt that does not
        fit (RFC 8017, section 9.1.1).
        """
        if not algorithm.fits(key_type):
            raise AlgorithmMismatch("algorithm", f"a key of type {key_type} cannot sign with {algorithm}")
        if not algorithm.is_pss:
            if pss_salt_length is not None:
                raise InvalidArgument("pss_salt_length", f"{algorithm} has no salt")
            return cls(algorithm=algorithm, pss_salt_length=None)
        function = algorithm.hash_function
        assert function is not None  # noqa: S101 - every PSS algorithm names its hash
        length = function.size if pss_salt_length is None else pss_salt_length
        longest = largest_pss_salt(key_type, function)
        if not 0 <= length <= longest:
            raise InvalidArgument("pss_salt_length", f"expected 0 to {longest} bytes for {key_type}")
        return cls(algorithm=algorithm, pss_salt_length=length)


@dataclass(frozen=True, kw_only=True)
class DigestItem:
    """A digest that is signed as it is."""

    digest: bytes


@dataclass(frozen=True, kw_only=True)
class SignedAttributesItem:
    """CMS signed attributes (DER) and the digest of the document that they are for."""

    document_digest: bytes
    encoded: bytes


@dataclass(frozen=True, kw_only=True)
class DataItem:
    """Data that Ed25519 signs."""

    data: bytes


Item = DigestItem | SignedAttributesItem | DataItem


@dataclass(frozen=True, kw_only=True)
class PreparedItems:
    """Items that were checked: what the authorization lists, and what the token signs, position by position."""

    kind: ItemKind
    authorized: tuple[bytes, ...]
    messages: tuple[bytes, ...]

    @property
    def signed_digests(self) -> tuple[bytes, ...]:
        """What is written down of each signed message: itself when it is a digest, else its SHA-512 digest."""
        return self.authorized if self.kind is ItemKind.DATA else self.messages


def kind_of(item: Item) -> ItemKind:
    match item:
        case DigestItem():
            return ItemKind.DIGEST
        case SignedAttributesItem():
            return ItemKind.SIGNED_ATTRIBUTES
        case DataItem():
            return ItemKind.DATA


def check_count(count: int, *, most: int) -> None:
    """Raises `InvalidArgument` for none, `TooManyDigests` for more than `most`."""
    if count == 0:
        raise InvalidArgument("items", "at least one item is required")
    if count > min(most, MOST_ITEMS):
        raise TooManyDigests("items", f"{count} items, at most {min(most, MOST_ITEMS)} are allowed")


def check_kind(kind: ItemKind, algorithm: SignatureAlgorithm) -> None:
    """Raises `AlgorithmMismatch` when items of a kind cannot be signed with the algorithm."""
    if (algorithm.hash_function is None) is not (kind is ItemKind.DATA):
        wanted = "data" if algorithm.hash_function is None else "digests or signed attributes"
        raise AlgorithmMismatch("items", f"{algorithm} signs {wanted}")


def check_authorized_digests(digests: Sequence[bytes], *, kind: ItemKind, algorithm: SignatureAlgorithm) -> None:
    """Raises `InvalidDigest` when one has not the length of its hash (SHA-512's for DATA)."""
    check_kind(kind, algorithm)
    size = 64 if algorithm.hash_function is None else algorithm.hash_function.size
    for position, digest in enumerate(digests):
        if len(digest) != size:
            raise InvalidDigest(f"items[{position}]", f"{len(digest)} bytes, expected {size} for {algorithm}")


def prepare_items(
    items: Sequence[Item], *, algorithm: SignatureAlgorithm, most: int, certificate: bytes
) -> PreparedItems:
    """Checks all items before anything is decided.

    Raises the refusal of the first bad one: its field tells the position.
    """
    check_count(len(items), most=most)
    kind = kind_of(items[0])
    for position, item in enumerate(items):
        if kind_of(item) is not kind:
            raise AlgorithmMismatch(f"items[{position}]", "all items of a request are of one kind")
    check_kind(kind, algorithm)
    budget = Budget(MOST_VALUES_OF_A_REQUEST)
    authorized: list[bytes] = []
    messages: list[bytes] = []
    for position, item in enumerate(items):
        field = f"items[{position}]"
        match item:
            case DigestItem(digest=digest):
                authorized.append(digest)
                messages.append(digest)
            case SignedAttributesItem(document_digest=document_digest, encoded=encoded):
                function = algorithm.hash_function
                assert function is not None  # noqa: S101 - check_kind saw to it
                authorized.append(document_digest)
                messages.append(
                    digest_signed_attributes(
                        encoded,
                        hash_function=function,
                        document_digest=document_digest,
                        certificate=certificate,
                        field=field,
                        budget=budget,
                    )
                )
            case DataItem(data=data):
                if len(data) > LARGEST_DATA:
                    raise InvalidArgument(field, f"{len(data)} bytes of data, at most {LARGEST_DATA} are allowed")
                authorized.append(hashlib.sha512(data).digest())
                messages.append(data)
    check_authorized_digests(authorized, kind=kind, algorithm=algorithm)
    return PreparedItems(kind=kind, authorized=tuple(authorized), messages=tuple(messages))
