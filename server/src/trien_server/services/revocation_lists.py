"""Revocation lists (CRLs) of the installation's own CAs: made on demand, and kept fresh where they are published."""

import hashlib
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes

from trien_server.core.errors import Busy, PermissionDenied, Refusal, StateConflict
from trien_server.core.issuing import RevokedSerial, list_to_be_signed, signed, whole_seconds
from trien_server.core.ports import Clock, Hsm, ListPublication, Report
from trien_server.core.records import (
    CertificateAuthority,
    IssuedCertificate,
    IssuedCertificateState,
    Key,
    KeyPurpose,
    KeyState,
    RevocationReason,
)
from trien_server.services.certificate_authorities import authority_certificate
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.issued_certificates import serial_of
from trien_server.services.leases import Leases
from trien_server.services.token_signatures import not_verified, sign_content
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

LEASE = "leases/revocation-lists"

_SECONDS = 30.0
_LOOK_SECONDS = 60.0
_PAGE = 1000


class RevocationLists:
    """Makes revocation lists. May be used from any thread."""

    def __init__(
        self, *, hsm: Hsm, transactions: Transactions, changes: Changes, clock: Clock, valid_for: timedelta
    ) -> None:
        """A list says that the next one comes within `valid_for`."""
        self._hsm = hsm
        self._transactions = transactions
        self._changes = changes
        self._clock = clock
        self._valid_for = valid_for

    def make(self, authority: str) -> bytes:
        """Returns a new list (DER) of all that a CA revoked, with the next number, signed in the token.

        The number is taken and the list's digest written to the log before the key is used: a crash leaves a number
        that no list has, and never two lists with one number. What is revoked is read with the number, so that a list
        with a higher one never says less. Raises `PermissionDenied` for an unknown CA, `StateConflict` when its key is
        not enabled, `HsmUnavailable`, `StoreUnavailable`.
        """
        made: tuple[bytes, CertificateAuthority, Key] | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal made
            found = view.get(CertificateAuthority, authority)
            if found is None:
                raise PermissionDenied
            key = view.require(Key, found.key)
            if key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.CA:
                raise StateConflict("The CA's key is not enabled.")
            now = whole_seconds(self._clock.now())
            content = list_to_be_signed(
                authority=authority_certificate(found),
                authority_key_type=key.key_type,
                number=found.next_crl_number,
                this_update=now,
                next_update=now + self._valid_for,
                revoked=_revoked(view, authority),
            )
            made = content, found, key
            details = {"crlNumber": found.next_crl_number, "contentSha256": hashlib.sha256(content).hexdigest()}
            counted = next_version(found, next_crl_number=found.next_crl_number + 1)
            return Change(kind="revocation_list_granted", slow=[counted], details=details)

        self._changes.make("server", prepare, deadline=Deadline(self._clock, _SECONDS))
        if made is None:
            raise AssertionError("a change was made without being prepared")
        content, found, key = made
        encoded = signed(content, key.key_type, sign_content(self._hsm, key, content))
        if not x509.load_der_x509_crl(encoded).is_signature_valid(_issuer_key(found)):
            raise not_verified()
        return encoded

    def says_all(self, encoded: bytes, authority: str, *, fresh_for: timedelta) -> bool:
        """Tells whether a published list is whole, ours, young enough, and has everything that is revoked by now."""
        try:
            listed = x509.load_der_x509_crl(encoded)
            serials = {entry.serial_number for entry in listed}
            begun = listed.last_update_utc
        except ValueError:
            return False

        def read(view: TrustedView) -> tuple[CertificateAuthority, set[int]]:
            found = view.require(CertificateAuthority, authority)
            return found, {one.serial for one in _revoked(view, authority)}

        found, revoked = self._transactions.read(read)
        age = self._clock.now() - begun
        young = timedelta(minutes=-5) <= age < fresh_for
        return young and revoked <= serials and listed.is_signature_valid(_issuer_key(found))

    def require_nothing_lost(self, encoded: bytes, authority: str) -> None:
        """Raises `StateConflict` when a list of ours revokes what no record says is revoked.

        What is revoked stays so. Records that were deleted or put back must not take it off the list.
        """

        def read(view: TrustedView) -> tuple[CertificateAuthority, set[int]]:
            return view.require(CertificateAuthority, authority), {one.serial for one in _revoked(view, authority)}

        try:
            listed = x509.load_der_x509_crl(encoded)
            serials = {entry.serial_number for entry in listed}
        except ValueError:
            return
        found, revoked = self._transactions.read(read)
        lost = sorted(serials - revoked)
        if lost and listed.is_signature_valid(_issuer_key(found)):
            raise StateConflict(
                f"The published list of {authority} revokes {len(lost)} certificates that no record says are revoked,"
                f" such as {lost[0]:x}: records were deleted or put back, see trien-server fsck."
            )


class ListPublisher:
    """Keeps the lists of all CAs fresh where they are published, in a thread of its own.

    What is published is looked at, and not remembered: so a crash, a lost nudge or another node's work needs no
    repair. Of all nodes one at a time makes lists, under a lease; should two, both lists are right.
    """

    def __init__(
        self,
        *,
        lists: RevocationLists,
        publication: ListPublication,
        transactions: Transactions,
        leases: Leases,
        clock: Clock,
        report: Report,
        every: timedelta,
    ) -> None:
        self._lists = lists
        self._publication = publication
        self._transactions = transactions
        self._leases = leases
        self._clock = clock
        self._report = report
        self._every = every
        self._wanted = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="revocation-lists", daemon=True)

    def start(self) -> None:
        """Begins to publish."""
        self._thread.start()

    def ask(self) -> None:
        """Has it look at once."""
        self._wanted.set()

    def stop(self) -> None:
        """Finishes the list that is being made, and ends."""
        self._stopped.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()

    def publish(self) -> int:
        """Publishes every list that is due and returns how many these were.

        The list of a CA whose certificate is over, or whose key was destroyed, stays as it is. Raises `Busy`, and the
        first of what `make` and the publication raised, behind the lists of the other CAs.
        """
        published = 0
        failure: Refusal | OSError | None = None
        for authority in self._transactions.read(lambda view: _that_list(view, self._clock.now())):
            try:
                published += self._publish(authority)
            except Busy:
                raise
            except (Refusal, OSError) as fault:
                failure = failure or fault
        if failure is not None:
            raise failure
        return published

    def _publish(self, authority: str) -> int:
        present = self._publication.published(authority)
        if present is not None:
            self._lists.require_nothing_lost(present, authority)
            if self._lists.says_all(present, authority, fresh_for=self._every):
                return 0
        with self._leases.hold(LEASE, wait=0.0, stopped=self._stopped):
            self._publication.publish(authority, self._lists.make(authority))
        return 1

    def _run(self) -> None:
        told = ""
        while not self._stopped.is_set():
            self._wanted.clear()
            try:
                self.publish()
            except Busy:
                pass  # another node is at it
            except Exception as fault:  # noqa: BLE001 - the next look repeats it
                because = f"{fault.reason}: {fault.message}" if isinstance(fault, Refusal) else type(fault).__name__
                if because != told:
                    self._report("revocation_list_delayed", {"because": because})
                told = because
            else:
                told = ""
            self._wanted.wait(_LOOK_SECONDS)


def _that_list(view: TrustedView, at: datetime) -> list[str]:
    return [
        authority.name
        for authority in view.find(CertificateAuthority)
        if authority_certificate(authority).not_valid_after_utc > at
        and view.require(Key, authority.key).state is not KeyState.DESTROYED
    ]


def _revoked(view: TrustedView, authority: str) -> Sequence[RevokedSerial]:
    """Returns what a CA revoked, also what is over: who verifies an old signature wants to know."""
    revoked: list[RevokedSerial] = []
    after = f"{authority}/"
    while True:
        page = view.find(IssuedCertificate, limit=_PAGE, after=after, state=IssuedCertificateState.REVOKED)
        for issued in page:
            if issued.authority == authority:
                at = issued.revoke_time or issued.create_time
                reason = issued.revoke_reason or RevocationReason.UNSPECIFIED
                revoked.append(RevokedSerial(serial=serial_of(issued.name), at=at, reason=reason))
        if len(page) < _PAGE or page[-1].authority > authority:
            return revoked
        after = page[-1].name


def _issuer_key(authority: CertificateAuthority) -> CertificateIssuerPublicKeyTypes:
    return authority_certificate(authority).public_key()  # type: ignore[return-value]
