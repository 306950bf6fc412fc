"""ApproveAuthorizations: one person, one one-time password, an exact list (P2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from trien_server.core.audit import leaf_hash
from trien_server.core.authorization import approve, assert_pending
from trien_server.core.errors import InvalidArgument, PermissionDenied, Refusal, RequestIdReused
from trien_server.core.ports import Clock, NameTaken, Randomness, VersionConflict
from trien_server.core.principal import Principal
from trien_server.core.records import Approval, Assurance, Authorization, GrantedRequest
from trien_server.core.secret import Secret
from trien_server.services import granted_requests
from trien_server.services.access import (
    require_approver,
    require_client_collected_otp,
    require_credential,
    require_usable,
)
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.one_time_passwords import OneTimePasswords, PreparedCheck
from trien_server.services.read_authorizations import require_own
from trien_server.services.sign_digests import recordable
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView

METHOD = "ApproveAuthorizations"
MOST_AUTHORIZATIONS = 100


@dataclass(frozen=True, kw_only=True)
class ApproveAuthorizationsCommand:
    """A person's decision on a list of authorizations."""

    names: tuple[str, ...]
    signer: str
    password: Secret = field(repr=False)
    request_id: str | None


@dataclass(frozen=True, kw_only=True)
class ApprovalResult:
    """The approval and the audit entry that was durable before the answer."""

    approval: Approval
    audit_entry: str
    leaf_hash: bytes


class ApproveAuthorizations:
    """Approves lists of authorizations."""

    def __init__(
        self, *, transactions: Transactions, one_time_passwords: OneTimePasswords, clock: Clock, randomness: Randomness
    ) -> None:
        self._transactions = transactions
        self._one_time_passwords = one_time_passwords
        self._clock = clock
        self._randomness = randomness

    def __call__(
        self, principal: Principal, command: ApproveAuthorizationsCommand, deadline: Deadline
    ) -> ApprovalResult:
        """Approves all of the list or none; for a repeated request id returns the approval that it made.

        The list is fixed and checked before the one-time password is looked at. Raises
        `AuthorizationNotPending`, `AuthorizationExpired` (with the authorization's name),
        `PermissionDenied`, `NotAllowedByPolicy`, `OneTimePasswordRejected`, `SignerLocked`.
        """
        if not 1 <= len(command.names) <= MOST_AUTHORIZATIONS:
            raise InvalidArgument("names", f"expected 1 to {MOST_AUTHORIZATIONS} authorizations")
        if len(set(command.names)) != len(command.names):
            raise InvalidArgument("names", "an authorization is named twice")
        deadline.require(0.5)
        try:
            return self._transactions.decide(lambda: self._approve(principal, command, deadline), deadline=deadline)
        except Refusal as refusal:
            if recordable(refusal):
                details = {"action": METHOD, "principal": principal.name, "authorizations": list(command.names)}
                self._transactions.record_refusal(refusal, details)
            raise

    def _approve(
        self, principal: Principal, command: ApproveAuthorizationsCommand, deadline: Deadline
    ) -> ApprovalResult:
        at = self._clock.now()
        content = granted_requests.content_hash(METHOD, [principal.name, command.signer, *command.names])

        def prepare(
            view: TrustedView,
        ) -> ApprovalResult | tuple[TrustedView, list[Authorization], PreparedCheck]:
            made = self._made_before(view, principal, command, content)
            if made is not None:
                return made
            authorizations = [require_own(view, principal, name) for name in command.names]
            for authorization in authorizations:
                self._check(view, principal, authorization, command.signer, at)
            check = self._one_time_passwords.prepare(
                view, command.password, signer=command.signer, client=principal.name, at=at
            )
            return view, authorizations, check

        prepared = self._transactions.read(prepare)
        if isinstance(prepared, ApprovalResult):
            return prepared
        view, authorizations, check = prepared

        def decide(ledger: Ledger) -> ApprovalResult | Refusal:
            ledger.assert_unchanged(view)
            current = [ledger.require(Authorization, authorization.name) for authorization in authorizations]
            if current != authorizations:
                raise Stale
            for authorization in current:
                assert_pending(authorization, at=ledger.at)
            accepted = self._one_time_passwords.consume(ledger, check, command.password, client=principal.name)
            if isinstance(accepted, Refusal):
                return ledger.refuse(accepted, _details(principal.name, command))
            approval = Approval(
                name=f"approvals/{new_id(self._randomness)}",
                signer=command.signer,
                client=principal.name,
                authenticator=accepted.authenticator.name,
                accepted_value=accepted.value,
                assurance=Assurance.CLIENT_COLLECTED_OTP,
                authorizations=command.names,
                create_time=ledger.at,
            )
            return self._write(ledger, principal, command, content, approval, current)

        return self._transactions.run(decide, timeout=deadline.remaining())

    @staticmethod
    def _check(
        view: TrustedView, principal: Principal, authorization: Authorization, signer: str, at: datetime
    ) -> None:
        credential = require_credential(view, principal, authorization.credential)
        require_usable(view, credential, at=at)
        require_client_collected_otp(credential)
        if authorization.approver not in (None, signer):
            raise PermissionDenied
        require_approver(view, credential, signer, field="one_time_password.signer", at=at)
        assert_pending(authorization, at=at)

    @staticmethod
    def _write(
        ledger: Ledger,
        principal: Principal,
        command: ApproveAuthorizationsCommand,
        content: bytes,
        approval: Approval,
        authorizations: Sequence[Authorization],
    ) -> ApprovalResult:
        digests = {found.name: [digest.hex() for digest in found.digests] for found in authorizations}
        details = _details(principal.name, command) | {
            "approval": approval.name,
            "authenticator": approval.authenticator,
            "assurance": str(approval.assurance),
            "digests": digests,
        }
        entry = ledger.record("authorizations_approved", details)
        try:
            ledger.insert(approval)
            for authorization in authorizations:
                ledger.replace(approve(authorization, approval=approval.name, at=ledger.at))
            if command.request_id is not None:
                granted_requests.grant(
                    ledger,
                    name=granted_requests.granted_request_name(principal.name, command.request_id),
                    client=principal.name,
                    method=METHOD,
                    content=content,
                    subject=approval.name,
                    audit_entry=entry.name,
                    holder="",
                    completed=True,
                )
        except (NameTaken, VersionConflict) as conflict:
            raise Stale from conflict
        return ApprovalResult(approval=approval, audit_entry=entry.name, leaf_hash=leaf_hash(entry.leaf))

    @staticmethod
    def _made_before(
        view: TrustedView, principal: Principal, command: ApproveAuthorizationsCommand, content: bytes
    ) -> ApprovalResult | None:
        if command.request_id is None:
            return None
        granted = view.get(GrantedRequest, granted_requests.granted_request_name(principal.name, command.request_id))
        if granted is None:
            return None
        granted_requests.assert_same(granted, content)
        if granted.method != METHOD:
            raise RequestIdReused("The request_id was granted for another method.")
        approval = view.require(Approval, granted.subject)
        return ApprovalResult(
            approval=approval, audit_entry=granted.audit_entry, leaf_hash=view.leaf_hash(granted.audit_entry)
        )


def _details(client: str, command: ApproveAuthorizationsCommand) -> dict[str, object]:
    return {
        "action": METHOD,
        "client": client,
        "approver": command.signer,
        "authorizations": list(command.names),
    }
