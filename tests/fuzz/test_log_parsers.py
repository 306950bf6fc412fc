"""What is read of a log: any input is read or refused, and the SDK's code and the server's say the same of it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import strategies as st
from tests.fuzz.test_parsers import DAMAGE, damaged, run
from tests.support.log_keys import LogKeyPair
from tests.support.published_logs import PublishedLog, document_digests, exported, make_entries

from trien_client import _log_entries, _log_leaves, log
from trien_client.log import ProofNotValid
from trien_server.core import checkpoints, merkle, receipts
from trien_server.core.algorithms import KeyType

pytestmark = pytest.mark.promise("P10")

ENTRIES = make_entries(5)
LOG = PublishedLog([entry.leaf for entry in ENTRIES])
P256 = LogKeyPair.generate(KeyType.EC_P256)
KEYS = checkpoints.format_log_keys(LOG.pair.key, [LOG.pair.succeed(P256.key), P256.succeed(LogKeyPair.generate().key)])
RECEIPT = LOG.receipt(ENTRIES[3], 3, document_digests(3, 2), 1)
SMALL = st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=2), st.integers(0, 2)), max_size=2)


class Disagreement(Exception):  # noqa: N818
    """The SDK and the server do not say the same."""


def _both(by_server: Callable[[str], object], by_sdk: Callable[[str], object]) -> Callable[[str], None]:
    """Reads an input by both; raises `ProofNotValid` when both refuse it."""

    def ask(text: str) -> None:
        said: list[object] = []
        for read, refusal in ((by_server, merkle.ProofNotValid), (by_sdk, ProofNotValid)):
            try:
                said.append(read(text))
            except refusal:
                said.append(None)
        if said[0] != said[1]:
            raise Disagreement(text, said)
        if said[0] is None:
            raise ProofNotValid("Both refuse it.")

    return ask


def _verified(receipt: Any, keys: Sequence[Any]) -> tuple[object, ...]:
    checkpoint = receipt.verify(keys) if isinstance(receipt, log.Receipt) else receipts.verify_receipt(receipt, keys)
    item = receipt.item
    return (
        *(receipt.entry, receipt.time, receipt.kind, receipt.subject, receipt.subject_version, receipt.position),
        *(receipt.items_root, None if item is None else (item.index, item.count, item.digest)),
        *(checkpoint.origin, checkpoint.size, checkpoint.root),
    )


def _checkpoint(opened: Any) -> tuple[object, ...]:
    return opened.origin, opened.size, opened.root


def _text(good: str, damage: st.SearchStrategy[Any]) -> st.SearchStrategy[str]:
    return damage.map(lambda found: damaged(good.encode(), found).decode(errors="replace"))


def _near(good: str) -> st.SearchStrategy[str]:
    return st.one_of(_text(good, SMALL), _text(good, DAMAGE), st.text(max_size=200))


SERVER_KEYS, SDK_KEYS = checkpoints.follow_keys(KEYS), log.follow_keys(KEYS)
PARSERS: dict[str, tuple[Callable[[Any], object], st.SearchStrategy[Any]]] = {
    "receipts": (
        _both(
            lambda text: _verified(receipts.parse_receipt(text), SERVER_KEYS),
            lambda text: _verified(log.parse_receipt(text), SDK_KEYS),
        ),
        _near(RECEIPT),
    ),
    "receipts, not verified": (
        _both(
            lambda text: receipts.parse_receipt(text).leaf and True,
            lambda text: log.parse_receipt(text).leaf_hash and True,
        ),
        _near(RECEIPT),
    ),
    "checkpoints": (
        _both(
            lambda text: _checkpoint(checkpoints.open_checkpoint(text, SERVER_KEYS)),
            lambda text: _checkpoint(log.open_checkpoint(text, SDK_KEYS)),
        ),
        st.one_of(_near(LOG.checkpoint()), _near(P256.checkpoint(5, LOG.root()))),
    ),
    "log keys": (
        _both(
            lambda text: [key.vkey for key in checkpoints.follow_keys(text)],
            lambda text: [str(key) for key in log.follow_keys(text)],
        ),
        st.one_of(_near(KEYS), _near(P256.key.vkey)),
    ),
    "exported entries": (_log_entries.open_entry, _near(exported(3, ENTRIES[3]))),
    "leaves": (
        lambda content: _log_leaves.Leaf.parse(content),
        st.one_of(DAMAGE.map(lambda found: damaged(ENTRIES[3].leaf, found)), st.binary(max_size=99)),
    ),
}


@pytest.mark.parametrize("parser", PARSERS)
def test_any_input_is_read_or_refused_alike(parser: str, record_property: Callable[[str, object], None]) -> None:
    seen = run(*PARSERS[parser], (ProofNotValid,), 150, random=False)
    record_property("count", f"inputs {seen.total()}: {dict(seen)}")
    assert seen.total() >= 100
    assert set(seen) == {"read", "ProofNotValid"}


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS)
def test_any_input_is_read_or_refused_alike_for_long(
    parser: str, record_property: Callable[[str, object], None]
) -> None:
    seen = run(*PARSERS[parser], (ProofNotValid,), 10_000, random=True)
    record_property("count", f"inputs {seen.total()}: {dict(seen)}")
    assert seen.total() >= 1_000
