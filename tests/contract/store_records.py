"""Records of every class, made from the types of their fields."""

import random
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from trien_server.core.ports import Sealed
from trien_server.core.records import HOT_RECORDS, SLOW_RECORDS, AuditEntry, Client, Record, SignerAttempts, State

R = TypeVar("R", bound=Record)

ALL_RECORDS: tuple[type[Record], ...] = (*SLOW_RECORDS, *HOT_RECORDS)

TIME = datetime(2026, 11, 24, 7, 30, 0, 123456, tzinfo=UTC)


def example(kind: type[R], name: str, *, seed: int = 0, **given: Any) -> R:
    """Returns a record whose fields are random but valid; `given` overrides some."""
    source = random.Random(f"{kind.__name__} {name} {seed}")
    hints = get_type_hints(kind)
    values = {field.name: _value(hints[field.name], source) for field in fields(kind)}
    return kind(**{**values, "name": name, "version": 1, **given})


def sealed(record: R, *, seal: bytes = b"\x00seal\xff", seal_key: str = "1/2026-11-24") -> Sealed[R]:
    return Sealed(record=record, seal_key=seal_key, seal=seal)


def attempts(name: str, failures: int = 0, version: int = 1) -> Sealed[SignerAttempts]:
    return sealed(SignerAttempts(name=name, version=version, failures=failures))


def client(name: str, *, token_hash: bytes | None = None, fingerprint: bytes | None = None) -> Sealed[Client]:
    return sealed(
        Client(
            name=name,
            display_name=name,
            token_hash=token_hash,
            certificate_fingerprint=fingerprint,
            state=State.ENABLED,
            create_time=TIME,
        )
    )


def entry(
    name: str, *, subject: str | None = None, subject_version: int | None = None, time: datetime = TIME
) -> Sealed[AuditEntry]:
    return sealed(example(AuditEntry, name, subject=subject, subject_version=subject_version, time=time))


def counted(row: Sealed[SignerAttempts]) -> Sealed[SignerAttempts]:
    """Returns the row's next version, with one more failure."""
    record = row.record
    return sealed(replace(record, version=record.version + 1, failures=record.failures + 1))


def _value(hint: Any, source: random.Random) -> Any:
    options = [argument for argument in get_args(hint) if argument is not NoneType]
    if NoneType in get_args(hint):
        return None if source.random() < 0.3 else _value(options[0], source)
    if get_origin(hint) is tuple:
        return tuple(_value(options[0], source) for _ in range(source.randrange(4)))
    if issubclass(hint, StrEnum):
        return source.choice(list(hint))
    makers: dict[Any, Callable[[], Any]] = {
        str: lambda: source.choice(["", "x", "Chủ tịch xã Hoằng Trinh", "quote \" ' \\", "line\nbreak", "🖋 𝒔"]),
        int: lambda: source.choice([0, 1, -1, 2**63 - 1, -(2**63), source.getrandbits(40)]),
        bool: lambda: source.random() < 0.5,
        bytes: lambda: source.choice([b"", b"\x00\xff", source.randbytes(source.randrange(200))]),
        datetime: lambda: TIME + timedelta(microseconds=source.randrange(-(10**16), 10**16)),
    }
    return makers[hint]()
