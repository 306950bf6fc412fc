"""ImportSigners: a list of signers, entered whole or not at all."""

import hashlib
from dataclasses import dataclass

from trien_server.core.errors import AlreadyExists, Busy, InvalidArgument
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Operator, Signer, SignerAttempts
from trien_server.services.access import is_within, require_operator
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.organizations import require_open_organization
from trien_server.services.signer_lists import MOST_FAULTS, ListedSigner, ListFault, SignerList, read_signer_list
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

_MOST_TRIES = 3
_TAKEN = "a signer of that id exists"


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
        if validate_only or listed.faults:
            return self._transactions.read(lambda view: self._checked(view, principal, listed)[0])
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        for _ in range(_MOST_TRIES):
            try:
                return self._enter(principal, listed, digest, deadline)
            except AlreadyExists:
                continue  # Somebody entered one of them meanwhile: what that means for the list is looked at anew.
        raise Busy("Others enter the same signers.")

    def _enter(self, principal: Principal, listed: SignerList, digest: str, deadline: Deadline) -> ImportResult:
        result = ImportResult(entered=0, unchanged=0, faults=())

        def prepare(view: TrustedView) -> Change:
            nonlocal result
            result, new = self._checked(view, principal, listed)
            signers = [] if result.faults else [self._signer(line) for line in new]
            return Change(
                kind="signer_created",
                slow=signers,
                hot=[SignerAttempts(name=signer.name, failures=0) for signer in signers],
                details={"list": digest},
            )

        self._changes.make(principal.name, prepare, deadline=deadline)
        return result

    def _signer(self, line: ListedSigner) -> Signer:
        return Signer(
            name=line.name,
            display_name=line.display_name,
            kind=line.kind,
            organization=line.organization,
            position=line.position,
            email=line.email,
            phone=line.phone,
            create_time=self._clock.now(),
        )

    def _checked(
        self, view: TrustedView, principal: Principal, listed: SignerList
    ) -> tuple[ImportResult, list[ListedSigner]]:
        """Returns what entering the list would do, and the signers that are new."""
        operator = require_operator(view, principal, self.method)
        faults = list(listed.faults)
        organizations: dict[str, str | None] = {}
        new: list[ListedSigner] = []
        for line in listed.signers:
            if len(faults) >= MOST_FAULTS:
                break
            if line.organization not in organizations:
                organizations[line.organization] = self._organization_fault(view, operator, line.organization)
            fault = organizations[line.organization]
            existing = view.get(Signer, line.name)
            if existing is None:
                if fault is None:
                    new.append(line)
                else:
                    faults.append(ListFault(line=line.line, column="organization", message=fault))
            elif (differing := _differing(existing, line)) and is_within(
                view, operator.organizations, existing.organization
            ):
                message = f"{_TAKEN}, with another {' and '.join(differing)}"
                faults.append(ListFault(line=line.line, column="id", message=message))
            elif differing:
                faults.append(ListFault(line=line.line, column="id", message=_TAKEN))
        if faults:
            ordered = tuple(sorted(faults, key=lambda fault: fault.line))
            return ImportResult(entered=0, unchanged=0, faults=ordered), []
        return ImportResult(entered=len(new), unchanged=len(listed.signers) - len(new), faults=()), new

    def _organization_fault(self, view: TrustedView, operator: Operator, name: str) -> str | None:
        if not is_within(view, operator.organizations, name):
            return "there is no such organization, or you enter none of its signers"
        try:
            require_open_organization(view, name, field="organization", at=self._clock.now())
        except InvalidArgument as fault:
            return fault.message.removeprefix("organization: ")
        return None


def _differing(existing: Signer, line: ListedSigner) -> list[str]:
    """Returns the columns in which an existing signer differs from a line."""
    pairs = {
        "name": (existing.display_name, line.display_name),
        "organization": (existing.organization, line.organization),
        "kind": (existing.kind, line.kind),
        "position": (existing.position, line.position),
        "email": (existing.email, line.email),
        "phone": (existing.phone, line.phone),
    }
    return [column for column, (present, wanted) in pairs.items() if present != wanted]
