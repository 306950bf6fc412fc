"""Reads rows that were verified, and remembers which, so that a transaction can tell whether they changed."""

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.merkle import hash_leaf
from trien_server.core.ports import R, Sealed, Snapshot, Transaction
from trien_server.core.records import AuditEntry, Record
from trien_server.services.seals import Seals


class Stale(Exception):  # noqa: N818 - caught by the use case, which prepares anew
    """A row that the decision was prepared with changed meanwhile."""


class TrustedView:
    """A snapshot's rows, each checked before it is handed out (P5).

    A slow record has to be the one in force: its version is the one that the log names last for it.
    `seen` holds every slow row that was handed out, and the hot ones that were asked for by `get_unchanged`; `absent`
    what `has_none` and that found missing.
    """

    def __init__(self, snapshot: Snapshot, seals: Seals, *, by_any: bool = False) -> None:
        """`by_any` is that of `Seals.verify`."""
        self._snapshot = snapshot
        self._seals = seals
        self._by_any = by_any
        self.seen: dict[tuple[str, str], Sealed[Record]] = {}
        self.absent: list[tuple[type[Record], dict[str, object]]] = []

    def get(self, kind: type[R], name: str) -> R | None:
        """Returns the record of that name, or None. Raises `RecordNotTrusted` or `HsmUnavailable`."""
        row = self._snapshot.get(kind, name)
        if row is not None and row.record.name != name:
            raise self._seals.distrust(kind.table, name, "another row's name came back")
        return None if row is None else self._trust(row)

    def get_unchanged(self, kind: type[R], name: str) -> R | None:
        """Returns a hot record on which the decision rests: a transaction asserts that it stays so. As `get`."""
        row = self._snapshot.get(kind, name)
        if row is None:
            self.absent.append((kind, {"name": name}))
            return None
        if row.record.name != name:
            raise self._seals.distrust(kind.table, name, "another row's name came back")
        record = self._trust(row)
        self.seen[kind.table, name] = row
        return record

    def require(self, kind: type[R], name: str) -> R:
        """Returns the record that another trusted record names. Raises `RecordNotTrusted` when it is gone."""
        record = self.get(kind, name)
        if record is None:
            raise self._seals.distrust(kind.table, name, "a row that another one names is missing")
        return record

    def find(self, kind: type[R], *, limit: int = 1000, after: str = "", **equal: object) -> list[R]:
        """Returns the records whose fields equal the given values, by name. Raises as `get`.

        That they do is checked here: an index that lies must not answer for the rows.
        """
        return [row.record for row in self.find_sealed(kind, limit=limit, after=after, **equal)]

    def find_sealed(self, kind: type[R], *, limit: int = 1000, after: str = "", **equal: object) -> list[Sealed[R]]:
        """Returns the same records with their seals, which were verified."""
        rows = self._snapshot.find(kind, limit=limit, after=after, **equal)
        last = after
        for row in rows:
            record = self._trust(row)
            if record.name <= last or any(getattr(record, field) != value for field, value in equal.items()):
                raise self._seals.distrust(kind.table, record.name, "the database gave it for another question")
            last = record.name
        return rows

    def has_none(self, kind: type[Record], **equal: object) -> bool:
        """Tells whether no record's fields equal the given values; a transaction asserts that it stayed so."""
        if self.find(kind, limit=1, after="", **equal):
            return False
        self.absent.append((kind, equal))
        return True

    def log(self, first: int, end: int) -> list[tuple[int, AuditEntry | RecordNotTrusted]]:
        """Returns each position of the log from `first` until before `end`, with its entry or what is wrong with it.

        One entry that cannot be trusted hides no other: it was reported, and stands for its position.
        """
        try:
            rows = dict(self._snapshot.log(first, limit=end - first))
        except RecordNotTrusted as fault:
            if end - first <= 1:
                return [(first, fault)]
            middle = (first + end) // 2
            return self.log(first, middle) + self.log(middle, end)
        return [(position, self._logged(position, rows.get(position))) for position in range(first, end)]

    def _logged(self, position: int, row: Sealed[AuditEntry] | None) -> AuditEntry | RecordNotTrusted:
        if row is None:
            return self._seals.distrust(AuditEntry.table, "", f"there is no entry at position {position} of the log")
        try:
            return self._trust(row)
        except RecordNotTrusted as fault:
            return fault

    def position(self, entry: str) -> int | None:
        """Returns the position of an audit entry in the log; None when it has none yet."""
        return self._snapshot.position(entry)

    def leaf_hash(self, entry: str) -> bytes:
        """Returns the Merkle leaf hash of an audit entry that a trusted record names."""
        return hash_leaf(self.require(AuditEntry, entry).leaf)

    def signatures(self, request: str) -> tuple[bytes, ...] | None:
        """Returns a granted request's recorded signatures, which are not sealed: verify each."""
        outcome = self._snapshot.outcome(request)
        return None if outcome is None else outcome.signatures

    def _trust(self, row: Sealed[R]) -> R:
        record = self._seals.verify(row, by_any=self._by_any)
        if not record.hot:
            self._check_in_force(record)
            self.seen[record.table, record.name] = Sealed(record=record, seal_key=row.seal_key, seal=row.seal)
        return record

    def _check_in_force(self, record: Record) -> None:
        change = self._snapshot.latest_change(record.name)
        if change is None:
            raise self._seals.distrust(record.table, record.name, "no audit entry names it")
        entry = self._seals.verify(change, by_any=self._by_any)
        if (entry.subject, entry.subject_version) != (record.name, record.version):
            raise self._seals.distrust(record.table, record.name, "it is not the version that the log names last")


def assert_unchanged(transaction: Transaction, view: TrustedView) -> None:
    """Raises `Stale` when a row that a decision rests on is another now, or one that was missing is there."""
    for (_, name), row in view.seen.items():
        if transaction.get(type(row.record), name) != row:
            raise Stale
    for kind, equal in view.absent:
        if transaction.find(kind, limit=1, after="", **equal):
            raise Stale
