"""Looks at the newest part of the log, quickly: `fsck` reads all of it."""

from collections.abc import Iterator
from functools import lru_cache

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.merkle import hash_leaf, inclusion_proof, root_at, verify_inclusion
from trien_server.services.signed_log import LogFaults, SignedLog, read_signed_log
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

NEWEST = 500
"""How many entries are looked at: about ten times what one page of the database holds."""


class ExamineLog:
    """Checks the newest checkpoint's signature, and that the newest entries are the ones that it covers."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self) -> list[str] | None:
        """Returns what is wrong, a sentence each; None when no checkpoint was signed yet.

        Raises `HsmUnavailable`, `StoreUnavailable`.
        """
        return self._transactions.read(_examine)


def _examine(view: TrustedView) -> list[str] | None:
    try:
        log = read_signed_log(view)
        if log is None:
            return None
        if root_at(log.read, log.size) != log.checkpoint.root:
            return ["The hashes in the database do not lead to the root that the token signed."]
    except (*LogFaults, RecordNotTrusted) as fault:
        return [f"The log's newest checkpoint cannot be trusted: {_words(fault)}."]
    return list(_entry_faults(view, log))


def _entry_faults(view: TrustedView, log: SignedLog) -> Iterator[str]:
    read = lru_cache(maxsize=4096)(log.read)
    for position, entry in view.log(max(0, log.size - NEWEST), log.size):
        if isinstance(entry, RecordNotTrusted):
            yield f"The entry at position {position} of the log cannot be trusted: {entry.finding}."
            continue
        try:
            proof = inclusion_proof(read, position, log.size)
            verify_inclusion(hash_leaf(entry.leaf), position, log.size, proof, log.checkpoint.root)
        except LogFaults:
            yield f"The entry at position {position} of the log, {entry.name}, is not the one that the token signed."


def _words(fault: Exception) -> str:
    return fault.finding if isinstance(fault, RecordNotTrusted) else str(fault)
