"""`trien verify receipt` and `trien audit verify`: what they print, and how they end."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.log_keys import ORIGIN, LogKeyPair
from tests.support.published_logs import PublishedLog, bundle, document_digests, exported, make_entries, write
from typer.testing import CliRunner

from trien_client.cli.main import build_app
from trien_server.core.checkpoints import format_log_keys

pytestmark = pytest.mark.promise("P10")

ENTRIES = make_entries(300)
LOG = PublishedLog([entry.leaf for entry in ENTRIES])
DIGESTS = document_digests(6, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LOG.publish(tmp_path / "log")
    (tmp_path / "a.receipt").write_text(LOG.receipt(ENTRIES[6], 6, DIGESTS, 1))
    (tmp_path / "entry.receipt").write_text(LOG.receipt(ENTRIES[7], 7))
    (tmp_path / "document").write_bytes(b"document 1 of entry 6")
    return tmp_path


def trien(folder: Path, *arguments: object, exit_code: int = 0) -> str:
    """Runs the command, where `log-keys` and other names without a folder are in the log's."""
    known = {"log-keys": folder / "log/log-keys", "log": folder / "log"}
    given = [str(known.get(str(one), folder / str(one) if (folder / str(one)).exists() else one)) for one in arguments]
    result = CliRunner().invoke(build_app(completion=False), given)
    assert result.exit_code == exit_code, result.output
    assert "Traceback" not in result.output
    return result.output


def asked(folder: Path, *arguments: object, exit_code: int = 0) -> dict[str, Any]:
    content = json.loads(trien(folder, *arguments, "--output", "json", exit_code=exit_code))
    assert isinstance(content, dict)
    return content


def test_a_good_receipt_says_what_it_proves(folder: Path) -> None:
    said = trien(folder, "verify", "receipt", "a.receipt", "--log-key", "log-keys", "--document", "document")
    assert said == (
        "Good.\n"
        f"  entry       {ENTRIES[6].name}\n"
        "  kind        signing_granted\n"
        "  time        2026-11-25T08:00:06.000006+00:00\n"
        f"  digest      {DIGESTS[1].hex()}\n"
        "              number 2 of 2\n"
        "  position    6 of 300 entries\n"
        f"  log         {ORIGIN}\n"
    )
    content = asked(
        folder, "verify", "receipt", "a.receipt", "--log-key", LOG.pair.key.vkey, "--digest", DIGESTS[1].hex().upper()
    )
    assert content["good"] is True
    assert content["item"] == {"index": 1, "count": 2, "digest": DIGESTS[1].hex()}
    assert content["checkpoint"] == {"origin": ORIGIN, "size": 300, "root": LOG.root().hex()}
    assert content["leaf_hash"] == hashlib.sha256(b"\0" + ENTRIES[6].leaf).hexdigest()
    assert asked(folder, "verify", "receipt", "entry.receipt", "--log-key", "log-keys")["subject_version"] == 7
    assert "subject     credentials/chair, version 7" in trien(
        folder, "verify", "receipt", "entry.receipt", "--log-key", "log-keys"
    )


def test_a_receipt_that_does_not_hold_ends_with_1(folder: Path) -> None:
    (folder / "other").write_bytes(b"another document")
    text = (folder / "a.receipt").read_text()
    (folder / "changed.receipt").write_text(text.replace("signing_granted", "signing_refused"))
    (folder / "no.receipt").write_bytes(b"\xff\x00")
    stranger = LogKeyPair.generate().key.vkey
    for arguments, why in (
        (("changed.receipt", "--log-key", "log-keys"), "not at position 6"),
        (("a.receipt", "--log-key", stranger), "None of the log's keys signed"),
        (("a.receipt", "--log-key", "log-keys", "--document", "other"), "about another digest"),
        (("a.receipt", "--log-key", "log-keys", "--digest", DIGESTS[0].hex()), "about another digest"),
        (("entry.receipt", "--log-key", "log-keys", "--digest", DIGESTS[0].hex()), "about no digest"),
        (("no.receipt", "--log-key", "log-keys"), "A receipt begins with"),
    ):
        assert trien(folder, "verify", "receipt", *arguments, exit_code=1).startswith("NOT GOOD: ")
        content = asked(folder, "verify", "receipt", *arguments, exit_code=1)
        assert content["good"] is False
        assert why in content["error"]


def test_what_was_not_understood_ends_with_2(folder: Path) -> None:
    for arguments in (
        ("a.receipt", "--log-key", "missing"),
        ("a.receipt", "--log-key", "document"),
        ("missing.receipt", "--log-key", "log-keys"),
        ("a.receipt", "--log-key", "log-keys", "--digest", "xyz"),
        ("a.receipt", "--log-key", "log-keys", "--digest", "00", "--document", "document"),
        ("a.receipt", "--log-key", "log-keys", "--document", "missing"),
        ("a.receipt",),
    ):
        trien(folder, "verify", "receipt", *arguments, exit_code=2)
    for arguments in (
        ("--tiles", "missing", "--log-key", "log-keys"),
        ("--tiles", "log", "--log-key", "missing"),
        ("--tiles", "log", "--log-key", "log-keys", "--since", "missing"),
        ("--tiles", "log", "--log-key", "log-keys", "--entries", "missing"),
    ):
        trien(folder, "audit", "verify", *arguments, exit_code=2)


def test_a_receipt_needs_no_server_and_no_connection_file(folder: Path) -> None:
    """Nothing but the receipt and the key: no gRPC is loaded, so nothing can be asked."""
    program = (
        "import sys; from trien_client.log import parse_receipt, read_log_keys; from pathlib import Path;"
        "parse_receipt(Path('a.receipt').read_text()).verify(read_log_keys(Path('log/log-keys')));"
        "assert 'grpc' not in sys.modules and 'trien_server' not in sys.modules; print('good')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "good\n"), done.stderr


def test_a_file_of_the_name_receipt_is_still_verified_as_a_file(folder: Path) -> None:
    said = trien(folder, "verify", "./receipt", exit_code=2)
    assert "Say whom to trust" in said


def test_a_good_log_says_what_was_compared(folder: Path) -> None:
    (folder / "old").write_text(LOG.checkpoint(256))
    (folder / "older").write_text(LOG.checkpoint(100))
    lines = [exported(position, entry) for position, entry in enumerate(ENTRIES)]
    (folder / "entries.jsonl").write_text("".join(lines))
    arguments = ("audit", "verify", "--tiles", "log", "--log-key", "log-keys", "--since", "old", "--since", "older")
    assert trien(folder, *arguments, "--entries", "entries.jsonl") == (
        "Good.\n"
        f"  log         {ORIGIN}\n"
        "  entries     300, each as the signed checkpoint has it\n"
        f"  root        {LOG.root().hex()}\n"
        "  continues   the checkpoint of 100 entries\n"
        "  continues   the checkpoint of 256 entries\n"
        "  opened      300 exported entries\n"
    )
    content = asked(folder, *arguments)
    assert content["continues"] == [100, 256]
    assert content["opened_entries"] == 0


def test_a_log_that_was_changed_ends_with_1_and_names_the_entry(folder: Path) -> None:
    (folder / "entries.jsonl").write_text(exported(2, ENTRIES[2], kind="approved"))
    arguments = ("audit", "verify", "--tiles", "log", "--log-key", "log-keys")
    content = asked(folder, *arguments, "--entries", "entries.jsonl", exit_code=1)
    assert (content["first_wrong"], content["last_wrong"]) == (2, 2)
    write(folder / "log/tile/entries/001.p/44", bundle([*LOG.leaves[256:299], b"x"]))
    assert asked(folder, *arguments, exit_code=1)["first_wrong"] == 299
    assert trien(folder, *arguments, exit_code=1) == (
        "NOT GOOD: Entry 299 is not what its tile says: one of them was changed.\n"
    )
    stranger = LogKeyPair.generate()
    (folder / "log/log-keys").write_text(format_log_keys(stranger.key, []))
    assert "first_wrong" not in asked(folder, *arguments, exit_code=1)
