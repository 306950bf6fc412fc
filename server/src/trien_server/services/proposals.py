"""The two-person rule (P9): what is proposed, and what a second operator's approval carries out."""

import contextlib
import dataclasses
import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from cryptography.exceptions import InvalidSignature

from trien_server.core.approval import approval_text, statement_digest, verify_approval
from trien_server.core.content import canonical, from_json, to_json
from trien_server.core.errors import (
    ApprovalNotValid,
    Busy,
    ClockNotTrusted,
    DeadlineTooShort,
    DeliveryFailed,
    DeliveryLimitReached,
    HsmUnavailable,
    InvalidArgument,
    OwnProposal,
    PermissionDenied,
    ProposalNotPending,
    RateLimitReached,
    RecordNotTrusted,
    Refusal,
    StoreUnavailable,
)
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import Operator, Proposal, ProposalState, Record, State
from trien_server.core.roles import may
from trien_server.services.access import require_operator, require_organization
from trien_server.services.changes import Change, Changes, describe
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.texts import parse_title
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

LIFETIME = timedelta(days=7)
"""How long a proposal can be approved."""
HOST = "host"
"""The proposer when the server's own command line proposes: who has the server, its database and the token's PIN."""

LARGEST_STATEMENT = 1024 * 1024
"""How many bytes a statement has at most: an answer holds it whole, and a person has to read it."""

_PASSING: tuple[type[Refusal], ...] = (
    Busy,
    ClockNotTrusted,
    DeadlineTooShort,
    DeliveryFailed,
    DeliveryLimitReached,
    HsmUnavailable,
    RateLimitReached,
    RecordNotTrusted,
    StoreUnavailable,
)
"""What says nothing of the proposal: it stays pending, and the approval may come again."""

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Who agrees on a change, and when. `approver` is empty while it is only proposed."""

    proposer: str
    approver: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[C]):
    """How a method's command becomes a change of records.

    `make` checks the command against what is in force and raises the refusal of the first fault; it is called when the
    change is proposed and again when it is carried out, and both times it has to come to the same change, but for
    the fields in `set_on_approval`. `done` is called after the change is in force, once or not at all (a crash): what
    it begins has to be found again from the records. `concerns` returns the organizations that a command is about: an
    operator who is limited to others neither proposes it nor decides on it.
    """

    method: str
    command: type[C]
    make: Callable[[TrustedView, C, Agreement], Change]
    set_on_approval: frozenset[str] = frozenset()
    done: Callable[[Sequence[Record]], None] | None = None
    concerns: Callable[[TrustedView, C], Iterable[str]] | None = None

    def require_within(self, view: TrustedView, operator: Operator, command: C) -> None:
        """Raises `PermissionDenied` when the operator is limited to other organizations than the command is about."""
        if self.concerns is not None and operator.organizations:
            for organization in self.concerns(view, command):
                require_organization(view, operator, organization)


class Proposals:
    """Makes proposals and decides on them. May be used from any thread."""

    def __init__(self, *, transactions: Transactions, changes: Changes, clock: Clock, randomness: Randomness) -> None:
        self._transactions = transactions
        self._changes = changes
        self._clock = clock
        self._randomness = randomness
        self._plans: dict[str, Plan[Any]] = {}

    def register(self, plan: Plan[Any]) -> None:
        """Takes a method's plan, once, while everything is built."""
        if plan.method in self._plans:
            raise AssertionError(f"{plan.method} has a plan")
        self._plans[plan.method] = plan

    @property
    def methods(self) -> frozenset[str]:
        """The methods that have a plan."""
        return frozenset(self._plans)

    def require_within(self, view: TrustedView, operator: Operator, proposal: Proposal) -> None:
        """Raises `PermissionDenied` when the operator is limited to other organizations than a proposal is about."""
        plan = self._plans.get(proposal.method)
        if plan is not None:
            with contextlib.suppress(ValueError):  # An earlier version made it: an approval finds it outdated.
                plan.require_within(view, operator, from_json(plan.command, json.loads(proposal.content)))

    def propose(self, principal: Principal, method: str, command: object, *, deadline: Deadline) -> Proposal:
        """Enters a proposal of an operator who may call the method.

        Raises `PermissionDenied`, and what the method's plan raises: what could not be carried out now is not
        proposed.
        """

        def key_hash_of(view: TrustedView) -> bytes:
            operator = require_operator(view, principal, method)
            self._plans[method].require_within(view, operator, command)
            return operator.public_key_hash

        return self._enter(principal.name, key_hash_of, method, command, deadline=deadline)

    def propose_from_host(self, method: str, command: object, *, deadline: Deadline) -> Proposal:
        """Enters a proposal of the server's own command line, for one operator to approve. Raises as `propose`."""
        return self._enter(HOST, lambda _: b"", method, command, deadline=deadline)

    def _enter(
        self,
        proposer: str,
        key_hash_of: Callable[[TrustedView], bytes],
        method: str,
        command: object,
        *,
        deadline: Deadline,
    ) -> Proposal:
        plan = self._plans[method]
        name = f"proposals/{new_id(self._randomness)}"
        entered: Proposal | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal entered
            key_hash = key_hash_of(view)
            at = self._clock.now()
            change = plan.make(view, command, Agreement(proposer=proposer, approver="", at=at))
            content = to_json(command)
            statement = canonical(
                {
                    "proposal": name,
                    "method": method,
                    "proposer": proposer,
                    "createTime": at.isoformat(),
                    "expireTime": (at + LIFETIME).isoformat(),
                    "request": content,
                    "changes": _described(view, change, plan.set_on_approval),
                    **({"remarks": list(change.remarks)} if change.remarks else {}),
                }
            )
            if len(statement.encode()) > LARGEST_STATEMENT:
                raise InvalidArgument("statement", "it is too much for one proposal: propose it in smaller parts")
            entered = Proposal(
                name=name,
                method=method,
                content=canonical(content),
                statement=statement,
                digest=statement_digest(statement),
                proposer=proposer,
                proposer_key_hash=key_hash,
                resources=tuple(record.name for record in change.slow),
                create_time=at,
                expire_time=at + LIFETIME,
            )
            return Change(kind="proposal_created", slow=[entered])

        self._changes.make(proposer, prepare, deadline=deadline)
        if entered is None:
            raise AssertionError("a change was made without being prepared")
        return entered

    def approve(
        self, principal: Principal, name: str, *, digest: bytes, signature: bytes, deadline: Deadline
    ) -> Proposal:
        """Approves another operator's proposal and carries it out, in one transaction; returns it as it is then.

        When the change is no longer what the statement says, or its proposer may no longer propose it, the proposal
        becomes OUTDATED and nothing is done. Raises `PermissionDenied`, `ProposalNotPending`, `OwnProposal`,
        `ApprovalNotValid`.
        """
        decided: Proposal | None = None
        executed: Sequence[Record] = ()

        def prepare(view: TrustedView) -> list[Change]:
            nonlocal decided, executed
            at = self._clock.now()
            proposal, operator = self._decidable(view, principal, name, "ProposalService.ApproveProposal", at)
            if not hmac.compare_digest(digest, proposal.digest):
                raise ApprovalNotValid("digest", "it is not this proposal's")
            try:
                verify_approval(operator.certificate, approval_text(proposal.name, proposal.digest), signature)
            except InvalidSignature as fault:
                raise ApprovalNotValid("signature", "it is not your key's over this proposal") from fault
            approval = {
                "decider": operator.name,
                "decide_time": at,
                "approval_signature": signature,
                "approval_certificate": operator.certificate,
            }
            change, because = self._change_of(view, proposal, operator, at)
            if change is None:
                executed = ()
                decided = next_version(proposal, state=ProposalState.OUTDATED, **approval)
                return [Change(kind="proposal_outdated", slow=[decided], details={"because": because})]
            executed = change.slow
            decided = next_version(proposal, state=ProposalState.EXECUTED, **approval)
            details = {**change.details, "proposal": proposal.name, "proposer": proposal.proposer}
            return [
                Change(kind="proposal_executed", slow=[decided]),
                dataclasses.replace(change, details=details),
            ]

        self._changes.make(principal.name, prepare, deadline=deadline)
        if decided is None:
            raise AssertionError("a change was made without being prepared")
        done = self._plans[decided.method].done if executed else None
        if done is not None:
            done(executed)
        return decided

    def reject(self, principal: Principal, name: str, *, reason: str, deadline: Deadline) -> Proposal:
        """Rejects another operator's proposal. Raises `PermissionDenied`, `ProposalNotPending`, `OwnProposal`."""
        said = parse_title(reason, field="reason", required=False)

        def prepare(view: TrustedView) -> tuple[Proposal, str]:
            method = "ProposalService.RejectProposal"
            return self._decidable(view, principal, name, method, self._clock.now())[0], said

        return self._end(principal, prepare, ProposalState.REJECTED, deadline=deadline)

    def cancel(self, principal: Principal, name: str, *, deadline: Deadline) -> Proposal:
        """Withdraws one's own proposal. Raises `PermissionDenied`, `ProposalNotPending`."""

        def prepare(view: TrustedView) -> tuple[Proposal, str]:
            operator = require_operator(view, principal, "ProposalService.CancelProposal")
            proposal = view.get(Proposal, name)
            if proposal is None or proposal.proposer != operator.name:
                raise PermissionDenied
            _require_pending(proposal, self._clock.now())
            return proposal, ""

        return self._end(principal, prepare, ProposalState.CANCELLED, deadline=deadline)

    def _end(
        self,
        principal: Principal,
        find: Callable[[TrustedView], tuple[Proposal, str]],
        state: ProposalState,
        *,
        deadline: Deadline,
    ) -> Proposal:
        ended: Proposal | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal ended
            proposal, because = find(view)
            ended = next_version(proposal, state=state, decider=principal.name, decide_time=self._clock.now())
            details = {"because": because} if because else {}
            return Change(kind=f"proposal_{state.lower()}", slow=[ended], details=details)

        self._changes.make(principal.name, prepare, deadline=deadline)
        if ended is None:
            raise AssertionError("a change was made without being prepared")
        return ended

    def _decidable(
        self, view: TrustedView, principal: Principal, name: str, method: str, at: datetime
    ) -> tuple[Proposal, Operator]:
        """Returns a pending proposal and the operator who may decide on it by a method."""
        operator = require_operator(view, principal, method)
        proposal = view.get(Proposal, name)
        if proposal is None or not may(operator.roles, proposal.method):
            raise PermissionDenied
        _require_pending(proposal, at)
        # Also not through another account of a key that the proposer had then, or has now.
        proposer = None if proposal.proposer == HOST else view.get(Operator, proposal.proposer)
        keys = {proposal.proposer_key_hash, *(() if proposer is None else (proposer.public_key_hash,))}
        if operator.name == proposal.proposer or operator.public_key_hash in keys:
            raise OwnProposal
        self.require_within(view, operator, proposal)
        return proposal, operator

    def _change_of(
        self, view: TrustedView, proposal: Proposal, approver: Operator, at: datetime
    ) -> tuple[Change | None, str]:
        """Returns the change to carry out; or None, and why it is not the one that was read and approved."""
        plan = self._plans.get(proposal.method)
        if plan is None:
            return None, "this server has no such method"
        proposer = None if proposal.proposer == HOST else view.get(Operator, proposal.proposer)
        if proposal.proposer != HOST and (
            proposer is None or proposer.state is not State.ENABLED or not may(proposer.roles, proposal.method)
        ):
            return None, "its proposer may no longer propose it"
        agreement = Agreement(proposer=proposal.proposer, approver=approver.name, at=at)
        try:
            command = from_json(plan.command, json.loads(proposal.content))
            if proposer is not None:
                plan.require_within(view, proposer, command)
            change = plan.make(view, command, agreement)
        except _PASSING:
            raise
        except Refusal as refusal:
            return None, f"{refusal.reason}: {refusal.message}"
        except ValueError:
            return None, "an earlier version of the server made it"
        stated = json.loads(proposal.statement)
        if json.loads(canonical({"": _described(view, change, plan.set_on_approval)}))[""] != stated["changes"]:
            return None, "what it would change has changed"
        if list(change.remarks) != stated.get("remarks", []):
            return None, "what follows from it has changed"
        return change, ""


def _require_pending(proposal: Proposal, at: datetime) -> None:
    if proposal.state is not ProposalState.PENDING:
        raise ProposalNotPending(f"The proposal is {proposal.state.lower()}.")
    if at >= proposal.expire_time:
        raise ProposalNotPending("The proposal's time is over.")


def _described(view: TrustedView, change: Change, omitted: frozenset[str]) -> list[Mapping[str, object]]:
    """Returns what a statement says of a change: for each record its fields that differ, before and after."""
    described: list[Mapping[str, object]] = []
    for record in change.slow:
        before: dict[str, object] = {}
        if record.version > 1:
            before = describe(view.require(type(record), record.name))
        after = describe(record)
        fields = {
            name: {"before": before.get(name), "after": after.get(name)}
            for name in sorted(before.keys() | after.keys())
            if name not in omitted and before.get(name) != after.get(name)
        }
        described.append({"record": record.name, "version": record.version, "fields": fields})
    return described
