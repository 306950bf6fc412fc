"""Rows as lines of text, the same for every database: what backups are made of.

A line is a JSON array: the table, the row's values in the order of its columns, and for an audit entry its position in
the log or null. Bytes are base64. Both directions are strict, as `mapping` is.
"""

import base64
import json
from collections.abc import Sequence
from functools import cache
from typing import Any

from trien_server.core.backups import KeptRow, NotABackup
from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import Sealed
from trien_server.core.records import HOT_RECORDS, SLOW_RECORDS, AuditEntry, Outcome, Record
from trien_server.store.mapping import OUTCOME_MAPPING, OUTCOMES, Column, ColumnType, Value, mapping_of

_KINDS: dict[str, type[Record]] = {kind.table: kind for kind in (*SLOW_RECORDS, *HOT_RECORDS)}


def line_of(row: KeptRow) -> bytes:
    """Returns a row as a line, with the line feed at its end."""
    content = row.content
    if isinstance(content, Outcome):
        parts: list[Any] = [OUTCOMES, _texts(_blobs(OUTCOMES), OUTCOME_MAPPING.values(content))]
    else:
        kind = type(content.record)
        parts = [kind.table, _texts(_blobs(kind.table), mapping_of(kind).row(content))]
        if kind is AuditEntry:
            parts.append(row.position)
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def row_of(line: bytes) -> KeptRow:
    """Returns the row of a line, with its seal as it is. Raises `NotABackup`."""
    try:
        table, values, *position = json.loads(line)
        if table == OUTCOMES:
            if position:
                raise ValueError("an outcome has no position")
            return KeptRow(content=OUTCOME_MAPPING.record(_values(OUTCOMES, values)))
        kind = _KINDS[table]
        if len(position) != (kind is AuditEntry) or any(type(at) is not int for at in position if at is not None):
            raise ValueError("an entry has a position or null")
        sealed: Sealed[Record] = mapping_of(kind).sealed(_values(table, values))
    except (ValueError, KeyError, TypeError, RecursionError, RecordNotTrusted) as fault:
        raise NotABackup("A row of it cannot be read.") from fault
    return KeptRow(content=sealed, position=position[0] if position else None)


@cache
def _columns(table: str) -> tuple[Column, ...]:
    return OUTCOME_MAPPING.columns if table == OUTCOMES else mapping_of(_KINDS[table]).all_columns


@cache
def _blobs(table: str) -> tuple[int, ...]:
    return tuple(at for at, column in enumerate(_columns(table)) if column.type is ColumnType.BLOB)


def _texts(blobs: Sequence[int], values: list[Value]) -> list[Value]:
    for at in blobs:
        value = values[at]
        if isinstance(value, bytes):
            values[at] = base64.b64encode(value).decode()
    return values


def _values(table: str, values: list[Any]) -> list[Any]:
    if len(values) != len(_columns(table)):
        raise ValueError("another number of columns")
    for at in _blobs(table):
        if values[at] is not None:
            values[at] = base64.b64decode(values[at], validate=True)
    return values
