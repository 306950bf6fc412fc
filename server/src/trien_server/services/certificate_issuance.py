"""The worker that has the token sign what two officers agreed that the installation's own CA issues."""

import queue
import threading
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from trien_server.core.errors import Refusal, StateConflict
from trien_server.core.issuing import signed
from trien_server.core.ports import Clock, Hsm, Report
from trien_server.core.records import (
    CertificateAuthority,
    IssuedCertificate,
    IssuedCertificateState,
    Key,
    KeyPurpose,
    KeyState,
)
from trien_server.services.certificate_authorities import authority_certificate
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.token_signatures import not_verified, sign_content
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

_LOOK_SECONDS = 60.0
"""How often it looks for what another process was asked for, and did not get to sign."""
_RETRY_SECONDS = 2.0
_LONGEST_RETRY_SECONDS = 300.0


class CertificateIssuance:
    """Signs pending certificates, one at a time, in a thread of its own.

    The approval's transaction fixed every byte that is signed and wrote the audit entry that names it, so a crash at
    any point leaves the record PENDING_ISSUANCE, and whoever takes it up next has the same bytes signed. Two processes
    may do so at once: both certificates are then of one serial number and content, and the one whose record is in
    force first is kept, the other is thrown away.
    """

    def __init__(self, *, hsm: Hsm, transactions: Transactions, changes: Changes, clock: Clock, report: Report) -> None:
        self._hsm = hsm
        self._transactions = transactions
        self._changes = changes
        self._clock = clock
        self._report = report
        self._names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="certificate-issuance", daemon=True)

    def start(self) -> None:
        """Takes up what was left pending, and goes on with what is asked for."""
        self._thread.start()

    def ask(self, name: str) -> None:
        """Queues a pending certificate."""
        self._names.put(name)

    def stop(self) -> None:
        """Finishes the certificate that is being signed, and ends."""
        self._stopped.set()
        self._names.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def pending(self) -> list[str]:
        """Returns the names of what waits to be signed."""

        def find(view: TrustedView) -> list[str]:
            found = view.find(IssuedCertificate, state=IssuedCertificateState.PENDING_ISSUANCE)
            return [issued.name for issued in found]

        return self._transactions.read(find)

    def issue(self, name: str) -> None:
        """Signs one certificate that is still pending, verifies it, and keeps it.

        Raises `HsmUnavailable`, `StoreUnavailable`, or `StateConflict` when the CA's key is not enabled: it stays
        pending.
        """
        found = self._transactions.read(lambda view: _find(view, name))
        if found is None:
            return
        pending, authority, key = found
        encoded = signed(pending.to_be_signed, key.key_type, sign_content(self._hsm, key, pending.to_be_signed))
        try:
            x509.load_der_x509_certificate(encoded).verify_directly_issued_by(authority_certificate(authority))
        except (InvalidSignature, ValueError) as fault:
            raise not_verified() from fault
        issued = next_version(pending, certificate=encoded, state=IssuedCertificateState.ISSUED)

        def prepare(view: TrustedView) -> Change:
            # Revoked meanwhile, or issued by another process: then this one was never handed out, and never is.
            in_force = view.require(IssuedCertificate, name) == pending
            return Change(kind="certificate_issued", slow=[issued] if in_force else [])

        self._changes.make("server", prepare, deadline=Deadline(self._clock, 30.0))

    def _issue_all(self, names: Sequence[str]) -> None:
        """Signs what can be signed. Raises the first failure then: one CA's key keeps back no other's certificates."""
        failure: Refusal | None = None
        for name in names:
            try:
                self.issue(name)
            except Refusal as fault:
                failure = failure or fault
        if failure is not None:
            raise failure

    def _run(self) -> None:
        failures, pause = 0, 0.0
        while not self._stopped.is_set():
            try:
                asked = self._names.get(timeout=pause) if pause else ""
            except queue.Empty:
                asked = ""
            if asked is None:
                return
            try:
                self._issue_all([asked] if asked else self.pending())
            except Exception as fault:  # noqa: BLE001 - what is pending is looked for again
                because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
                self._report("certificate_issuance_delayed", {"because": because})
                pause = min(_RETRY_SECONDS * 2**failures, _LONGEST_RETRY_SECONDS)
                failures += 1
            else:
                failures, pause = 0, _LOOK_SECONDS


def _find(view: TrustedView, name: str) -> tuple[IssuedCertificate, CertificateAuthority, Key] | None:
    issued = view.get(IssuedCertificate, name)
    if issued is None or issued.state is not IssuedCertificateState.PENDING_ISSUANCE:
        return None
    authority = view.require(CertificateAuthority, issued.authority)
    key = view.require(Key, authority.key)
    if key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.CA:
        raise StateConflict("The CA's key is not enabled.")
    return issued, authority, key
