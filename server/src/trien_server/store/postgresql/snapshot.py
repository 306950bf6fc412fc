"""Records in one PostgreSQL transaction: `core.ports.Snapshot` and `core.ports.Transaction`.

A transaction begins with its first statement. A text with U+0000, which PostgreSQL cannot hold, names nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import NameTaken, Sealed, VersionConflict
from trien_server.core.records import AuditEntry, GrantedRequest, Outcome, Record
from trien_server.store.mapping import INDEXES, LAST_POSITION, OUTCOME_MAPPING, Column, Value, mapping_of
from trien_server.store.postgresql.connections import Connection, is_conflict, is_outage, unavailable
from trien_server.store.postgresql.lineage import Witness

R = TypeVar("R", bound=Record)

_LATEST_TIME = "SELECT max(time) FROM audit_entries"


@dataclass(frozen=True)
class _Statements:
    """The SQL of one table."""

    select: str
    get: str
    insert: str
    replace: str
    remove: str


class PostgresqlSnapshot:
    """Reads what its connection's transaction sees. Dead once `end` was called, or after an error of the database."""

    def __init__(self, connection: Connection, begin: str) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._begin = begin
        self._ended: Exception | None = None
        self.begun = False
        self.answered = False
        """Whether the server answered anything: before that, a lost connection was dead already."""
        self.outage: psycopg.Error | None = None
        """The error that ended it, whatever `work` made of it."""

    def get(self, kind: type[R], name: str) -> Sealed[R] | None:
        rows = self._query(_statements(kind).get, (name,))
        return mapping_of(kind).sealed(rows[0]) if rows else None

    def find(self, kind: type[R], /, *, limit: int, after: str = "", **equal: object) -> list[Sealed[R]]:
        if limit < 1:
            raise ValueError("limit: expected at least 1")
        mapping = mapping_of(kind)
        sql = _statements(kind).select + " WHERE name > $1"
        arguments: list[Value] = [after]
        for column, value in mapping.conditions(equal):
            if value is None:
                sql += f' AND "{column}" IS NULL'
            else:
                arguments.append(value)
                sql += f' AND "{column}" = ${len(arguments)}'
        sql += f" ORDER BY name LIMIT ${len(arguments) + 1}"
        return [mapping.sealed(row) for row in self._query(sql, [*arguments, limit])]

    def count(self, kind: type[Record]) -> int:
        (found,) = self._query(f'SELECT count(*) FROM "{kind.table}"', ())  # noqa: S608 - a class's name
        return int(found[0])

    def latest_change(self, subject: str) -> Sealed[AuditEntry] | None:
        rows = self._query(
            _statements(AuditEntry).select + " WHERE subject = $1 AND subject_version IS NOT NULL"
            " ORDER BY subject_version DESC, name DESC LIMIT 1",
            (subject,),
        )
        return mapping_of(AuditEntry).sealed(rows[0]) if rows else None

    def latest_time(self) -> datetime | None:
        return _time(self._query(_LATEST_TIME, ()))

    def outcome(self, request: str) -> Outcome | None:
        rows = self._query(_OUTCOME.get, (request,))
        return OUTCOME_MAPPING.record(rows[0]) if rows else None

    def unsealed(self, *, limit: int, after: str = "") -> list[Sealed[AuditEntry]]:
        return [mapping_of(AuditEntry).sealed(row) for row in self._query(_LOG.unsealed, (after, limit))]

    def oldest_unsealed(self) -> datetime | None:
        return _time(self._query(_LOG.oldest, ()))

    def log(self, first: int, *, limit: int) -> list[tuple[int, Sealed[AuditEntry]]]:
        rows = self._query(_LOG.between, (first, min(first + limit - 1, LAST_POSITION)))
        return [(row[0], mapping_of(AuditEntry).sealed(row[1:])) for row in rows]

    def position(self, entry: str) -> int | None:
        rows = self._query("SELECT position FROM log_positions WHERE entry = $1", (entry,))
        return rows[0][0] if rows else None

    def end(self) -> None:
        """Makes every further call fail: nothing that `work` kept may run outside its transaction."""
        self._ended = self._ended or RuntimeError("the transaction is over")

    def _query(self, sql: str, arguments: Sequence[Value]) -> list[tuple[Any, ...]]:
        self._require_alive()
        if any(type(argument) is str and "\0" in argument for argument in arguments):
            return []
        self._ensure_begun()
        return self._execute(sql, arguments)

    def _ensure_begun(self) -> None:
        if not self.begun:
            try:
                self._connection.command(self._begin)
            except psycopg.Error as error:
                raise self._outage(error) from error
            self.begun = self.answered = True

    def _execute(self, sql: str, arguments: Sequence[Value]) -> list[tuple[Any, ...]]:
        try:
            rows = self._cursor.execute(sql.encode(), arguments, binary=True).fetchall()
        except psycopg.Error as error:
            raise self._outage(error) from error
        self.answered = True
        return rows

    def _require_alive(self) -> None:
        if self._ended is not None:
            raise self._ended

    def _outage(self, error: psycopg.Error) -> Exception:
        """PostgreSQL takes no further statement of a transaction that met an error."""
        self.outage = error
        self._ended = unavailable(error) if is_outage(error) else error
        return self._ended


class PostgresqlTransaction(PostgresqlSnapshot):
    """Reads and writes in its connection's transaction.

    `latest_time`, asked before anything else, is read just before the transaction begins: nearly every
    transaction asks for it and writes a later one, so as a part of the serializable transaction each would
    be in conflict with all that run at the same time. It misses at most what was not committed yet.
    """

    def __init__(self, connection: Connection, begin: str) -> None:
        super().__init__(connection, begin)
        self.transaction_id: str | None = None
        """The transaction's 64-bit identifier, once it wrote."""
        self.witness: Witness | None = None

    def latest_time(self) -> datetime | None:
        self._require_alive()
        return super().latest_time() if self.begun else _time(self._execute(_LATEST_TIME, ()))

    def insert(self, row: Sealed[R]) -> None:
        kind = type(row.record)
        if row.record.version != 1:
            raise ValueError(f"{kind.table}: a new record has version 1, not {row.record.version}")
        if not self._write(_statements(kind).insert, mapping_of(kind).row(row)):
            raise NameTaken(f"{kind.table}: {row.record.name}")
        if kind is AuditEntry:
            self._write(_LOG.add_unsealed, (row.record.name,))
        if self.witness is None or kind is AuditEntry:
            self.witness = Witness(kind.table, "name", row.record.name, 1)

    def replace(self, row: Sealed[R]) -> None:
        kind, name, version = type(row.record), row.record.name, row.record.version
        arguments = [*mapping_of(kind).row(row), name, version - 1]
        if kind.table in _UNIQUE_TABLES:
            written = self._write_behind_savepoint(_statements(kind).replace, arguments, f"{kind.table}: {name}")
        else:
            written = self._write(_statements(kind).replace, arguments)
        if not written:
            raise VersionConflict(f"{kind.table}: {name} has no version {version - 1}")
        if self.witness is None:
            self.witness = Witness(kind.table, "name", name, version)

    def record_outcome(self, outcome: Outcome) -> None:
        if self._write(_OUTCOME.insert, OUTCOME_MAPPING.values(outcome)) and self.witness is None:
            self.witness = Witness(OUTCOME_MAPPING.table, "request", outcome.request, None)

    def assign_positions(self, first: int, entries: Sequence[str]) -> None:
        for position, entry in enumerate(entries, first):
            if not self._write(_LOG.remove_unsealed, (entry,)):
                raise VersionConflict(f"{entry} has a position, or does not exist")
            if not self._write(_LOG.add_position, (position, entry)):
                raise NameTaken(f"{entry}: position {position} is taken")
            if self.witness is None:
                self.witness = Witness("log_positions", "entry", entry, None)

    def remove(self, kind: type[Record], name: str, *, version: int) -> None:
        if kind is AuditEntry:
            raise ValueError("audit entries are not removed")
        if not self._write(_statements(kind).remove, (name, version)):
            raise VersionConflict(f"{kind.table}: {name} has no version {version}")
        if kind is GrantedRequest:
            self._write(_OUTCOME.remove, (name,))

    def put_back(self, row: Sealed[R], *, position: int | None = None) -> None:
        kind, name = type(row.record), row.record.name
        if not self._write(_statements(kind).insert, mapping_of(kind).row(row)):
            raise NameTaken(f"{kind.table}: {name}")
        if kind is AuditEntry and not self._write(
            *((_LOG.add_unsealed, (name,)) if position is None else (_LOG.add_position, (position, name)))
        ):
            raise NameTaken(f"{name}: position {position} is taken")
        if self.witness is None:
            self.witness = Witness(kind.table, "name", name, row.record.version)

    def _write(self, sql: str, arguments: Sequence[Value]) -> bool:
        """Tells whether a row was written. A row that came meanwhile makes it a conflict, and all runs again."""
        self._require_alive()
        _require_storable(arguments)
        self._ensure_begun()
        rows = self._execute(sql, arguments)
        if rows and self.transaction_id is None:
            self.transaction_id = rows[0][0]
        return bool(rows)

    def _write_behind_savepoint(self, sql: str, arguments: Sequence[Value], what: str) -> bool:
        """As `_write`; raises `NameTaken` when another row has a value that must be unique."""
        self._require_alive()
        _require_storable(arguments)
        self._ensure_begun()
        try:
            self._connection.command("SAVEPOINT unique_value")
            try:
                rows = self._cursor.execute(sql.encode(), arguments, binary=True).fetchall()
            except psycopg.errors.UniqueViolation as error:
                self._connection.command("ROLLBACK TO unique_value; RELEASE unique_value")
                raise NameTaken(f"{what}: {error.diag.constraint_name}") from error
            self._connection.command("RELEASE unique_value")
        except psycopg.Error as error:
            raise self._outage(error) from error
        if rows and self.transaction_id is None:
            self.transaction_id = rows[0][0]
        return bool(rows)


def _require_storable(arguments: Sequence[Value]) -> None:
    if any(type(argument) is str and "\0" in argument for argument in arguments):
        raise ValueError("a text with U+0000 cannot be stored")


def _time(rows: list[tuple[Any, ...]]) -> datetime | None:
    if rows[0][0] is None:
        return None
    try:
        time: datetime = mapping_of(AuditEntry).by_name["time"].decode(rows[0][0])
    except (ValueError, OverflowError) as error:
        raise RecordNotTrusted(AuditEntry.table, "", f"time: {error}") from None
    return time


def refusal_of(view: PostgresqlSnapshot) -> Exception | None:
    """Returns what the caller is told of the error that ended a view; None when there was none, or a conflict."""
    if view.outage is None or is_conflict(view.outage):
        return None
    return unavailable(view.outage) if is_outage(view.outage) else view.outage


def _make_statements(table: str, columns: Sequence[Column], key: str) -> _Statements:
    names = ", ".join(f'"{column.name}"' for column in columns)
    select = f'SELECT {names} FROM "{table}"'  # noqa: S608 - names of classes and fields, nothing from outside
    marks = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
    changes = ", ".join(f'"{column.name}" = ${number}' for number, column in enumerate(columns, 1))
    where = f"name = ${len(columns) + 1} AND version = ${len(columns) + 2}"
    return _Statements(
        select=select,
        get=f'{select} WHERE "{key}" = $1',
        insert=f'INSERT INTO "{table}" ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING {_RETURNING}',  # noqa: S608
        replace=f'UPDATE "{table}" SET {changes} WHERE {where} {_RETURNING}',  # noqa: S608
        remove=f'DELETE FROM "{table}" WHERE "{key}" = $1'  # noqa: S608
        + (" AND version = $2 " if key == "name" else " ")
        + _RETURNING,
    )


@dataclass(frozen=True)
class _LogStatements:
    """The SQL of the positions in the log."""

    unsealed: str
    between: str
    oldest: str
    add_unsealed: str
    remove_unsealed: str
    add_position: str


def _make_log_statements() -> _LogStatements:
    names = ", ".join(f'audit_entries."{column.name}"' for column in mapping_of(AuditEntry).all_columns)
    unsealed = "unsealed_entries JOIN audit_entries ON audit_entries.name = unsealed_entries.entry"
    positions = "log_positions JOIN audit_entries ON audit_entries.name = log_positions.entry"
    return _LogStatements(
        unsealed=f"SELECT {names} FROM {unsealed} WHERE unsealed_entries.entry > $1"  # noqa: S608
        " ORDER BY unsealed_entries.entry LIMIT $2",
        between=f"SELECT position, {names} FROM {positions} WHERE position BETWEEN $1 AND $2"  # noqa: S608
        " ORDER BY position",
        oldest=f"SELECT min(time) FROM {unsealed}",  # noqa: S608
        add_unsealed=f"INSERT INTO unsealed_entries (entry) VALUES ($1) ON CONFLICT DO NOTHING {_RETURNING}",  # noqa: S608
        remove_unsealed=f"DELETE FROM unsealed_entries WHERE entry = $1 {_RETURNING}",  # noqa: S608
        add_position="INSERT INTO log_positions (position, entry) VALUES ($1, $2)"  # noqa: S608
        f" ON CONFLICT DO NOTHING {_RETURNING}",
    )


def _statements(kind: type[Record]) -> _Statements:
    found = _STATEMENTS.get(kind)
    if found is None:
        found = _STATEMENTS[kind] = _make_statements(kind.table, mapping_of(kind).all_columns, "name")
    return found


_RETURNING = "RETURNING pg_current_xact_id()::text"
_UNIQUE_TABLES = frozenset(index.table for index in INDEXES if index.unique)
_STATEMENTS: dict[type[Record], _Statements] = {}
_LOG = _make_log_statements()
_OUTCOME = _make_statements(OUTCOME_MAPPING.table, OUTCOME_MAPPING.columns, "request")
