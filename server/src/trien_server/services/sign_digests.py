"""SignDigests: the main job."""

from collections.abc import Callable
from datetime import datetime

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import HsmUnavailable, InvalidArgument, Refusal
from trien_server.core.ports import Clock, Hsm, KeyMismatch, Report
from trien_server.core.principal import Principal
from trien_server.core.records import GrantedRequest, Signer
from trien_server.services.client_rates import ClientRates
from trien_server.services.deadline import Deadline
from trien_server.services.notices import Notices
from trien_server.services.signatures import Signatures
from trien_server.services.signing_commands import (
    CheckedRequest,
    GrantedWork,
    SignDigestsCommand,
    SignDigestsResult,
)
from trien_server.services.signing_grants import ByAuthorization, ByOneTimePassword, SigningGrants
from trien_server.services.signing_queue import SigningQueue
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import TrustedView

_LEAST_TIME = 0.5
_SECONDS_PER_ITEM = {
    KeyType.RSA_2048: 0.002,
    KeyType.RSA_3072: 0.005,
    KeyType.RSA_4096: 0.012,
    KeyType.EC_P256: 0.0005,
    KeyType.EC_P384: 0.001,
    KeyType.EC_ED25519: 0.0005,
}
"""What one signature takes on a software token of one core, roughly: enough to refuse what cannot finish."""

_NOT_RECORDED = frozenset(
    {
        "BUSY",
        "CLOCK_NOT_TRUSTED",
        "DEADLINE_TOO_SHORT",
        "HSM_UNAVAILABLE",
        "RATE_LIMIT_REACHED",
        "STORE_UNAVAILABLE",
    }
)
"""Refusals that decide nothing, or that could not be written anyway."""


def recordable(refusal: Refusal) -> bool:
    """Tells whether a refusal is a decision that the audit log keeps."""
    return not isinstance(refusal, InvalidArgument) and refusal.reason not in _NOT_RECORDED


class SignDigests:
    """Signs what a signer authorizes: checks, one transaction, then the token, then the answer."""

    def __init__(
        self,
        *,
        hsm: Hsm,
        transactions: Transactions,
        grants: SigningGrants,
        signatures: Signatures,
        queue: SigningQueue,
        rates: ClientRates,
        notices: Notices,
        clock: Clock,
        report: Report,
    ) -> None:
        self._hsm = hsm
        self._transactions = transactions
        self._grants = grants
        self._signatures = signatures
        self._queue = queue
        self._rates = rates
        self._notices = notices
        self._clock = clock
        self._report = report

    def __call__(self, principal: Principal, command: SignDigestsCommand, deadline: Deadline) -> SignDigestsResult:
        """Signs all items or none.

        Raises the refusals of `core.errors`. A one-time password is consumed only when everything else is
        right, the token is ready, and there is time left (P8).
        """
        deadline.require(_LEAST_TIME)
        with self._rates.items(principal, len(command.items)), self._queue.admit(principal.name):
            try:
                work = self._transactions.decide(lambda: self._grant(principal, command, deadline), deadline=deadline)
                if work is not None:
                    return _result(work, self._signatures.make(work))
                return _result(*self._resume(principal, command, deadline))
            except Refusal as refusal:
                if recordable(refusal):
                    details = {"action": "SignDigests", "principal": principal.name, "credential": command.credential}
                    self._transactions.record_refusal(refusal, details)
                raise

    def _grant(self, principal: Principal, command: SignDigestsCommand, deadline: Deadline) -> GrantedWork | None:
        """Returns work that is granted now, or None when the request was granted before."""
        at = self._clock.now()

        def prepare(
            view: TrustedView,
        ) -> tuple[TrustedView, CheckedRequest, ByOneTimePassword | ByAuthorization] | None:
            request = self._grants.check(view, principal, command, at)
            if view.get(GrantedRequest, request.granted_request) is not None:
                return None
            if not self._hsm.ready():
                raise HsmUnavailable
            deadline.require(_LEAST_TIME + len(command.items) * _SECONDS_PER_ITEM[request.usable.key.key_type])
            return view, request, self._grants.prepare(view, principal, command, request, at)

        prepared = self._transactions.read(prepare)
        if prepared is None:
            return None
        view, request, authority = prepared
        self._require_key(request)

        def decide(ledger: Ledger) -> GrantedWork | Refusal:
            ledger.assert_unchanged(view)
            return self._grants.decide(ledger, command, request, authority)

        work = self._transactions.run(decide, timeout=deadline.remaining())
        self._notices.signed(work, _who_wishes_notices(view, work))
        return work

    def _require_key(self, request: CheckedRequest) -> None:
        """Finds the key's handle before anything is consumed. Raises `HsmUnavailable`."""
        try:
            self._hsm.prepare(request.usable.reference)
        except KeyMismatch as mismatch:
            self._report("key_mismatch", {"key": request.usable.key.name, "finding": str(mismatch)})
            raise HsmUnavailable("The token does not hold the credential's key.") from mismatch

    def _resume(
        self, principal: Principal, command: SignDigestsCommand, deadline: Deadline
    ) -> tuple[GrantedWork, tuple[bytes, ...]]:
        def load(view: TrustedView, at: datetime) -> GrantedWork:
            request = self._grants.check(view, principal, command, at)
            granted = view.require(GrantedRequest, request.granted_request)
            return self._grants.work_of(view, request, granted, at)

        load_work: Callable[[TrustedView, datetime], GrantedWork] = load
        return self._signatures.resume(load_work, deadline=deadline)


def _who_wishes_notices(view: TrustedView, work: GrantedWork) -> list[Signer]:
    """Returns the signer, and the person who approved, where they wish to be told; both were read to decide."""
    names = dict.fromkeys((work.request.usable.signer.name, work.approval.signer))
    read = (view.seen.get((Signer.table, name)) for name in names)
    persons = (row.record for row in read if row is not None)
    return [person for person in persons if isinstance(person, Signer) and person.signature_notices]


def _result(work: GrantedWork, signatures: tuple[bytes, ...]) -> SignDigestsResult:
    return SignDigestsResult(
        credential=work.request.usable.credential.name,
        scheme=work.request.scheme,
        signatures=signatures,
        authorization=work.authorization.name,
        approved_by=work.approval.signer,
        assurance=work.approval.assurance,
        audit_entry=work.granted.audit_entry,
        leaf_hash=work.leaf_hash,
    )
