"""Seals rows anew by the sealing key in use, and wraps keys anew by the wrapping key in use, a few at a time."""

from collections.abc import Iterator

from trien_server.core import sealing
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import Clock, Hsm, KeyMismatch, R, Report, Sealed, WrappingNotSupported
from trien_server.core.records import (
    SLOW_RECORDS,
    AuthenticatorState,
    ClientAttempts,
    InstallationKey,
    InstallationKeyState,
    IssuedCertificate,
    IssuedCertificateState,
    Key,
    KeyState,
    Record,
    SignerAttempts,
)
from trien_server.services.access import reference_of
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

UNDATED: tuple[type[Record], ...] = (AuthenticatorState, SignerAttempts, ClientAttempts)
"""The hot records that live on and have no date by which a retired key could be held to what it sealed in time."""
_PAGE = 200
_TOGETHER = 16
"""How many rows are sealed anew in one transaction: what others change meanwhile is prepared anew."""
_SECONDS = 30.0


class Left:
    """What a pass over all rows found that could not be made anew yet."""

    def __init__(self) -> None:
        self.done = 0
        self.waiting = 0


class Resealing:
    """Goes through all rows; each step is a transaction of its own, and a crash between two loses nothing.

    A row that is sealed anew gets a new version, named by the log: the old one, put back, does not pass (P5). Whatever
    a worker is making (a key, a certificate) is left to it, and counted as waiting.
    """

    def __init__(self, *, transactions: Transactions, changes: Changes, clock: Clock) -> None:
        self._transactions = transactions
        self._changes = changes
        self._clock = clock

    def steps(self, active: int, left: Left) -> Iterator[None]:
        """Yields after each transaction, until every row was looked at."""
        for kind in SLOW_RECORDS:
            for names in self._due(kind, active, left):
                left.done += self._reseal(kind, names, active)
                yield
        for kind in UNDATED:
            for names in self._due(kind, active, left):
                left.done += self._reseal_hot(kind, names)
                yield

    def _due(self, kind: type[R], active: int, left: Left) -> Iterator[list[str]]:
        """Yields the names of rows that other generations sealed, a few at a time."""
        after: str | None = ""
        while after is not None:
            rows = self._page(kind, after)
            due = [row.record for row in rows if sealing.generation_of(row.seal_key, hot=kind.hot) != active]
            left.waiting += sum(_is_being_made(record) for record in due)
            names = [record.name for record in due if not _is_being_made(record)]
            for begin in range(0, len(names), _TOGETHER):
                yield names[begin : begin + _TOGETHER]
            after = rows[-1].record.name if len(rows) == _PAGE else None

    def _page(self, kind: type[R], after: str) -> list[Sealed[R]]:
        return self._transactions.read(lambda view: view.find_sealed(kind, limit=_PAGE, after=after))

    def _reseal(self, kind: type[Record], names: list[str], active: int) -> int:
        resealed: list[Record] = []

        def prepare(view: TrustedView) -> Change:
            nonlocal resealed
            resealed = []
            for name in names:
                record = view.get(kind, name)
                row = view.seen.get((kind.table, name))
                if record is None or row is None or _is_being_made(record):
                    continue
                if sealing.generation_of(row.seal_key, hot=False) != active:
                    resealed.append(next_version(record))
            return Change(kind="resealed", slow=resealed)

        self._changes.make("server", prepare, deadline=Deadline(self._clock, _SECONDS))
        return len(resealed)

    def _reseal_hot(self, kind: type[Record], names: list[str]) -> int:
        def work(ledger: Ledger) -> int:
            found = [record for name in names if (record := ledger.get(kind, name)) is not None]
            for record in found:
                ledger.replace(next_version(record))
            return len(found)

        return self._transactions.run(work, timeout=_SECONDS)


class Rewrapping:
    """Goes through all wrapped keys; each step is one key.

    The key is wrapped anew inside the token, proved to sign as the record's key, and then its record changes. A crash
    between the two leaves the record as it was and nothing on the token; requests that read the old record go on, for
    the old wrapping key stays.
    """

    def __init__(self, *, hsm: Hsm, transactions: Transactions, changes: Changes, clock: Clock, report: Report) -> None:
        self._hsm = hsm
        self._transactions = transactions
        self._changes = changes
        self._clock = clock
        self._report = report

    def steps(self, active: int, left: Left) -> Iterator[None]:
        """Yields after each key, until every one was looked at. Raises `WrappingNotSupported`."""
        after: str | None = ""
        while after is not None:
            keys = self._page(after)
            for key in keys:
                if key.state is KeyState.PENDING_GENERATION:
                    left.waiting += 1
                elif key.wrapped_key is not None and key.wrapping_generation != active:
                    done = self._rewrap(key, active)
                    left.done += done
                    left.waiting += not done
                    yield
            after = keys[-1].name if len(keys) == _PAGE else None

    def _page(self, after: str) -> list[Key]:
        return self._transactions.read(lambda view: view.find(Key, limit=_PAGE, after=after))

    def _rewrap(self, key: Key, active: int) -> bool:
        """Wraps one key anew; returns False when it has to be tried again, or cannot be."""
        try:
            pair = self._hsm.rewrap(reference_of(key), generation=active)
        except (HsmUnavailable, WrappingNotSupported):
            raise
        except KeyMismatch as mismatch:
            self._report("key_not_rewrapped", {"key": key.name, "because": str(mismatch)})
            return False
        anew = next_version(key, wrapped_key=pair.wrapped_key, wrapping_generation=active)
        return self._changes.swap("server", key, anew, kind="key_rewrapped", deadline=Deadline(self._clock, _SECONDS))


def _is_being_made(record: Record) -> bool:
    """Tells whether a worker is making what the record names, and expects to find the record as it left it."""
    match record:
        case Key(state=KeyState.PENDING_GENERATION | KeyState.DESTROYING):
            return True
        case IssuedCertificate(state=IssuedCertificateState.PENDING_ISSUANCE):
            return True
        case InstallationKey(state=InstallationKeyState.PENDING_GENERATION):
            return True
    return False
