"""Audit entries as lines: what the server writes is what the command exports, and what RFC 5424 says."""

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.syslog_receivers import parsed

from trien_client import audit_lines as of_the_client
from trien_server.core import audit_lines
from trien_server.core.audit import make_entry
from trien_server.core.merkle import hash_leaf
from trien_server.core.records import AuditEntry
from trien_server.rpc.audit_entries import entry_out
from trien_server.services.audit_entries import PositionedEntry

pytestmark = pytest.mark.promise("P10")

KEYS = (
    "name",
    "position",
    "time",
    "kind",
    "subject",
    "subject_version",
    "details",
    "leaf",
    "head_salt",
    "salt",
    "items_root",
)


def entry(text: str = "", *, kind: str = "signing_granted", subject: str | None = None) -> AuditEntry:
    made = make_entry(
        name="auditEntries/abc",
        time=datetime(2026, 11, 24, 15, 51, 7, 40, tzinfo=UTC),
        kind=kind,
        details={"text": text},
        head_salt=b"h" * 16,
        salt=b"s" * 32,
        items_root=b"r" * 32,
    )
    if subject is not None:
        made = dataclasses.replace(made, subject=subject, subject_version=3)
    return made


BOM = b"\xef\xbb\xbf"


def shown(text: str) -> str:
    """What of a text cannot be seen, escaped as JSON has it."""
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400)


@given(text=texts, kind=texts, subject=st.none() | texts.filter(bool), position=st.integers(0, 2**62))
def test_server_and_client_write_the_same_bytes(text: str, kind: str, subject: str | None, position: int) -> None:
    one = entry(text, kind=kind, subject=subject)
    message = entry_out(PositionedEntry(entry=one, position=position))
    assert of_the_client.json_line(message) == audit_lines.json_line(position, one)
    assert of_the_client.syslog_message(message, hostname="host") == audit_lines.syslog_message(
        position, one, hostname="host"
    )


@given(text=texts, kind=texts, subject=texts.filter(bool), host=texts)
def test_a_syslog_message_is_one_that_rfc_5424_reads(text: str, kind: str, subject: str, host: str) -> None:
    one = entry(text, kind=kind, subject=subject)
    encoded = audit_lines.syslog_message(7, one, hostname=host)
    assert len(encoded) <= audit_lines.LONGEST_MESSAGE
    message = parsed(encoded)
    assert message.time == "2026-11-24T15:51:07.000040Z"
    assert message.parameters["subject"] == shown(subject)[:500]
    assert encoded.replace(BOM, b"", 1).decode().isprintable()
    assert message.parameters["leafHash"] == hash_leaf(one.leaf).hex()
    assert message.position == 7
    assert "\n" not in message.text
    if "detailsLength" not in message.parameters:
        assert json.loads(message.text) == json.loads(one.details)


@pytest.mark.parametrize(("kind", "severity"), [("refused", 4), ("signing_granted", 6), ("operator_created", 5)])
def test_the_severity_says_whether_somebody_should_look(kind: str, severity: int) -> None:
    message = parsed(audit_lines.syslog_message(0, entry(kind=kind), hostname=""))
    assert (message.priority, message.id, message.host) == (13 * 8 + severity, kind, "-")


@pytest.mark.parametrize("letter", ["a", "ệ", "印", "😀"])
def test_long_details_are_cut_at_a_whole_character_and_say_so(letter: str) -> None:
    one = entry(letter * 9000)
    encoded = audit_lines.syslog_message(0, one, hostname="h")
    message = parsed(encoded)
    assert audit_lines.LONGEST_MESSAGE - 4 < len(encoded) <= audit_lines.LONGEST_MESSAGE
    assert one.details.startswith(message.text)
    assert int(message.parameters["detailsLength"]) == len(one.details.encode())


def test_a_line_of_json_has_all_that_the_leaf_is_made_of() -> None:
    line = audit_lines.json_line(12, entry("Hoàng Trịnh Đôn\n"))
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    content = json.loads(line)
    assert tuple(content) == KEYS
    assert content["details"] == '{"text":"Hoàng Trịnh Đôn\\n"}'
    erased = dataclasses.replace(entry(), details="", salt=b"", version=2)
    assert json.loads(audit_lines.json_line(0, erased))["salt"] == ""
    assert parsed(audit_lines.syslog_message(0, erased, hostname="")).parameters["erased"] == "true"


@pytest.mark.parametrize(
    "hidden", ["\n<10>1 - h trien - refused - ", "\x7f", "\x9b31m", "\u2028", "\u202e", "\ud800", "n" * 9000]
)
def test_what_a_row_is_called_forges_no_line_and_stops_no_export(hidden: str) -> None:
    """Of an entry that cannot be trusted the name is whatever somebody wrote into the database."""
    one = dataclasses.replace(entry(), name=f"auditEntries/{hidden}")
    encoded = audit_lines.syslog_message(7, one, hostname="host")
    assert len(encoded) <= audit_lines.LONGEST_MESSAGE
    assert encoded.replace(BOM, b"", 1).decode().isprintable()
    assert parsed(encoded).parameters["name"] == shown(one.name)[:500]
    line = audit_lines.json_line(7, one)
    assert line[:-1].decode().isprintable()
    assert json.loads(line)["name"] == one.name
