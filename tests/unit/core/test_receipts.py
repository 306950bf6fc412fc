"""Receipts: what they prove, that no byte of them is idle, and how long they are."""

import dataclasses
import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.log_keys import ORIGIN, LogKeyPair

from trien_server.core.algorithms import KeyType
from trien_server.core.audit import commit_details, make_entry
from trien_server.core.merkle import ProofNotValid, hash_leaf, inclusion_proof, read_from_hashes, root_at
from trien_server.core.receipts import (
    ItemProof,
    Receipt,
    format_receipt,
    items_root,
    parse_receipt,
    prove_item,
    verify_receipt,
)
from trien_server.core.records import AuditEntry

pytestmark = pytest.mark.promise("P10")

TIME = datetime(2026, 11, 25, 2, 3, 4, 567, tzinfo=UTC)
PAIR = LogKeyPair.generate()


def digests(count: int, function: str = "sha256") -> tuple[bytes, ...]:
    return tuple(hashlib.new(function, b"document %d" % index).digest() for index in range(count))


def entry_of(signed: tuple[bytes, ...], *, subject: bool = False) -> AuditEntry:
    salt = hashlib.sha256(b"salt").digest()
    return make_entry(
        name="auditEntries/k7xq2m5d3s6vwz4c7hq2m5d3s6vwz4ch",
        time=TIME,
        kind="signing_granted",
        details={"client": "clients/office"},
        head_salt=bytes(range(16)),
        salt=salt,
        items_root=items_root(salt, signed),
        subject="credentials/chair" if subject else None,
        subject_version=3 if subject else None,
    )


def receipt_of(
    entry: AuditEntry, item: ItemProof | None = None, *, position: int = 5, size: int = 9, pair: LogKeyPair = PAIR
) -> Receipt:
    leaves = [hash_leaf(b"%d" % index) for index in range(size)]
    leaves[position] = hash_leaf(entry.leaf)
    read = read_from_hashes(leaves)
    return Receipt(
        entry=entry.name,
        time=entry.time,
        kind=entry.kind,
        subject=entry.subject,
        subject_version=entry.subject_version,
        head_salt=entry.head_salt,
        details_commitment=commit_details(entry.salt, entry.details),
        items_root=entry.items_root,
        position=position,
        hashes=inclusion_proof(read, position, size),
        note=pair.checkpoint(size, root_at(read, size)),
        item=item,
    )


@settings(max_examples=80, deadline=None)
@given(
    count=st.integers(0, 12),
    size=st.integers(1, 70),
    subject=st.booleans(),
    function=st.sampled_from(["sha256", "sha384", "sha512"]),
    data=st.data(),
)
def test_a_receipt_verifies_as_it_was_written(
    count: int, size: int, subject: bool, function: str, data: st.DataObject
) -> None:
    signed = digests(count, function)
    entry = entry_of(signed, subject=subject)
    index = data.draw(st.none() | st.integers(0, count - 1)) if count else None
    item = None if index is None else prove_item(entry.salt, signed, index)
    receipt = receipt_of(entry, item, position=data.draw(st.integers(0, size - 1)), size=size)
    read = parse_receipt(format_receipt(receipt))
    assert read == receipt
    assert read.leaf == entry.leaf
    assert verify_receipt(read, [PAIR.key]).size == size
    assert index is None or (read.item is not None and read.item.digest == signed[index])


@pytest.mark.parametrize("key_type", [KeyType.EC_ED25519, KeyType.EC_P256])
@pytest.mark.parametrize("with_item", [True, False])
def test_no_byte_of_a_receipt_can_be_changed(key_type: KeyType, with_item: bool) -> None:
    pair = LogKeyPair.generate(key_type)
    signed = digests(5)
    entry = entry_of(signed, subject=True)
    item = prove_item(entry.salt, signed, 2) if with_item else None
    text = format_receipt(receipt_of(entry, item, pair=pair))
    verify_receipt(parse_receipt(text), [pair.key])
    refused = 0
    for at, character in enumerate(text):
        for other in (chr(ord(character) ^ 1), chr(ord(character) ^ 2), ""):
            with pytest.raises(ProofNotValid):
                verify_receipt(parse_receipt(text[:at] + other + text[at + 1 :]), [pair.key])
            refused += 1
    assert refused == 3 * len(text)


def test_the_number_of_digests_is_proven_too() -> None:
    """The path of the first of 1,000 leaves is also one of the first of 999; the leaf says how many there are."""
    signed = digests(1000)
    entry = entry_of(signed)
    item = dataclasses.replace(prove_item(entry.salt, signed, 0), count=999)
    with pytest.raises(ProofNotValid, match="not among those that the entry commits to"):
        verify_receipt(receipt_of(entry, item), [PAIR.key])
    with pytest.raises(ProofNotValid, match="the leaf is not at 5"):
        verify_receipt(parse_receipt(format_receipt(receipt_of(entry, item))), [PAIR.key])


def test_the_receipt_of_one_digest_tells_nothing_of_the_others() -> None:
    """Who knows another document of the call cannot even test the guess: each leaf has a salt of its own."""
    signed = digests(2)
    text = format_receipt(receipt_of(entry_of(signed), prove_item(entry_of(signed).salt, signed, 0)))
    shown = parse_receipt(text)
    assert shown.item is not None
    guesses = [
        hash_leaf(content)
        for content in (signed[1], shown.item.salt + signed[1], entry_of(signed).head_salt + signed[1])
    ]
    assert shown.item.hashes[0] not in guesses
    assert signed[1].hex() not in text


@pytest.mark.parametrize("function", ["sha256", "sha512"])
@pytest.mark.parametrize("key_type", [KeyType.EC_ED25519, KeyType.EC_P256])
def test_a_receipt_at_a_thousand_digests_and_a_million_entries_is_shorter_than_2_kib(
    function: str, key_type: KeyType
) -> None:
    signed = digests(1000, function)
    entry = entry_of(signed)
    pair = LogKeyPair.generate(key_type)
    item = prove_item(entry.salt, signed, 511)
    assert len(item.hashes) == 10
    receipt = dataclasses.replace(
        receipt_of(entry, item, pair=pair),
        position=524_287,
        hashes=tuple(bytes([level]) * 32 for level in range(20)),
        note=pair.checkpoint(1_000_000, bytes(32)),
    )
    text = format_receipt(receipt)
    assert parse_receipt(text) == receipt
    assert len(text.encode()) < 2048
    assert len(ORIGIN) == 45


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("trien receipt 1", "trien receipt 2", "does not begin"),
        ("kind: ", "sort: ", "should be its kind"),
        ("time: 2026-11-25T02:03:04.000567Z", "time: 2026-11-25T02:03:04.567Z", "not written as receipts are"),
        ("time: 2026-11-25", "time: 2026-13-25", "time is malformed"),
        ("position: 5", "position: 05", "number of the receipt is malformed"),
        ("item: 2 of 5", "item: 7 of 5", "no leaf 7"),
        ("item: 2 of 5", "item: 2 out of 5", "should be its item"),
        ("digest: ", "digest: 0", "should be its digest"),
        ("head salt: AAEC", "head salt: ", "should have 16 bytes"),
        ("head salt: AAEC", "head salt: A_EC", "should be base64"),
        ("\nproof:\n", "\nprooof:\n", "should begin its proof"),
        ("\nproof:\n", "\n", "should begin its proof"),
        ("\nproof:\n", "\nproof:\n" + "A" * 128 + "\n", "too many hashes"),
        ("\nproof:\n", "\nproof:\nAAAA\n", "not made of hashes"),
    ],
)
def test_what_is_not_a_receipt_is_refused_and_why_is_said(old: str, new: str, why: str) -> None:
    signed = digests(5)
    entry = entry_of(signed)
    text = format_receipt(receipt_of(entry, prove_item(entry.salt, signed, 2)))
    assert text.count(old) == 1
    with pytest.raises(ProofNotValid, match=why):
        verify_receipt(parse_receipt(text.replace(old, new)), [PAIR.key])


def test_a_text_that_ends_early_or_never_is_refused() -> None:
    text = format_receipt(receipt_of(entry_of(())))
    for cut in range(len(text)):
        with pytest.raises(ProofNotValid):
            verify_receipt(parse_receipt(text[:cut]), [PAIR.key])
    with pytest.raises(ProofNotValid, match="too long"):
        parse_receipt(text + "x" * 70_000)
    with pytest.raises(ProofNotValid, match="too many hashes"):
        parse_receipt(text.replace("\nproof:\n", "\nproof:\n" + ("A" * 43 + "=\n") * 64))


def test_a_call_without_digests_has_no_root() -> None:
    assert items_root(b"salt", ()) == b""
    with pytest.raises(IndexError):
        prove_item(b"salt", (), 0)
