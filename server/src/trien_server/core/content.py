"""Commands as JSON, so that what was proposed is what is carried out.

A command is a frozen dataclass of `str`, `int`, `bool`, `bytes` (base64), aware `datetime` (ISO 8601), `StrEnum`, other
such dataclasses, tuples of one of these, or one of these or None. Both directions are strict.
"""

import base64
import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

C = TypeVar("C")


def to_json(value: object) -> Any:
    """Returns what JSON can hold of a command or one of its fields. Raises `TypeError` for other values."""
    match value:
        case None | bool() | int():
            return value
        case StrEnum():
            return value.value
        case str():
            return value
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case datetime():
            return value.astimezone(UTC).isoformat()
        case tuple():
            return [to_json(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    raise TypeError(f"no JSON for {type(value).__name__}")


def from_json(kind: type[C], value: Any) -> C:
    """Returns the command that `to_json` made the value of. Raises `ValueError` for a value of another shape."""
    return cast(C, _decode(kind, value))


def canonical(value: Mapping[str, Any]) -> str:
    """Returns one text for one JSON value: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _decode(hint: Any, value: Any) -> Any:
    if isinstance(hint, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        (hint,) = (argument for argument in get_args(hint) if argument is not NoneType)
    if get_origin(hint) is tuple:
        if type(value) is not list:
            raise ValueError("expected a list")
        return tuple(_decode(get_args(hint)[0], item) for item in value)
    if dataclasses.is_dataclass(hint):
        return _decode_command(hint, value)
    if hint in (bool, int, str):
        if type(value) is not hint:
            raise ValueError(f"expected {hint.__name__}")
        return value
    if type(value) is not str:
        raise ValueError("expected a text")
    if hint is bytes:
        return base64.b64decode(value, validate=True)
    if hint is datetime:
        return datetime.fromisoformat(value)
    return hint(value)


def _decode_command(kind: Any, value: Any) -> Any:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if type(value) is not dict or sorted(value) != sorted(names):
        raise ValueError(f"expected the fields of {kind.__name__}")
    return kind(**{name: _decode(hints[name], value[name]) for name in names})
