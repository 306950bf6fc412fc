"""Tells in time that certificates expire: 30, 7 and 1 days before, once each over all nodes."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trien_server.core.certificates import expire_time
from trien_server.core.errors import Busy, Refusal
from trien_server.core.ports import Clock, NameTaken, Report
from trien_server.core.records import CertificateAuthority, Credential, CredentialState, Notice
from trien_server.services.leases import Leases
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import TrustedView

DAYS_BEFORE = (1, 7, 30)
LEASE = "leases/expiry-notices"

_PAGE = 200
_LOOK_SECONDS = 3600.0
_RETRY_SECONDS = 60.0
_STORE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Expiring:
    """The certificate (DER) of something that expires first: a credential's chain, a CA's, the server's own."""

    name: str
    certificate: bytes

    @property
    def expire_time(self) -> datetime:
        return expire_time(self.certificate)

    def notice_due(self, at: datetime) -> str | None:
        """Returns the name of the notice whose time has come, or None: of several the last one alone."""
        left = self.expire_time - at
        for days in DAYS_BEFORE:
            if left <= timedelta(days=days):
                fingerprint = hashlib.sha256(self.certificate).hexdigest()
                return f"{self.name}/notices/expires-{days}-{fingerprint[:32]}"
        return None


class ExpiryNotices:
    """Looks at all certificates once an hour, in a thread of its own.

    A notice is a record that can be made once: the audit entry is written with it, so that there is one over all
    nodes, and the report follows. A crash between the two loses the report; the entry stays.
    """

    def __init__(
        self,
        *,
        transactions: Transactions,
        leases: Leases,
        clock: Clock,
        report: Report,
        of_the_host: Callable[[], Sequence[Expiring]],
    ) -> None:
        """`of_the_host` returns the certificates that are in files: it may raise `OSError`, and is asked again."""
        self._transactions = transactions
        self._leases = leases
        self._clock = clock
        self._report = report
        self._of_the_host = of_the_host
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="expiry-notices", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Ends behind the notice that is being written."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def tell(self) -> int:
        """Writes every notice whose time has come and returns how many these were. Raises `Busy`."""
        told = 0
        with self._leases.hold(LEASE, wait=0.0, stopped=self._stopped):
            for one in self.certificates():
                notice = one.notice_due(self._clock.now())
                if notice is not None and self._write(one, notice):
                    told += 1
                if self._stopped.is_set():
                    break
        return told

    def certificates(self) -> Iterator[Expiring]:
        """Yields the one that expires first of each file, CA and credential. Raises `RecordNotTrusted`."""
        try:
            yield from self._of_the_host()
        except (OSError, ValueError) as fault:
            self._report("certificate_not_read", {"because": type(fault).__name__})
        yield from self._transactions.read(_authorities)
        after = ""
        while True:
            page = self._transactions.read(lambda view, after=after: _credentials(view, after))  # type: ignore[misc]
            for name, expiring in page:
                after = name
                if expiring is not None:
                    yield expiring
            if len(page) < _PAGE:
                return

    def _write(self, one: Expiring, name: str) -> bool:
        """Writes a notice with its audit entry, unless it is there; tells whether it was new."""
        days = max(0, (one.expire_time - self._clock.now()).days)
        details = {"name": one.name, "expires": one.expire_time.isoformat(), "days": str(days)}

        def work(ledger: Ledger) -> bool:
            if ledger.get(Notice, name) is not None:
                return False
            try:
                ledger.insert(Notice(name=name, create_time=ledger.at))
            except NameTaken:
                return False
            ledger.record("certificate_expires", details)
            return True

        new = self._transactions.run(work, timeout=_STORE_SECONDS)
        if new:
            self._report("certificate_expires", details)
        return new

    def _run(self) -> None:
        pause = 0.0
        while not self._stopped.wait(pause):
            pause = _LOOK_SECONDS
            try:
                self.tell()
            except Busy:
                pause = _RETRY_SECONDS  # another node is at it, and may not come to the end
            except Exception as fault:  # noqa: BLE001 - the next look repeats it
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("expiry_notices_delayed", {"because": because})
                pause = _RETRY_SECONDS


def first_to_expire(name: str, certificates: Sequence[bytes]) -> Expiring:
    """Returns the certificate (DER) of several that expires first."""
    return Expiring(name=name, certificate=min(certificates, key=expire_time))


def _authorities(view: TrustedView) -> list[Expiring]:
    return [first_to_expire(one.name, one.certificate_chain) for one in view.find(CertificateAuthority)]


def _credentials(view: TrustedView, after: str) -> list[tuple[str, Expiring | None]]:
    found: list[tuple[str, Expiring | None]] = []
    for credential in view.find(Credential, limit=_PAGE, after=after):
        watched = credential.state is not CredentialState.REVOKED and bool(credential.certificate_chain)
        expiring = first_to_expire(credential.name, credential.certificate_chain) if watched else None
        found.append((credential.name, expiring))
    return found
