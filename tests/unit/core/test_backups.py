"""What a backup says of itself, and that nothing else is taken for one."""

import hashlib
from datetime import UTC, datetime

import pytest

from trien_server.core.backups import (
    Bringing,
    KeptRow,
    LogState,
    Manifest,
    NeededKey,
    NotABackup,
    Reading,
    read_manifest,
)
from trien_server.core.installation_keys import ONE_TIME_PASSWORD_LABEL, token_label
from trien_server.core.ports import Sealed
from trien_server.core.records import InstallationKeyPurpose, Notice
from trien_server.hsm.keys import ONE_TIME_PASSWORD_KEY, SEALING_KEY, WRAPPING_KEY
from trien_server.store.lines import line_of, row_of

AT = datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC)
ROWS = [
    KeptRow(content=Sealed(record=Notice(name=f"notices/{n}", create_time=AT), seal_key="1/2026-11-25", seal=b"s"))
    for n in range(3)
]
LINES = [line_of(row) for row in ROWS]


def manifest(lines: list[bytes] = LINES, rows: int = 3) -> Manifest:
    return Manifest(
        schema="0001",
        create_time=AT,
        installation_time=AT,
        log=LogState(origin="sign.example/trien/00", size=7, root=b"r" * 32, checkpoint="c\n", unsealed=1),
        keys=(
            NeededKey(
                name="installationKeys/sealing-1",
                purpose="SEALING",
                state="ACTIVE",
                bringing=Bringing.CUSTODIANS,
                generation=1,
                label="trien sealing key 1",
            ),
            NeededKey(
                name="keys/a",
                purpose="SIGNING",
                state="ENABLED",
                bringing=Bringing.CLONE,
                object_id=b"\x01",
                public_key=b"\x02",
            ),
        ),
        tables={"notices": rows},
        digest=hashlib.sha256(b"".join(lines)).digest(),
    )


def read(content: bytes, step: int) -> tuple[Manifest, list[KeptRow]]:
    taken: list[KeptRow] = []
    reading = Reading(decode=row_of, take=taken.append)
    for begin in range(0, len(content), step):
        reading.feed(content[begin : begin + step])
    return reading.end(), taken


@pytest.mark.parametrize("step", [1, 7, 64, 100_000])
def test_a_backup_comes_back_as_it_was_however_it_is_cut_into_chunks(step: int) -> None:
    assert read(manifest().line() + b"".join(LINES), step) == (manifest(), ROWS)


def test_a_manifest_is_taken_in_its_one_form_alone() -> None:
    line = manifest().line()
    assert read_manifest(line) == manifest()
    for other in (b"", b"{}\n", line.replace(b",", b", ", 1), line.replace(b"backup 1", b"backup 2"), line[:-1], b"[]"):
        with pytest.raises(NotABackup):
            read_manifest(other)


def test_a_backup_with_a_row_changed_left_out_doubled_or_moved_is_none() -> None:
    changed = LINES[0].replace(b"notices/0", b"notices/9")
    wrong = [
        LINES[:2],
        [*LINES, LINES[0]],
        [LINES[1], LINES[0], LINES[2]],
        [changed, *LINES[1:]],
        [*LINES[:2], LINES[2][:-1]],
        [b"[]\n"],
        [b'["nowhere",[]]\n'],
        [b'["notices",["a"]]\n'],
    ]
    for lines in wrong:
        with pytest.raises(NotABackup):
            read(manifest().line() + b"".join(lines), 50)
    for cut in range(len(manifest().line())):
        with pytest.raises(NotABackup):
            read(manifest().line()[:cut], 4096)


def test_the_labels_that_a_manifest_names_are_those_on_the_token() -> None:
    assert token_label(InstallationKeyPurpose.SEALING, 1) == SEALING_KEY
    assert token_label(InstallationKeyPurpose.WRAPPING, 1) == WRAPPING_KEY
    assert ONE_TIME_PASSWORD_LABEL == ONE_TIME_PASSWORD_KEY


@pytest.mark.parametrize("nested", [b"[" * 200_000, b'{"a":' * 200_000])
def test_a_line_of_brackets_is_refused_and_ends_nothing(nested: bytes) -> None:
    with pytest.raises(NotABackup):
        read_manifest(nested + b"\n")
    with pytest.raises(NotABackup):
        row_of(nested + b"\n")


def test_a_line_without_an_end_costs_its_length_alone() -> None:
    taken: list[int] = []

    class Counted(bytes):
        """Bytes that tell how often they were added to others, which copies both."""

        def __radd__(self, other: bytes) -> bytes:
            taken.append(len(other))
            return bytes(other) + bytes(self)

    reading = Reading(decode=row_of)
    for _ in range(50):
        reading.feed(Counted(b"x" * 1000))
    assert taken == []
    with pytest.raises(NotABackup):
        reading.feed(b"\n")
