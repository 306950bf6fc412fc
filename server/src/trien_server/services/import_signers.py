"""ImportSigners: a list of signers, entered whole or not at all."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from trien_server.core.errors import AlreadyExists, Busy, InvalidArgument
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Operator, Signer, SignerAttempts
from trien_server.services.access import is_within, require_operator, require_organization
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.organizations import require_open_organization
from trien_server.services.signer_lists import MOST_FAULTS, ListedSigner, ListFault, SignerList, read_signer_list
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

_MOST_TRIES = 3
_LINES_A_READ = 500


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """How many signers were entered (or would be), how many exist with just these values, and what is wrong."""

    entered: int
    unchanged: int
    faults: tuple[ListFault, ...]


class ImportSigners:
    """Enters lists of signers."""

    method = "SignerService.ImportSigners"

    def __init__(self, *, transactions: Transactions, changes: Changes, clock: Clock) -> None:
        self._transactions = transactions
        self._changes = changes
        self._clock = clock

    def __call__(
        self, principal: Principal, content: bytes, *, validate_only: bool, deadline: Deadline
    ) -> ImportResult:
        """Enters all signers of a list in one transaction, with an audit entry each; none when anything is wrong.

        A line whose signer exists with just its values is no fault and changes nothing: so whoever did not get the
        answer imports the list again, and of two who import it at once one enters it. Raises `PermissionDenied`.
        """
        self._transactions.read(lambda view: require_operator(view, principal, self.method))
        listed = read_signer_list(content)
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for _ in range(_MOST_TRIES):
            result, new = self._survey(principal, listed)
            if validate_only or not new:
                return result
            try:
                self._enter(principal, new, digest, deadline)
            except AlreadyExists:
                continue  # Somebody entered one of them meanwhile: what that means for the list is looked at anew.
            return result
        raise Busy("Others enter the same signers.")

    def _enter(self, principal: Principal, new: list[ListedSigner], digest: str, deadline: Deadline) -> None:
        at = self._clock.now()
        signers = [_signer(line, at) for line in new]

        def prepare(view: TrustedView) -> Change:
            operator = require_operator(view, principal, self.method)
            for organization in sorted({signer.organization for signer in signers}):
                require_organization(view, operator, organization)
                require_open_organization(view, organization, field="csv", at=at)
            return Change(
                kind="signer_created",
                slow=signers,
                hot=[SignerAttempts(name=signer.name, failures=0) for signer in signers],
                details={"list": digest},
            )

        self._changes.make(principal.name, prepare, deadline=deadline)

    def _survey(self, principal: Principal, listed: SignerList) -> tuple[ImportResult, list[ListedSigner]]:
        """Returns what entering the list would do, and the signers that are new, none when anything is wrong.

        Some lines at a time, so that no read is long. Those who exist may be others a moment later: that is as if
        the list had come earlier, and those who are new are entered only while they do not exist.
        """
        faults = list(listed.faults)
        new: list[ListedSigner] = []
        for start in range(0, len(listed.signers), _LINES_A_READ):
            if len(faults) >= MOST_FAULTS:
                break
            some = listed.signers[start : start + _LINES_A_READ]
            found, of_them = self._transactions.read(partial(self._look_up, principal, some))
            faults += found
            new += of_them
        if faults:
            ordered = sorted(faults, key=lambda fault: fault.line)[:MOST_FAULTS]
            return ImportResult(entered=0, unchanged=0, faults=tuple(ordered)), []
        return ImportResult(entered=len(new), unchanged=len(listed.signers) - len(new), faults=()), new

    def _look_up(
        self, principal: Principal, lines: Sequence[ListedSigner], view: TrustedView
    ) -> tuple[list[ListFault], list[ListedSigner]]:
        """Returns what is wrong with lines in this installation, and those whose signers are new."""
        operator = require_operator(view, principal, self.method)
        faults: list[ListFault] = []
        new: list[ListedSigner] = []
        organizations: dict[str, str | None] = {}
        for line in lines:
            if line.organization not in organizations:
                organizations[line.organization] = self._organization_fault(view, operator, line.organization)
            fault = organizations[line.organization]
            existing = view.get(Signer, line.name)
            if existing is not None:
                taken = _taken(view, operator, existing, line)
                faults += [ListFault(line=line.line, column="id", message=taken)] if taken else []
            elif fault is not None:
                faults.append(ListFault(line=line.line, column="organization", message=fault))
            else:
                new.append(line)
        return faults, new

    def _organization_fault(self, view: TrustedView, operator: Operator, name: str) -> str | None:
        if not is_within(view, operator.organizations, name):
            return "there is no such organization, or you enter none of its signers"
        try:
            require_open_organization(view, name, field="organization", at=self._clock.now())
        except InvalidArgument as fault:
            return fault.message.removeprefix("organization: ")
        return None


def _signer(line: ListedSigner, at: datetime) -> Signer:
    return Signer(
        name=line.name,
        display_name=line.display_name,
        kind=line.kind,
        organization=line.organization,
        position=line.position,
        email=line.email,
        phone=line.phone,
        create_time=at,
    )


def _taken(view: TrustedView, operator: Operator, existing: Signer, line: ListedSigner) -> str:
    """Returns what to say of a line whose signer exists with other values, and "" when they are the same."""
    pairs = {
        "name": (existing.display_name, line.display_name),
        "organization": (existing.organization, line.organization),
        "kind": (existing.kind, line.kind),
        "position": (existing.position, line.position),
        "email": (existing.email, line.email),
        "phone": (existing.phone, line.phone),
    }
    differing = [column for column, (present, wanted) in pairs.items() if present != wanted]
    if not differing:
        return ""
    if not is_within(view, operator.organizations, existing.organization):
        return "a signer of that id exists"
    return f"a signer of that id exists, with another {' and '.join(differing)}"
