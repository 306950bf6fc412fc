"""The SDK's own code for receipts, checkpoints and proofs, against the server's and against every change."""

import dataclasses
from collections.abc import Callable

import pytest
from tests.support.log_keys import ORIGIN, LogKeyPair
from tests.support.published_logs import PublishedLog, document_digests, make_entries

from trien_client import log
from trien_client.log import ProofNotValid
from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import format_log_keys
from trien_server.core.merkle import consistency_proof, inclusion_proof, read_from_hashes, root_at

pytestmark = pytest.mark.promise("P10")
KEY_TYPES = [KeyType.EC_ED25519, KeyType.EC_P256]
MOST = 40


def keys_of(pair: LogKeyPair) -> list[log.LogKey]:
    return log.follow_keys(format_log_keys(pair.key, []))


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_the_sdk_verifies_the_servers_receipts_and_no_byte_of_them_can_be_changed(key_type: KeyType) -> None:
    entries = make_entries(9)
    published = PublishedLog([entry.leaf for entry in entries], LogKeyPair.generate(key_type))
    keys = keys_of(published.pair)
    read = refused = 0
    for position, entry in enumerate(entries):
        digests = document_digests(position, 2) if entry.items_root else ()
        for index in (None, *range(len(digests))):
            text = published.receipt(entry, position, digests, index)
            receipt = log.parse_receipt(text)
            checkpoint = receipt.verify(keys)
            assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 9, published.root())
            assert (receipt.entry, receipt.position, receipt.kind) == (entry.name, position, entry.kind)
            assert receipt.leaf_hash == log.hash_leaf(entry.leaf)
            if index is not None:
                receipt.require_digest(digests[index])
                receipt.require_document([b"document %d of " % index, b"entry %d" % position])
            read += 1
            if (position, index) in {(3, 1), (4, None)}:
                refused += _change_every_byte(text, lambda changed: log.parse_receipt(changed).verify(keys))
    assert read == 15
    assert refused > 4000


def _change_every_byte(text: str, verify: Callable[[str], object]) -> int:
    count = 0
    for at, character in enumerate(text):
        for other in (chr(ord(character) ^ 1), "", "\n"):
            if other != character:
                with pytest.raises(ProofNotValid):
                    verify(text[:at] + other + text[at + 1 :])
                count += 1
    return count


def test_a_receipt_is_about_one_digest_alone() -> None:
    entries = make_entries(2)
    published = PublishedLog([entry.leaf for entry in entries])
    digests = document_digests(0, 2)
    receipt = log.parse_receipt(published.receipt(entries[0], 0, digests, 1))
    receipt.require_document([b"document 1 ", b"of entry 0"])
    for wrong in (lambda: receipt.require_digest(digests[0]), lambda: receipt.require_document([b"another"])):
        with pytest.raises(ProofNotValid, match=f"about another digest: {digests[1].hex()}"):
            wrong()
    with pytest.raises(ProofNotValid, match="about no digest"):
        log.parse_receipt(published.receipt(entries[1], 1)).require_digest(digests[0])


def test_a_receipt_of_another_logs_key_is_refused() -> None:
    published = PublishedLog([entry.leaf for entry in make_entries(2)])
    receipt = log.parse_receipt(published.receipt(make_entries(2)[1], 1))
    for stranger in (LogKeyPair.generate(), LogKeyPair.generate(origin="elsewhere.example")):
        with pytest.raises(ProofNotValid, match="None of the log's keys signed the checkpoint"):
            receipt.verify(keys_of(stranger))


def test_the_sdk_verifies_the_servers_proofs_and_nothing_else() -> None:
    hashes = [log.hash_leaf(b"%d" % index) for index in range(MOST)]
    read = read_from_hashes(hashes)
    roots = [root_at(read, size) for size in range(MOST + 1)]
    proven = 0
    for size in range(1, MOST + 1):
        for index in range(size):
            proof = inclusion_proof(read, index, size)
            log.verify_inclusion(hashes[index], index, size, proof, roots[size])
            for wrong in ((*proof, roots[1]), proof[1:] if proof else (roots[1],)):
                with pytest.raises(ProofNotValid):
                    log.verify_inclusion(hashes[index], index, size, wrong, roots[size])
            proven += 1
        for first in range(size + 1):
            proof = consistency_proof(read, first, size)
            log.verify_consistency(first, size, roots[first], roots[size], proof)
            for wrong in ((*proof, roots[1]), tuple(bytes([one[0] ^ 1]) + one[1:] for one in proof) or (roots[1],)):
                with pytest.raises(ProofNotValid):
                    log.verify_consistency(first, size, roots[first], roots[size], wrong)
            proven += 1
    assert proven == MOST * (MOST + 1) + MOST
    with pytest.raises(ProofNotValid):
        log.verify_consistency(2, 1, roots[2], roots[1], ())
    with pytest.raises(ProofNotValid):
        log.verify_inclusion(hashes[0], 1, 1, (), roots[1])


@pytest.mark.parametrize("key_type", KEY_TYPES)
def test_the_sdk_reads_the_servers_keys_as_they_follow_one_another(key_type: KeyType) -> None:
    first, second = LogKeyPair.generate(key_type), LogKeyPair.generate()
    restored = LogKeyPair.generate(key_type, origin=f"{ORIGIN}/2")
    text = format_log_keys(first.key, [first.succeed(second.key), second.succeed(restored.key)])
    keys = log.follow_keys(text)
    assert [str(key) for key in keys] == [pair.key.vkey for pair in (first, second, restored)]
    assert log.open_checkpoint(first.checkpoint(3, bytes(32)), keys).size == 3
    assert log.open_checkpoint(restored.checkpoint(4, bytes(32)), keys).origin == f"{ORIGIN}/2"
    # The origin is the signer's own: a key of one log says nothing about another.
    mixed = dataclasses.replace(second, origin=f"{ORIGIN}/2").checkpoint(5, bytes(32))
    with pytest.raises(ProofNotValid):
        log.open_checkpoint(mixed, keys)
    # The first key is believed as it is; nothing behind it can be changed.
    changed = _change_every_byte(text[len(first.key.vkey) + 2 :].rstrip("\n"), lambda part: _follow_all(first, part))
    assert changed > 1000


def _follow_all(first: LogKeyPair, rest: str) -> None:
    assert len(log.follow_keys(f"{first.key.vkey}\n\n{rest}\n")) == 3


def test_what_is_no_log_key_is_refused() -> None:
    vkey = LogKeyPair.generate().key.vkey
    ecdsa = LogKeyPair.generate(KeyType.EC_P256).key.vkey
    for text in ("", "name", vkey[:-1], vkey.replace("+", "-", 1), f"a+00000000+{vkey.split('+', 2)[2]}", f"x{ecdsa} "):
        if text.startswith("x"):
            # The key id of P-256 does not depend on the name: only the checkpoint's origin binds it.
            assert log.LogKey.parse(text).origin == f"x{ORIGIN}"
            continue
        with pytest.raises(ProofNotValid):
            log.follow_keys(text)
