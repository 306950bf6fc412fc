"""Shares and exports: two people's, read strictly, each change refused with a reason that shows nothing."""

import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trien_server.core.custody import (
    COMPONENT_SIZE,
    CustodyRefused,
    Export,
    ExportedKey,
    KeyShare,
    join,
    key_check_value,
    read_check_values,
    read_export,
    read_share,
    split,
    write_check_values,
    write_export,
    write_share,
)
from trien_server.core.secret import Secret

COMPONENTS = (Secret(bytes(range(32))), Secret(bytes(range(100, 132))))
CUSTODIANS = ("Nguyễn Văn A", 'Trần "B" \\ Thị')
SHARES = split(COMPONENTS, CUSTODIANS)
OTHERS = split((Secret(b"x" * 32), Secret(b"y" * 32)), CUSTODIANS)
KEY = join(SHARES)
EXPORT = Export(
    time=datetime(2026, 11, 25, 2, 30, tzinfo=UTC),
    key_check_value=key_check_value(KEY),
    custodians=tuple((share.custodian, share.fingerprint) for share in SHARES),
    keys=(
        ExportedKey(label="trien sealing key 1", check_value="0f" * 16, wrapped=bytes(range(40))),
        ExportedKey(label="trien wrapping key 1", check_value="1e" * 16, wrapped=bytes(range(60, 100)), trusted=True),
    ),
)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_both_shares_make_the_key_and_either_order_will_do(first: bytes, second: bytes) -> None:
    if first == second:
        return
    shares = split((Secret(first), Secret(second)), CUSTODIANS)
    read = [read_share(write_share(share)) for share in shares]
    assert read == list(shares)
    expected = bytes(a ^ b for a, b in zip(first, second, strict=True))
    assert join(read).reveal() == join(read[::-1]).reveal() == expected


@pytest.mark.parametrize(
    ("shares", "because"),
    [
        (SHARES[:1], "it takes both"),
        ((), "it takes both"),
        ((*SHARES, OTHERS[0]), "it takes both"),
        ((SHARES[0], SHARES[0]), "both are share 1"),
        ((SHARES[1], SHARES[1]), "both are share 2"),
        ((SHARES[0], OTHERS[0]), "both are share 1"),
        ((SHARES[0], OTHERS[1]), "of different keys"),
        ((OTHERS[0], SHARES[1]), "of different keys"),
        ((SHARES[0], replace(OTHERS[1], key_check_value=SHARES[0].key_check_value)), "do not make the key"),
    ],
)
def test_other_than_the_two_shares_of_one_key_are_refused(shares: tuple[KeyShare, ...], because: str) -> None:
    with pytest.raises(CustodyRefused, match=because):
        join(shares)


@pytest.mark.parametrize(
    ("components", "custodians"),
    [
        (COMPONENTS, ("A", "A")),
        (COMPONENTS[:1], CUSTODIANS),
        ((COMPONENTS[0], COMPONENTS[0]), CUSTODIANS),
        ((COMPONENTS[0], Secret(b"short")), CUSTODIANS),
    ],
)
def test_one_person_holds_no_two_shares_and_components_are_random(
    components: tuple[Secret, ...], custodians: tuple[str, ...]
) -> None:
    with pytest.raises(CustodyRefused):
        split(components, custodians)


def changes_of(text: str) -> list[str]:
    """Returns the text with one bit changed, for each character that says something: all outside of comments."""
    found = []
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("#"):
            continue
        for place, bit in itertools.product(range(len(line)), (1, 2, 16)):
            changed = line[:place] + chr(ord(line[place]) ^ bit) + line[place + 1 :]
            found.append("\n".join([*lines[:number], changed, *lines[number + 1 :]]))
    return found


def accepted(texts: list[str], read: Callable[[bytes], object], original: object) -> list[str]:
    """Returns which of the changed texts are read as another content than the original's: none should be.

    A space among the digits, or another letter between date and time, says nothing.
    """
    found = []
    for text in texts:
        try:
            if read(text.encode()) != original:
                found.append(text)
        except CustodyRefused:
            continue
    return found


def test_a_bit_changed_anywhere_in_a_share_is_refused(record_property: Callable[[str, object], None]) -> None:
    text = write_share(SHARES[1]).reveal().decode()
    changed = changes_of(text)
    assert accepted(changed, lambda content: read_share(Secret(content)), SHARES[1]) == []
    assert len(changed) > 700
    record_property("count", f"changed bits of a share {len(changed)}")


def test_a_bit_changed_anywhere_in_an_export_is_refused(record_property: Callable[[str, object], None]) -> None:
    text = write_export(EXPORT, KEY)
    assert read_export(text.encode(), KEY) == EXPORT
    changed = changes_of(text)
    assert accepted(changed, lambda content: read_export(content, KEY), EXPORT) == []
    assert len(changed) > 1500
    record_property("count", f"changed bits of an export {len(changed)}")


def test_an_export_without_one_of_its_keys_or_with_one_twice_is_refused() -> None:
    text = write_export(EXPORT, KEY)
    head, first, second = re.split(r"(?=\[\[key\]\])", text)
    for wrong in (head + first, head + second, head, head + second + first, head + first + second + second):
        with pytest.raises(CustodyRefused):
            read_export(wrong.encode(), KEY)
    twice = replace(EXPORT, keys=(*EXPORT.keys, EXPORT.keys[0]))
    with pytest.raises(CustodyRefused, match="twice"):
        read_export(write_export(twice, KEY).encode(), KEY)
    with pytest.raises(CustodyRefused, match="by another key"):
        read_export(text.encode(), join(OTHERS))


def test_a_refusal_shows_nothing_of_a_share() -> None:
    said = []
    text = write_share(SHARES[0]).reveal().decode()
    digits = SHARES[0].component.reveal().hex()
    groups = {digits[place : place + 4] for place in range(0, len(digits), 4)}
    for wrong in changes_of(text):
        try:
            read_share(Secret(wrong.encode()))
        except CustodyRefused as refused:
            said.append(str(refused))
    assert [(text, group) for text in said for group in groups if group in text] == []
    assert len(said) > 500
    assert digits[:8] not in repr(SHARES[0])


def test_the_list_of_check_values_is_read_strictly() -> None:
    values = EXPORT.check_values()
    assert read_check_values(write_check_values(values).encode()) == values
    refused = 0
    for wrong in ('"trien sealing key 1" = "0f"', '"x" = "' + "0f" * 16 + '"', "a = 1", "[", "\xff"):
        with pytest.raises(CustodyRefused):
            read_check_values(wrong.encode("latin-1"))
        refused += 1
    assert refused == 5
    assert COMPONENT_SIZE == 32
