"""CreateOperator, UpdateOperator, GetOperator, ListOperators, DisableOperator and EnableOperator."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from trien_server.core.approval import public_key_hash
from trien_server.core.certificates import expire_time
from trien_server.core.errors import (
    AlreadyExists,
    InvalidArgument,
    LastOfRole,
    PermissionDenied,
    StateConflict,
)
from trien_server.core.principal import Principal
from trien_server.core.records import Client, Operator, Organization, Proposal, State
from trien_server.core.roles import PROPOSING_ROLES, Role, combination_fault
from trien_server.core.tls import TLS_KEYS, has_tls_key
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.paging import Page, page_of
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

_LIMITED_ROLES = frozenset({Role.REGISTRATION_OFFICER, Role.MONITOR})
_MOST_ORGANIZATIONS = 100
_READ_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class OperatorValues:
    """What an operator is to be. `certificate` is DER; empty keeps the one that an operator has."""

    name: str
    display_name: str
    certificate: bytes
    roles: tuple[Role, ...]
    organizations: tuple[str, ...] = ()


class CreateOperator:
    """Enters operators. Their keys are made by themselves: the server gets certificates."""

    method = "AccessService.CreateOperator"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=OperatorValues, make=self._plan))

    def __call__(self, principal: Principal, values: OperatorValues, *, deadline: Deadline) -> Proposal:
        """Proposes the operator. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        return self._proposals.propose(principal, self.method, values, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, values: OperatorValues, agreement: Agreement) -> Change:
        if view.get(Operator, values.name) is not None:
            raise AlreadyExists(f"{values.name} exists.")
        check_roles(view, values)
        fingerprint, key_hash = check_certificate(view, values.certificate, owner=values.name, at=agreement.at)
        operator = Operator(
            name=values.name,
            display_name=parse_title(values.display_name, field="operator.display_name"),
            certificate=values.certificate,
            certificate_fingerprint=fingerprint,
            public_key_hash=key_hash,
            roles=tuple(role.value for role in values.roles),
            organizations=values.organizations,
            create_time=agreement.at,
        )
        return Change(kind="operator_created", slow=[operator])


class UpdateOperator:
    """Gives operators other roles, limits or certificates."""

    method = "AccessService.UpdateOperator"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=OperatorValues, make=self._plan))

    def __call__(self, principal: Principal, values: OperatorValues, *, deadline: Deadline) -> Proposal:
        """Proposes the values. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`, `LastOfRole`."""
        return self._proposals.propose(principal, self.method, values, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, values: OperatorValues, agreement: Agreement) -> Change:
        operator = _require(view, values.name)
        check_roles(view, values)
        changes: dict[str, object] = {
            "display_name": parse_title(values.display_name, field="operator.display_name"),
            "roles": tuple(role.value for role in values.roles),
            "organizations": values.organizations,
        }
        if values.certificate:
            fingerprint, key_hash = check_certificate(view, values.certificate, owner=values.name, at=agreement.at)
            changes |= {
                "certificate": values.certificate,
                "certificate_fingerprint": fingerprint,
                "public_key_hash": key_hash,
            }
        remarks = check_remaining(view, operator, lost=set(operator.roles) - {role.value for role in values.roles})
        return Change(kind="operator_updated", slow=[next_version(operator, **changes)], remarks=remarks)


class GetOperator:
    """Reads operators."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Operator:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Operator:
            require_operator(view, principal, "AccessService.GetOperator")
            return _require(view, name)

        return self._transactions.read(work)


class ListOperators:
    """Lists operators."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, page: Page) -> tuple[list[Operator], str]:
        """Returns a page by name, and the token of the next or "". Raises `PermissionDenied`."""

        def work(view: TrustedView) -> tuple[list[Operator], str]:
            require_operator(view, principal, "AccessService.ListOperators")
            shown, token = page_of(view.find(Operator, limit=page.size + 1, after=page.after), page)
            return list(shown), token

        return self._transactions.read(work)


class DisableOperator:
    """Shuts operators out, at once: a stolen key cannot wait for a second operator."""

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Operator:
        """Disables the operator: no request whose transaction begins later is granted.

        Raises `PermissionDenied`, or `LastOfRole` when nobody else holds one of the operator's roles.
        """
        disabled: Operator | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal disabled
            require_operator(view, principal, "AccessService.DisableOperator")
            operator = _require(view, name)
            remarks = check_remaining(view, operator, lost=set(operator.roles))
            disabled = next_version(operator, state=State.DISABLED)
            details = {"remarks": list(remarks)} if remarks else {}
            return Change(kind="operator_disabled", slow=[disabled], details=details)

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        return disabled


@dataclass(frozen=True, kw_only=True)
class EnabledOperator:
    """Which operator is to be let in again."""

    name: str


class EnableOperator:
    """Lets disabled operators in again."""

    method = "AccessService.EnableOperator"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=EnabledOperator, make=self._plan))

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Proposal:
        """Proposes it. Raises `PermissionDenied`, or `StateConflict` when the operator is not disabled."""
        return self._proposals.propose(principal, self.method, EnabledOperator(name=name), deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, command: EnabledOperator, _: Agreement) -> Change:
        operator = _require(view, command.name)
        if operator.state is not State.DISABLED:
            raise StateConflict("The operator is not disabled.")
        return Change(kind="operator_enabled", slow=[next_version(operator, state=State.ENABLED)])


def check_roles(view: TrustedView, values: OperatorValues) -> None:
    """Checks roles and limits. Raises `InvalidArgument`.

    Organizations limit registration officers and monitors; beside other roles they would limit only a part.
    """
    if len(set(values.roles)) != len(values.roles):
        raise InvalidArgument("operator.roles", "a role is named twice")
    fault = combination_fault(values.roles)
    if fault is not None:
        raise InvalidArgument("operator.roles", fault)
    if values.organizations and not _LIMITED_ROLES.issuperset(values.roles):
        raise InvalidArgument("operator.organizations", "they limit registration officers and monitors alone")
    if len(values.organizations) > _MOST_ORGANIZATIONS:
        raise InvalidArgument("operator.organizations", f"expected at most {_MOST_ORGANIZATIONS}")
    for position, organization in enumerate(values.organizations):
        if view.get(Organization, organization) is None:
            raise InvalidArgument(f"operator.organizations[{position}]", "there is no such organization")


def check_certificate(view: TrustedView, certificate: bytes, *, owner: str, at: datetime) -> tuple[bytes, bytes]:
    """Returns a certificate's fingerprint and its key's SHA-256, neither of which is anyone else's.

    One person with two accounts would be two operators: the same key in another certificate is refused too.
    Raises `InvalidArgument`, `AlreadyExists`.
    """
    field = "operator.certificate"
    key_hash = public_key_hash(certificate, field=field)
    if not has_tls_key(x509.load_der_x509_certificate(certificate)):
        # Such an operator could approve, but never connect.
        raise InvalidArgument(field, f"its key is none of {TLS_KEYS}")
    if at > expire_time(certificate):
        raise InvalidArgument(field, "the certificate has expired")
    fingerprint = hashlib.sha256(certificate).digest()
    # Whether it is nobody's has to be part of what the transaction checks; whose it is, is what `find` saw.
    nobodys = view.has_none(Operator, public_key_hash=key_hash)
    if not nobodys and any(found.name != owner for found in view.find(Operator, public_key_hash=key_hash, limit=2)):
        raise AlreadyExists("The certificate's key is another operator's.")
    if not view.has_none(Client, certificate_fingerprint=fingerprint) or not view.has_none(
        Client, previous_certificate_fingerprint=fingerprint
    ):
        raise AlreadyExists("The certificate is a client's, or was before.")
    return fingerprint, key_hash


def check_remaining(view: TrustedView, operator: Operator, *, lost: set[str]) -> Sequence[str]:
    """Checks that every role that an operator would lose has another enabled holder.

    All operators are read, so that the transaction notices when one of them was disabled or changed meanwhile. Returns
    a remark for each role with which proposals are made and that one operator alone would hold: that is not
    refused, for a stolen key has to be shut out, but it has to be seen. Raises `LastOfRole`.
    """
    if operator.state is not State.ENABLED:
        return ()
    others = [other for other in all_operators(view) if other.name != operator.name and other.state is State.ENABLED]
    remarks = []
    for role in sorted(lost):
        holders = [other.name for other in others if role in other.roles]
        if not holders:
            raise LastOfRole(f"Nobody else is {role}.")
        if len(holders) == 1 and role in PROPOSING_ROLES:
            remarks.append(f"Only {holders[0]} is {role} then: nobody can approve what {holders[0]} proposes as that.")
    return remarks


def all_operators(view: TrustedView) -> list[Operator]:
    """Returns every operator, also disabled ones, by name."""
    found: list[Operator] = []
    while True:
        page = view.find(Operator, limit=_READ_AT_ONCE, after=found[-1].name if found else "")
        found += page
        if len(page) < _READ_AT_ONCE:
            return found


def _require(view: TrustedView, name: str) -> Operator:
    operator = view.get(Operator, name)
    if operator is None:
        raise PermissionDenied
    return operator
