"""UpdateClient and RestrictClient: other values for a client, by two operators; or narrower ones, by one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from trien_server.core.errors import InvalidArgument, NotStricter
from trien_server.core.principal import Principal
from trien_server.core.records import Client, Proposal
from trien_server.services.access import is_within, require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.clients import check_known_by, check_limits, check_scopes, require_named_client
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import next_version
from trien_server.services.trusted import TrustedView

LONGEST_OVERLAP_HOURS = 720


@dataclass(frozen=True, kw_only=True)
class ClientUpdate:
    """All values that a client is to have. With neither token nor certificate the present one stays."""

    name: str
    display_name: str
    token_hash: bytes | None
    certificate_fingerprint: bytes | None
    organizations: tuple[str, ...]
    methods: tuple[str, ...]
    calls_per_minute: int
    concurrent_items: int
    overlap_hours: int


class UpdateClient:
    """Gives clients other values, and renews what they are known by."""

    method = "AccessService.UpdateClient"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=ClientUpdate,
                make=self._plan,
                # The overlap counts from the approval.
                set_on_approval=frozenset({"previous_expire_time"}),
            )
        )

    def __call__(self, principal: Principal, update: ClientUpdate, *, deadline: Deadline) -> Proposal:
        """Proposes the values. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        return self._proposals.propose(principal, self.method, update, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, update: ClientUpdate, agreement: Agreement) -> Change:
        client = require_named_client(view, update.name)
        if not 0 <= update.overlap_hours <= LONGEST_OVERLAP_HOURS:
            raise InvalidArgument("overlap_hours", f"expected 0 to {LONGEST_OVERLAP_HOURS}")
        check_scopes(view, update.organizations, update.methods)
        check_limits(update.calls_per_minute, update.concurrent_items)
        remarks: list[str] = []
        changes: dict[str, object] = {
            "display_name": parse_title(update.display_name, field="client.display_name"),
            "organizations": update.organizations,
            "methods": update.methods,
            "calls_per_minute": update.calls_per_minute,
            "concurrent_items": update.concurrent_items,
        }
        if update.token_hash is not None or update.certificate_fingerprint is not None:
            check_known_by(view, update.token_hash, update.certificate_fingerprint)
            changes |= {
                "token_hash": update.token_hash,
                "certificate_fingerprint": update.certificate_fingerprint,
                **_previous(client, update.overlap_hours, agreement),
            }
            remarks.append(_renewal(client, update))
        elif update.overlap_hours:
            raise InvalidArgument("overlap_hours", "only beside a new token or certificate")
        return Change(kind="client_updated", slow=[next_version(client, **changes)], remarks=remarks)


def _renewal(client: Client, update: ClientUpdate) -> str:
    """Returns what a statement says of it: tokens and their hashes are not shown among the fields."""
    what = "token" if update.token_hash is not None else "certificate"
    until = f"stays good for {update.overlap_hours} hours more" if update.overlap_hours else "ends"
    return f"{client.name} gets another {what}; what it was known by {until}."


def _previous(client: Client, hours: int, agreement: Agreement) -> Mapping[str, object]:
    """Returns the fields of what the client was known by, good for some hours more, or forgotten."""
    return {
        "previous_token_hash": client.token_hash if hours else None,
        "previous_certificate_fingerprint": client.certificate_fingerprint if hours else None,
        "previous_expire_time": agreement.at + timedelta(hours=hours) if hours else None,
    }


@dataclass(frozen=True, kw_only=True)
class Restriction:
    """What is to be narrowed; empty and 0 stay as before."""

    organizations: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    calls_per_minute: int = 0
    concurrent_items: int = 0
    end_previous: bool = False


class RestrictClient:
    """Narrows clients at once."""

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, restriction: Restriction, *, deadline: Deadline) -> Client:
        """Narrows scopes and limits. Raises `PermissionDenied`, `InvalidArgument`, `NotStricter`."""
        restricted: Client | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal restricted
            require_operator(view, principal, "AccessService.RestrictClient")
            restricted = _restricted(view, require_named_client(view, name), restriction)
            return Change(kind="client_restricted", slow=[restricted])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if restricted is None:
            raise AssertionError("a change was made without being prepared")
        return restricted


def _restricted(view: TrustedView, client: Client, wanted: Restriction) -> Client:
    if wanted == Restriction():
        raise InvalidArgument("name", "nothing to narrow was given")
    check_scopes(view, wanted.organizations, wanted.methods)
    check_limits(wanted.calls_per_minute, wanted.concurrent_items)
    changes: dict[str, object] = {}
    if wanted.organizations:
        wider = [name for name in wanted.organizations if not is_within(view, client.organizations, name)]
        if wider:
            raise NotStricter(f"The client is not for {wider[0]} now.")
        changes["organizations"] = wanted.organizations
    if wanted.methods:
        added = [method for method in wanted.methods if client.methods and method not in client.methods]
        if added:
            raise NotStricter(f"The client may not call {added[0]} now.")
        changes["methods"] = wanted.methods
    for field in ("calls_per_minute", "concurrent_items"):
        limit, present = getattr(wanted, field), getattr(client, field)
        if limit:
            if present and limit > present:
                raise NotStricter(f"{field} is {present} now.")
            changes[field] = limit
    if wanted.end_previous:
        changes |= {
            "previous_token_hash": None,
            "previous_certificate_fingerprint": None,
            "previous_expire_time": None,
        }
    return next_version(client, **changes)
