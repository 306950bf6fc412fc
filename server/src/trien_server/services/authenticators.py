"""CreateAuthenticator, ListAuthenticators and DisableAuthenticator.

Only delivered codes are created here; authenticators of the other kinds are enrolled: see `enrolments`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trien_server.core.delivery_addresses import parse_address
from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.notice_text import Telling
from trien_server.core.principal import Principal
from trien_server.core.records import (
    DELIVERED_KINDS,
    Authenticator,
    AuthenticatorKind,
    Enrolment,
    Proposal,
    Record,
    Signer,
    SignerKind,
    State,
)
from trien_server.services.access import require_operator, require_organization
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.notices import Notices
from trien_server.services.paging import Page, page_of
from trien_server.services.persons import contact_channels
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class NewAuthenticator:
    """An authenticator whose codes the server makes and sends to `address`. 0 digits are 6."""

    name: str
    signer: str
    kind: AuthenticatorKind
    digits: int
    address: str


class CreateAuthenticator:
    """Makes authenticators of kind SMS and EMAIL. The person is told on every other known channel."""

    method = "SignerService.CreateAuthenticator"

    def __init__(self, *, proposals: Proposals, notices: Notices) -> None:
        self._proposals = proposals
        self._notices = notices
        plan = Plan(method=self.method, command=NewAuthenticator, make=self._plan, done=self._tell, concerns=_concerned)
        proposals.register(plan)

    def __call__(self, principal: Principal, new: NewAuthenticator, *, deadline: Deadline) -> Proposal:
        """Proposes the authenticator. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, new: NewAuthenticator, agreement: Agreement) -> Change:
        if new.kind not in DELIVERED_KINDS:
            raise InvalidArgument("authenticator.kind", "expected SMS or EMAIL; the others are enrolled")
        person = require_person(view, new.signer, field="parent")
        enrolment = new.name.replace("/authenticators/", "/enrolments/")
        if view.get(Authenticator, new.name) is not None or view.get(Enrolment, enrolment) is not None:
            raise AlreadyExists(f"{new.name}, or an enrolment of that id, exists.")
        authenticator = Authenticator(
            name=new.name,
            signer=new.signer,
            kind=new.kind,
            digits=parse_digits(new.digits, kind=new.kind, field="authenticator.digits"),
            hash_function="",
            period=0,
            encrypted_secret=b"",
            address=parse_address(new.kind, new.address, field="authenticator.address"),
            create_time=agreement.at,
        )
        own = {channel.address for channel in contact_channels(person)}
        # The statement holds this address alone: whoever approves has to know that it is not where the person is told.
        foreign = [] if authenticator.address in own else ["The address is none of the person's own."]
        return Change(kind="authenticator_created", slow=[authenticator], remarks=foreign)

    def _tell(self, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, Authenticator):
                self._notices.tell(record.signer, Telling.AUTHENTICATOR_CREATED, authenticator=record.name)


class ListAuthenticators:
    """Lists a person's authenticators."""

    method = "SignerService.ListAuthenticators"

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, signer: str, *, page: Page) -> tuple[list[Authenticator], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[Authenticator], str]:
            operator = require_operator(view, principal, self.method)
            person = view.get(Signer, signer)
            if person is None:
                raise PermissionDenied
            require_organization(view, operator, person.organization)
            found = view.find(Authenticator, signer=signer, limit=page.size + 1, after=page.after)
            shown, token = page_of(found, page)
            return list(shown), token

        return self._transactions.read(work)


class DisableAuthenticator:
    """Ends authenticators for ever. The last one too: that only stops signing."""

    method = "SignerService.DisableAuthenticator"

    def __init__(self, *, changes: Changes, notices: Notices) -> None:
        self._changes = changes
        self._notices = notices

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Authenticator:
        """Disables it: no code of it is taken in a later transaction. Raises `PermissionDenied`, `StateConflict`."""
        disabled: Authenticator | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal disabled
            operator = require_operator(view, principal, self.method)
            authenticator = view.get(Authenticator, name)
            if authenticator is None:
                raise PermissionDenied
            require_organization(view, operator, view.require(Signer, authenticator.signer).organization)
            if authenticator.state is not State.ENABLED:
                raise StateConflict("The authenticator is disabled.")
            disabled = next_version(authenticator, state=State.DISABLED)
            return Change(kind="authenticator_disabled", slow=[disabled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        self._notices.tell(disabled.signer, Telling.AUTHENTICATOR_DISABLED, authenticator=disabled.name)
        return disabled


def _concerned(view: TrustedView, new: NewAuthenticator) -> Iterator[str]:
    person = view.get(Signer, new.signer)
    if person is not None:
        yield person.organization


def parse_digits(digits: int, *, kind: AuthenticatorKind, field: str) -> int:
    """Returns how many digits a code has, by default the kind's own. Raises `InvalidArgument`."""
    chosen = digits or (8 if kind is AuthenticatorKind.OCRA else 6)
    if not 6 <= chosen <= 8:
        raise InvalidArgument(field, "expected 6 to 8")
    return chosen


def require_person(view: TrustedView, name: str, *, field: str) -> Signer:
    """Returns the person. Raises `InvalidArgument` when there is none, or it is an agency."""
    person = view.get(Signer, name)
    if person is None:
        raise InvalidArgument(field, f"there is no {name}")
    if person.kind is not SignerKind.PERSON:
        raise InvalidArgument(field, "an agency has no authenticators: persons activate its seal")
    return person
