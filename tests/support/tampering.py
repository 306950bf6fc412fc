"""A database as its administrator sees it: read and written behind the server's back, SQLite and PostgreSQL alike."""

import dataclasses
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Protocol, get_args, get_type_hints

import psycopg
from psycopg import sql

from trien_server.core.records import Record

Row = dict[str, Any]
_MADE_BY_OTHERS = {"alembic_version"}
_EPOCH_LIKE = datetime.fromisoformat("2026-01-01T00:00:00+00:00")


class Tampered(Protocol):
    """What somebody can do who writes to the database. Names and columns come from the live schema."""

    def columns(self) -> dict[str, tuple[str, ...]]: ...
    def rows(self, table: str, key: str = "name") -> list[Row]: ...
    def update(self, table: str, name: str, values: Row) -> None: ...
    def insert(self, table: str, row: Row) -> None: ...
    def delete(self, table: str, name: str, key: str = "name") -> Row: ...


class TamperedSqlite:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def columns(self) -> dict[str, tuple[str, ...]]:
        with closing(sqlite3.connect(self._path)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            return {
                table: tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
                for table in tables
                if table not in _MADE_BY_OTHERS
            }

    def rows(self, table: str, key: str = "name") -> list[Row]:
        with closing(sqlite3.connect(self._path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY {key}")]

    def update(self, table: str, name: str, values: Row) -> None:
        assignments = ", ".join(f'"{column}" = ?' for column in values)
        self._do(f"UPDATE {table} SET {assignments} WHERE name = ?", *values.values(), name)

    def insert(self, table: str, row: Row) -> None:
        columns, marks = ", ".join(f'"{column}"' for column in row), ", ".join("?" for _ in row)
        self._do(f"INSERT INTO {table} ({columns}) VALUES ({marks})", *row.values())

    def delete(self, table: str, name: str, key: str = "name") -> Row:
        (row,) = (row for row in self.rows(table, key) if row[key] == name)
        self._do(f"DELETE FROM {table} WHERE {key} = ?", name)
        return row

    def _do(self, statement: str, *values: Any) -> None:
        with closing(sqlite3.connect(self._path, timeout=30)) as connection, connection:
            assert connection.execute(statement, values).rowcount == 1


class TamperedPostgresql:
    """A PostgreSQL database, with the rights of its superuser."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def columns(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for table, column in self._connection.execute(
            "SELECT c.table_name, c.column_name FROM information_schema.columns c JOIN information_schema.tables t"
            " USING (table_schema, table_name) WHERE t.table_type = 'BASE TABLE' AND c.table_schema NOT IN"
            " ('pg_catalog', 'information_schema') ORDER BY c.table_name, c.ordinal_position"
        ):
            if table not in _MADE_BY_OTHERS:
                found[table] = (*found.get(table, ()), column)
        return found

    def rows(self, table: str, key: str = "name") -> list[Row]:
        statement = sql.SQL("SELECT * FROM {} ORDER BY {}").format(self._table(table), sql.Identifier(key))
        cursor = self._connection.execute(statement)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    def update(self, table: str, name: str, values: Row) -> None:
        assignments = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in values)
        statement = sql.SQL("UPDATE {} SET {} WHERE name = %s").format(self._table(table), assignments)
        assert self._connection.execute(statement, [*values.values(), name]).rowcount == 1

    def insert(self, table: str, row: Row) -> None:
        columns = sql.SQL(", ").join(map(sql.Identifier, row))
        marks = sql.SQL(", ").join(sql.Placeholder() for _ in row)
        statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(self._table(table), columns, marks)
        self._connection.execute(statement, list(row.values()))

    def delete(self, table: str, name: str, key: str = "name") -> Row:
        (row,) = (row for row in self.rows(table, key) if row[key] == name)
        statement = sql.SQL("DELETE FROM {} WHERE {} = %s").format(self._table(table), sql.Identifier(key))
        assert self._connection.execute(statement, [name]).rowcount == 1
        return row

    def _table(self, table: str) -> sql.Identifier:
        (schema,) = self._connection.execute(
            "SELECT table_schema FROM information_schema.tables WHERE table_name = %s", [table]
        ).fetchone() or ("",)
        return sql.Identifier(schema, table)


def other_value(kind: type[Record], column: str, value: Any) -> Any:
    """Returns another value that the record's field can have, so that nothing but the seal can tell."""
    hint: Any = get_type_hints(kind)[column]
    if isinstance(hint, UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    if value is None:
        return _value_of(hint)
    match value:
        case bool():
            return not value
        case StrEnum():
            # An enum with one member has no other value: the row then cannot be read as a record at all.
            return next((member for member in type(value) if member is not value), None)
        case str():
            return f"{value}x"
        case int():
            return value + 1
        case bytes():
            return value + b"x"
        case datetime():
            return value + timedelta(microseconds=1)
        case tuple():
            return (*value, b"x" if get_args(hint)[0] is bytes else "x")
    raise AssertionError(column)


def _value_of(hint: Any) -> Any:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(iter(hint))
    return {str: "x", int: 1, bytes: b"x", datetime: _EPOCH_LIKE}[hint]


def fields_of(kind: type[Record]) -> tuple[str, ...]:
    """Returns the names of a record's fields."""
    return tuple(field.name for field in dataclasses.fields(kind))
