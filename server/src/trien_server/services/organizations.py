"""Organizations: a tree of agencies with dates. An agency that has ended names the one that it became part of."""

from dataclasses import dataclass
from datetime import UTC, datetime

from trien_server.core.errors import InvalidArgument, PermissionDenied
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Organization, Proposal
from trien_server.services.access import exists_at, require_operator, require_organization
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

DEEPEST = 16
"""How many organizations a way from the top of the tree to its end has at most."""
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
"""Times before and from which no organization begins or ends: a slip of the pen."""
_TOP = ""
"""No organization's name, and so within nobody's limits: what lies at the top is not for an operator who has some."""


@dataclass(frozen=True, kw_only=True)
class OrganizationValues:
    """An organization with all values that it is to have."""

    name: str
    display_name: str
    parent: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    successor: str | None = None


class CreateOrganization:
    """Enters organizations."""

    method = "OrganizationService.CreateOrganization"

    def __init__(self, *, changes: Changes, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    def __call__(
        self,
        principal: Principal,
        *,
        name: str,
        display_name: str,
        parent: str | None,
        start_time: datetime | None,
        end_time: datetime | None,
        successor: str | None = None,
        deadline: Deadline,
    ) -> Organization:
        """Returns the new organization. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        organization = Organization(
            name=name,
            display_name=parse_title(display_name, field="organization.display_name"),
            parent=parent,
            start_time=start_time,
            end_time=end_time,
            successor=successor,
            create_time=self._clock.now(),
        )
        _check_dates(organization)

        def prepare(view: TrustedView) -> Change:
            operator = require_operator(view, principal, self.method)
            require_organization(view, operator, parent or _TOP)
            _check_parent(view, organization, levels=1)
            _check_successor(view, organization)
            return Change(kind="organization_created", slow=[organization])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return organization


class UpdateOrganization:
    """Gives organizations another title, parent, dates or successor."""

    method = "OrganizationService.UpdateOrganization"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(method=self.method, command=OrganizationValues, make=self._plan, concerns=self._concerns)
        )

    def __call__(self, principal: Principal, wanted: OrganizationValues, *, deadline: Deadline) -> Proposal:
        """Proposes the values. Raises `PermissionDenied`, `InvalidArgument`."""
        return self._proposals.propose(principal, self.method, wanted, deadline=deadline)

    @staticmethod
    def _concerns(view: TrustedView, wanted: OrganizationValues) -> list[str]:
        """Returns the organization, and what it moves below or becomes part of."""
        current = view.get(Organization, wanted.name)
        concerned = [wanted.name]
        if current is None or wanted.parent != current.parent:
            concerned.append(wanted.parent or _TOP)
        if wanted.successor is not None and (current is None or wanted.successor != current.successor):
            concerned.append(wanted.successor)
        return concerned

    @staticmethod
    def _plan(view: TrustedView, wanted: OrganizationValues, _: Agreement) -> Change:
        current = view.get(Organization, wanted.name)
        if current is None:
            raise PermissionDenied
        changed = next_version(
            current,
            display_name=parse_title(wanted.display_name, field="organization.display_name"),
            parent=wanted.parent,
            start_time=wanted.start_time,
            end_time=wanted.end_time,
            successor=wanted.successor,
        )
        if next_version(current) == changed:
            raise InvalidArgument("organization", "it has these values already")
        _check_dates(changed)
        if changed.parent != current.parent:
            _check_parent(view, changed, levels=_levels(view, changed.name))
        _check_successor(view, changed)
        return Change(kind="organization_updated", slow=[changed])


class GetOrganization:
    """Reads organizations."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Organization:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Organization:
            require_operator(view, principal, "OrganizationService.GetOrganization")
            organization = view.get(Organization, name)
            if organization is None:
                raise PermissionDenied
            return organization

        return self._transactions.read(work)


class ListOrganizations:
    """Lists organizations: titles of agencies are public, so no limits narrow what is shown."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[Organization], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[Organization], str]:
            require_operator(view, principal, "OrganizationService.ListOrganizations")
            shown, token = page_of(view.find(Organization, limit=page.size + 1, after=page.after), page)
            return list(shown), token

        return self._transactions.read(work)


def require_open_organization(view: TrustedView, name: str, *, field: str, at: datetime) -> Organization:
    """Returns an organization that signers can be entered in: one that has not ended; it may begin later.

    Raises `InvalidArgument`.
    """
    organization = view.get(Organization, name)
    if organization is None:
        raise InvalidArgument(field, f"there is no {name}")
    if organization.end_time is not None and organization.end_time <= at:
        became = "" if organization.successor is None else f"; its successor is {organization.successor}"
        raise InvalidArgument(field, f"{name} has ended{became}")
    return organization


def _check_dates(organization: Organization) -> None:
    start, end = organization.start_time, organization.end_time
    for field, time in (("start_time", start), ("end_time", end)):
        if time is not None and not EARLIEST <= time < LATEST:
            raise InvalidArgument(f"organization.{field}", "expected a time from 1900 to 2199")
    if start is not None and end is not None and end <= start:
        raise InvalidArgument("organization.end_time", "expected a time behind the start")


def _check_parent(view: TrustedView, organization: Organization, *, levels: int) -> None:
    """Checks what an organization of `levels` levels is to lie below: it exists, makes no circle, is not too deep.

    The whole way up is read, so that of two moves that would make a circle together the later one finds out.
    """
    field, above, depth = "organization.parent", organization.parent, levels
    while above is not None:
        if above == organization.name:
            raise InvalidArgument(field, "an organization cannot lie below itself")
        found = view.get(Organization, above)
        if found is None:
            raise InvalidArgument(field, "there is no such organization")
        depth += 1
        if depth > DEEPEST:
            raise InvalidArgument(field, f"the tree would have more than {DEEPEST} levels")
        above = found.parent


def _levels(view: TrustedView, name: str) -> int:
    """Returns how many levels an organization and all below it have; more than `DEEPEST` count as one more."""
    level, levels = [name], 0
    while level and levels <= DEEPEST:
        levels += 1
        level = [below for above in level for below in _children(view, above)]
    return levels


def _children(view: TrustedView, name: str) -> list[str]:
    children: list[str] = []
    after = ""
    while found := view.find(Organization, limit=1000, after=after, parent=name):
        children += [child.name for child in found]
        after = found[-1].name
    return children


def _check_successor(view: TrustedView, organization: Organization) -> None:
    """Checks what an organization becomes part of: it exists then, and does not become part of this one."""
    field, end = "organization.successor", organization.end_time
    if organization.successor is None:
        return
    if end is None:
        raise InvalidArgument(field, "only an organization with an end has a successor")
    if organization.successor == organization.name:
        raise InvalidArgument(field, "an organization cannot be its own successor")
    successor = view.get(Organization, organization.successor)
    if successor is None:
        raise InvalidArgument(field, "there is no such organization")
    if not exists_at(successor, end):
        raise InvalidArgument(field, "it does not exist at the end of this one")
    seen = {successor.name}
    while successor.successor is not None and successor.successor not in seen:
        if successor.successor == organization.name:
            raise InvalidArgument(field, "it becomes part of this one")
        seen.add(successor.successor)
        successor = view.require(Organization, successor.successor)
