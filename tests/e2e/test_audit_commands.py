"""The log read by its officers, and handed over to other systems, over real parts (P8, P10)."""

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import pytest
from tests.support.sandbox import Installation, environment, running_sandbox
from tests.support.syslog_receivers import StreamReceiver, parsed, wait_until
from trien.v1 import access_service_pb2, audit_service_pb2, proposal_service_pb2

from trien_client.audit_lines import entry_fields
from trien_client.operators import OperatorClient

pytestmark = pytest.mark.promise("P10")

TRIEN = str(Path(sys.executable).parent / "trien")
SECONDS = 120.0
RSA = "hoang-trinh-don-rsa"


@dataclass
class Place:
    """A server that hands its log over, and who signs with it."""

    installation: Installation
    receiver: StreamReceiver
    folder: Path
    used: str = ""
    happened: int = 0

    @property
    def exported(self) -> Path:
        return self.folder / "server" / "audit.jsonl"

    def environment(self) -> dict[str, str]:
        return environment(TRIEN_CONNECTION=str(self.installation.directory / "connection.json"), TZ="Asia/Ho_Chi_Minh")

    def trien(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        made = subprocess.run(
            [TRIEN, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=SECONDS,
            check=False,
        )
        assert made.returncode == code, (arguments, made.stdout, made.stderr)
        assert "Traceback" not in made.stderr
        return made

    def sign(self, name: str) -> Path:
        """Signs a document with a code that was not used; returns the document."""
        document = self.folder / name
        document.write_text(f"Quyết định {name}\n")
        uri = self.installation.population["signers"][0]["otpauth_uri"]
        generator = pyotp.parse_uri(uri)
        assert isinstance(generator, pyotp.TOTP)
        wait_until(lambda: generator.now() != self.used, seconds=60)
        self.used = generator.now()
        code = self.folder / "code"
        code.write_text(self.used)
        self.trien("sign", "file", document, "--credential", RSA, "--otp-file", code)
        return document

    def happen(self) -> str:
        """Has an operator propose something, which the log tells of; returns the proposal's name."""
        self.happened += 1
        client = access_service_pb2.Client(
            display_name="Phần mềm", token_hash=hashlib.sha256(f"{self.happened}".encode()).digest()
        )
        request = access_service_pb2.CreateClientRequest(client_id=f"happened-{self.happened}", client=client)
        made: proposal_service_pb2.Proposal = self.call(lambda officer: (officer.access.CreateClient, request))
        return made.name

    def call(self, what: Callable[[OperatorClient], tuple[Any, Any]]) -> Any:
        """Calls as an operator; a server that is just starting is asked again."""
        operators = self.installation.directory / "operators"
        with OperatorClient(
            self.installation.certificate_address,
            ca_certificates=self.installation.directory / "tls" / "ca.pem",
            certificate=operators / "first.pem",
            key=operators / "first.key",
        ) as officer:
            return officer.call(*what(officer), timeout=60.0)

    def entries(self, *, newest: int = 500) -> list[dict[str, Any]]:
        """Returns the newest entries, the newest first, as a line of JSON has them."""
        request = audit_service_pb2.ListAuditEntriesRequest(newest_first=True, page_size=newest)
        page = self.call(lambda officer: (officer.audit.ListAuditEntries, request))
        assert not page.findings
        return [entry_fields(entry) for entry in page.audit_entries]

    def wait_for(self, what: str) -> dict[str, Any]:
        """Waits until the newest entries have one that names this: it gets its position within a second or two."""
        seen: list[dict[str, Any]] = []

        def there() -> bool:
            seen[:] = [one for one in self.entries(newest=10) if what in (one["details"] + (one["subject"] or ""))]
            return bool(seen)

        wait_until(there, seconds=60)
        return seen[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("audit")
    (folder / "server").mkdir()
    receiver = StreamReceiver().start()
    settings = (
        f"syslog.url=tcp://127.0.0.1:{receiver.port}",
        "syslog.hostname=trien1",
        f"audit.export_file={folder / 'server' / 'audit.jsonl'}",
    )
    with running_sandbox(folder / "installation", *settings) as installation:
        yield Place(installation, receiver, folder)
        assert installation.stop() == 0
    receiver.stop()


def test_officers_list_show_and_report_what_happened(place: Place, tmp_path: Path) -> None:
    document = place.sign("first.txt")
    digest = hashlib.sha256(document.read_bytes()).hexdigest()
    entry = place.wait_for(digest)
    (place.folder / "code").write_text("000000")
    refusal = ("sign", "file", document, "--force", "--credential", RSA, "--otp-file", place.folder / "code")
    place.trien(*refusal, code=4)
    refused = place.wait_for("ONE_TIME_PASSWORD_REJECTED")

    text = place.trien("audit", "list", "--limit", 0).stdout
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("auditEntries/") >= 40
    assert entry["name"] in place.trien("audit", "list", "--digest", digest).stdout
    reason = place.trien("audit", "list", "--reason", "ONE_TIME_PASSWORD_REJECTED", "--kind", "refused").stdout
    assert refused["name"] in reason
    assert entry["name"] not in reason
    listed = json.loads(place.trien("audit", "list", "--limit", 0, "--oldest-first", "--output", "json").stdout)
    assert [one["position"] for one in listed] == list(range(len(listed)))
    assert listed == place.entries()[::-1]
    assert all(one.isprintable() for one in text.replace("\n", ""))

    shown = place.trien("audit", "show", entry["name"]).stdout
    assert digest in shown
    assert f"position:   {entry['position']}" in shown
    assert json.loads(place.trien("audit", "show", entry["name"], "--output", "json").stdout) == entry

    report, facts = tmp_path / "report.pdf", tmp_path / "report.json"
    anchors = place.installation.directory / "signing-ca" / "ca.pem"
    made = place.trien(
        "audit", "report", "--document", document, "--out", report, "--json", facts, "--trust-anchors", anchors
    )
    assert "0 failed" in made.stdout
    content = json.loads(facts.read_text())
    assert content["entry"] == entry
    assert {one["check"]: one["result"] for one in content["checks"]} == dict.fromkeys(
        ("ENTRY", "LOG", "ITEMS", "CERTIFICATE", "CERTIFICATE_AUTHORITY", "SIGNATURES", "DOCUMENT"), "VERIFIED"
    ) | {"LOG_KEY": "TOLD", "PEOPLE": "TOLD"}
    told = subprocess.run(["pdftotext", str(report), "-"], capture_output=True, text=True, check=True).stdout
    assert "BÁO CÁO BẰNG CHỨNG CHỮ KÝ SỐ" in told
    assert place.used not in words_of(told)


def words_of(text: str) -> set[str]:
    return set(text.split())


@pytest.mark.slow
def test_what_cannot_be_answered_is_refused_and_leaves_no_file(place: Place, tmp_path: Path) -> None:
    assert place.trien("audit", "list", "--since", "2100-01-01").stdout == "No entry matches.\n"
    place.trien("audit", "list", "--digest", "xy", code=2)
    place.trien("audit", "show", "auditEntries/nothing", code=1)
    other, there = tmp_path / "other", tmp_path / "there.pdf"
    other.write_text("other")
    there.write_text("as it was")
    place.trien("audit", "report", "--document", other, "--out", there, code=2)
    assert there.read_text() == "as it was"
    place.trien("audit", "report", "--document", other, "--out", tmp_path / "none.pdf", code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "there.pdf"]


@pytest.mark.slow
def test_an_interrupted_export_goes_on_and_comes_to_the_same_file(place: Place, tmp_path: Path) -> None:
    place.wait_for(place.happen())
    cut = 0
    for form in ("jsonl", "rfc5424"):
        out = tmp_path / f"log.{form}"
        place.trien("audit", "export", "--out", out, "--format", form)
        whole = out.read_bytes()
        count = len(whole.splitlines())
        assert count >= 40
        for size in (len(whole) // 2, len(whole) - 1):
            part = tmp_path / f"again-{size}.{form}.part"
            part.write_bytes(whole[:size])
            again = part.with_suffix("")
            said = json.loads(
                place.trien("audit", "export", "--out", again, "--format", form, "--output", "json").stdout
            )
            assert again.read_bytes()[: len(whole)] == whole
            assert not part.exists()
            assert said["entries"] >= count - whole[:size].count(b"\n")
            cut += 1
        (tmp_path / f"foreign.{form}.part").write_text("something else\n")
        place.trien("audit", "export", "--out", tmp_path / f"foreign.{form}", "--format", form, code=2)
        place.trien("audit", "export", "--out", out, "--format", form, code=2)
    assert cut == 4
    new = tmp_path / "new.jsonl"
    size = json.loads(place.trien("audit", "export", "--out", new, "--since-position", 30, "--output", "json").stdout)[
        "next_position"
    ]
    assert [json.loads(line)["position"] for line in new.read_bytes().splitlines()] == list(range(30, size))


class Follower:
    """`trien audit follow` in a process of its own."""

    def __init__(self, place: Place, *options: str) -> None:
        self.lines: list[str] = []
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [TRIEN, "audit", "follow", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**place.environment(), "PYTHONUNBUFFERED": "1"},
            # Who runs the tests may ignore the signal, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        for stream, into in ((self.process.stdout, self.lines), (self.process.stderr, self.said)):
            threading.Thread(target=self._read, args=(stream, into), daemon=True).start()

    @staticmethod
    def _read(stream: Any, into: list[str]) -> None:
        with stream:
            into.extend(stream)

    def interrupt(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(SECONDS)
        finally:
            self.process.kill()


@pytest.mark.slow
def test_a_follower_sees_every_new_entry_also_across_a_restart_of_the_server(place: Place) -> None:
    begin = place.entries(newest=1)[0]["position"]
    follower = Follower(place, "--since-position", str(begin), "--output", "json", "--interval", "0.3")
    reads: list[dict[str, Any]] = []

    def seen() -> list[dict[str, Any]]:
        reads[:] = [json.loads(line) for line in list(follower.lines)]
        return reads

    def saw(proposal: str) -> bool:
        return any(one["subject"] == proposal for one in seen())

    try:
        wait_until(lambda: len(seen()) >= 1, seconds=60)
        first = place.happen()
        wait_until(lambda: saw(first), seconds=60)
        place.installation.kill()
        wait_until(lambda: any("Trying again" in line for line in follower.said), seconds=90)
        place.installation.start()
        second = place.happen()
        wait_until(lambda: saw(second), seconds=90)
    finally:
        code = follower.interrupt()
    assert code == 0, follower.said
    positions = [one["position"] for one in seen()]
    assert positions == list(range(begin, begin + len(positions)))
    assert "Going on." in "".join(follower.said)
    assert "Traceback" not in "".join(follower.said)


@pytest.mark.slow
@pytest.mark.promise("P8")
def test_syslog_and_file_get_every_entry_also_when_both_ends_are_killed(place: Place, record_property: Any) -> None:
    kills = 0
    for _ in range(3):
        place.happen()
        place.receiver.cut()
        place.happen()
        place.installation.kill()
        kills += 1
        place.installation.start()
    # A receiver that is away holds nobody up, and gets it all when it is back.
    place.receiver.stop()
    while_away = place.happen()
    place.wait_for(while_away)
    wait_until(lambda: "audit_export_delayed" in place.installation.log(), seconds=60)
    place.receiver.start()
    newest = place.wait_for(place.happen())

    def arrived() -> set[int]:
        return {parsed(message).position for message in list(place.receiver.messages)}

    wanted = set(range(newest["position"] + 1))
    wait_until(lambda: wanted <= arrived(), seconds=120)
    messages = [parsed(message) for message in place.receiver.messages]
    assert {message.host for message in messages} == {"trien1"}

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in place.exported.read_bytes().splitlines()]

    wait_until(lambda: wanted <= {line["position"] for line in lines()}, seconds=60)
    in_file = [line["position"] for line in lines()]
    record_property(
        "count",
        f"kills {kills}, entries {len(wanted)}, duplicates by syslog {len(messages) - len(arrived())}, in the file "
        f"{len(in_file) - len(set(in_file))}, gaps 0",
    )
    told = {json.dumps(line, sort_keys=True) for line in lines() if line["position"] in wanted}
    known = {json.dumps(one, sort_keys=True) for one in place.entries() if one["position"] in wanted}
    assert told == known
