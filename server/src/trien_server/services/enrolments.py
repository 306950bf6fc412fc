"""Enrolments: that a person may get an authenticator whose secret no operator sees.

Two operators agree that a person may enrol (CreateEnrolments); they agree on where the code goes too, so that nobody
redirects it alone. What follows is in `enrolment_codes` (the person gets the code) and `enrolling` (what the person
does with it).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trien_server.core.enrolments import LIFETIME, assert_open, authenticator_of
from trien_server.core.errors import AlreadyExists, InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.names import parent_of
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import (
    DELIVERED_KINDS,
    Authenticator,
    AuthenticatorKind,
    Enrolment,
    EnrolmentState,
    Operator,
    Proposal,
    Record,
    Signer,
    State,
)
from trien_server.services.access import require_operator, require_organization
from trien_server.services.authenticators import parse_digits, require_person
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.notices import Notices
from trien_server.services.paging import Page, page_of
from trien_server.services.persons import contact_channels
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

MOST_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class NewEnrolment:
    """An enrolment that is to be; empty and 0 are the kind's own."""

    name: str
    kind: AuthenticatorKind
    digits: int = 0
    hash_function: str = ""
    replaces: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewEnrolments:
    """Enrolments of different persons, agreed on together."""

    enrolments: tuple[NewEnrolment, ...]


class CreateEnrolments:
    """Lets persons enrol authenticators of kind TOTP, HOTP and OCRA.

    Who has or had an authenticator waits before the enrolment can begin, and is told at once on every known channel:
    a further authenticator is as good a way to sign as a replaced one.
    """

    method = "SignerService.CreateEnrolments"

    def __init__(
        self, *, proposals: Proposals, notices: Notices, carriers: Collection[AuthenticatorKind], wait: timedelta
    ) -> None:
        """`carriers` are the kinds of delivery that there are, `wait` is how long a person who has one waits."""
        self._proposals = proposals
        self._notices = notices
        self._carriers = frozenset(carriers)
        self._wait = wait
        proposals.register(
            Plan(
                method=self.method,
                command=NewEnrolments,
                make=self._plan,
                set_on_approval=frozenset({"approver", "start_time", "expire_time"}),
                done=self._tell,
                concerns=_concerned,
            )
        )

    def __call__(self, principal: Principal, new: NewEnrolments, *, deadline: Deadline) -> Proposal:
        """Proposes the enrolments.

        Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`, or `StateConflict` for a person who has an open
        one.
        """
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    def _plan(self, view: TrustedView, new: NewEnrolments, agreement: Agreement) -> Change:
        if not 1 <= len(new.enrolments) <= MOST_AT_ONCE:
            raise InvalidArgument("enrolments", f"expected 1 to {MOST_AT_ONCE}")
        if len({parent_of(wanted.name) for wanted in new.enrolments}) != len(new.enrolments):
            raise InvalidArgument("enrolments", "a person is named twice")
        slow: list[Record] = []
        for position, wanted in enumerate(new.enrolments):
            slow += self._enrolment(view, wanted, agreement, field=f"enrolments[{position}]")
        made = [record for record in slow if isinstance(record, Enrolment)]
        return Change(kind="enrolment_created", slow=slow, remarks=self._remarks(made))

    def _remarks(self, made: Sequence[Enrolment]) -> list[str]:
        """Returns what the second operator has to know besides the records."""
        remarks = []
        waiting, halved = sum(map(waits, made)), sum(not one.address for one in made)
        if waiting:
            hours = f"{self._wait // timedelta(hours=1)} hours"
            remarks.append(
                f"{waiting} of {len(made)} had an authenticator: told at once, they can begin after {hours}."
            )
        if halved:
            remarks.append(
                f"{halved} of {len(made)} are sent nothing: each of the two officers hands over half a code."
            )
        return remarks

    def _enrolment(
        self, view: TrustedView, wanted: NewEnrolment, agreement: Agreement, *, field: str
    ) -> list[Enrolment | Authenticator]:
        """Returns the enrolment, and what it replaces as it is then: disabled by the same transaction."""
        person = require_person(view, parent_of(wanted.name), field=f"{field}.name")
        if wanted.kind in DELIVERED_KINDS:
            raise InvalidArgument(f"{field}.kind", "expected TOTP, HOTP or OCRA: delivered codes need no enrolment")
        if view.get(Enrolment, wanted.name) is not None or view.get(Authenticator, authenticator_of(wanted.name)):
            raise AlreadyExists(f"{wanted.name}, or an authenticator of that id, exists.")
        others = open_enrolments(view, person.name, at=agreement.at)
        if others:
            # Agreed on before the person had an authenticator, it would not have to wait when the person has one.
            raise StateConflict(f"{others[0].name} is open: send its code again, or cancel it.")
        held = view.find(Authenticator, signer=person.name)
        replaced = [one for one in held if one.name == wanted.replaces]
        if wanted.replaces is not None and not replaced:
            raise InvalidArgument(f"{field}.replaces", "the person has no such authenticator")
        enrolment = Enrolment(
            name=wanted.name,
            signer=person.name,
            kind=wanted.kind,
            digits=parse_digits(wanted.digits, kind=wanted.kind, field=f"{field}.digits"),
            hash_function=wanted.hash_function or ("SHA256" if wanted.kind is AuthenticatorKind.OCRA else "SHA1"),
            replaces=wanted.replaces,
            address=self._address(person, replacing=wanted.replaces is not None),
            proposer=agreement.proposer,
            approver=agreement.approver,
            start_time=agreement.at + (self._wait if held else timedelta(0)),
            expire_time=agreement.at + (self._wait if held else timedelta(0)) + LIFETIME,
            create_time=agreement.at,
        )
        ended = [next_version(one, state=State.DISABLED) for one in replaced if one.state is State.ENABLED]
        return [enrolment, *ended]

    def _address(self, person: Signer, *, replacing: bool) -> str:
        """Returns where the code will go. What replaces a lost phone is not sent to it."""
        for channel in contact_channels(person):
            if channel.kind in self._carriers and not (replacing and channel.kind is AuthenticatorKind.SMS):
                return channel.address
        return ""

    def _tell(self, records: Sequence[Record]) -> None:
        made = [record for record in records if isinstance(record, Enrolment)]
        self._notices.tell_of_enrolments([one for one in made if waits(one)])


def open_enrolments(view: TrustedView, signer: str, *, at: datetime) -> list[Enrolment]:
    """Returns the enrolments of a person that can still be completed."""
    return [
        found
        for state in (EnrolmentState.PENDING, EnrolmentState.BEGUN)
        for found in view.find(Enrolment, signer=signer, state=state)
        if at < found.expire_time
    ]


def waits(enrolment: Enrolment) -> bool:
    """Tells whether the person has to be told, and to have waited, before the enrolment can begin."""
    return enrolment.start_time > enrolment.create_time


class GetEnrolment:
    """Reads enrolments."""

    method = "SignerService.GetEnrolment"

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Enrolment:
        """Returns it. Raises `PermissionDenied`."""
        return self._transactions.read(lambda view: require_enrolment(view, principal, self.method, name)[1])


class ListEnrolments:
    """Lists a person's enrolments."""

    method = "SignerService.ListEnrolments"

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, signer: str, *, page: Page) -> tuple[list[Enrolment], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[Enrolment], str]:
            operator = require_operator(view, principal, self.method)
            require_signer(view, operator, signer)
            found = view.find(Enrolment, signer=signer, limit=page.size + 1, after=page.after)
            shown, token = page_of(found, page)
            return list(shown), token

        return self._transactions.read(work)


class CancelEnrolment:
    """Withdraws enrolments. What an enrolment replaced stays disabled."""

    method = "SignerService.CancelEnrolment"

    def __init__(self, *, changes: Changes, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Enrolment:
        """Withdraws it for good, and destroys its secret. Raises `PermissionDenied`, `EnrolmentNotPending`."""
        cancelled: Enrolment | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal cancelled
            _, enrolment = require_enrolment(view, principal, self.method, name)
            assert_open(enrolment, at=self._clock.now())
            cancelled = ended(enrolment, EnrolmentState.CANCELLED)
            return Change(kind="enrolment_cancelled", slow=[cancelled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if cancelled is None:
            raise AssertionError("a change was made without being prepared")
        return cancelled


def ended(enrolment: Enrolment, state: EnrolmentState, **changes: object) -> Enrolment:
    """Returns an enrolment that is over: no code opens it, and it has no secret."""
    return next_version(
        enrolment,
        state=state,
        encrypted_secret=b"",
        confirmation_hash=None,
        first_half_hash=None,
        second_half_hash=None,
        **changes,
    )


def require_enrolment(view: TrustedView, principal: Principal, method: str, name: str) -> tuple[Operator, Enrolment]:
    """Returns the calling operator and an enrolment of a person that this operator may administer.

    Raises `PermissionDenied`.
    """
    operator = require_operator(view, principal, method)
    enrolment = view.get(Enrolment, name)
    if enrolment is None:
        raise PermissionDenied
    require_signer(view, operator, enrolment.signer)
    return operator, enrolment


def require_signer(view: TrustedView, operator: Operator, name: str) -> Signer:
    """Returns a signer that the operator may administer. Raises `PermissionDenied`: unknown and forbidden alike."""
    signer = view.get(Signer, name)
    if signer is None:
        raise PermissionDenied
    require_organization(view, operator, signer.organization)
    return signer


def _concerned(view: TrustedView, new: NewEnrolments) -> Iterator[str]:
    for wanted in new.enrolments:
        person = view.get(Signer, parent_of(wanted.name))
        if person is not None:
            yield person.organization
