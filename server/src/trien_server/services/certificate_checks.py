"""Keeps what is known of credentials' certificates fresh, away from every request's path."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trien_server.core.errors import Busy, Refusal
from trien_server.core.ports import (
    Clock,
    NameTaken,
    Report,
    RevocationAnswer,
    RevocationSource,
    StatusNotKnown,
    VersionConflict,
)
from trien_server.core.records import CertificateStatus, Credential, CredentialState, Revocation
from trien_server.services.certificate_statuses import asked_about, chain_hash, status_name
from trien_server.services.leases import Leases
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

LEASE = "leases/certificate-checks"

_HOLD = ", certificateHold"
_PAGE = 200
_BATCH = 20
_LONGEST_LOOK_SECONDS = 60.0
_LOOKS_AN_INTERVAL = 20
_REST = 30
"""A look at all credentials is followed by a rest of so many times as long: it must not use up token or store."""
_RETRY = timedelta(minutes=5)
_STORE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class RevocationSettings:
    """Whom to ask, how often, and how long an answer counts at most."""

    source: RevocationSource | None = None
    every: timedelta = timedelta(hours=1)
    most_age: timedelta = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class _Due:
    credential: str
    chain: Sequence[bytes]
    asked: Sequence[tuple[bytes, bytes]]
    before: CertificateStatus | None


class CertificateChecks:
    """Asks about the certificates of all credentials, those first that were asked about longest ago.

    Of all nodes one at a time asks, under a lease that is taken for a few credentials at a time. A node that outlives
    its lease writes by compare-and-swap and never makes a revoked certificate good again, unless it was on hold. A
    crash loses what was asked and not yet written; it is asked again.
    """

    def __init__(
        self,
        *,
        source: RevocationSource,
        transactions: Transactions,
        leases: Leases,
        clock: Clock,
        report: Report,
        every: timedelta,
        most_age: timedelta,
    ) -> None:
        """A status counts until its CA's next word is due, and never longer than `most_age`."""
        self._source = source
        self._transactions = transactions
        self._leases = leases
        self._clock = clock
        self._report = report
        self._every = every
        self._most_age = most_age
        self._tried: dict[str, tuple[bytes, datetime]] = {}
        self._looked = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate-checks", daemon=True)

    def start(self) -> None:
        """Begins to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ends behind the certificate that is being asked about."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> int:
        """Asks about every certificate that is due and returns for how many credentials. Raises `Busy`."""
        due = self._due()
        self._looked = self._clock.monotonic()
        for start in range(0, len(due), _BATCH):
            with self._leases.hold(LEASE, wait=0.0, stopped=self._stopped):
                for one in due[start : start + _BATCH]:
                    if self._stopped.is_set():
                        return start
                    self._check(one)
        return len(due)

    def _due(self) -> list[_Due]:
        now = self._clock.now()
        due: list[_Due] = []
        after = ""
        while True:
            found = self._transactions.read(lambda view, after=after: _page(view, after))  # type: ignore[misc]
            for one in found:
                after = one.credential
                if self._is_due(one, now):
                    due.append(one)
            if len(found) < _PAGE:
                return sorted(due, key=_asked_last)

    def _is_due(self, one: _Due, now: datetime) -> bool:
        if not one.asked:
            return False
        asked, tried = self._tried.get(one.credential, (b"", now))
        if asked == chain_hash(one.chain) and now - tried < min(_RETRY, self._every):
            return False
        if one.before is None or one.before.chain_hash != chain_hash(one.chain):
            return True
        return now - one.before.check_time >= self._every or now >= one.before.valid_until

    def _check(self, one: _Due) -> None:
        now = self._clock.now()
        self._tried[one.credential] = chain_hash(one.chain), now
        learnt = self._ask(one, now)
        self._transactions.run(lambda ledger: self._write(ledger, one, learnt), timeout=_STORE_SECONDS)

    def _ask(self, one: _Due, now: datetime) -> RevocationAnswer:
        """Returns what is known of the whole chain: revoked when one is, good when all are."""
        good: list[RevocationAnswer] = []
        unknown = ""
        for certificate, issuer in one.asked:
            try:
                answer = self._source.status_of(certificate, issuer, at=now)
            except StatusNotKnown as reason:
                unknown = unknown or str(reason)
                continue
            if answer.revocation is Revocation.REVOKED:
                return answer
            good.append(answer)
        if unknown:
            return RevocationAnswer(revocation=Revocation.UNKNOWN, source=unknown, valid_until=now)
        until = min(answer.valid_until for answer in good)
        return RevocationAnswer(revocation=Revocation.GOOD, source=good[0].source, valid_until=until)

    def _write(self, ledger: Ledger, one: _Due, learnt: RevocationAnswer) -> None:
        before = ledger.get(CertificateStatus, status_name(one.credential))
        same_chain = before is not None and before.chain_hash == chain_hash(one.chain)
        if before is not None and same_chain and not _may_replace(before, learnt, ledger.at):
            return
        status = CertificateStatus(
            name=status_name(one.credential),
            credential=one.credential,
            chain_hash=chain_hash(one.chain),
            revocation=learnt.revocation,
            revoke_time=learnt.revoke_time,
            source=learnt.source + (_HOLD if learnt.on_hold else ""),
            check_time=ledger.at,
            valid_until=min(learnt.valid_until, ledger.at + self._most_age),
        )
        try:
            if before is None:
                ledger.insert(status)
            else:
                changes = {name: value for name, value in vars(status).items() if name not in ("name", "version")}
                ledger.replace(next_version(before, **changes))
        except (NameTaken, VersionConflict):
            return  # another node has just written
        was = before.revocation if before is not None and same_chain else None
        if was is not learnt.revocation:
            details = {"credential": one.credential, "revocation": str(learnt.revocation), "source": status.source}
            ledger.record("certificate_status_changed", details)
            if learnt.revocation is Revocation.REVOKED:
                self._report("certificate_revoked", details)

    def _run(self) -> None:
        look = min(_LONGEST_LOOK_SECONDS, max(1.0, self._every.total_seconds() / _LOOKS_AN_INTERVAL))
        while not self._stopped.is_set():
            begun = self._clock.monotonic()
            try:
                self.check()
            except Busy:
                pass  # another node is at it
            except Exception as fault:  # noqa: BLE001 - the next look repeats it
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("certificate_checks_delayed", {"because": because})
            self._stopped.wait(max(look, _REST * (self._looked - begun)))


def _may_replace(before: CertificateStatus, learnt: RevocationAnswer, at: datetime) -> bool:
    """Tells whether what was learnt takes the place of what was known of the same chain."""
    if before.revocation is Revocation.REVOKED:
        # Revoked is for ever, also when the CA is away or says otherwise; only what is on hold can be good again.
        on_hold = before.source.endswith(_HOLD)
        return learnt.revocation is Revocation.REVOKED or (on_hold and learnt.revocation is Revocation.GOOD)
    if learnt.revocation is Revocation.UNKNOWN:
        # Good stays good for its time; and what is not known is written once for each reason.
        is_good = before.revocation is Revocation.GOOD and at < before.valid_until
        return not is_good and (before.revocation is Revocation.GOOD or before.source != learnt.source)
    return True


def _page(view: TrustedView, after: str) -> list[_Due]:
    found = []
    for credential in view.find(Credential, limit=_PAGE, after=after):
        asked = asked_about(view, credential) if credential.state is not CredentialState.REVOKED else []
        before = view.get(CertificateStatus, status_name(credential.name))
        found.append(_Due(credential=credential.name, chain=credential.certificate_chain, asked=asked, before=before))
    return found


def _asked_last(one: _Due) -> tuple[bool, float, str]:
    at = 0.0 if one.before is None else one.before.check_time.timestamp()
    return one.before is not None, at, one.credential
