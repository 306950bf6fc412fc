"""What a seal covers, and the encodings behind seals, leaves and request hashes."""

import dataclasses
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trien_server.core import audit
from trien_server.core.algorithms import KeyType
from trien_server.core.encoding import encode_all
from trien_server.core.records import HOT_RECORDS, SLOW_RECORDS, GrantedRequest, Record
from trien_server.core.sealing import day_seal, day_seal_key, encode_row, generation_of, slow_seal_key

AT = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def example(kind: type[Record]) -> Record:
    """Returns a record with a value in every field."""
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        values[field.name] = _value(hints[field.name])
    return kind(**values)


def _value(hint: Any) -> Any:
    text = str(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return next(iter(hint))
    if hint == KeyType | None:
        return KeyType.EC_P256
    for name, value in (("tuple[str", ("a", "b")), ("tuple[bytes", (b"a", b"b")), ("datetime", AT), ("bytes", b"b")):
        if name in text:
            return value
    if hint is bool:
        return True
    if "int" in text:
        return 7
    if "SignatureAlgorithm" in text or "KeyType" in text:
        raise AssertionError(text)
    return "text"


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case StrEnum():
            others = [one for one in type(value) if one is not value]
            return others[0] if others else None
        case str():
            return value + "x"
        case int():
            return value + 1
        case bytes():
            return value + b"x"
        case datetime():
            return value + timedelta(microseconds=1)
        case tuple():
            return value[::-1]
    raise AssertionError(value)


@pytest.mark.promise("P5")
@pytest.mark.parametrize("kind", [*SLOW_RECORDS, *HOT_RECORDS], ids=lambda kind: kind.__name__)
def test_a_seal_covers_every_field_of_every_record(kind: type[Record]) -> None:
    record = example(kind)
    seals = {encode_row(record, "1")}
    for field in dataclasses.fields(kind):
        other = _other(getattr(record, field.name))
        if other is None:
            continue
        seals.add(encode_row(dataclasses.replace(record, **{field.name: other}), "1"))
        changed = len(seals)
        assert changed > 1
    assert len(seals) >= len(dataclasses.fields(kind)) - 1
    assert encode_row(record, "1") != encode_row(record, "1/2026-11-24")


@pytest.mark.promise("P5")
def test_rows_of_two_tables_or_with_shifted_fields_never_look_alike() -> None:
    encodings = {encode_row(example(kind), "1") for kind in (*SLOW_RECORDS, *HOT_RECORDS)}
    assert len(encodings) == len(SLOW_RECORDS) + len(HOT_RECORDS)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@given(st.lists(_values, max_size=4), st.lists(_values, max_size=4))
def test_two_different_inputs_never_encode_alike(one: list[object], other: list[object]) -> None:
    # True == 1 in Python, but not in what is sealed.
    same = repr(one) == repr(other)
    assert (encode_all("label", one) == encode_all("label", other)) is same


def test_a_seal_that_was_made_once_verifies_for_ever() -> None:
    granted = GrantedRequest(
        name="clients/a/requests/1",
        version=2,
        client="clients/a",
        method="SignDigests",
        content_hash=bytes(range(32)),
        subject="credentials/c/authorizations/x",
        audit_entry="auditEntries/e",
        positions=("0", "1"),
        lease_holder="h",
        lease_expire_time=AT + timedelta(seconds=30),
        completed=False,
        create_time=AT,
    )
    seal = "6f172ecada24dc01dc1c223874a5858b0b42b6e01a3a06751e407f5055c59ee2"
    assert day_seal_key(AT) == "1/2026-11-24"
    assert day_seal(bytes(32), granted, day_seal_key(AT)).hex() == seal


def test_seal_keys_are_told_apart() -> None:
    for generation in (1, 2, 12):
        assert generation_of(slow_seal_key(generation), hot=False) == generation
        assert generation_of(day_seal_key(AT, generation), hot=True) == generation
        assert generation_of(day_seal_key(AT, generation), hot=False) is None
        assert generation_of(slow_seal_key(generation), hot=True) is None
    for wrong in ("", "0", "01", "12345", "-1", "1/", "1/2026-13-01", "1/2026-1-1", "0/2026-11-24", "1/2026-11-24x"):
        assert generation_of(wrong, hot=True) is None
        assert generation_of(wrong, hot=False) is None
    record = example(HOT_RECORDS[0])
    assert day_seal(b"a" * 32, record, "1/2026-11-24") != day_seal(b"b" * 32, record, "1/2026-11-24")


@pytest.mark.promise("P10")
def test_a_leaf_commits_to_the_details_and_shows_none_of_them() -> None:
    entry = audit.make_entry(
        name="auditEntries/x",
        time=AT,
        kind="signing_granted",
        details={"signer": "Hoàng Trịnh Đôn"},
        head_salt=b"h" * 16,
        salt=b"s" * 32,
    )
    assert "Hoàng Trịnh Đôn" in entry.details
    assert "Hoàng".encode() not in entry.leaf
    assert b"signing_granted" not in entry.leaf
    assert audit.leaf_of(entry) == entry.leaf
    assert audit.commit_details(b"t" * 32, entry.details) != audit.commit_details(entry.salt, entry.details)
    for change in ({"time": AT.replace(year=2027)}, {"kind": "x"}, {"subject": "x"}, {"subject_version": 1}):
        assert audit.leaf_of(dataclasses.replace(entry, **change)) != entry.leaf
