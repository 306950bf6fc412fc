"""One unambiguous encoding for whatever is sealed, committed to, or compared.

Every value is preceded by its kind and length, so that two different inputs never encode alike.
"""

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import Enum

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LENGTH = struct.Struct(">Q")


def microseconds(value: datetime) -> int:
    """Returns the microseconds since 1970-01-01T00:00:00Z."""
    return (value - EPOCH) // _MICROSECOND


def prefixed(value: bytes) -> bytes:
    """Returns `value` behind its length as 8 bytes, big endian."""
    return _LENGTH.pack(len(value)) + value


def encode_value(value: object) -> bytes:
    """Returns the encoding of a record's field: a letter for the kind, then the length-prefixed content.

    Raises `TypeError` for kinds that no record has.
    """
    # Nearly all values are plain texts, bytes and numbers, and a request encodes hundreds of values, or thousands.
    if type(value) is str:
        content = value.encode()
        return b"s" + _LENGTH.pack(len(content)) + content
    if type(value) is bytes:
        return b"y" + _LENGTH.pack(len(value)) + value
    if type(value) is int:
        content = b"%d" % value
        return b"i" + _LENGTH.pack(len(content)) + content
    match value:
        case None:
            return b"-"
        case bool():
            return b"b" + (b"\x01" if value else b"\x00")
        case Enum():
            return b"s" + prefixed(str(value.value).encode())
        case str():
            return b"s" + prefixed(value.encode())
        case int():
            return b"i" + prefixed(str(value).encode())
        case bytes():
            return b"y" + prefixed(value)
        case datetime():
            return b"t" + prefixed(str(microseconds(value)).encode())
        case tuple():
            return b"(" + prefixed(b"".join(encode_value(part) for part in value))
    raise TypeError(f"no encoding for {type(value).__name__}")


def encode_all(label: str, values: Iterable[object]) -> bytes:
    """Returns the encoding of the values in order, under a label that names what it is for."""
    return b"".join([encode_value(label), *(encode_value(value) for value in values)])
