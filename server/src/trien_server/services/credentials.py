"""CreateCredential, GetCredential and ListCredentials."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.certificates import check_chain
from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied
from trien_server.core.items import MOST_ITEMS
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import (
    Activator,
    Client,
    Credential,
    CredentialClient,
    Key,
    KeyPurpose,
    KeyState,
    Proposal,
    Signer,
    SignerKind,
    State,
)
from trien_server.services.access import (
    activator_name,
    credential_client_name,
    is_of_client,
    require_client,
    require_credential,
    require_operator,
)
from trien_server.services.changes import Change
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class Entitlement:
    """A person who is to activate the credential, and when."""

    signer: str
    start_time: datetime | None = None
    end_time: datetime | None = None


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


@dataclass(frozen=True, kw_only=True)
class CredentialView:
    """A credential with its key and who may do what with it."""

    credential: Credential
    key: Key
    activators: Sequence[Activator]
    clients: Sequence[str]


class CreateCredential:
    """Makes credentials of enabled keys."""

    method = "CredentialService.CreateCredential"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=NewCredential, make=self._plan))

    def __call__(self, principal: Principal, new: NewCredential, deadline: Deadline) -> Proposal:
        """Proposes the credential.

        Raises `PermissionDenied`, `AlreadyExists`, `CertificateNotValid`, or `InvalidArgument` that names what
        is wrong: the key is not enabled or used by another credential, the chain does not fit, a person's
        credential has another activator than that person, someone named does not exist.
        """
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    def _plan(self, view: TrustedView, new: NewCredential, agreement: Agreement) -> Change:
        if not 0 <= new.max_items <= MOST_ITEMS:
            raise InvalidArgument("credential.max_items", f"expected 0 to {MOST_ITEMS}")
        if view.get(Credential, new.name) is not None:
            raise AlreadyExists(f"{new.name} exists.")
        credential = Credential(
            name=new.name,
            key=new.key,
            signer=new.signer,
            display_name=parse_title(new.display_name, field="credential.display_name"),
            certificate_chain=new.certificate_chain,
            max_items=new.max_items or MOST_ITEMS,
            client_collected_otp=new.client_collected_otp,
            create_time=agreement.at,
        )
        self._check_key(view, new, agreement.at)
        activators = self._activators(view, new)
        clients = self._clients(view, new)
        return Change(kind="credential_created", slow=[credential, *activators, *clients])

    @staticmethod
    def _check_key(view: TrustedView, new: NewCredential, at: datetime) -> None:
        key = view.get(Key, new.key)
        if key is None or key.state is not KeyState.ENABLED or key.purpose is not KeyPurpose.SIGNING:
            raise InvalidArgument("credential.key", "there is no such enabled signing key")
        if not view.has_none(Credential, key=new.key):
            raise InvalidArgument("credential.key", "another credential uses the key")
        check_chain(new.certificate_chain, public_key=key.public_key, at=at, field="credential.certificate_chain")

    @staticmethod
    def _activators(view: TrustedView, new: NewCredential) -> list[Activator]:
        owner = view.get(Signer, new.signer)
        if owner is None:
            raise InvalidArgument("credential.signer", "there is no such signer")
        wanted = new.activators
        if owner.kind is SignerKind.PERSON:
            wanted = wanted or (Entitlement(signer=new.signer),)
            if [entitlement.signer for entitlement in wanted] != [new.signer]:
                raise InvalidArgument(
                    "credential.activators", "a person's credential is activated by that person alone"
                )
        if len({entitlement.signer for entitlement in wanted}) != len(wanted):
            raise InvalidArgument("credential.activators", "a person is named twice")
        activators = []
        for position, entitlement in enumerate(wanted):
            person = view.get(Signer, entitlement.signer)
            if person is None or person.kind is not SignerKind.PERSON:
                raise InvalidArgument(f"credential.activators[{position}].signer", "there is no such person")
            activators.append(
                Activator(
                    name=activator_name(new.name, entitlement.signer),
                    credential=new.name,
                    signer=entitlement.signer,
                    start_time=entitlement.start_time,
                    end_time=entitlement.end_time,
                )
            )
        return activators

    @staticmethod
    def _clients(view: TrustedView, new: NewCredential) -> list[CredentialClient]:
        if len(set(new.clients)) != len(new.clients):
            raise InvalidArgument("credential.clients", "a client is named twice")
        for position, client in enumerate(new.clients):
            if view.get(Client, client) is None:
                raise InvalidArgument(f"credential.clients[{position}]", "there is no such client")
        return [
            CredentialClient(name=credential_client_name(new.name, client), credential=new.name, client=client)
            for client in new.clients
        ]


class GetCredential:
    """Reads credentials."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> CredentialView:
        """Returns it to an operator, or to a client that may ask for it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> CredentialView:
            if principal.kind is PrincipalKind.OPERATOR:
                require_operator(view, principal, "CredentialService.GetCredential")
                credential = view.get(Credential, name)
                if credential is None:
                    raise PermissionDenied
                return _view_of(view, credential)
            return _view_of(
                view, require_credential(view, principal, name, "CredentialService.GetCredential"), asked_by=principal
            )

        return self._transactions.read(work)


class ListCredentials:
    """Lists credentials."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[CredentialView], str]:
        """Returns a page by name, and the token of the next or "": of all for an operator, else of the client's own."""

        def work(view: TrustedView) -> tuple[list[CredentialView], str]:
            if principal.kind is PrincipalKind.OPERATOR:
                require_operator(view, principal, "CredentialService.ListCredentials")
                shown, token = page_of(view.find(Credential, limit=page.size + 1, after=page.after), page)
                return [_view_of(view, credential) for credential in shown], token
            client = require_client(view, principal, "CredentialService.ListCredentials")
            grants = view.find(
                CredentialClient, limit=page.size + 1, after=page.after, client=client.name, state=State.ENABLED
            )
            granted, token = page_of(grants, page)
            credentials = [view.require(Credential, grant.credential) for grant in granted]
            # A page may be shorter than asked for: what lies outside the client's organizations is left out.
            within = [found for found in credentials if is_of_client(view, client, found)]
            return [_view_of(view, credential, asked_by=principal) for credential in within], token

        return self._transactions.read(work)


def _view_of(view: TrustedView, credential: Credential, *, asked_by: Principal | None = None) -> CredentialView:
    """Returns what is shown of a credential; a client that asks learns of no other client."""
    grants = view.find(CredentialClient, credential=credential.name, state=State.ENABLED)
    return CredentialView(
        credential=credential,
        key=view.require(Key, credential.key),
        activators=view.find(Activator, credential=credential.name, state=State.ENABLED),
        clients=[grant.client for grant in grants if asked_by is None or grant.client == asked_by.client],
    )
