"""How a record becomes a row, for every adapter.

The columns of a table are derived once from the fields of its record class:

    str, StrEnum                 text
    int                          integer (64 bits)
    bool                         boolean (SQLite: integer 0 or 1)
    bytes                        bytes
    datetime                     integer: microseconds since 1970-01-01 UTC
    tuple[str, ...]              text: a JSON array
    tuple[bytes, ...]            text: a JSON array of base64
    … | None                     the same, or NULL

Both directions are strict: what is not exactly of the field's type is refused, so that a row which
was edited by hand never becomes a record that nobody wrote.
"""

import base64
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

from trien_server.core.errors import RecordNotTrusted
from trien_server.core.ports import Sealed
from trien_server.core.records import HOT_RECORDS, SLOW_RECORDS, LogPosition, Outcome, Record, UnsealedEntry

R = TypeVar("R", bound=Record)
T = TypeVar("T")
Value = str | int | bytes | None

OUTCOMES = "outcomes"
"""The table of `Outcome`, which is no `Record`: its key is `request` and it has no seal."""

LOG_POSITIONS, UNSEALED_ENTRIES = "log_positions", "unsealed_entries"
"""The tables of `LogPosition` and `UnsealedEntry`, which are no `Record`s. Each audit entry is in one of them."""

LAST_POSITION = 2**63 - 1
"""The largest that a column holds."""

KEYS = {OUTCOMES: "request", LOG_POSITIONS: "position", UNSEALED_ENTRIES: "entry"}
"""The primary keys of the tables that are no records; that of the others is `name`."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ColumnType(Enum):
    """What a column holds."""

    TEXT = "TEXT"
    INTEGER = "INTEGER"
    BOOLEAN = "BOOLEAN"
    BLOB = "BLOB"


@dataclass(frozen=True)
class Column:
    """One field as a column.

    `encode` raises `TypeError` for a value that is not of the field's type; `decode` raises
    `ValueError` with a finding that does not repeat the value.
    """

    name: str
    type: ColumnType
    nullable: bool
    encode: Callable[[Any], Value]
    decode: Callable[[Any], Any]


@dataclass(frozen=True)
class Index:
    """What is searched on the way of a request. `unique` columns hold a value once, NULL aside."""

    table: str
    columns: tuple[str, ...]
    unique: bool = False


INDEXES: tuple[Index, ...] = (
    Index("clients", ("token_hash",), unique=True),
    Index("clients", ("certificate_fingerprint", "name")),
    Index("clients", ("previous_token_hash", "name")),
    Index("clients", ("previous_certificate_fingerprint", "name")),
    Index("operators", ("certificate_fingerprint", "name")),
    Index("operators", ("public_key_hash", "name")),
    Index("enrolments", ("first_half_hash", "name")),
    Index("enrolments", ("signer", "name")),
    Index("organizations", ("parent", "name")),
    Index("signers", ("organization", "name")),
    Index("keys", ("state", "name")),
    Index("keys", ("object_id", "name")),
    Index("credentials", ("key", "name")),
    Index("credentials", ("signer", "name")),
    Index("activators", ("signer", "name")),
    Index("proposals", ("state", "name")),
    Index("issued_certificates", ("key", "name")),
    Index("issued_certificates", ("state", "name")),
    Index("authenticators", ("signer", "name")),
    Index("activators", ("credential", "name")),
    Index("credential_clients", ("credential", "client", "name")),
    Index("authorizations", ("credential", "name")),
    Index("authorizations", ("client", "name")),
    Index("signature_uses", ("signer", "name")),
    Index("audit_entries", ("subject", "subject_version")),
    Index("audit_entries", ("time",)),
    Index("log_positions", ("entry",), unique=True),
)
"""The indexes that the migrations make. Those that end in `name` give a page in order, without sorting."""


class FieldMapping(Generic[T]):
    """The fields of one frozen class as columns, in the order of declaration."""

    def __init__(self, kind: type[T], table: str) -> None:
        hints = get_type_hints(kind)
        self.kind = kind
        self.table = table
        self.columns = tuple(_column(field.name, hints[field.name]) for field in fields(cast(Any, kind)))
        self.by_name = {column.name: column for column in self.columns}
        self._encoders = tuple((column.name, column.encode) for column in self.columns)
        self._decoders = tuple((column.name, column.decode) for column in self.columns)

    def values(self, record: T) -> list[Value]:
        """Returns the record's values in column order. Raises `TypeError` for a field of another type."""
        try:
            return [encode(getattr(record, name)) for name, encode in self._encoders]
        except TypeError as error:
            raise TypeError(f"{self.kind.__name__}: {error}") from error

    def record(self, values: Sequence[Any]) -> T:
        """Returns the record of a row's values. Raises `RecordNotTrusted` for a row that is no such record."""
        decoded: dict[str, Any] = {}
        for (name, decode), value in zip(self._decoders, values, strict=True):
            try:
                decoded[name] = decode(value)
            except (ValueError, OverflowError, RecursionError) as error:
                raise RecordNotTrusted(self.table, _printable(values[0]), f"{name}: {error}") from None
        return self.kind(**decoded)

    def conditions(self, equal: dict[str, object]) -> list[tuple[str, Value]]:
        """Returns column and value for each field that must be equal. Raises `TypeError` for an unknown field."""
        unknown = equal.keys() - self.by_name.keys()
        if unknown:
            raise TypeError(f"{self.kind.__name__} has no field {', '.join(sorted(unknown))}")
        return [(name, self.by_name[name].encode(value)) for name, value in equal.items()]


class RecordMapping(FieldMapping[R]):
    """A record class as a table: its fields, then `seal_key` and `seal`."""

    def __init__(self, kind: type[R]) -> None:
        super().__init__(kind, kind.table)

    def row(self, sealed: Sealed[R]) -> list[Value]:
        """Returns the values of the whole row. Raises `TypeError` for a value of another type."""
        return [*self.values(sealed.record), _SEAL_KEY.encode(sealed.seal_key), _SEAL.encode(sealed.seal)]

    def sealed(self, row: Sequence[Any]) -> Sealed[R]:
        """Returns the record and its seal, unverified. Raises `RecordNotTrusted` when the row is no such record."""
        record = self.record(row[:-2])
        try:
            return Sealed(record=record, seal_key=_SEAL_KEY.decode(row[-2]), seal=_SEAL.decode(row[-1]))
        except ValueError as error:
            raise RecordNotTrusted(self.table, record.name, f"seal: {error}") from None

    @property
    def all_columns(self) -> tuple[Column, ...]:
        return (*self.columns, _SEAL_KEY, _SEAL)


def mapping_of(kind: type[R]) -> RecordMapping[R]:
    """Returns the mapping of a record class, made at its first use."""
    found = _MAPPINGS.get(kind)
    if found is None:
        found = _MAPPINGS[kind] = RecordMapping(kind)
    return cast("RecordMapping[R]", found)


def tables() -> dict[str, tuple[Column, ...]]:
    """Returns the columns of every table that the records ask for."""
    found = {kind.table: mapping_of(kind).all_columns for kind in (*SLOW_RECORDS, *HOT_RECORDS)}
    return found | {plain.table: plain.columns for plain in (OUTCOME_MAPPING, _POSITION_MAPPING, _UNSEALED_MAPPING)}


def _printable(name: object) -> str:
    return name if isinstance(name, str) else f"({type(name).__name__})"


def _column(name: str, hint: Any) -> Column:
    nullable = False
    if isinstance(hint, UnionType):
        alternatives = [argument for argument in get_args(hint) if argument is not NoneType]
        if len(alternatives) != 1 or NoneType not in get_args(hint):
            raise TypeError(f"{name}: a field has one type, or one or None, not {hint}")
        nullable, hint = True, alternatives[0]
    column_type, encode, decode = _codec(hint)
    if nullable:
        return Column(name, column_type, True, _optional(encode), _optional(decode))
    return Column(name, column_type, False, encode, decode)


def _codec(hint: Any) -> tuple[ColumnType, Callable[[Any], Value], Callable[[Any], Any]]:
    if get_origin(hint) is tuple:
        if get_args(hint) == (str, ...):
            return ColumnType.TEXT, _encode_strings, _decode_strings
        if get_args(hint) == (bytes, ...):
            return ColumnType.TEXT, _encode_byte_strings, _decode_byte_strings
    elif isinstance(hint, type) and issubclass(hint, StrEnum):
        return ColumnType.TEXT, _encode_enum(hint), _decode_enum(hint)
    elif hint in _PLAIN:
        return _PLAIN[hint]
    raise TypeError(f"no column can hold {hint}")


def _optional(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else function(value)


def _exactly(kind: type) -> Callable[[Any], Any]:
    def encode(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
        return value

    return encode


def _read(kind: type) -> Callable[[Any], Any]:
    def decode(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f"{type(value).__name__} where {kind.__name__} belongs")
        return value

    return decode


def _decode_boolean(value: Any) -> bool:
    if type(value) not in (bool, int) or value not in (0, 1):
        raise ValueError("neither true nor false")
    return bool(value)


def _encode_time(value: Any) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError("expected a datetime with a time zone")
    return (value - _EPOCH) // _MICROSECOND


def _decode_time(value: Any) -> datetime:
    if type(value) is not int:
        raise ValueError(f"{type(value).__name__} where a time belongs")
    return _EPOCH + timedelta(microseconds=value)


def _encode_enum(kind: type[StrEnum]) -> Callable[[Any], str]:
    def encode(value: Any) -> str:
        if type(value) is not kind:
            raise TypeError(f"expected {kind.__name__}, not {type(value).__name__}")
        return value.value

    return encode


def _decode_enum(kind: type[StrEnum]) -> Callable[[Any], StrEnum]:
    members: dict[Any, StrEnum] = {member.value: member for member in kind}

    def decode(value: Any) -> StrEnum:
        if type(value) is not str or value not in members:
            raise ValueError(f"no value of {kind.__name__}")
        return members[value]

    return decode


def _encode_strings(value: Any) -> str:
    return _json(_all_of(str, value))


def _encode_byte_strings(value: Any) -> str:
    return _json(base64.b64encode(item).decode() for item in _all_of(bytes, value))


def _all_of(kind: type[T], value: Any) -> tuple[T, ...]:
    if type(value) is not tuple or any(type(item) is not kind for item in value):
        raise TypeError(f"expected a tuple of {kind.__name__}")
    return value


def _json(items: Iterable[str]) -> str:
    return json.dumps(list(items), separators=(",", ":"))


def _decode_strings(value: Any) -> tuple[str, ...]:
    items = json.loads(value) if type(value) is str else None
    if type(items) is not list or any(type(item) is not str for item in items):
        raise ValueError("no JSON array of strings")
    return tuple(items)


def _decode_byte_strings(value: Any) -> tuple[bytes, ...]:
    return tuple(base64.b64decode(item, validate=True) for item in _decode_strings(value))


_PLAIN: dict[Any, tuple[ColumnType, Callable[[Any], Value], Callable[[Any], Any]]] = {
    str: (ColumnType.TEXT, _exactly(str), _read(str)),
    int: (ColumnType.INTEGER, _exactly(int), _read(int)),
    bool: (ColumnType.BOOLEAN, _exactly(bool), _decode_boolean),
    bytes: (ColumnType.BLOB, _exactly(bytes), _read(bytes)),
    datetime: (ColumnType.INTEGER, _encode_time, _decode_time),
}
_SEAL_KEY = _column("seal_key", str)
_SEAL = _column("seal", bytes)
_MAPPINGS: dict[type[Record], RecordMapping[Any]] = {}

OUTCOME_MAPPING: FieldMapping[Outcome] = FieldMapping(Outcome, OUTCOMES)
_POSITION_MAPPING = FieldMapping(LogPosition, LOG_POSITIONS)
_UNSEALED_MAPPING = FieldMapping(UnsealedEntry, UNSEALED_ENTRIES)
