"""ApproveAuthorizations: one person, one one-time password, an exact list (P2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo

from trien_server.core.authorization import approve
from trien_server.core.errors import Refusal, RequestIdReused
from trien_server.core.merkle import hash_leaf
from trien_server.core.ports import Clock, NameTaken, Randomness, VersionConflict
from trien_server.core.principal import Principal
from trien_server.core.records import (
    SHOWING_KINDS,
    Approval,
    Assurance,
    AuthenticatorKind,
    Authorization,
    GrantedRequest,
)
from trien_server.core.secret import Secret
from trien_server.services import granted_requests
from trien_server.services.access import require_client
from trien_server.services.attempt_counting import Accepted
from trien_server.services.authorization_lists import PendingList, check_names, require_list, require_same
from trien_server.services.challenge_answers import ChallengeAnswers, PreparedAnswer
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.one_time_passwords import OneTimePasswords, PreparedCheck
from trien_server.services.sign_digests import recordable
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView

METHOD = "ApproveAuthorizations"
CHALLENGED_KINDS = frozenset(AuthenticatorKind) - SHOWING_KINDS

Check = PreparedCheck | PreparedAnswer


@dataclass(frozen=True, kw_only=True)
class ApproveAuthorizationsCommand:
    """A person's decision on a list of authorizations; `challenge` is what the one-time password answers, if any."""

    names: tuple[str, ...]
    signer: str
    password: Secret = field(repr=False)
    challenge: str | None = None
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
        self,
        *,
        transactions: Transactions,
        one_time_passwords: OneTimePasswords,
        challenge_answers: ChallengeAnswers,
        clock: Clock,
        randomness: Randomness,
        zone: tzinfo,
    ) -> None:
        self._transactions = transactions
        self._one_time_passwords = one_time_passwords
        self._challenge_answers = challenge_answers
        self._clock = clock
        self._randomness = randomness
        self._zone = zone

    def __call__(
        self, principal: Principal, command: ApproveAuthorizationsCommand, deadline: Deadline
    ) -> ApprovalResult:
        """Approves all of the list or none; for a repeated request id returns the approval that it made.

        The list is fixed and checked before the one-time password is looked at. Raises
        `AuthorizationNotPending`, `AuthorizationExpired` (with the authorization's name),
        `PermissionDenied`, `NotAllowedByPolicy`, `OneTimePasswordRejected`, `SignerLocked`, `ChallengeNotPending`.
        """
        check_names(command.names, field="names")
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

        def prepare(view: TrustedView) -> ApprovalResult | tuple[TrustedView, PendingList, Check]:
            require_client(view, principal, f"AuthorizationService.{METHOD}")
            made = self._made_before(view, principal, command, content)
            if made is not None:
                return made
            waiting = require_list(
                view,
                principal,
                command.names,
                signer=command.signer,
                method=f"AuthorizationService.{METHOD}",
                kinds=SHOWING_KINDS if command.challenge is None else CHALLENGED_KINDS,
                zone=self._zone,
                at=at,
            )
            return view, waiting, self._check(view, principal, command, waiting, at)

        prepared = self._transactions.read(prepare)
        if isinstance(prepared, ApprovalResult):
            return prepared
        view, waiting, check = prepared

        def decide(ledger: Ledger) -> ApprovalResult | Refusal:
            ledger.assert_unchanged(view)
            require_same(ledger, waiting.authorizations)
            waiting.require_hours(self._zone, at=ledger.at)
            accepted = self._consume(ledger, check, command.password, client=principal.name)
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
            return self._write(ledger, principal, command, content, approval, accepted, waiting.authorizations)

        return self._transactions.run(decide, timeout=deadline.remaining())

    def _check(
        self,
        view: TrustedView,
        principal: Principal,
        command: ApproveAuthorizationsCommand,
        waiting: PendingList,
        at: datetime,
    ) -> Check:
        """Computes what the code is compared with. Raises what the two ways to do so raise."""
        if command.challenge is None:
            return self._one_time_passwords.prepare(
                view,
                command.password,
                signer=command.signer,
                client=principal.name,
                kinds=waiting.kinds,
                at=at,
            )
        return self._challenge_answers.prepare(
            view,
            command.password,
            waiting.authorizations,
            challenge=command.challenge,
            signer=command.signer,
            client=principal.name,
            kinds=waiting.kinds,
            at=at,
        )

    def _consume(self, ledger: Ledger, check: Check, password: Secret, *, client: str) -> Accepted | Refusal:
        match check:
            case PreparedCheck():
                return self._one_time_passwords.consume(ledger, check, password, client=client)
            case PreparedAnswer():
                return self._challenge_answers.consume(ledger, check)

    @staticmethod
    def _write(
        ledger: Ledger,
        principal: Principal,
        command: ApproveAuthorizationsCommand,
        content: bytes,
        approval: Approval,
        accepted: Accepted,
        authorizations: Sequence[Authorization],
    ) -> ApprovalResult:
        digests = {found.name: [digest.hex() for digest in found.digests] for found in authorizations}
        details = _details(principal.name, command) | {
            "approval": approval.name,
            "authenticator": approval.authenticator,
            "authenticatorKind": str(accepted.authenticator.kind),
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
        return ApprovalResult(approval=approval, audit_entry=entry.name, leaf_hash=hash_leaf(entry.leaf))

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
        "challenge": command.challenge,
    }
