"""Signers: who they are, and whether they may sign."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trien_server.core.attempts import OPERATOR_LIMIT
from trien_server.core.delivery_addresses import parse_address
from trien_server.core.errors import InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import (
    AuthenticatorKind,
    ClientAttempts,
    Organization,
    Proposal,
    Record,
    Signer,
    SignerAttempts,
    SignerKind,
    SignerState,
)
from trien_server.services.access import is_within, require_operator, require_organization
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.enrolments import open_enrolments
from trien_server.services.notices import Notices
from trien_server.services.organizations import require_open_organization
from trien_server.services.paging import Page, page_of, token_behind
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import Stale, TrustedView

_MOST_LOOKED_AT = 1000
"""How many signers one page of a limited operator's list looks through."""


class CreateSigner:
    """Enters signers."""

    method = "SignerService.CreateSigner"

    def __init__(self, *, changes: Changes, clock: Clock) -> None:
        self._changes = changes
        self._clock = clock

    def __call__(
        self,
        principal: Principal,
        *,
        name: str,
        display_name: str,
        kind: SignerKind,
        organization: str,
        position: str,
        email: str = "",
        phone: str = "",
        deadline: Deadline,
    ) -> Signer:
        """Returns the new signer. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        signer = Signer(
            name=name,
            display_name=parse_title(display_name, field="signer.display_name"),
            kind=kind,
            organization=organization,
            position=parse_title(position, field="signer.position", required=False),
            email=parse_contact(AuthenticatorKind.EMAIL, email, field="signer.email"),
            phone=parse_contact(AuthenticatorKind.SMS, phone, field="signer.phone"),
            create_time=self._clock.now(),
        )

        def prepare(view: TrustedView) -> Change:
            operator = require_operator(view, principal, self.method)
            require_organization(view, operator, organization)
            require_open_organization(view, organization, field="signer.organization", at=self._clock.now())
            return Change(kind="signer_created", slow=[signer], hot=[SignerAttempts(name=name, failures=0)])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return signer


class GetSigner:
    """Reads signers."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Signer:
        """Returns it. Raises `PermissionDenied`."""
        return self._transactions.read(lambda view: _require_signer(view, principal, name, "SignerService.GetSigner"))


class ListSigners:
    """Lists signers."""

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, *, organization: str | None, page: Page) -> tuple[list[Signer], str]:
        """Returns a page by name, of one organization or all, and the token of the next or "".

        For an operator who is limited to organizations a page can have fewer than there are. Raises
        `PermissionDenied`.
        """

        def work(view: TrustedView) -> tuple[list[Signer], str]:
            operator = require_operator(view, principal, "SignerService.ListSigners")
            if organization is None and operator.organizations:
                return _within(view, operator.organizations, page)
            equal = {}
            if organization is not None:
                require_organization(view, operator, organization)
                if view.get(Organization, organization) is None:
                    raise PermissionDenied
                equal = {"organization": organization}
            shown, token = page_of(view.find(Signer, limit=page.size + 1, after=page.after, **equal), page)
            return list(shown), token

        return self._transactions.read(work)


@dataclass(frozen=True, kw_only=True)
class SignerValues:
    """A signer with all values that it is to have."""

    name: str
    display_name: str
    organization: str
    position: str = ""
    email: str = ""
    phone: str = ""


class UpdateSigner:
    """Gives signers another name, post, organization or addresses.

    The person is told of other addresses, at the old and the new ones, once they are in force; after a crash just then
    perhaps not: the audit log says it nevertheless.
    """

    method = "SignerService.UpdateSigner"

    def __init__(self, *, proposals: Proposals, notices: Notices, clock: Clock) -> None:
        self._proposals = proposals
        self._notices = notices
        self._clock = clock
        proposals.register(Plan(method=self.method, command=SignerValues, make=self._plan, concerns=self._concerns))

    def __call__(self, principal: Principal, wanted: SignerValues, *, deadline: Deadline) -> Proposal:
        """Proposes the values. Raises `PermissionDenied`, `InvalidArgument`."""
        return self._proposals.propose(principal, self.method, wanted, deadline=deadline)

    @staticmethod
    def _concerns(view: TrustedView, wanted: SignerValues) -> list[str]:
        return [*organizations_of(view, wanted.name), wanted.organization]

    def _plan(self, view: TrustedView, wanted: SignerValues, _: Agreement) -> Change:
        current = view.get(Signer, wanted.name)
        if current is None:
            raise PermissionDenied
        if wanted.organization != current.organization:
            at = self._clock.now()
            require_open_organization(view, wanted.organization, field="signer.organization", at=at)
        changed = next_version(
            current,
            display_name=parse_title(wanted.display_name, field="signer.display_name"),
            organization=wanted.organization,
            position=parse_title(wanted.position, field="signer.position", required=False),
            email=parse_contact(AuthenticatorKind.EMAIL, wanted.email, field="signer.email"),
            phone=parse_contact(AuthenticatorKind.SMS, wanted.phone, field="signer.phone"),
        )
        if next_version(current) == changed:
            raise InvalidArgument("signer", "it has these values already")
        return Change(
            kind="signer_updated",
            slow=[changed],
            afterwards=lambda: self._notices.tell_of_addresses(current, changed),
        )


class DisableSigner:
    """Shuts signers out."""

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Signer:
        """Disables the signer: nothing of the signer's is granted in a transaction that begins later.

        One who is disabled stays so, without another entry: a call whose answer was lost can be repeated. Raises
        `PermissionDenied`.
        """
        disabled: Signer | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal disabled
            current = _require_signer(view, principal, name, "SignerService.DisableSigner")
            if current.state is SignerState.DISABLED:
                disabled = current
                return Change(kind="signer_disabled", slow=[])
            disabled = next_version(current, state=SignerState.DISABLED)
            return Change(kind="signer_disabled", slow=[disabled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        return disabled


@dataclass(frozen=True, kw_only=True)
class NamedSigner:
    """Which signer a proposal is about."""

    name: str


class EnableSigner:
    """Lets signers sign again who were disabled or froze themselves; their counts of wrong codes begin anew."""

    method = "SignerService.EnableSigner"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=NamedSigner,
                make=self._plan,
                concerns=lambda view, named: organizations_of(view, named.name),
            )
        )

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Proposal:
        """Proposes it. Raises `PermissionDenied`, `StateConflict` for one who is enabled."""
        return self._proposals.propose(principal, self.method, NamedSigner(name=name), deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, named: NamedSigner, agreement: Agreement) -> Change:
        current = view.get(Signer, named.name)
        if current is None:
            raise PermissionDenied
        if current.state is SignerState.ENABLED:
            raise StateConflict("The signer is enabled.")
        counts = _unlocked(view, view.require(SignerAttempts, named.name), failures=0)

        def begin_anew(ledger: Ledger) -> Mapping[str, object]:
            _replace_counts(ledger, counts)
            return {}

        enabled = next_version(current, state=SignerState.ENABLED)
        # Perhaps the person was frozen because of it.
        remarks = [
            f"{enrolment.name} is open: who has its code can go on, unless it is cancelled before."
            for enrolment in open_enrolments(view, named.name, at=agreement.at)
        ]
        return Change(kind="signer_enabled", slow=[enabled], remarks=remarks, decide=begin_anew)


class UnlockSigner:
    """Ends locks that wrong one-time passwords brought about.

    The wrong ones in a row are counted on, up to the hundred after which two operators have to act: an officer who
    unlocked without end would give an application that guesses as many guesses as it needs (P9).
    """

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Signer:
        """Ends the signer's lock, and every client's for this signer.

        Raises `PermissionDenied`, or `StateConflict` after a hundred wrong ones in a row.
        """

        def attempt() -> Signer:
            def read(view: TrustedView) -> tuple[TrustedView, Signer, list[Record]]:
                signer = _require_signer(view, principal, name, "SignerService.UnlockSigner")
                count = view.require(SignerAttempts, name)
                if count.failures >= OPERATOR_LIMIT:
                    raise StateConflict(
                        f"{OPERATOR_LIMIT} wrong codes came in a row: disable the signer, and have a second operator "
                        "approve that the signer is enabled again."
                    )
                return view, signer, _unlocked(view, count, failures=count.failures)

            view, signer, counts = self._transactions.read(read)

            def work(ledger: Ledger) -> None:
                ledger.assert_unchanged(view)
                _replace_counts(ledger, counts)
                ledger.record("signer_unlocked", {"actor": principal.name, "signer": name})

            self._transactions.run(work, timeout=deadline.remaining())
            return signer

        return self._transactions.decide(attempt, deadline=deadline)


def _unlocked(view: TrustedView, count: SignerAttempts, *, failures: int) -> list[Record]:
    """Returns the counts of wrong codes, of a signer and of every client for this signer, without locks."""
    counts: list[Record] = [next_version(count, failures=failures, lock_failures=0, locked_until=None)]
    after = f"{count.name}/clients/"
    while found := view.find(ClientAttempts, limit=500, after=after):
        for of_client in found:
            if not of_client.name.startswith(f"{count.name}/clients/"):
                return counts
            counts.append(next_version(of_client, failures=0, blocks=0, blocked_until=None))
        after = found[-1].name
    return counts


def _replace_counts(ledger: Ledger, counts: Iterable[Record]) -> None:
    for changed in counts:
        current = ledger.get(type(changed), changed.name)
        if current is None or current.version != changed.version - 1:
            raise Stale
        ledger.replace(changed)


def parse_contact(kind: AuthenticatorKind, value: str, *, field: str) -> str:
    """Returns an address at which a signer is told things, as it is kept, or "" for none. Raises `InvalidArgument`."""
    return parse_address(kind, value, field=field) if value else ""


def organizations_of(view: TrustedView, signer: str) -> list[str]:
    """Returns the organization of a signer, for `Plan.concerns`; of one who does not exist none that exists."""
    found = view.get(Signer, signer)
    return ["" if found is None else found.organization]


def _require_signer(view: TrustedView, principal: Principal, name: str, method: str) -> Signer:
    """Returns a signer whom the calling operator may see, by a method that it may call."""
    operator = require_operator(view, principal, method)
    signer = view.get(Signer, name)
    if signer is None:
        raise PermissionDenied
    require_organization(view, operator, signer.organization)
    return signer


def _within(view: TrustedView, limits: tuple[str, ...], page: Page) -> tuple[list[Signer], str]:
    """Returns the signers of organizations within limits, among the next ones by name."""
    known: dict[str, bool] = {}
    shown: list[Signer] = []
    looked_at = view.find(Signer, limit=_MOST_LOOKED_AT, after=page.after)
    for signer in looked_at:
        if signer.organization not in known:
            known[signer.organization] = is_within(view, limits, signer.organization)
        if known[signer.organization]:
            if len(shown) == page.size:
                return shown, token_behind(shown[-1].name)
            shown.append(signer)
    return shown, token_behind(looked_at[-1].name) if len(looked_at) == _MOST_LOOKED_AT else ""
