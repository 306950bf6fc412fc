"""GetReceipt: the proof that an audit entry is in the log."""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trien_server.core.audit import committed_details
from trien_server.core.errors import Busy, InvalidArgument, LogNotSealed, PermissionDenied, StateConflict
from trien_server.core.merkle import inclusion_proof
from trien_server.core.ports import Clock, Report
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.receipts import (
    ItemProof,
    Receipt,
    ReceiptNotValid,
    item_hashes,
    prove_item,
    verify_receipt,
)
from trien_server.core.records import AuditEntry
from trien_server.services.access import require_client
from trien_server.services.audit_entries import require_reader
from trien_server.services.deadline import Deadline
from trien_server.services.signed_log import LogFaults, SignedLog, distrust_log, read_signed_log
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

_POLL_SECONDS = 0.2
LONGEST_WAIT = 30.0
_ANSWER_SECONDS = 0.5
"""What is left of the deadline for the answer, when no checkpoint came."""

_REMEMBERED_CALLS = 16
"""Of how many calls the hashes of their digests are kept: who signs a thousand asks for a thousand receipts."""

HashesOf = Callable[[bytes, tuple[bytes, ...]], Sequence[bytes]]

OWN_KINDS = frozenset(
    {
        "authorization_created",
        "authorization_denied",
        "authorizations_approved",
        "challenge_created",
        "code_made",
        "refused",
        "signing_granted",
        "signing_resumed",
    }
)
"""The kinds of entries about an application's requests: their details name it as `client`."""


@dataclass(frozen=True, kw_only=True)
class ReceiptOfEntry:
    """A receipt that was verified, and how many entries its checkpoint covers."""

    receipt: Receipt
    size: int


class GetReceipt:
    """Makes receipts, and waits until a checkpoint covers the entry.

    A waiter holds a thread of the server, so at most `waiters` wait at once: the others get `Busy` and ask again.
    """

    method = "AuditService.GetReceipt"

    def __init__(self, *, transactions: Transactions, clock: Clock, report: Report, waiters: int) -> None:
        self._transactions = transactions
        self._clock = clock
        self._report = report
        self._places = threading.BoundedSemaphore(waiters)
        self._stopped = threading.Event()
        self._hashes_of: HashesOf = lru_cache(maxsize=_REMEMBERED_CALLS)(item_hashes)

    def stop(self) -> None:
        """Ends all waiting: each waiter is told to ask again."""
        self._stopped.set()

    def __call__(self, principal: Principal, entry: str, *, item: int | None, deadline: Deadline) -> ReceiptOfEntry:
        """Returns the receipt of an entry, and with `item` of that digest of its call; it was verified.

        A client gets those of its own requests, as long as their details are there; an operator who reads the log any.
        Raises `PermissionDenied` for any other entry, and for one that does not exist (P11); `InvalidArgument` for an
        item that the call does not have; `StateConflict` for one whose details were erased; `LogNotSealed` when
        no checkpoint came in time; `LogNotTrusted`, after reporting it, when the log does not lead to what the token
        signed.
        """
        made = self._make(principal, entry, item)
        if made is not None:
            return made
        if not self._places.acquire(blocking=False):
            raise Busy("Too many calls wait for receipts.")
        try:
            return self._wait(principal, entry, item, deadline)
        finally:
            self._places.release()

    def _wait(self, principal: Principal, entry: str, item: int | None, deadline: Deadline) -> ReceiptOfEntry:
        end = self._clock.monotonic() + min(LONGEST_WAIT, max(deadline.remaining() - _ANSWER_SECONDS, 0.0))
        while (left := end - self._clock.monotonic()) > 0 and not self._stopped.wait(min(_POLL_SECONDS, left)):
            made = self._make(principal, entry, item)
            if made is not None:
                return made
        raise LogNotSealed("No checkpoint of the log covers the entry yet.")

    def _make(self, principal: Principal, name: str, item: int | None) -> ReceiptOfEntry | None:
        def work(view: TrustedView) -> ReceiptOfEntry | None:
            entry = require_entry(view, principal, name, self.method)
            proven = None if item is None else prove_digest(entry, item, hashes_of=self._hashes_of)
            log = read_signed_log(view)
            position = view.position(name)
            if log is None or position is None or position >= log.size:
                return None
            return make_receipt(log, entry, position, proven)

        try:
            return self._transactions.read(work)
        except LogFaults as fault:
            raise distrust_log(self._report, fault) from fault


def require_entry(view: TrustedView, principal: Principal, name: str, method: str) -> AuditEntry:
    """Returns an entry that the caller may see. Raises `PermissionDenied`, also when there is none (P11)."""
    if principal.kind is PrincipalKind.OPERATOR:
        require_reader(view, principal, method)
        entry = view.get(AuditEntry, name)
        if entry is None:
            raise PermissionDenied
        return entry
    client = require_client(view, principal, method)
    entry = view.get(AuditEntry, name)
    if entry is None or entry.kind not in OWN_KINDS or _details(entry).get("client") != client.name:
        raise PermissionDenied
    return entry


def make_receipt(log: SignedLog, entry: AuditEntry, position: int, item: ItemProof | None = None) -> ReceiptOfEntry:
    """Returns the receipt of an entry at a position that the log's checkpoint covers; it was verified.

    Raises one of `LogFaults` when the log does not lead to what the token signed.
    """
    try:
        commitment = committed_details(entry)
    except ValueError as fault:
        raise ReceiptNotValid(str(fault)) from fault
    receipt = Receipt(
        entry=entry.name,
        time=entry.time,
        kind=entry.kind,
        subject=entry.subject,
        subject_version=entry.subject_version,
        head_salt=entry.head_salt,
        details_commitment=commitment,
        items_root=entry.items_root,
        position=position,
        hashes=inclusion_proof(log.read, position, log.size),
        note=log.note,
        item=item,
    )
    covered = verify_receipt(receipt, log.keys.keys)
    return ReceiptOfEntry(receipt=receipt, size=covered.size)


def prove_digest(entry: AuditEntry, index: int, *, hashes_of: HashesOf = item_hashes) -> ItemProof:
    """Returns the proof of one digest of an entry's call.

    Raises `InvalidArgument` when it has no such digest, `StateConflict` when the details were erased.
    """
    if not entry.items_root:
        raise InvalidArgument("item", "the entry is not about digests")
    if not entry.salt:
        raise StateConflict("The entry's details were erased: which digests it is about can no longer be shown.")
    digests = [bytes.fromhex(digest) for digest in _details(entry).get("digests", ())]
    if not 0 <= index < len(digests):
        raise InvalidArgument("item", f"expected 0 to {len(digests) - 1}, for the call had {len(digests)} digests")
    # That they are the ones which the entry commits to is verified with the receipt.
    return prove_item(entry.salt, digests, index, hashes_of=hashes_of)


def _details(entry: AuditEntry) -> dict[str, Any]:
    """Returns the details, none when they were erased."""
    return json.loads(entry.details) if entry.details else {}
