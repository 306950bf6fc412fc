"""SuspendCredential, ResumeCredential and RevokeCredential: whether a credential may be used."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.errors import PermissionDenied, StateConflict
from trien_server.core.issuing import whole_seconds
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import (
    Credential,
    CredentialState,
    IssuedCertificate,
    IssuedCertificateState,
    Proposal,
    RevocationReason,
)
from trien_server.services.changes import Change, Changes
from trien_server.services.credentials import CredentialView, organizations_of, require_administered, view_of
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView


class SuspendCredential:
    """Suspends credentials: no signature whose transaction begins later is granted."""

    method = "CredentialService.SuspendCredential"

    def __init__(self, *, changes: Changes, transactions: Transactions) -> None:
        self._changes = changes
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> CredentialView:
        """Returns the credential; one that is suspended stays so. Raises `PermissionDenied`, `StateConflict`."""

        def prepare(view: TrustedView) -> Change:
            before = require_administered(view, principal, name, self.method)
            if before.state is CredentialState.REVOKED:
                raise StateConflict("The credential is revoked, which is more.")
            suspended = next_version(before, state=CredentialState.SUSPENDED)
            slow = [suspended] if before.state is CredentialState.ENABLED else []
            return Change(kind="credential_suspended", slow=slow)

        self._changes.make(principal.name, prepare, deadline=deadline)
        return self._transactions.read(
            lambda view: view_of(view, require_administered(view, principal, name, self.method))
        )


@dataclass(frozen=True, kw_only=True)
class Resumption:
    """The end of a suspension."""

    name: str


class ResumeCredential:
    """Ends suspensions."""

    method = "CredentialService.ResumeCredential"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=Resumption,
                make=self._plan,
                concerns=lambda view, resumption: organizations_of(view, resumption.name),
            )
        )

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Proposal:
        """Proposes it. Raises `PermissionDenied`, `StateConflict` for a credential that is not suspended."""
        return self._proposals.propose(principal, self.method, Resumption(name=name), deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, resumption: Resumption, _: Agreement) -> Change:
        before = view.get(Credential, resumption.name)
        if before is None:
            raise PermissionDenied
        if before.state is not CredentialState.SUSPENDED:
            raise StateConflict(f"The credential is {before.state.lower()}, not suspended.")
        return Change(kind="credential_resumed", slow=[next_version(before, state=CredentialState.ENABLED)])


class RevokeCredential:
    """Revokes credentials for ever, and what the installation's own CA issued for their keys."""

    method = "CredentialService.RevokeCredential"

    def __init__(
        self, *, changes: Changes, transactions: Transactions, clock: Clock, revoked: Callable[[], None]
    ) -> None:
        """`revoked` is told that the next revocation list is due; a crash may lose that."""
        self._changes = changes
        self._transactions = transactions
        self._clock = clock
        self._revoked = revoked

    def __call__(
        self, principal: Principal, name: str, *, reason: RevocationReason, deadline: Deadline
    ) -> CredentialView:
        """Returns the credential; one that is revoked stays as it is. Raises `PermissionDenied`.

        Both the credential and the certificates are revoked in one transaction. Another CA has to be told.
        """

        def prepare(view: TrustedView) -> Change:
            before = require_administered(view, principal, name, self.method)
            details = {"reason": reason.value}
            if before.state is CredentialState.REVOKED:
                return Change(kind="credential_revoked", slow=[])
            certificates = _certificates_of(view, before.key, at=self._clock.now(), reason=reason)
            revoked = next_version(before, state=CredentialState.REVOKED)
            return Change(kind="credential_revoked", slow=[revoked, *certificates], details=details)

        self._changes.make(principal.name, prepare, deadline=deadline)
        self._revoked()
        return self._transactions.read(
            lambda view: view_of(view, require_administered(view, principal, name, self.method))
        )


def _certificates_of(view: TrustedView, key: str, *, at: datetime, reason: RevocationReason) -> list[IssuedCertificate]:
    """Returns what the installation's own CA issued for a key, revoked; nothing when another CA did."""
    now = whole_seconds(at)
    return [
        next_version(issued, state=IssuedCertificateState.REVOKED, revoke_time=now, revoke_reason=reason)
        for issued in view.find(IssuedCertificate, key=key)
        if issued.state is not IssuedCertificateState.REVOKED
    ]
