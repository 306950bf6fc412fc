"""A log of a million entries: verified whole, and what a receipt of it costs."""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
from tests.support.published_logs import PublishedLog, document_digests, make_entries

from trien_client.log import follow_keys, parse_receipt, verify_log
from trien_server.core.audit import encode_leaf, make_entry
from trien_server.core.merkle import inclusion_proof, read_from_tiles
from trien_server.core.receipts import items_root, prove_item

pytestmark = [pytest.mark.promise("P10"), pytest.mark.slow]

SIZE = 1_000_000
POSITION = 524_287
ROUNDS = 51


def leaf(number: int) -> bytes:
    seed = hashlib.sha512(b"%d" % number).digest()
    return encode_leaf(
        name=f"auditEntries/{seed[:16].hex()}",
        head_commitment=seed[:32],
        details_commitment=seed[32:],
        items_root=seed[16:48],
    )


def test_a_million_entries_are_verified_and_a_receipt_of_them_is_short_and_quick(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    digests = document_digests(0, 1000)
    like = make_entries(1)[0]
    entry = make_entry(
        name=like.name,
        time=like.time,
        kind=like.kind,
        details={},
        head_salt=like.head_salt,
        salt=like.salt,
        items_root=items_root(like.salt, digests),
    )
    leaves = [leaf(number) for number in range(SIZE)]
    leaves[POSITION] = entry.leaf
    published = PublishedLog(leaves)
    folder = published.publish(tmp_path)
    keys = follow_keys(published.pair.key.vkey)

    seen: list[int] = []
    begun = time.perf_counter()
    verified = verify_log(folder, keys, since=[published.checkpoint(777_777)], progress=seen.append)
    whole = time.perf_counter() - begun
    assert verified.checkpoint.size == sum(seen) == SIZE
    assert len(seen) == 3907

    read = read_from_tiles(published.get_tile)
    text = published.receipt(entry, POSITION, digests, 511)
    times: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for act, work in {
            "item proof": lambda: prove_item(entry.salt, digests, 511),
            "inclusion proof": lambda: inclusion_proof(read, POSITION, SIZE),
            "verified": lambda: parse_receipt(text).verify(keys),
        }.items():
            begun = time.perf_counter()
            assert work()
            times.setdefault(act, []).append(time.perf_counter() - begun)
    receipt = parse_receipt(text)
    assert receipt.item is not None
    assert len(receipt.item.hashes) == 10
    assert len(receipt.hashes) == 20
    size = len(text.encode())
    assert size < 2048
    record_property("count", f"entries verified {SIZE} in {whole:.1f} s")
    medians = ", ".join(f"{act} {median(found) * 1000:.2f} ms" for act, found in times.items())
    record_property("count", f"receipt of 1 in 1000 digests: {size} bytes; medians of {ROUNDS}: {medians}")
