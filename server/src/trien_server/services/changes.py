"""Puts slow records in force: sealed by the token, named by the log with their version (P5)."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from trien_server.core.errors import AlreadyExists, Refusal
from trien_server.core.ports import NameTaken, R, VersionConflict
from trien_server.core.records import Record
from trien_server.services.deadline import Deadline
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView

_NEVER_DESCRIBED = frozenset(
    {
        "version",
        "create_time",
        "encrypted_secret",
        "token_hash",
        "previous_token_hash",
        "first_half_hash",
        "second_half_hash",
        "confirmation_hash",
        "wrapped_key",
        "content",
        "statement",
    }
)
_DESCRIBED_BY_DIGEST = frozenset({"certificate", "certificate_chain", "to_be_signed", "approval_certificate"})


@dataclass(frozen=True, kw_only=True)
class Change:
    """Slow records to put in force, in order, and hot ones that begin with them.

    `details` join what the audit entries say; `remarks`, for people, what a proposal's statement says.
    `afterwards` is called when the change is in force, once or, after a crash, not at all.
    `decide` is asked first, in the transaction, and returns more details; or a refusal, which is recorded with the
    details, and nothing is put in force.
    """

    kind: str
    slow: Sequence[Record]
    hot: Sequence[Record] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    remarks: Sequence[str] = ()
    afterwards: Callable[[], None] | None = None
    decide: Callable[[Ledger], Mapping[str, object] | Refusal] | None = None


class Changes:
    """Makes changes of slow records. May be used from any thread."""

    def __init__(self, *, transactions: Transactions, seals: Seals) -> None:
        self._transactions = transactions
        self._seals = seals

    def make(
        self, actor: str, prepare: Callable[[TrustedView], Change | Sequence[Change]], *, deadline: Deadline
    ) -> None:
        """Puts all records of the change in force, or none; of several changes all together.

        `prepare` checks who may do it and on what it rests; when a row that it read changes meanwhile, it
        runs again. Raises `AlreadyExists`, and what `prepare` raises.
        """

        def attempt() -> Sequence[Change]:
            view, prepared = self._transactions.read(lambda found: (found, prepare(found)))
            changes = [prepared] if isinstance(prepared, Change) else prepared
            rows = [(change, self._seals.seal(record)) for change in changes for record in change.slow]

            def work(ledger: Ledger) -> Refusal | None:
                ledger.assert_unchanged(view)
                decided: dict[str, object] = {}
                for change in changes:
                    answer = {} if change.decide is None else change.decide(ledger)
                    if isinstance(answer, Refusal):
                        return ledger.refuse(answer, {"actor": actor, "action": change.kind, **change.details})
                    decided.update(answer)
                for change, row in rows:
                    details = {"actor": actor, **change.details, **decided, "record": describe(row.record)}
                    try:
                        ledger.put(row, kind=change.kind, details=details)
                    except NameTaken as taken:
                        raise AlreadyExists(f"{row.record.name} exists.") from taken
                    except VersionConflict as conflict:
                        raise Stale from conflict
                for change in changes:
                    for record in change.hot:
                        ledger.put_or_keep(record)
                return None

            self._transactions.run(work, timeout=deadline.remaining())
            return changes

        for change in self._transactions.decide(attempt, deadline=deadline):
            if change.afterwards is not None:
                change.afterwards()

    def swap(self, actor: str, expected: R, record: R, *, kind: str, deadline: Deadline) -> bool:
        """Puts a record in the place of the expected one; returns False, and changes nothing, when another is in force.

        Raises as `make`.
        """
        in_force = True

        def prepare(view: TrustedView) -> Change:
            nonlocal in_force
            in_force = view.require(type(expected), expected.name) == expected
            return Change(kind=kind, slow=[record] if in_force else [])

        self.make(actor, prepare, deadline=deadline)
        return in_force


def describe(record: Record) -> dict[str, object]:
    """Returns what an audit entry says of a record: all but secrets and their hashes; long blobs by SHA-256."""
    described: dict[str, object] = {}
    for column in dataclasses.fields(record):
        value = getattr(record, column.name)
        if column.name not in _NEVER_DESCRIBED and value is not None:
            described[column.name] = _described(value, by_digest=column.name in _DESCRIBED_BY_DIGEST)
    return described


def _described(value: object, *, by_digest: bool) -> object:
    match value:
        case bytes():
            return f"sha256:{hashlib.sha256(value).hexdigest()}" if by_digest and value else value.hex()
        case bool() | int():
            return value
        case datetime():
            return value.isoformat()
        case tuple():
            return [_described(item, by_digest=by_digest) for item in value]
    return str(value)
