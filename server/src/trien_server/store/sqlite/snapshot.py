"""Records in one SQLite transaction: `core.ports.Snapshot` and `core.ports.Transaction`."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from trien_server.core.errors import RecordNotTrusted, StoreUnavailable
from trien_server.core.ports import NameTaken, Sealed, VersionConflict
from trien_server.core.records import AuditEntry, GrantedRequest, Outcome, Record
from trien_server.store.mapping import LAST_POSITION, OUTCOME_MAPPING, Column, Value, mapping_of
from trien_server.store.sqlite.connections import error_code, is_outage

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class _Statements:
    """The SQL of one table."""

    select: str
    get: str
    insert: str
    replace: str
    remove: str


class SqliteSnapshot:
    """Reads what its connection's transaction sees. Dead once `end` was called, or after an outage."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._ended: Exception | None = None
        self.outage: sqlite3.Error | None = None
        """The error that ended it, whatever `work` made of it."""

    def get(self, kind: type[R], name: str) -> Sealed[R] | None:
        mapping = mapping_of(kind)
        rows = self._query(_statements(kind).get, (name,), kind.table)
        return mapping.sealed(rows[0]) if rows else None

    def find(self, kind: type[R], /, *, limit: int, after: str = "", **equal: object) -> list[Sealed[R]]:
        if limit < 1:
            raise ValueError("limit: expected at least 1")
        mapping = mapping_of(kind)
        sql, values = _statements(kind).select + " WHERE name > ?", [after]
        arguments: list[Value] = [*values]
        for column, value in mapping.conditions(equal):
            sql += f' AND "{column}" IS ?' if value is None else f' AND "{column}" = ?'
            arguments.append(value)
        rows = self._query(sql + " ORDER BY name LIMIT ?", [*arguments, limit], kind.table)
        return [mapping.sealed(row) for row in rows]

    def count(self, kind: type[Record]) -> int:
        (found,) = self._query(f'SELECT count(*) FROM "{kind.table}"', (), kind.table)  # noqa: S608
        return int(found[0])

    def latest_change(self, subject: str) -> Sealed[AuditEntry] | None:
        rows = self._query(
            _statements(AuditEntry).select + " WHERE subject = ? AND subject_version IS NOT NULL"
            " ORDER BY subject_version DESC, name DESC LIMIT 1",
            (subject,),
            AuditEntry.table,
        )
        return mapping_of(AuditEntry).sealed(rows[0]) if rows else None

    def latest_time(self) -> datetime | None:
        return self._time("SELECT max(time) FROM audit_entries")

    def _time(self, sql: str) -> datetime | None:
        rows = self._query(sql, (), AuditEntry.table)
        if rows[0][0] is None:
            return None
        try:
            time: datetime = mapping_of(AuditEntry).by_name["time"].decode(rows[0][0])
        except (ValueError, OverflowError) as error:
            raise RecordNotTrusted(AuditEntry.table, "", f"time: {error}") from None
        return time

    def outcome(self, request: str) -> Outcome | None:
        rows = self._query(_OUTCOME.get, (request,), OUTCOME_MAPPING.table)
        return OUTCOME_MAPPING.record(rows[0]) if rows else None

    def unsealed(self, *, limit: int, after: str = "") -> list[Sealed[AuditEntry]]:
        rows = self._query(_LOG.unsealed, (after, limit), AuditEntry.table)
        return [mapping_of(AuditEntry).sealed(row) for row in rows]

    def oldest_unsealed(self) -> datetime | None:
        return self._time(_LOG.oldest)

    def log(self, first: int, *, limit: int) -> list[tuple[int, Sealed[AuditEntry]]]:
        rows = self._query(_LOG.between, (first, min(first + limit - 1, LAST_POSITION)), AuditEntry.table)
        return [(row[0], mapping_of(AuditEntry).sealed(row[1:])) for row in rows]

    def position(self, entry: str) -> int | None:
        rows = self._query("SELECT position FROM log_positions WHERE entry = ?", (entry,), AuditEntry.table)
        return rows[0][0] if rows else None

    def end(self) -> None:
        """Makes every further call fail: nothing that `work` kept may run outside its transaction."""
        self._ended = self._ended or RuntimeError("the transaction is over")

    def _query(self, sql: str, arguments: Sequence[Value], table: str) -> list[tuple[Any, ...]]:
        try:
            return self._execute(sql, arguments).fetchall()
        except sqlite3.OperationalError as error:
            # Raised while a row is fetched; it is about the row, not about the database.
            if "UTF-8" in str(error):
                raise RecordNotTrusted(table, self._first_garbled(sql, arguments), "a text that is not UTF-8") from None
            raise self._outage(error) from error
        except sqlite3.DatabaseError as error:
            if not is_outage(error):
                raise
            raise self._outage(error) from error

    def _first_garbled(self, sql: str, arguments: Sequence[Value]) -> str:
        """Returns the key of the first row with a text that is not UTF-8: its first text, behind a position if any."""
        self._connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
        try:
            rows = self._connection.execute(sql, arguments).fetchall()
        except sqlite3.Error:
            return ""
        finally:
            self._connection.text_factory = str
        texts = ([value for value in row if isinstance(value, str)] for row in rows)
        garbled = (found[0] for found in texts if any(map(_has_surrogates, found)))
        return next((ascii(key)[1:-1] if _has_surrogates(key) else key for key in garbled), "")

    def _execute(self, sql: str, arguments: Sequence[Value]) -> sqlite3.Cursor:
        if self._ended is not None:
            raise self._ended
        return self._connection.execute(sql, arguments)

    def _outage(self, error: sqlite3.Error) -> StoreUnavailable:
        """SQLite may have rolled back the whole transaction: a further statement would run outside of it."""
        self.outage = error
        self._ended = StoreUnavailable(f"The database cannot be used now: {error}.")
        self._ended.__cause__ = error
        return self._ended


class SqliteTransaction(SqliteSnapshot):
    """Reads and writes in its connection's transaction."""

    def insert(self, row: Sealed[R]) -> None:
        kind = type(row.record)
        if row.record.version != 1:
            raise ValueError(f"{kind.table}: a new record has version 1, not {row.record.version}")
        self._write(_statements(kind).insert, mapping_of(kind).row(row), kind, row.record.name)
        if kind is AuditEntry:
            self._write(_LOG.add_unsealed, (row.record.name,), kind, row.record.name)

    def replace(self, row: Sealed[R]) -> None:
        kind = type(row.record)
        arguments = [*mapping_of(kind).row(row), row.record.name, row.record.version - 1]
        if self._write(_statements(kind).replace, arguments, kind, row.record.name) != 1:
            raise VersionConflict(f"{kind.table}: {row.record.name} has no version {row.record.version - 1}")

    def record_outcome(self, outcome: Outcome) -> None:
        self._write(
            _OUTCOME.insert + " ON CONFLICT (request) DO NOTHING",
            OUTCOME_MAPPING.values(outcome),
            None,
            outcome.request,
        )

    def assign_positions(self, first: int, entries: Sequence[str]) -> None:
        for position, entry in enumerate(entries, first):
            if self._write(_LOG.remove_unsealed, (entry,), None, entry) != 1:
                raise VersionConflict(f"{entry} has a position, or does not exist")
            self._write(_LOG.add_position, (position, entry), AuditEntry, entry)

    def remove(self, kind: type[Record], name: str, *, version: int) -> None:
        if kind is AuditEntry:
            raise ValueError("audit entries are not removed")
        if self._write(_statements(kind).remove, (name, version), kind, name) != 1:
            raise VersionConflict(f"{kind.table}: {name} has no version {version}")
        if kind is GrantedRequest:
            self._write(_OUTCOME.remove, (name,), None, name)

    def put_back(self, row: Sealed[R], *, position: int | None = None) -> None:
        kind, name = type(row.record), row.record.name
        self._write(_statements(kind).insert, mapping_of(kind).row(row), kind, name)
        if kind is AuditEntry and position is None:
            self._write(_LOG.add_unsealed, (name,), kind, name)
        elif kind is AuditEntry:
            self._write(_LOG.add_position, (position, name), kind, name)

    def _write(self, sql: str, arguments: Sequence[Value], kind: type[Record] | None, name: str) -> int:
        try:
            return self._execute(sql, arguments).rowcount
        except sqlite3.IntegrityError as error:
            if kind is not None and error_code(error) in _TAKEN:
                raise NameTaken(f"{kind.table}: {name}: {error}") from error
            raise
        except sqlite3.DatabaseError as error:
            if not is_outage(error):
                raise
            raise self._outage(error) from error


_TAKEN = (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _make_statements(table: str, columns: Sequence[Column], key: str) -> _Statements:
    names = ", ".join(f'"{column.name}"' for column in columns)
    select = f'SELECT {names} FROM "{table}"'  # noqa: S608 - names of classes and fields, nothing from outside
    marks = ", ".join("?" for _ in columns)
    changes = ", ".join(f'"{column.name}" = ?' for column in columns)
    return _Statements(
        select=select,
        get=f'{select} WHERE "{key}" = ?',
        insert=f'INSERT INTO "{table}" ({names}) VALUES ({marks})',  # noqa: S608
        replace=f'UPDATE "{table}" SET {changes} WHERE name = ? AND version = ?',  # noqa: S608
        remove=f'DELETE FROM "{table}" WHERE "{key}" = ?' + (" AND version = ?" if key == "name" else ""),  # noqa: S608
    )


@dataclass(frozen=True)
class _LogStatements:
    """The SQL of the positions in the log."""

    unsealed: str
    between: str
    oldest: str = (
        "SELECT min(time) FROM unsealed_entries CROSS JOIN audit_entries ON audit_entries.name = unsealed_entries.entry"
    )
    add_unsealed: str = "INSERT INTO unsealed_entries (entry) VALUES (?)"
    remove_unsealed: str = "DELETE FROM unsealed_entries WHERE entry = ?"
    add_position: str = "INSERT INTO log_positions (position, entry) VALUES (?, ?)"


def _make_log_statements() -> _LogStatements:
    # CROSS JOIN: SQLite's word for keeping this order, the small table first.
    names = ", ".join(f'audit_entries."{column.name}"' for column in mapping_of(AuditEntry).all_columns)
    return _LogStatements(
        unsealed=f"SELECT {names} FROM unsealed_entries CROSS JOIN audit_entries"  # noqa: S608
        " ON audit_entries.name = unsealed_entries.entry WHERE unsealed_entries.entry > ?"
        " ORDER BY unsealed_entries.entry LIMIT ?",
        between=f"SELECT position, {names} FROM log_positions CROSS JOIN audit_entries"  # noqa: S608
        " ON audit_entries.name = log_positions.entry WHERE position BETWEEN ? AND ? ORDER BY position",
    )


def _statements(kind: type[Record]) -> _Statements:
    found = _STATEMENTS.get(kind)
    if found is None:
        found = _STATEMENTS[kind] = _make_statements(kind.table, mapping_of(kind).all_columns, "name")
    return found


_STATEMENTS: dict[type[Record], _Statements] = {}
_LOG = _make_log_statements()
_OUTCOME = _make_statements(OUTCOME_MAPPING.table, OUTCOME_MAPPING.columns, "request")
