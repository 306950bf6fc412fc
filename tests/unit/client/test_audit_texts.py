"""Entries at a terminal: `trien audit list`, `show` and `follow` print no text that commands it (P12)."""

import base64
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from trien.v1 import audit_service_pb2

from trien_client.cli import audit_following, audit_reading
from trien_client.cli.operating import Officer
from trien_client.cli.outcome import CommandError, OutputFormat

pytestmark = pytest.mark.promise("P12")

HOSTILE = (
    "\x1b[2J\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\x08\x08\x7f",
    "\r100  all is well",
    "one\ntwo",
    "\u202efdp.exe\u2066",
    "\u200b\ufeff\u2028",
)
"""Colours, a title, the one-byte CSI, erasing, overwriting, lines of one's own, a turned direction, unseen letters."""


def entry(position: int, text: str, details: str) -> audit_service_pb2.AuditEntry:
    """Returns an entry with the text wherever a server could put one."""
    made = audit_service_pb2.AuditEntry(
        name=f"auditEntries/{text}", position=position, kind=text, subject=f"signers/{text}", subject_version=1
    )
    made.details, made.leaf = details, b"\x1b[31m"
    return made


def entries() -> list[audit_service_pb2.AuditEntry]:
    """Returns entries with details that are JSON, escaped or not, as values and names, and that are none."""
    made = []
    for text in HOSTILE:
        for details in (
            json.dumps({"reason": text, text: "value", "signer": [text], "digests": [text, {text: text}]}),
            json.dumps({"client": text, text: [text]}, ensure_ascii=False),
            text,
        ):
            made.append(entry(len(made), text, details))
    return made


@dataclass
class Service:
    """A server that answers with hostile entries, and is interrupted when asked again."""

    findings: bool = False
    asked: list[Any] = field(default_factory=list)
    audit: Any = None

    def __post_init__(self) -> None:
        self.audit = self

    def call(self, method: Any, request: Any) -> Any:
        if self.asked and isinstance(request, audit_service_pb2.ListAuditEntriesRequest):
            raise KeyboardInterrupt
        self.asked.append(request)
        return method(request)

    def ListAuditEntries(self, _request: Any) -> audit_service_pb2.ListAuditEntriesResponse:  # noqa: N802
        page = audit_service_pb2.ListAuditEntriesResponse(audit_entries=entries(), next_position=100)
        if self.findings:
            page.findings.add(position=7, finding=HOSTILE[0])
        return page

    def GetAuditEntry(self, request: Any) -> audit_service_pb2.AuditEntry:  # noqa: N802
        return next(one for one in entries() if one.position == int(request.name.rpartition("/")[2]))


def officer(output: OutputFormat, *, findings: bool = False) -> Officer:
    return Officer(target=None, output=output, _client=Service(findings=findings))  # type: ignore[arg-type]


def require_harmless(printed: str) -> None:
    """Fails for any character but a line's end that does more than to be seen."""
    commands = {one for one in printed if not one.isprintable() and one != "\n"}
    assert commands == set()


@pytest.mark.parametrize("output", list(OutputFormat))
def test_list_commands_no_terminal(output: OutputFormat, capsys: pytest.CaptureFixture[str]) -> None:
    audit_reading.list_entries(officer(output), limit=0)
    printed = capsys.readouterr().out
    require_harmless(printed)
    assert "two" in printed
    if output is OutputFormat.JSON:
        assert [one["details"] for one in json.loads(printed)] == [one.details for one in entries()]
    else:
        assert all(len(line) <= 80 for line in printed.splitlines())
        heads = [line.split()[0] for line in printed.splitlines() if not line.startswith(" " * 10)]
        assert heads == [str(number) for number in range(len(entries()))], "no text begins a line of its own"


@pytest.mark.parametrize("output", list(OutputFormat))
def test_show_commands_no_terminal(output: OutputFormat, capsys: pytest.CaptureFixture[str]) -> None:
    for one in entries():
        audit_reading.show(officer(output), f"auditEntries/{one.position}")
        printed = capsys.readouterr().out
        require_harmless(printed)
        if output is OutputFormat.JSON:
            assert json.loads(printed)["details"] == one.details
            assert base64.b64decode(json.loads(printed)["leaf"]) == one.leaf
        else:
            assert f"position:   {one.position}" in printed


@pytest.mark.parametrize("output", list(OutputFormat))
def test_follow_commands_no_terminal(output: OutputFormat, capsys: pytest.CaptureFixture[str]) -> None:
    audit_following.follow(officer(output, findings=True), since_position=0, interval=0.0)
    printed = capsys.readouterr()
    require_harmless(printed.out)
    require_harmless(printed.err)
    assert "position 7 cannot be trusted" in printed.err
    if output is OutputFormat.JSON:
        assert [json.loads(line)["position"] for line in printed.out.splitlines()] == list(range(len(entries())))
    else:
        assert printed.out.count("…") + printed.out.count("\ufffd") > len(entries())


def test_what_is_told_of_positions_without_an_entry_is_an_error() -> None:
    with pytest.raises(CommandError, match="position 7"):
        audit_reading.list_entries(officer(OutputFormat.TEXT, findings=True), limit=0)
