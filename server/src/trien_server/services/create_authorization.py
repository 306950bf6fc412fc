"""CreateAuthorization: asks for a signer's decision."""

import dataclasses
from dataclasses import dataclass, field
from datetime import timedelta

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.errors import InvalidArgument, Refusal, RequestIdReused
from trien_server.core.items import SignatureScheme, check_authorized_digests, check_count
from trien_server.core.ports import Clock, NameTaken, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import Authorization, AuthorizationState, GrantedRequest, ItemKind
from trien_server.core.sealing import LONGEST_AUTHORIZATION
from trien_server.services import granted_requests
from trien_server.services.access import require_approver, require_credential, require_usable
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView

METHOD = "CreateAuthorization"
DEFAULT_LIFETIME = timedelta(minutes=10)
SHORTEST_LIFETIME = timedelta(minutes=1)
LONGEST_LIFETIME = LONGEST_AUTHORIZATION


@dataclass(frozen=True, kw_only=True)
class CreateAuthorizationCommand:
    """A request for a decision."""

    credential: str
    algorithm: SignatureAlgorithm
    pss_salt_length: int | None
    item_kind: ItemKind
    digests: tuple[bytes, ...] = field(repr=False)
    approver: str | None
    lifetime: timedelta | None
    request_id: str | None
    title: str = ""


class CreateAuthorization:
    """Makes pending authorizations."""

    def __init__(self, *, transactions: Transactions, clock: Clock, randomness: Randomness) -> None:
        self._transactions = transactions
        self._clock = clock
        self._randomness = randomness

    def __call__(self, principal: Principal, command: CreateAuthorizationCommand, deadline: Deadline) -> Authorization:
        """Returns the new authorization, or for a repeated request id the one that it made.

        Raises `PermissionDenied`, `CredentialDisabled`, `CertificateNotValid`, `InvalidArgument` and its
        kinds, `RequestIdReused`.
        """
        lifetime = DEFAULT_LIFETIME if command.lifetime is None else command.lifetime
        if not SHORTEST_LIFETIME <= lifetime <= LONGEST_LIFETIME:
            raise InvalidArgument("lifetime", "expected 1 minute to 24 hours")
        title = parse_title(command.title, field="authorization.title", required=False)
        command = dataclasses.replace(command, title=title)
        return self._transactions.decide(
            lambda: self._create(principal, command, lifetime, deadline), deadline=deadline
        )

    def _create(
        self, principal: Principal, command: CreateAuthorizationCommand, lifetime: timedelta, deadline: Deadline
    ) -> Authorization:
        at = self._clock.now()

        def prepare(view: TrustedView) -> tuple[TrustedView, str, SignatureScheme, bytes, Authorization | None]:
            credential = require_credential(
                view, principal, command.credential, "AuthorizationService.CreateAuthorization"
            )
            usable = require_usable(view, credential, at=at)
            scheme = SignatureScheme.parse(command.algorithm, command.pss_salt_length, key_type=usable.key.key_type)
            check_count(len(command.digests), most=credential.max_items)
            check_authorized_digests(command.digests, kind=command.item_kind, algorithm=command.algorithm)
            if command.approver is not None:
                require_approver(view, credential, command.approver, field="authorization.approver", at=at)
            content = _content(principal.name, command, scheme, lifetime)
            return view, usable.key.name, scheme, content, self._made_before(view, principal, command, content)

        view, key, scheme, content, made = self._transactions.read(prepare)
        if made is not None:
            return made

        def create(ledger: Ledger) -> Authorization | Refusal:
            ledger.assert_unchanged(view)
            authorization = Authorization(
                name=f"{command.credential}/authorizations/{new_id(self._randomness)}",
                credential=command.credential,
                key=key,
                client=principal.name,
                approver=command.approver,
                algorithm=command.algorithm,
                pss_salt_length=scheme.pss_salt_length,
                item_kind=command.item_kind,
                digests=command.digests,
                used=bytes(len(command.digests)),
                signed_digests=(b"",) * len(command.digests),
                title=command.title,
                state=AuthorizationState.PENDING,
                approval=None,
                create_time=ledger.at,
                expire_time=ledger.at + lifetime,
            )
            entry = ledger.record("authorization_created", authorization_details(authorization))
            try:
                ledger.insert(authorization)
                if command.request_id is not None:
                    granted_requests.grant(
                        ledger,
                        name=granted_requests.granted_request_name(principal.name, command.request_id),
                        client=principal.name,
                        method=METHOD,
                        content=content,
                        subject=authorization.name,
                        audit_entry=entry.name,
                        holder="",
                        completed=True,
                    )
            except NameTaken as taken:
                raise Stale from taken
            return authorization

        return self._transactions.run(create, timeout=deadline.remaining())

    def _made_before(
        self, view: TrustedView, principal: Principal, command: CreateAuthorizationCommand, content: bytes
    ) -> Authorization | None:
        if command.request_id is None:
            return None
        name = granted_requests.granted_request_name(principal.name, command.request_id)
        granted = view.get(GrantedRequest, name)
        if granted is None:
            return None
        granted_requests.assert_same(granted, content)
        if granted.method != METHOD:
            raise RequestIdReused("The request_id was granted for another method.")
        return view.require(Authorization, granted.subject)


def authorization_details(authorization: Authorization) -> dict[str, object]:
    """Returns what an audit entry about an authorization says."""
    return {
        "authorization": authorization.name,
        "client": authorization.client,
        "approver": authorization.approver,
        "algorithm": str(authorization.algorithm),
        "pssSaltLength": authorization.pss_salt_length,
        "itemKind": str(authorization.item_kind),
        "digests": [digest.hex() for digest in authorization.digests],
        "title": authorization.title,
    }


def _content(client: str, command: CreateAuthorizationCommand, scheme: SignatureScheme, lifetime: timedelta) -> bytes:
    values: list[object] = [client, command.credential, scheme.algorithm, scheme.pss_salt_length, command.item_kind]
    values += [command.approver, str(lifetime), command.title, *command.digests]
    return granted_requests.content_hash(METHOD, values)
