"""CreateOrganization and GetOrganization."""

from datetime import datetime

from trien_server.core.errors import InvalidArgument, PermissionDenied
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Organization
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView


class CreateOrganization:
    """Enters organizations."""

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
        deadline: Deadline,
    ) -> Organization:
        """Returns the new organization. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        if start_time is not None and end_time is not None and end_time <= start_time:
            raise InvalidArgument("organization.end_time", "expected a time behind the start")
        organization = Organization(
            name=name,
            display_name=parse_title(display_name, field="organization.display_name"),
            parent=parent,
            start_time=start_time,
            end_time=end_time,
            create_time=self._clock.now(),
        )

        def prepare(view: TrustedView) -> Change:
            require_operator(view, principal, "OrganizationService.CreateOrganization")
            if parent is not None and view.get(Organization, parent) is None:
                raise InvalidArgument("organization.parent", "there is no such organization")
            return Change(kind="organization_created", slow=[organization])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return organization


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
