"""Uses the key for what was granted: sign, verify, record the outcome (P1, P3, P6, P7)."""

import threading
from collections.abc import Callable
from datetime import datetime

from trien_server.core.errors import Busy, HsmUnavailable, Refusal
from trien_server.core.ports import Clock, Hsm, KeyMismatch, Randomness, Report, VersionConflict
from trien_server.core.records import GrantedRequest, Outcome
from trien_server.core.verification import SignatureDoesNotVerify, verify_signature
from trien_server.services import granted_requests
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.signing_commands import CheckedRequest, GrantedWork
from trien_server.services.signing_grants import work_details
from trien_server.services.signing_queue import TURN, SigningQueue
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import Stale, TrustedView

_POLL_SECONDS = 0.05
_OWN_TIME = 60.0
"""How long work that was granted may wait for the token and the store, whatever its caller does."""


class Signatures:
    """Does granted work, once under one lease. May be used from any thread."""

    def __init__(
        self,
        *,
        hsm: Hsm,
        queue: SigningQueue,
        transactions: Transactions,
        clock: Clock,
        randomness: Randomness,
        report: Report,
    ) -> None:
        self._hsm = hsm
        self._queue = queue
        self._transactions = transactions
        self._clock = clock
        self._randomness = randomness
        self._report = report

    def make(self, work: GrantedWork) -> tuple[bytes, ...]:
        """Signs, verifies and records.

        The caller's deadline does not end it: what was granted is finished and can be fetched by a retry.
        Raises `HsmUnavailable`, `Busy` or `StoreUnavailable`; a retry then completes the work.
        """
        try:
            signatures = self._sign(work.request)
        except BaseException:
            self._release(work.granted)
            raise

        def complete(ledger: Ledger) -> bool:
            # A crash before this commit leaves a granted request without outcome: a retry signs again.
            # A late result without the lease is thrown away.
            if ledger.get(GrantedRequest, work.granted.name) != work.granted:
                return False
            ledger.replace(next_version(work.granted, completed=True))
            ledger.record_outcome(Outcome(request=work.granted.name, signatures=signatures, create_time=ledger.at))
            return True

        if self._transactions.run(complete, timeout=_OWN_TIME):
            return signatures
        raise Busy("Another process completes the request.")

    def resume(
        self,
        load: Callable[[TrustedView, datetime], GrantedWork],
        *,
        deadline: Deadline,
    ) -> tuple[GrantedWork, tuple[bytes, ...]]:
        """Returns the recorded outcome of a granted request, or completes its work.

        `load` makes every check but the one-time password each time. Raises `AuthorizationExpired` after
        15 minutes, `Busy` when the process that has the lease does not finish before the deadline.
        """
        while True:
            at = self._clock.now()

            def read(view: TrustedView, at: datetime = at) -> tuple[GrantedWork, tuple[bytes, ...] | None, TrustedView]:
                work = load(view, at)
                return work, view.signatures(work.granted.name) if work.granted.completed else None, view

            work, recorded, view = self._transactions.read(read)
            if recorded is not None:
                granted_requests.assert_outcome_kept(work.granted, at=at)
                self._verify(work.request, recorded)
                return work, recorded
            granted_requests.assert_completable(work.granted, at=at)
            if work.granted.lease_expire_time <= at:
                taken = self._take_over(work, view, deadline)
                if taken is not None:
                    return taken, self.make(taken)
            self._await_change(work.granted, deadline)

    def _await_change(self, granted: GrantedRequest, deadline: Deadline) -> None:
        """Waits until the request's record changes or its lease lapses. Raises `Busy` at the deadline."""
        pause = threading.Event()
        while granted.lease_expire_time > self._clock.now():
            if deadline.remaining() < _POLL_SECONDS:
                raise Busy("The request is still at work.")
            pause.wait(_POLL_SECONDS)
            if self._transactions.read(lambda view: view.get(GrantedRequest, granted.name)) != granted:
                return

    def _take_over(self, work: GrantedWork, view: TrustedView, deadline: Deadline) -> GrantedWork | None:
        """Takes the lease by compare-and-swap, with an audit entry of its own for the new attempt."""

        def take(ledger: Ledger) -> GrantedRequest | None:
            ledger.assert_unchanged(view)
            details = work_details(work.request, work.authorization, work.approval)
            entry = ledger.record("signing_resumed", details, items=work.request.commitment)
            taken = granted_requests.take_lease(
                work.granted, holder=new_id(self._randomness), audit_entry=entry.name, at=ledger.at
            )
            try:
                ledger.replace(taken)
            except VersionConflict as conflict:
                raise Stale from conflict
            return taken

        try:
            taken = self._transactions.run(take, timeout=max(deadline.remaining(), 1.0))
        except Stale:
            return None
        if taken is None:
            return None
        leaf = self._transactions.read(lambda reread: reread.leaf_hash(taken.audit_entry))
        return GrantedWork(
            request=work.request,
            granted=taken,
            authorization=work.authorization,
            approval=work.approval,
            leaf_hash=leaf,
        )

    def _sign(self, request: CheckedRequest) -> tuple[bytes, ...]:
        messages = request.items.messages
        signatures: list[bytes] = []
        for start in range(0, len(messages), TURN):
            with self._queue.turn(request.client, timeout=_OWN_TIME):
                try:
                    signatures += self._hsm.sign(
                        request.usable.reference,
                        request.scheme.algorithm,
                        messages[start : start + TURN],
                        pss_salt_length=request.scheme.pss_salt_length,
                    )
                except KeyMismatch as mismatch:
                    self._report("key_mismatch", {"key": request.usable.key.name, "finding": str(mismatch)})
                    raise HsmUnavailable from mismatch
        self._verify(request, tuple(signatures))
        return tuple(signatures)

    def _verify(self, request: CheckedRequest, signatures: tuple[bytes, ...]) -> None:
        """Verifies every signature with the record's public key (P6)."""
        try:
            for message, signature in zip(request.items.messages, signatures, strict=True):
                verify_signature(request.usable.key.public_key, request.scheme, message=message, signature=signature)
        except (SignatureDoesNotVerify, ValueError) as fault:
            self._report("signature_does_not_verify", {"key": request.usable.key.name, "reason": str(fault)})
            raise HsmUnavailable("A signature did not verify and was thrown away.") from fault

    def _release(self, granted: GrantedRequest) -> None:
        """Ends the lease at once, so that a retry need not wait for it; a failure only makes it wait."""

        def release(ledger: Ledger) -> None:
            if ledger.get(GrantedRequest, granted.name) == granted:
                ledger.replace(next_version(granted, lease_expire_time=ledger.at))

        try:
            self._transactions.run(release, timeout=2.0)
        except Refusal as failure:
            self._report("lease_not_released", {"request": granted.name, "because": failure.reason})
