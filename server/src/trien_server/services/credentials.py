"""CreateCredential, GetCredential and ListCredentials."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.certificates import check_chain
from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied
from trien_server.core.policy import Policy
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import (
    Activator,
    AuthenticatorKind,
    Credential,
    CredentialClient,
    Key,
    KeyPurpose,
    KeyState,
    Operator,
    Proposal,
    RevocationPolicy,
    Signer,
    State,
)
from trien_server.services.access import (
    is_of_client,
    is_within,
    require_client,
    require_credential,
    require_operator,
)
from trien_server.services.certificate_statuses import KnownStatus, known_status
from trien_server.services.changes import Change
from trien_server.services.credential_holders import (
    Entitlement,
    activator_rows,
    activators_of,
    check_activators,
    check_clients,
    client_rows,
    clients_of,
)
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class NewCredential:
    """What a credential is to be."""

    name: str
    key: str
    signer: str
    display_name: str
    certificate_chain: tuple[bytes, ...]
    activators: tuple[Entitlement, ...]
    clients: tuple[str, ...]
    max_items: int
    client_collected_otp: bool
    authenticator_kinds: tuple[AuthenticatorKind, ...] = ()
    hours: tuple[str, ...] = ()
    revocation_policy: RevocationPolicy = RevocationPolicy.IGNORE


@dataclass(frozen=True, kw_only=True)
class CredentialView:
    """A credential with its key, who may do what with it, and what was learnt of its chain's revocation."""

    credential: Credential
    key: Key
    activators: Sequence[Activator]
    clients: Sequence[str]
    status: KnownStatus


class CreateCredential:
    """Makes credentials of enabled keys."""

    method = "CredentialService.CreateCredential"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(method=self.method, command=NewCredential, make=self._plan, concerns=self._organizations)
        )

    def __call__(self, principal: Principal, new: NewCredential, deadline: Deadline) -> Proposal:
        """Proposes the credential.

        Raises `PermissionDenied`, `AlreadyExists`, `CertificateNotValid`, or `InvalidArgument` that names what
        is wrong: the key is not enabled or used by another credential, the chain does not fit, a person's
        credential has another activator than that person, someone named does not exist, the policy is none.
        """
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, new: NewCredential, agreement: Agreement) -> Change:
        policy = Policy.parse(
            max_items=new.max_items,
            client_collected_otp=new.client_collected_otp,
            authenticator_kinds=new.authenticator_kinds,
            hours=new.hours,
            revocation_policy=new.revocation_policy,
        )
        if view.get(Credential, new.name) is not None:
            raise AlreadyExists(f"{new.name} exists.")
        credential = Credential(
            name=new.name,
            key=new.key,
            signer=new.signer,
            display_name=parse_title(new.display_name, field="credential.display_name"),
            certificate_chain=new.certificate_chain,
            create_time=agreement.at,
            **policy.values(),
        )
        check_key(
            view,
            new.key,
            new.certificate_chain,
            of=new.name,
            at=agreement.at,
            field="credential.key",
            chain_field="credential.certificate_chain",
        )
        activators = check_activators(view, new.signer, new.activators)
        check_clients(view, new.clients)
        rows = [*activator_rows(view, new.name, activators), *client_rows(view, new.name, new.clients)]
        return Change(kind="credential_created", slow=[credential, *rows])

    @staticmethod
    def _organizations(view: TrustedView, new: NewCredential) -> list[str]:
        signer = view.get(Signer, new.signer)
        return [] if signer is None else [signer.organization]


def check_key(
    view: TrustedView, name: str, chain: Sequence[bytes], *, of: str, at: datetime, field: str, chain_field: str
) -> None:
    """Checks the key and the certificate chain that a credential is to have.

    Raises `InvalidArgument`, also when another credential has the key; `CertificateNotValid` for dates.
    """
    key = view.get(Key, name)
    if key is None or key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.SIGNING:
        raise InvalidArgument(field, "there is no such enabled signing key")
    users = view.find(Credential, key=name)
    if any(credential.name != of for credential in users) or (not users and not view.has_none(Credential, key=name)):
        raise InvalidArgument(field, "another credential uses the key")
    check_chain(chain, public_key=key.public_key, at=at, field=chain_field)


class GetCredential:
    """Reads credentials."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> CredentialView:
        """Returns it to an operator, or to a client that may ask for it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> CredentialView:
            if principal.kind is PrincipalKind.OPERATOR:
                return view_of(view, require_administered(view, principal, name, "CredentialService.GetCredential"))
            return view_of(
                view, require_credential(view, principal, name, "CredentialService.GetCredential"), asked_by=principal
            )

        return self._transactions.read(work)


class ListCredentials:
    """Lists credentials."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[CredentialView], str]:
        """Returns a page by name, and the token of the next or "": of all for an operator, else of the client's own.

        A page of an operator who is limited to organizations leaves out what is of others.
        """

        def work(view: TrustedView) -> tuple[list[CredentialView], str]:
            if principal.kind is PrincipalKind.OPERATOR:
                operator = require_operator(view, principal, "CredentialService.ListCredentials")
                shown, token = page_of(view.find(Credential, limit=page.size + 1, after=page.after), page)
                return [view_of(view, one) for one in shown if _is_shown(view, operator, one)], token
            client = require_client(view, principal, "CredentialService.ListCredentials")
            grants = view.find(
                CredentialClient, limit=page.size + 1, after=page.after, client=client.name, state=State.ENABLED
            )
            granted, token = page_of(grants, page)
            credentials = [view.require(Credential, grant.credential) for grant in granted]
            # A page may be shorter than asked for: what lies outside the client's organizations is left out.
            within = [found for found in credentials if is_of_client(view, client, found)]
            return [view_of(view, credential, asked_by=principal) for credential in within], token

        return self._transactions.read(work)


def require_administered(view: TrustedView, principal: Principal, name: str, method: str) -> Credential:
    """Returns a credential that the calling operator may administer by a method.

    Raises `PermissionDenied`, also for one of an organization that the operator is not limited to.
    """
    operator = require_operator(view, principal, method)
    credential = view.get(Credential, name)
    if credential is None or not _is_shown(view, operator, credential):
        raise PermissionDenied
    return credential


def organizations_of(view: TrustedView, name: str) -> list[str]:
    """Returns the organization that a credential concerns; nothing when there is no such credential."""
    credential = view.get(Credential, name)
    return [] if credential is None else [view.require(Signer, credential.signer).organization]


def view_of(view: TrustedView, credential: Credential, *, asked_by: Principal | None = None) -> CredentialView:
    """Returns what is shown of a credential; a client that asks learns of no other client."""
    grants = clients_of(view, credential.name)
    return CredentialView(
        credential=credential,
        key=view.require(Key, credential.key),
        activators=activators_of(view, credential.name),
        clients=[grant.client for grant in grants if asked_by is None or grant.client == asked_by.client],
        status=known_status(view, credential),
    )


def _is_shown(view: TrustedView, operator: Operator, credential: Credential) -> bool:
    if not operator.organizations:
        return True
    return is_within(view, operator.organizations, view.require(Signer, credential.signer).organization)
