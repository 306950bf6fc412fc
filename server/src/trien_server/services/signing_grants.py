"""Grants requests to sign: all checks, then one transaction that writes the decision (P1, P2, P3)."""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from trien_server.core.authorization import assert_key, match_positions, use
from trien_server.core.errors import ActivationDataRejected, PermissionDenied, Refusal, RequestIdReused
from trien_server.core.items import MOST_ITEMS, Item, SignatureScheme, prepare_items
from trien_server.core.merkle import hash_leaf
from trien_server.core.ports import NameTaken, Randomness, VersionConflict
from trien_server.core.principal import Principal
from trien_server.core.receipts import commit_items
from trien_server.core.records import (
    SHOWING_KINDS,
    Approval,
    Assurance,
    Authorization,
    AuthorizationState,
    GrantedRequest,
    SignatureUse,
)
from trien_server.core.sealing import activation_data_message
from trien_server.core.signature_uses import list_fingerprint, use_name
from trien_server.services import granted_requests
from trien_server.services.access import (
    require_approver,
    require_client_collected_otp,
    require_credential,
    require_usable,
)
from trien_server.services.credential_policy import require_approval_allowed, require_hours, require_kinds
from trien_server.services.identifiers import new_id
from trien_server.services.one_time_passwords import OneTimePasswords, PreparedCheck
from trien_server.services.seals import Seals
from trien_server.services.signing_commands import (
    CheckedRequest,
    GrantedWork,
    SignDigestsCommand,
    WithActivationData,
    WithOneTimePassword,
)
from trien_server.services.transactions import Ledger
from trien_server.services.trusted import Stale, TrustedView

METHOD = "SignDigests"
ONE_STEP_LIFETIME = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class ByOneTimePassword:
    """Prepared: the person's passwords of now."""

    approver: str
    check: PreparedCheck


@dataclass(frozen=True, kw_only=True)
class ByAuthorization:
    """Prepared: an approved authorization, opened, and the positions that the items take."""

    authorization: Authorization
    approval: Approval
    positions: tuple[int, ...]


class SigningGrants:
    """Checks requests and decides on them. May be used from any thread."""

    def __init__(
        self, *, seals: Seals, one_time_passwords: OneTimePasswords, randomness: Randomness, zone: tzinfo
    ) -> None:
        self._seals = seals
        self._one_time_passwords = one_time_passwords
        self._randomness = randomness
        self._zone = zone

    def check(
        self, view: TrustedView, principal: Principal, command: SignDigestsCommand, at: datetime
    ) -> CheckedRequest:
        """Checks everything but the authority: access, states, certificate, hours, algorithm, and each item.

        Raises the refusal of the first fault; no one-time password was looked at.
        """
        credential = require_credential(view, principal, command.credential, f"SigningService.{METHOD}")
        usable = require_usable(view, credential, at=at)
        require_hours(credential, self._zone, at=at)
        scheme = SignatureScheme.parse(command.algorithm, command.pss_salt_length, key_type=usable.key.key_type)
        items = prepare_items(
            command.items,
            algorithm=command.algorithm,
            most=min(credential.max_items, MOST_ITEMS),
            certificate=credential.certificate_chain[0],
        )
        client = principal.name
        return CheckedRequest(
            client=client,
            usable=usable,
            scheme=scheme,
            items=items,
            commitment=commit_items(self._randomness.bytes(32), items.authorized),
            granted_request=granted_requests.granted_request_name(client, command.request_id),
            content=_content(command, scheme, client),
        )

    def prepare(
        self,
        view: TrustedView,
        principal: Principal,
        command: SignDigestsCommand,
        request: CheckedRequest,
        at: datetime,
    ) -> ByOneTimePassword | ByAuthorization:
        """Prepares the authority: the token decrypts a secret, or derives activation data.

        Raises `NotAllowedByPolicy`, `PermissionDenied`, `SignerLocked`, `ActivationDataRejected`, or what
        `match_positions` raises.
        """
        credential = request.usable.credential
        match command.authority:
            case WithOneTimePassword(signer=wanted, password=password):
                require_client_collected_otp(credential)
                approver = require_approver(view, credential, wanted, field="one_time_password.signer", at=at)
                kinds = require_kinds(credential, SHOWING_KINDS)
                check = self._one_time_passwords.prepare(
                    view, password, signer=approver, client=principal.name, kinds=kinds, at=at
                )
                return ByOneTimePassword(approver=approver, check=check)
            case WithActivationData() as authority:
                return self._open(view, request, authority, at)

    def work_of(
        self,
        view: TrustedView,
        request: CheckedRequest,
        granted: GrantedRequest,
        at: datetime,
    ) -> GrantedWork:
        """Returns the work of a request that was granted before, after every check but the one-time password.

        Nor is activation data looked at: it opened these positions when the request was granted, and who lost the
        answer may have lost it too, for it is not handed out again once every position is used (P7).

        Raises `RequestIdReused`, or `PermissionDenied` when the approver may no longer activate.
        """
        granted_requests.assert_same(granted, request.content)
        if granted.method != METHOD:
            raise RequestIdReused("The request_id was granted for another method.")
        authorization = view.require(Authorization, granted.subject)
        approval = self._approval(view, request, authorization, at)
        written_down = tuple(authorization.signed_digests[int(position)] for position in granted.positions)
        if written_down != request.items.signed_digests:
            finding = "what it wrote down to be signed is not what was granted"
            raise self._seals.distrust(Authorization.table, authorization.name, finding)
        return GrantedWork(
            request=request,
            granted=granted,
            authorization=authorization,
            approval=approval,
            leaf_hash=view.leaf_hash(granted.audit_entry),
        )

    def decide(
        self,
        ledger: Ledger,
        command: SignDigestsCommand,
        request: CheckedRequest,
        authority: ByOneTimePassword | ByAuthorization,
    ) -> GrantedWork | Refusal:
        """Writes the decision: the one-time password's step consumed, or the positions used, and the audit entry.

        The intent is durable before the key is used: after a crash behind this there is an entry without
        a signature, never the reverse. Raises `Stale` when the id or the authorization was taken meanwhile.
        """
        if ledger.get(GrantedRequest, request.granted_request) is not None:
            raise Stale
        require_hours(request.usable.credential, self._zone, at=ledger.at)
        match authority, command.authority:
            case ByOneTimePassword() as prepared, WithOneTimePassword(password=password):
                accepted = self._one_time_passwords.consume(ledger, prepared.check, password, client=request.client)
                if isinstance(accepted, Refusal):
                    return ledger.refuse(accepted, _details(request, approver=prepared.approver))
                approval = Approval(
                    name=f"approvals/{new_id(self._randomness)}",
                    signer=prepared.approver,
                    client=request.client,
                    authenticator=accepted.authenticator.name,
                    accepted_value=accepted.value,
                    assurance=Assurance.CLIENT_COLLECTED_OTP,
                    authorizations=(f"{request.usable.credential.name}/authorizations/{new_id(self._randomness)}",),
                    create_time=ledger.at,
                )
                authorization = self._used_at_once(request, approval, ledger.at)
                positions: tuple[int, ...] = tuple(range(len(request.items.messages)))
                ledger.insert(approval)
                ledger.insert(authorization)
            case ByAuthorization() as opened, _:
                approval, positions = opened.approval, opened.positions
                if opened.authorization.expire_time <= ledger.at:
                    raise Stale
                authorization = use(opened.authorization, positions, request.items.signed_digests)
                try:
                    ledger.replace(authorization)
                except VersionConflict as conflict:
                    raise Stale from conflict
            case _:
                raise AssertionError("the authority was prepared for another request")
        return self._grant(ledger, request, authorization, approval, positions)

    def _grant(
        self,
        ledger: Ledger,
        request: CheckedRequest,
        authorization: Authorization,
        approval: Approval,
        positions: tuple[int, ...],
    ) -> GrantedWork:
        details = work_details(request, authorization, approval)
        entry = ledger.record("signing_granted", details, items=request.commitment)
        try:
            granted = granted_requests.grant(
                ledger,
                name=request.granted_request,
                client=request.client,
                method=METHOD,
                content=request.content,
                subject=authorization.name,
                audit_entry=entry.name,
                holder=new_id(self._randomness),
                positions=positions,
            )
        except NameTaken as taken:
            raise Stale from taken
        ledger.insert(self._use(request, approval, entry.name, ledger.at))
        return GrantedWork(
            request=request,
            granted=granted,
            authorization=authorization,
            approval=approval,
            leaf_hash=hash_leaf(entry.leaf),
        )

    def _use(self, request: CheckedRequest, approval: Approval, audit_entry: str, at: datetime) -> SignatureUse:
        signer = request.usable.signer.name
        return SignatureUse(
            name=use_name(signer, at=at, identifier=new_id(self._randomness)),
            signer=signer,
            credential=request.usable.credential.name,
            client=request.client,
            approver=approval.signer,
            audit_entry=audit_entry,
            items=len(request.items.authorized),
            fingerprint=list_fingerprint(request.items.authorized),
            time=at,
        )

    def _open(
        self, view: TrustedView, request: CheckedRequest, authority: WithActivationData, at: datetime
    ) -> ByAuthorization:
        authorization = view.get(Authorization, authority.authorization)
        if (
            authorization is None
            or authorization.client != request.client
            or authorization.credential != request.usable.credential.name
        ):
            raise PermissionDenied
        self._check_activation_data(authorization, authority)
        positions = match_positions(authorization, request.scheme, request.items, at=at)
        approval = self._approval(view, request, authorization, at)
        return ByAuthorization(authorization=authorization, approval=approval, positions=positions)

    def _check_activation_data(self, authorization: Authorization, authority: WithActivationData) -> None:
        message = activation_data_message(authorization)
        given = authority.activation_data.reveal()
        if not self._seals.authenticated(message, given, made=authorization.create_time):
            raise ActivationDataRejected("The signature activation data is not this authorization's.")

    def _approval(
        self, view: TrustedView, request: CheckedRequest, authorization: Authorization, at: datetime
    ) -> Approval:
        """Returns the approval that names the authorization, of a person who still may activate the credential.

        And in a way that its policy in force still allows.
        """
        assert_key(authorization, request.usable.key.name)
        if authorization.approval is None:
            raise self._seals.distrust(Authorization.table, authorization.name, "it is approved by nothing")
        approval = view.require(Approval, authorization.approval)
        if authorization.name not in approval.authorizations:
            raise self._seals.distrust(Approval.table, approval.name, f"it does not name {authorization.name}")
        require_approver(view, request.usable.credential, approval.signer, field="authorization", at=at)
        require_approval_allowed(view, request.usable.credential, authorization, approval)
        return approval

    @staticmethod
    def _used_at_once(request: CheckedRequest, approval: Approval, at: datetime) -> Authorization:
        count = len(request.items.authorized)
        return Authorization(
            name=approval.authorizations[0],
            credential=request.usable.credential.name,
            key=request.usable.key.name,
            client=request.client,
            approver=approval.signer,
            algorithm=request.scheme.algorithm,
            pss_salt_length=request.scheme.pss_salt_length,
            item_kind=request.items.kind,
            digests=request.items.authorized,
            used=bytes([1]) * count,
            signed_digests=request.items.signed_digests,
            state=AuthorizationState.USED,
            approval=approval.name,
            create_time=at,
            expire_time=at + ONE_STEP_LIFETIME,
        )


def work_details(request: CheckedRequest, authorization: Authorization, approval: Approval) -> dict[str, object]:
    """Returns what an audit entry about signing says."""
    return {
        **_details(request, approver=approval.signer),
        "authorization": authorization.name,
        "approval": approval.name,
        "authenticator": approval.authenticator,
        "assurance": str(approval.assurance),
        "digests": [digest.hex() for digest in request.items.authorized],
        "signedDigests": [digest.hex() for digest in request.items.signed_digests],
    }


def _details(request: CheckedRequest, *, approver: str) -> dict[str, object]:
    return {
        "action": METHOD,
        "client": request.client,
        "credential": request.usable.credential.name,
        "credentialVersion": request.usable.credential.version,
        "certificate": hashlib.sha256(request.usable.credential.certificate_chain[0]).hexdigest(),
        "key": request.usable.key.name,
        "signer": request.usable.signer.name,
        "approver": approver,
        "algorithm": str(request.scheme.algorithm),
        "pssSaltLength": request.scheme.pss_salt_length,
        "itemKind": str(request.items.kind),
        "items": len(request.items.authorized),
        "request": request.granted_request,
    }


def _content(command: SignDigestsCommand, scheme: SignatureScheme, client: str) -> bytes:
    authority: tuple[object, ...]
    match command.authority:
        case WithOneTimePassword(signer=signer):
            authority = ("one-time password", signer)
        case WithActivationData(authorization=authorization):
            authority = ("authorization", authorization)
    items: list[object] = []
    for item in command.items:
        items += _item_content(item)
    head = [client, command.credential, scheme.algorithm, scheme.pss_salt_length, authority]
    return granted_requests.content_hash(METHOD, [*head, *items])


def _item_content(item: Item) -> list[object]:
    return [type(item).__name__, *vars(item).values()]
