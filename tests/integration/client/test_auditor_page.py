"""docs/auditor.md: every command on it is run, with OpenSSL and a shell, and prints what the page says."""

import re
import shutil
from pathlib import Path

import pytest
from tests.support.log_keys import LogKeyPair
from tests.support.pages import Command, commands_of, run_all
from tests.support.published_logs import PublishedLog, make_entries

from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import format_log_keys

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
    commands = _commands("hex()", "sed -n 3p body")
    climbed, signed = run_all(commands, folder=example, environment={})[-2:]
    assert signed == commands[-1].printed == commands[-2].printed
    assert climbed != signed


def test_by_hand_a_changed_checkpoint_does_not_verify(example: Path) -> None:
    receipt = example / "decision.receipt"
    receipt.write_text(receipt.read_text().replace("\n9\n", "\n8\n"))
    printed = run_all(_commands("hex()", "openssl pkeyutl"), folder=example, environment={})
    assert "Signature Verification Failure" in printed[-1]


def test_by_hand_a_key_of_p256_verifies_with_the_command_that_the_page_names(tmp_path: Path) -> None:
    entries = make_entries(3)
    log = PublishedLog([entry.leaf for entry in entries], LogKeyPair.generate(KeyType.EC_P256))
    (tmp_path / "log-keys").write_text(format_log_keys(log.pair.key, []))
    (tmp_path / "decision.receipt").write_text(log.receipt(entries[1], 1))
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"`(openssl dgst [^`]* body)`", page)
    assert found is not None
    printed = run_all(_signature_steps('bin "${key:2}" > key.der', found[1]), folder=tmp_path, environment={})
    assert printed[-1] == "Verified OK\n"
    note = (tmp_path / "decision.receipt").read_text().replace("\n3\n", "\n2\n")
    (tmp_path / "decision.receipt").write_text(note)
    printed = run_all(_signature_steps('bin "${key:2}" > key.der', found[1]), folder=tmp_path, environment={})
    assert "Verification failure" in printed[-1]


def test_by_hand_a_later_key_is_followed_like_a_checkpoint(tmp_path: Path) -> None:
    """A receipt under the second key: its note in `log-keys` takes the checkpoint's place in step 1."""
    first, second = LogKeyPair.generate(), LogKeyPair.generate()
    text = format_log_keys(first.key, [first.succeed(second.key)])
    (tmp_path / "log-keys").write_text(text.splitlines()[0] + "\n")
    (tmp_path / "decision.receipt").write_text(text)
    asked = [*_commands("hex()", "openssl pkeyutl"), Command("sed -n 3p body", "")]
    printed = run_all(asked, folder=tmp_path, environment={})
    assert printed[-2:] == ["Signature Verified Successfully\n", f"{second.key.vkey}\n"]


def _commands(first: str, last: str) -> list[Command]:
    """The page's commands from one to another, told by how they begin."""
    commands = commands_of(PAGE)
    begin, end = (
        next(at for at, command in enumerate(commands) if command.text.startswith(text)) for text in (first, last)
    )
    return commands[begin : end + 1]


def _signature_steps(key: str, verify: str) -> list[Command]:
    """The page's words and its step 1, with another key's form and another last command."""
    steps = _commands("hex()", "openssl pkeyutl")[:-1]
    return [*(Command(key, "") if step.text.endswith("> key.der") else step for step in steps), Command(verify, "")]
