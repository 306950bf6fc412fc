"""ShowAccess: what is in force for anyone, told by the functions that decide."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.errors import PermissionDenied, RecordNotTrusted, Refusal
from trien_server.core.ports import Clock
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import (
    Activator,
    Client,
    Credential,
    CredentialClient,
    Operator,
    Signer,
    SignerKind,
    SignerState,
    State,
)
from trien_server.core.roles import CLIENT_METHODS, PERMISSIONS, may
from trien_server.services.access import (
    require_any_operator,
    require_approver,
    require_client,
    require_credential,
    require_operator,
    require_usable,
)
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

METHOD = "AccessService.ShowAccess"
MOST_CREDENTIALS = 1000
"""How many credentials are shown at most."""


@dataclass(frozen=True, kw_only=True)
class CredentialAccess:
    """A credential, and why it cannot be used now, or ""."""

    credential: str
    why_not: str


@dataclass(frozen=True, kw_only=True)
class Access:
    """What is in force for a client, an operator or a signer."""

    name: str
    enabled: bool
    roles: tuple[str, ...] = ()
    organizations: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    credentials: tuple[CredentialAccess, ...] = ()
    more_credentials: bool = False
    calls_per_minute: int = 0
    concurrent_items: int = 0


class ShowAccess:
    """Shows what is in force: to operators for anyone, to clients and operators for themselves."""

    def __init__(self, *, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    def __call__(self, principal: Principal, name: str) -> Access:
        """Returns it for a client, an operator or a signer, or for who calls when no name is given.

        Raises `PermissionDenied`.
        """
        at = self._clock.now()
        wanted = name or principal.name

        def work(view: TrustedView) -> Access:
            if principal.kind is PrincipalKind.OPERATOR:
                if wanted == principal.name:
                    return _of_operator(require_any_operator(view, principal))
                require_operator(view, principal, METHOD)
                return _of_anyone(view, wanted, at)
            client = require_client(view, principal, METHOD)
            if wanted != client.name:
                raise PermissionDenied
            return _of_client(view, client, at, told=_to_client)

        return self._transactions.read(work)


def _of_anyone(view: TrustedView, name: str, at: datetime) -> Access:
    match name.partition("/")[0]:
        case "clients":
            client = view.get(Client, name)
            if client is not None:
                return _of_client(view, client, at, told=_to_operator)
        case "operators":
            operator = view.get(Operator, name)
            if operator is not None:
                return _of_operator(operator)
        case "signers":
            signer = view.get(Signer, name)
            if signer is not None:
                return _of_signer(view, signer, at)
    raise PermissionDenied


def _of_operator(operator: Operator) -> Access:
    enabled = operator.state is State.ENABLED
    methods = {method for method in PERMISSIONS if may(operator.roles, method)} | {METHOD}
    return Access(
        name=operator.name,
        enabled=enabled,
        roles=operator.roles,
        organizations=operator.organizations,
        methods=tuple(sorted(methods)) if enabled else (),
    )


def _of_client(view: TrustedView, client: Client, at: datetime, *, told: Callable[[Refusal], str]) -> Access:
    enabled = client.state is State.ENABLED
    itself = Principal(
        kind=PrincipalKind.CLIENT, name=client.name, authenticated_by=AuthenticatedBy.BEARER_TOKEN, shown=None
    )
    grants = view.find(CredentialClient, client=client.name, state=State.ENABLED, limit=MOST_CREDENTIALS + 1)

    def use(name: str) -> None:
        credential = require_credential(view, itself, name, "SigningService.SignDigests")
        require_usable(view, credential, at=at)

    return Access(
        name=client.name,
        enabled=enabled,
        organizations=client.organizations,
        methods=tuple(sorted(client.methods or CLIENT_METHODS)) if enabled else (),
        credentials=_tried([grant.credential for grant in grants], use, told=told),
        more_credentials=len(grants) > MOST_CREDENTIALS,
        calls_per_minute=client.calls_per_minute,
        concurrent_items=client.concurrent_items,
    )


def _of_signer(view: TrustedView, signer: Signer, at: datetime) -> Access:
    own = view.find(Credential, signer=signer.name, limit=MOST_CREDENTIALS + 1)
    activated = view.find(Activator, signer=signer.name, state=State.ENABLED, limit=MOST_CREDENTIALS + 1)
    names = sorted({credential.name for credential in own} | {activator.credential for activator in activated})

    def use(name: str) -> None:
        credential = view.require(Credential, name)
        require_usable(view, credential, at=at)
        if signer.kind is SignerKind.PERSON:
            require_approver(view, credential, signer.name, field="signer", at=at)

    return Access(
        name=signer.name,
        enabled=signer.state is SignerState.ENABLED,
        organizations=(signer.organization,),
        credentials=_tried(names, use, told=_to_operator),
        more_credentials=len(names) > MOST_CREDENTIALS,
    )


def _tried(
    names: Iterable[str], use: Callable[[str], None], *, told: Callable[[Refusal], str]
) -> tuple[CredentialAccess, ...]:
    """Returns what the functions that decide say of each credential."""
    found = []
    for name in list(names)[:MOST_CREDENTIALS]:
        why_not = ""
        try:
            use(name)
        except RecordNotTrusted:
            why_not = RecordNotTrusted.reason  # one row that was tampered with must not hide the others
        except Refusal as refusal:
            if refusal.reason in {"HSM_UNAVAILABLE", "STORE_UNAVAILABLE"}:
                raise
            why_not = told(refusal)
        found.append(CredentialAccess(credential=name, why_not=why_not))
    return tuple(found)


def _to_client(refusal: Refusal) -> str:
    """Says what the client would be told if it asked for the signature (P11)."""
    return f"{refusal.reason}: {refusal.message}"


def _to_operator(refusal: Refusal) -> str:
    because = refusal.because if isinstance(refusal, PermissionDenied) else ""
    return f"{refusal.reason}: {because or refusal.message}"
