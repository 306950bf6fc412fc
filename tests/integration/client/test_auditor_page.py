"""docs/auditor.md: every command on it is run, with OpenSSL and a shell, and prints what the page says."""

import shutil
from pathlib import Path

import pytest
from tests.support.pages import commands_of, run_all

pytestmark = pytest.mark.promise("P10")
DOCS = Path(__file__).parents[3] / "docs"
PAGE = DOCS / "auditor.md"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DOCS / "examples/log", tmp_path / "log"))


def test_every_command_of_the_auditors_guide_prints_what_the_page_says(example: Path) -> None:
    commands = commands_of(PAGE)
    printed = run_all(commands, folder=example, environment={})
    for command, said in zip(commands, printed, strict=True):
        assert said == command.printed, command.text
    assert len(commands) >= 45
    assert sum(bool(command.printed) for command in commands) >= 18


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("digest", "bca2", "aca2"),
        ("item", "1 of 3", "1 of 2"),
        ("item salt", "g+ki", "h+ki"),
        ("kind", "signing_granted", "signing_resumed"),
        ("time", "2026-11-25T02:51:25", "2026-11-25T02:51:26"),
        ("entry", "auditEntries/pmks", "auditEntries/qmks"),
        ("head salt", "GQdS", "HQdS"),
        ("details", "EkbZ", "FkbZ"),
        ("position", "5", "4"),
    ],
)
def test_by_hand_a_changed_line_of_a_receipt_leads_to_another_root(
    line: str, old: str, new: str, example: Path
) -> None:
    """The steps with OpenSSL and a shell are no theatre: they tell a changed receipt from a good one."""
    receipt = example / "decision.receipt"
    text = receipt.read_text()
    assert text.count(f"{line}: {old}") == 1
    receipt.write_text(text.replace(f"{line}: {old}", f"{line}: {new}"))
    commands = commands_of(PAGE)
    begin, end = (
        next(at for at, command in enumerate(commands) if command.text.startswith(text))
        for text in ("hex()", "sed -n 3p body")
    )
    climbed, signed = run_all(commands[begin : end + 1], folder=example, environment={})[-2:]
    assert signed == commands[end].printed == commands[end - 1].printed
    assert climbed != signed


def test_by_hand_a_changed_checkpoint_does_not_verify(example: Path) -> None:
    receipt = example / "decision.receipt"
    receipt.write_text(receipt.read_text().replace("\n9\n", "\n8\n"))
    commands = commands_of(PAGE)
    end = next(at for at, command in enumerate(commands) if "pkeyutl" in command.text)
    printed = run_all(commands[: end + 1], folder=example, environment={})
    assert "Signature Verification Failure" in printed[-1]
