"""Puts slow records in force: sealed by the token, named by the log with their version (P5)."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trien_server.core.errors import AlreadyExists
from trien_server.core.ports import NameTaken, VersionConflict
from trien_server.core.records import Record
from trien_server.services.deadline import Deadline
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView

_NEVER_DESCRIBED = frozenset({"version", "encrypted_secret", "token_hash", "certificate_chain", "create_time"})


@dataclass(frozen=True, kw_only=True)
class Change:
    """Slow records to put in force, in order, and hot ones that begin with them."""

    kind: str
    slow: Sequence[Record]
    hot: Sequence[Record] = ()


class Changes:
    """Makes changes of slow records. May be used from any thread."""

    def __init__(self, *, transactions: Transactions, seals: Seals) -> None:
        self._transactions = transactions
        self._seals = seals

    def make(self, actor: str, prepare: Callable[[TrustedView], Change], *, deadline: Deadline) -> None:
        """Puts all records of the change in force, or none.

        `prepare` checks who may do it and on what it rests; when a row that it read changes meanwhile, it
        runs again. Raises `AlreadyExists`, and what `prepare` raises.
        """

        def attempt() -> None:
            view, change = self._transactions.read(lambda found: (found, prepare(found)))
            rows = [self._seals.seal(record) for record in change.slow]

            def work(ledger: Ledger) -> None:
                ledger.assert_unchanged(view)
                for row in rows:
                    try:
                        ledger.put(row, kind=change.kind, details={"actor": actor, "record": describe(row.record)})
                    except NameTaken as taken:
                        raise AlreadyExists(f"{row.record.name} exists.") from taken
                    except VersionConflict as conflict:
                        raise Stale from conflict
                for record in change.hot:
                    ledger.put_or_keep(record)

            self._transactions.run(work, timeout=deadline.remaining())

        self._transactions.decide(attempt, deadline=deadline)


def describe(record: Record) -> dict[str, object]:
    """Returns what an audit entry says of a record: everything but secrets, hashes of secrets and long blobs."""
    described: dict[str, object] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name in _NEVER_DESCRIBED or value is None:
            continue
        match value:
            case bytes():
                described[field.name] = value.hex()
            case bool() | int():
                described[field.name] = value
            case _:
                described[field.name] = str(value)
    return described
