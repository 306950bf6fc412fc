"""CreateClient, GetClient, ListClients, DisableClient and EnableClient."""

from dataclasses import dataclass

from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.principal import Principal
from trien_server.core.records import Client, Operator, Organization, Proposal, State
from trien_server.core.roles import CLIENT_METHODS
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

_DIGEST_SIZE = 32
MOST_SCOPES = 100
"""How many organizations, or methods, a client can be limited to."""
MOST_OF_A_LIMIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class NewClient:
    """What a client is to be. It is known by one of `token_hash` and `certificate_fingerprint`, 32 bytes each."""

    name: str
    display_name: str
    token_hash: bytes | None
    certificate_fingerprint: bytes | None
    organizations: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    concurrent_items: int = 0


class CreateClient:
    """Enters calling applications. Their tokens and certificates are made elsewhere: the server gets hashes."""

    method = "AccessService.CreateClient"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=NewClient, make=self._plan))

    def __call__(self, principal: Principal, new: NewClient, *, deadline: Deadline) -> Proposal:
        """Proposes the client. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, new: NewClient, agreement: Agreement) -> Change:
        check_known_by(view, new.token_hash, new.certificate_fingerprint)
        check_scopes(view, new.organizations, new.methods)
        check_limits(new.calls_per_minute, new.concurrent_items)
        if view.get(Client, new.name) is not None:
            raise AlreadyExists(f"{new.name} exists.")
        client = Client(
            name=new.name,
            display_name=parse_title(new.display_name, field="client.display_name"),
            token_hash=new.token_hash,
            certificate_fingerprint=new.certificate_fingerprint,
            organizations=new.organizations,
            methods=new.methods,
            calls_per_minute=new.calls_per_minute,
            concurrent_items=new.concurrent_items,
            create_time=agreement.at,
        )
        return Change(kind="client_created", slow=[client])


def check_known_by(view: TrustedView, token_hash: bytes | None, certificate_fingerprint: bytes | None) -> None:
    """Checks what a client is to be known by. Raises `InvalidArgument`, `AlreadyExists`."""
    if (token_hash is None) == (certificate_fingerprint is None):
        raise InvalidArgument("client.token_hash", "give either this or client.certificate_fingerprint")
    for field, value in (("token_hash", token_hash), ("certificate_fingerprint", certificate_fingerprint)):
        if value is not None and len(value) != _DIGEST_SIZE:
            raise InvalidArgument(f"client.{field}", "expected 32 bytes, a SHA-256 digest")
    if token_hash is not None and not (
        view.has_none(Client, token_hash=token_hash) and view.has_none(Client, previous_token_hash=token_hash)
    ):
        raise AlreadyExists("The token is a client's, or was before.")
    if certificate_fingerprint is not None and not (
        view.has_none(Client, certificate_fingerprint=certificate_fingerprint)
        and view.has_none(Client, previous_certificate_fingerprint=certificate_fingerprint)
        and view.has_none(Operator, certificate_fingerprint=certificate_fingerprint)
    ):
        raise AlreadyExists("The certificate is a client's or an operator's, or was before.")


def check_scopes(view: TrustedView, organizations: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """Checks a client's scopes. Raises `InvalidArgument`."""
    if len(organizations) > MOST_SCOPES or len(methods) > MOST_SCOPES:
        raise InvalidArgument("client.organizations", f"expected at most {MOST_SCOPES}")
    for position, organization in enumerate(organizations):
        if view.get(Organization, organization) is None:
            raise InvalidArgument(f"client.organizations[{position}]", "there is no such organization")
    for position, method in enumerate(methods):
        if method not in CLIENT_METHODS:
            raise InvalidArgument(f"client.methods[{position}]", "no method that clients call")


def check_limits(calls_per_minute: int, concurrent_items: int) -> None:
    """Checks a client's limits. Raises `InvalidArgument`."""
    for field, value in (("calls_per_minute", calls_per_minute), ("concurrent_items", concurrent_items)):
        if not 0 <= value <= MOST_OF_A_LIMIT:
            raise InvalidArgument(f"client.{field}", f"expected 0 to {MOST_OF_A_LIMIT}")


class GetClient:
    """Reads clients."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Client:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Client:
            require_operator(view, principal, "AccessService.GetClient")
            return require_named_client(view, name)

        return self._transactions.read(work)


class ListClients:
    """Lists clients."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[Client], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[Client], str]:
            require_operator(view, principal, "AccessService.ListClients")
            shown, token = page_of(view.find(Client, limit=page.size + 1, after=page.after), page)
            return list(shown), token

        return self._transactions.read(work)


class DisableClient:
    """Shuts calling applications out."""

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Client:
        """Disables the client: no request whose transaction begins later is granted. Raises `PermissionDenied`."""
        disabled: Client | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal disabled
            require_operator(view, principal, "AccessService.DisableClient")
            disabled = next_version(require_named_client(view, name), state=State.DISABLED)
            return Change(kind="client_disabled", slow=[disabled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        return disabled


@dataclass(frozen=True, kw_only=True)
class EnabledClient:
    """Which client is to be let in again."""

    name: str


class EnableClient:
    """Lets disabled clients in again."""

    method = "AccessService.EnableClient"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=EnabledClient, make=self._plan))

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Proposal:
        """Proposes it. Raises `PermissionDenied`, or `StateConflict` when the client is not disabled."""
        return self._proposals.propose(principal, self.method, EnabledClient(name=name), deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, command: EnabledClient, _: Agreement) -> Change:
        client = require_named_client(view, command.name)
        if client.state is not State.DISABLED:
            raise StateConflict("The client is not disabled.")
        return Change(kind="client_enabled", slow=[next_version(client, state=State.ENABLED)])


def require_named_client(view: TrustedView, name: str) -> Client:
    """Returns the client of that name. Raises `PermissionDenied` when there is none."""
    client = view.get(Client, name)
    if client is None:
        raise PermissionDenied
    return client
