"""CreateClient, GetClient and DisableClient."""

from dataclasses import dataclass

from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied
from trien_server.core.principal import Principal
from trien_server.core.records import Client, Operator, Organization, Proposal, State
from trien_server.core.roles import CLIENT_METHODS
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

_DIGEST_SIZE = 32


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
        raise AlreadyExists("The token belongs to another client.")
    if certificate_fingerprint is not None and not (
        view.has_none(Client, certificate_fingerprint=certificate_fingerprint)
        and view.has_none(Client, previous_certificate_fingerprint=certificate_fingerprint)
        and view.has_none(Operator, certificate_fingerprint=certificate_fingerprint)
    ):
        raise AlreadyExists("The certificate belongs to another client or operator.")


def check_scopes(view: TrustedView, organizations: tuple[str, ...], methods: tuple[str, ...]) -> None:
    """Checks a client's scopes. Raises `InvalidArgument`."""
    for position, organization in enumerate(organizations):
        if view.get(Organization, organization) is None:
            raise InvalidArgument(f"client.organizations[{position}]", "there is no such organization")
    for position, method in enumerate(methods):
        if method not in CLIENT_METHODS:
            raise InvalidArgument(f"client.methods[{position}]", "no method that clients call")


def check_limits(calls_per_minute: int, concurrent_items: int) -> None:
    """Checks a client's limits. Raises `InvalidArgument`."""
    if calls_per_minute < 0:
        raise InvalidArgument("client.calls_per_minute", "expected 0 or more")
    if concurrent_items < 0:
        raise InvalidArgument("client.concurrent_items", "expected 0 or more")


class GetClient:
    """Reads clients."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Client:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Client:
            require_operator(view, principal, "AccessService.GetClient")
            return _require(view, name)

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
            disabled = next_version(_require(view, name), state=State.DISABLED)
            return Change(kind="client_disabled", slow=[disabled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        return disabled


def _require(view: TrustedView, name: str) -> Client:
    client = view.get(Client, name)
    if client is None:
        raise PermissionDenied
    return client
