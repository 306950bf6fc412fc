"""The calls of AuditService that an application makes: receipts of its own requests, each verified."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trien.v1 import audit_service_pb2, audit_service_pb2_grpc

from trien_client._calls import Calls
from trien_client._errors import ProofNotValid, TrustNotConfigured
from trien_client._log_notes import Checkpoint, LogKey, follow_trusted
from trien_client._log_receipts import Receipt, parse_receipt
from trien_client._resources import SigningResult
from trien_client._steps import Operation


@dataclass(frozen=True, kw_only=True)
class VerifiedReceipt:
    """A receipt that was verified with the log's key: keep `text` beside the signature."""

    text: str
    """What `trien verify receipt` reads."""
    receipt: Receipt
    checkpoint: Checkpoint
    """The signed state of the log that covers the entry."""


class Receipts:
    """Reads receipts."""

    def __init__(self, calls: Calls, channel: Any, *, log_keys: Sequence[LogKey]) -> None:
        self._calls = calls
        self._stub: audit_service_pb2_grpc.AuditServiceStub = audit_service_pb2_grpc.AuditServiceStub(channel)
        self._trusted = tuple(log_keys)
        self._known = self._trusted
        self._lock = threading.Lock()

    def of_signature(
        self, signed: SigningResult, *, item: int | None, timeout: float | None
    ) -> Operation[VerifiedReceipt]:
        """Reads the receipt of a signature; with `item` it has to be about that digest, as this SDK computed it.

        Raises `ProofNotValid`, `TrustNotConfigured`, and refusals; `IndexError` for an item that was not signed.
        """
        digest = None if item is None else signed.digests[item]
        found = yield from self.of_entry(signed.audit_entry, item=item, timeout=timeout)
        if found.receipt.leaf_hash != signed.leaf_hash:
            raise ProofNotValid("The receipt is of another leaf than the answer that the signature came with.")
        if digest is not None:
            found.receipt.require_digest(digest)
            _require_place(found.receipt, signed, item)
        return found

    def of_entry(self, entry: str, *, item: int | None, timeout: float | None) -> Operation[VerifiedReceipt]:
        """Reads the receipt of an entry. The server waits until a checkpoint covers it, a second or two. As above."""
        if not self._trusted:
            raise TrustNotConfigured(
                "There is nothing to verify receipts with. Pass log_key= with the log's key, or a connection file that"
                " has it."
            )
        deadline = self._calls.deadline(timeout)
        request = audit_service_pb2.GetReceiptRequest(audit_entry=entry)
        if item is not None:
            request.item = item
        answer = yield from self._calls.send(self._stub.GetReceipt, request, deadline=deadline, repeatable=True)
        receipt = parse_receipt(answer.text)
        if receipt.entry != entry:
            raise ProofNotValid("The server answered with the receipt of another entry.")
        if (receipt.item is None) is not (item is None):
            raise ProofNotValid("The server answered with a receipt of another kind.")
        with self._lock:
            keys = self._known
        try:
            checkpoint = receipt.verify(keys)
        except ProofNotValid:
            # The log's key may have been replaced: the new one counts when the trusted one leads to it.
            keys = yield from self._follow(deadline)
            checkpoint = receipt.verify(keys)
        return VerifiedReceipt(text=answer.text, receipt=receipt, checkpoint=checkpoint)

    def _follow(self, deadline: float) -> Operation[tuple[LogKey, ...]]:
        request = audit_service_pb2.GetLogKeysRequest()
        answer = yield from self._calls.send(self._stub.GetLogKeys, request, deadline=deadline, repeatable=True)
        followed = follow_trusted(self._trusted, answer.text)
        with self._lock:
            self._known = followed
        return followed


def _require_place(receipt: Receipt, signed: SigningResult, item: int | None) -> None:
    found = receipt.item
    if found is None or (found.index, found.count) != (item, len(signed.digests)):
        raise ProofNotValid("The receipt is about another place among the digests of the call.")
