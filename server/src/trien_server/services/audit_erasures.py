"""EraseAuditDetails: which entries lose their details, agreed on by two operators."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.audit_selection import Selection
from trien_server.core.errors import InvalidArgument, PermissionDenied, StateConflict
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import AuditEntry, AuditErasure, Proposal
from trien_server.services.audit_entries import log_size, require_reader
from trien_server.services.audit_erasing import AuditErasing
from trien_server.services.changes import Change
from trien_server.services.deadline import Deadline
from trien_server.services.identifiers import new_id
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.texts import parse_text
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

METHOD = "AuditService.EraseAuditDetails"
ABOUT_ERASURES = frozenset({"audit_erasure_agreed", "audit_details_erased"})
"""The kinds of entries that say what was erased, on whose word and why."""
MOST_NAMED = 500
MOST_ENTRIES = 5_000
"""How many entries one proposal is about: a statement names every one of them, and is at most 1 MiB long."""
LONGEST_JUSTIFICATION = 500
_WINDOW = 250
_LEAST_TIME = 5.0
"""What is left for the proposal itself when the log was searched."""
_RESOURCE = re.compile(r"[A-Za-z]+/[A-Za-z0-9][A-Za-z0-9._/-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ErasureQuery:
    """Which entries an operator means: by name, or all that name a resource and are from before a time."""

    audit_entries: tuple[str, ...] = ()
    resource: str = ""
    end_time: datetime | None = None
    justification: str


@dataclass(frozen=True, kw_only=True)
class Erasure:
    """What is proposed: exactly these entries, in the log's order. `resource` says how they were found."""

    name: str
    audit_entries: tuple[str, ...]
    resource: str
    justification: str


class EraseAuditDetails:
    """Proposes to erase details; `AuditErasing` carries out what was agreed on.

    The search is made once, when it is proposed: the proposal names every entry, and what is written later is not
    among them, whatever it names.
    """

    method = METHOD

    def __init__(
        self,
        *,
        transactions: Transactions,
        proposals: Proposals,
        erasing: AuditErasing,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._transactions = transactions
        self._proposals = proposals
        self._clock = clock
        self._randomness = randomness
        proposals.register(
            Plan(
                method=self.method,
                command=Erasure,
                make=_plan,
                done=lambda _: erasing.ask(),
                concerns=_all_organizations,
            )
        )

    def __call__(self, principal: Principal, query: ErasureQuery, *, deadline: Deadline) -> Proposal:
        """Proposes it.

        Raises `PermissionDenied`; `InvalidArgument`, also for more entries than one proposal is about; `StateConflict`
        for an entry that is not in the log yet or was erased; `DeadlineTooShort` when the log is too long to be
        searched in time.
        """
        justification = parse_text(query.justification, field="justification", longest=LONGEST_JUSTIFICATION)
        self._transactions.read(lambda view: require_reader(view, principal, self.method))
        names = self._by_name(query) if query.audit_entries else self._by_resource(query, deadline)
        erasure = Erasure(
            name=f"auditErasures/{new_id(self._randomness)}",
            audit_entries=names,
            resource=query.resource,
            justification=justification,
        )
        return self._proposals.propose(principal, self.method, erasure, deadline=deadline)

    @staticmethod
    def _by_name(query: ErasureQuery) -> tuple[str, ...]:
        if query.resource or query.end_time is not None:
            raise InvalidArgument("audit_entries", "expected either entries, or a resource and an end_time")
        if len(query.audit_entries) > MOST_NAMED:
            raise InvalidArgument("audit_entries", f"expected at most {MOST_NAMED}")
        return tuple(dict.fromkeys(query.audit_entries))

    def _by_resource(self, query: ErasureQuery, deadline: Deadline) -> tuple[str, ...]:
        """Returns the names of the entries that match and were not erased, in the log's order."""
        if _RESOURCE.fullmatch(query.resource) is None:
            raise InvalidArgument("resource", "expected a resource's name, such as 'signers/hoang'")
        if query.end_time is None or query.end_time > self._clock.now():
            raise InvalidArgument("end_time", "expected a time that has passed")
        selection = Selection(resource=query.resource, end_time=query.end_time)
        size = self._transactions.read(log_size)
        found: list[str] = []
        for first in range(0, size, _WINDOW):
            deadline.require(_LEAST_TIME)
            end = min(size, first + _WINDOW)
            entries = self._transactions.read(lambda view, first=first, end=end: view.log(first, end))  # type: ignore[misc]
            for _, entry in entries:
                # One that cannot be trusted was reported, and is not erased: it is to be looked at.
                if isinstance(entry, AuditEntry) and is_erasable(entry) and selection.admits(entry):
                    found.append(entry.name)
            if len(found) > MOST_ENTRIES:
                raise InvalidArgument(
                    "end_time", f"more than {MOST_ENTRIES} entries match: choose an earlier time, and then go on"
                )
        if not found:
            raise InvalidArgument("resource", "no entry with details names it before end_time")
        return tuple(found)


def is_erasable(entry: AuditEntry) -> bool:
    """Tells whether an entry has details, and is not itself about an erasure."""
    return bool(entry.details) and entry.kind not in ABOUT_ERASURES


def _plan(view: TrustedView, command: Erasure, agreement: Agreement) -> Change:
    entries = [_erasable(view, name) for name in command.audit_entries]
    erasure = AuditErasure(
        name=command.name,
        audit_entries=command.audit_entries,
        resource=command.resource,
        justification=command.justification,
        create_time=agreement.at,
    )
    return Change(kind="audit_erasure_agreed", slow=[erasure], remarks=_remarks(entries))


def _erasable(view: TrustedView, name: str) -> AuditEntry:
    entry = view.get(AuditEntry, name)
    if entry is None:
        raise InvalidArgument("audit_entries", f"there is no {name}")
    if not entry.details:
        raise StateConflict(f"The details of {name} were erased before.")
    if not is_erasable(entry):
        raise InvalidArgument("audit_entries", f"{name} says what was erased and why, and stays")
    if view.position(name) is None:
        raise StateConflict(f"{name} has no place in the log yet: try again in some seconds.")
    return entry


def _remarks(entries: list[AuditEntry]) -> list[str]:
    """Returns what the second operator reads first: how many, from when to when, of which kinds."""
    kinds = Counter(entry.kind for entry in entries)
    times = sorted(entry.time for entry in entries)
    return [
        f"The details of {len(entries)} audit entries are erased for good, written from {times[0].isoformat()} to"
        f" {times[-1].isoformat()}. Their times, kinds, subjects and leaves stay, and every receipt verifies.",
        "Kinds: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())) + ".",
    ]


def _all_organizations(_: TrustedView, __: Erasure) -> Iterable[str]:
    """The log is about all of them: an operator who is limited to some has no part in it."""
    raise PermissionDenied
