"""DisableKey, EnableKey, DestroyKey and CancelKeyDestruction: from which state to which, and who has to agree."""

from dataclasses import dataclass
from datetime import timedelta

from trien_server.core.errors import InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.principal import Principal
from trien_server.core.records import CertificateAuthority, Credential, Key, KeyState, Proposal
from trien_server.services.access import require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

DEFAULT_DELAY_DAYS = 30
LONGEST_DELAY_DAYS = 365

_WHY_NOT = {
    KeyState.PENDING_GENERATION: "The key is still being generated.",
    KeyState.ENABLED: "The key is enabled.",
    KeyState.DISABLED: "The key is disabled.",
    KeyState.GENERATION_FAILED: "The key was never generated: make another one.",
    KeyState.DESTROY_SCHEDULED: "The key's destruction is scheduled: cancel that first.",
    KeyState.DESTROYING: "The key is being destroyed, which cannot be stopped any more.",
    KeyState.DESTROYED: "The key is destroyed.",
}


@dataclass(frozen=True, kw_only=True)
class KeyUse:
    """A credential or certificate authority that uses a key, as the second operator reads it in the proposal."""

    name: str
    signer: str
    display_name: str


@dataclass(frozen=True, kw_only=True)
class KeyToEnable:
    """Which key is to be used again, and by what."""

    name: str
    used_by: tuple[KeyUse, ...]


@dataclass(frozen=True, kw_only=True)
class KeyToDestroy:
    """Which key is to be destroyed, how many days after the approval, and what uses it until then."""

    name: str
    delay_days: int
    used_by: tuple[KeyUse, ...]


class DisableKey:
    """Takes keys out of use."""

    method = "KeyService.DisableKey"

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Key:
        """Disables an enabled key: no signature whose transaction begins later is granted.

        Raises `PermissionDenied`, `StateConflict`.
        """
        disabled: Key | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal disabled
            require_operator(view, principal, self.method)
            disabled = next_version(_require(view, name, KeyState.ENABLED), state=KeyState.DISABLED)
            return Change(kind="key_disabled", slow=[disabled])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if disabled is None:
            raise AssertionError("a change was made without being prepared")
        return disabled


class EnableKey:
    """Takes disabled keys into use again."""

    method = "KeyService.EnableKey"

    def __init__(self, *, transactions: Transactions, proposals: Proposals) -> None:
        self._transactions = transactions
        self._proposals = proposals
        proposals.register(Plan(method=self.method, command=KeyToEnable, make=self._plan))

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Proposal:
        """Proposes to enable a disabled key. Raises `PermissionDenied`, `StateConflict`."""
        used_by = _uses_for(self._transactions, principal, self.method, name)
        return self._proposals.propose(
            principal, self.method, KeyToEnable(name=name, used_by=used_by), deadline=deadline
        )

    @staticmethod
    def _plan(view: TrustedView, command: KeyToEnable, _: Agreement) -> Change:
        enabled = next_version(_require(view, command.name, KeyState.DISABLED), state=KeyState.ENABLED)
        _require_same_uses(view, command.name, command.used_by)
        return Change(kind="key_enabled", slow=[enabled])


class DestroyKey:
    """Schedules the destruction of keys; `KeyDestruction` carries it out when its time has come."""

    method = "KeyService.DestroyKey"

    def __init__(self, *, transactions: Transactions, proposals: Proposals) -> None:
        self._transactions = transactions
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=KeyToDestroy,
                make=self._plan,
                set_on_approval=frozenset({"destroy_time"}),
            )
        )

    def __call__(self, principal: Principal, name: str, *, delay_days: int, deadline: Deadline) -> Proposal:
        """Proposes to destroy an enabled or disabled key, `delay_days` after the approval; 0 is the default.

        From the approval on nothing signs with it. Raises `PermissionDenied`, `InvalidArgument`, `StateConflict`.
        """
        if not 0 <= delay_days <= LONGEST_DELAY_DAYS:
            raise InvalidArgument("delay_days", f"expected 1 to {LONGEST_DELAY_DAYS}, or 0 for {DEFAULT_DELAY_DAYS}")
        used_by = _uses_for(self._transactions, principal, self.method, name)
        command = KeyToDestroy(name=name, delay_days=delay_days or DEFAULT_DELAY_DAYS, used_by=used_by)
        return self._proposals.propose(principal, self.method, command, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, command: KeyToDestroy, agreement: Agreement) -> Change:
        key = _require(view, command.name, KeyState.ENABLED, KeyState.DISABLED)
        _require_same_uses(view, command.name, command.used_by)
        scheduled = next_version(
            key,
            state=KeyState.DESTROY_SCHEDULED,
            destroy_time=agreement.at + timedelta(days=command.delay_days),
        )
        return Change(kind="key_destruction_scheduled", slow=[scheduled])


class CancelKeyDestruction:
    """Keeps keys whose destruction is scheduled. Of it and `KeyDestruction`, whichever commits first wins."""

    method = "KeyService.CancelKeyDestruction"

    def __init__(self, *, changes: Changes) -> None:
        self._changes = changes

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> Key:
        """Keeps the key: it is disabled then. Raises `PermissionDenied`, `StateConflict`."""
        kept: Key | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal kept
            require_operator(view, principal, self.method)
            key = _require(view, name, KeyState.DESTROY_SCHEDULED)
            kept = next_version(key, state=KeyState.DISABLED, destroy_time=None)
            return Change(kind="key_destruction_cancelled", slow=[kept])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if kept is None:
            raise AssertionError("a change was made without being prepared")
        return kept


def _require(view: TrustedView, name: str, *states: KeyState) -> Key:
    """Returns a key in one of the states. Raises `PermissionDenied` when there is none, `StateConflict`."""
    key = view.get(Key, name)
    if key is None:
        raise PermissionDenied
    if key.state not in states:
        raise StateConflict(_WHY_NOT[key.state])
    return key


def _uses_for(transactions: Transactions, principal: Principal, method: str, name: str) -> tuple[KeyUse, ...]:
    """Returns what uses a key, for an operator who may call the method. Raises `PermissionDenied`."""

    def read(view: TrustedView) -> tuple[KeyUse, ...]:
        require_operator(view, principal, method)
        return _uses_of(view, name)

    return transactions.read(read)


def _uses_of(view: TrustedView, name: str) -> tuple[KeyUse, ...]:
    # That there is none is asserted again by the transaction.
    credentials = [] if view.has_none(Credential, key=name) else view.find(Credential, key=name)
    return (
        *(KeyUse(name=used.name, signer=used.signer, display_name=used.display_name) for used in credentials),
        *(KeyUse(name=used.name, signer="", display_name="") for used in view.find(CertificateAuthority, key=name)),
    )


def _require_same_uses(view: TrustedView, name: str, expected: tuple[KeyUse, ...]) -> None:
    """Raises `StateConflict` when other credentials use the key than those that the proposal names."""
    if _uses_of(view, name) != expected:
        raise StateConflict("Other credentials use the key than when it was proposed.")
