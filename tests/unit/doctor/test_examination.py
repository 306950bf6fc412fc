"""Checks stand by themselves: a finding or a fault in one hides no other."""

import io
import json
import sys
from collections.abc import Callable, Iterator

import pytest

from trien_server.cli.doctor.examination import Examination, examine
from trien_server.cli.doctor.findings import Check, Finding, NotLookedAt, error, note, warning
from trien_server.cli.doctor.report import print_json, print_text
from trien_server.cli.doctor.subject import Subject
from trien_server.core.errors import StoreUnavailable

NOBODY: Subject = None  # type: ignore[assignment] - no check here looks at it


def check(name: str, *found: Finding, needs: tuple[str, ...] = (), fault: Exception | None = None) -> Check:
    def look(_: Subject) -> Iterator[Finding]:
        yield from found
        if fault is not None:
            raise fault

    return Check(name=name, sees="", look=look, needs=needs)


def run(*checks: Check, network: bool = False, progress: Callable[[str], None] = lambda _: None) -> Examination:
    return examine(checks, NOBODY, network=network, progress=progress)


def test_what_rests_on_an_error_is_left_out_and_says_so_and_the_rest_is_looked_at() -> None:
    seen = run(
        check("a", error("bad", "mend it")),
        check("b", needs=("a",)),
        check("c", needs=("b",)),
        check("d", warning("soon", "renew it")),
        check("e", note("known", "nothing"), needs=("d",)),
    )
    assert seen.looked_at == ["a", "d", "e"]
    assert seen.left_out == {
        "b": "a found an error",
        "c": "a found an error",
    }
    assert [name for name, _ in seen.findings] == ["a", "d", "e"]


def test_a_fault_in_a_check_is_a_finding_and_keeps_what_was_found_before_it() -> None:
    heard: list[str] = []
    seen = run(
        check("a", warning("first", "do"), fault=RuntimeError("surprise")),
        check("b", fault=StoreUnavailable("The database went away.")),
        check("c", fault=NotLookedAt("there is none")),
        check("d", note("still looked at", "nothing"), fault=NotLookedAt("the rest is not there")),
        progress=heard.append,
    )
    texts = [finding.text for _, finding in seen.findings]
    assert texts[0] == "first"
    assert "RuntimeError: surprise" in texts[1]
    assert "The database went away." in texts[2]
    assert texts[3] == "still looked at"
    assert seen.left_out == {"c": "there is none"}
    assert heard == ["a", "b", "c", "d"]


def test_a_check_that_contacts_others_waits_to_be_asked_for() -> None:
    carriers = Check(name="carriers", sees="", look=lambda _: iter(()), network=True)
    assert "--network" in run(carriers).left_out["carriers"]
    assert run(carriers, network=True).looked_at == ["carriers"]


SEEN = Examination(
    findings=[
        ("last", note("known " * 30, "nothing")),
        ("first", error("\x1b[31mbad\n" + "word " * 40, "mend it")),
        ("middle", warning("soon", "renew it")),
    ],
    looked_at=["last", "first", "middle"],
    left_out={"other": "there is none"},
)


def test_errors_come_first_and_what_commands_a_terminal_is_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_text(SEEN)
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "\x1b" not in printed
    assert lines[0].startswith("error: \ufffd[31mbad")
    assert max(map(len, lines)) <= 80
    assert [line.split(":")[0] for line in lines if line[:1] not in " "][:3] == ["error", "warning", "note"]
    assert lines[-1] == "Found: 1 error, 1 warning, 1 note."
    assert "Not looked at, because there is none: other." in lines
    print_text(Examination(findings=[], looked_at=["a"]))
    assert capsys.readouterr().out == "Looked at: a.\nNothing was found.\n"


def test_severities_have_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    print_text(SEEN)
    printed = sys.stdout.getvalue()  # type: ignore[attr-defined]
    assert printed.startswith("\x1b[31m\x1b[1merror\x1b[0m: ")


def test_json_has_every_finding_with_its_advice(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(SEEN)
    content = json.loads(capsys.readouterr().out)
    assert content["findings"][2] == {
        "check": "middle",
        "severity": "warning",
        "finding": "soon",
        "advice": "renew it",
    }
    assert content["looked_at"] == ["last", "first", "middle"]
    assert content["not_looked_at"] == [{"check": "other", "because": "there is none"}]
