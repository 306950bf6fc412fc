"""What a newcomer does first: `make demo`, and the lines of the README and of Getting started."""

import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import pyotp
import pytest
from tests.support.sandbox import Installation, copy_sandbox, environment, running_sandbox

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MM = 72 / 25.4


def _run(*command: str | Path, cwd: Path, text: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**variables),
        input=text,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def _password(installation: Installation) -> str:
    signer = next(one for one in installation.population["signers"] if one["name"] == "signers/hoang-trinh-don")
    generator = pyotp.parse_uri(signer["otpauth_uri"])
    assert isinstance(generator, pyotp.TOTP)
    return generator.now()


def test_the_demo_succeeds_twice_and_leaves_a_signed_document_and_no_server(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    for _ in range(2):
        done = _run(sys.executable, ROOT / "deploy" / "demo" / "demo.py", folder, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "pyHanko: valid, whole document, signed by Hoàng Trịnh Đôn" in done.stdout
        assert "Signature is Valid. Certificate is Trusted." in done.stdout
        assert "refused, as it must be" in done.stdout
        assert (folder / "signed.pdf").read_bytes().startswith(b"%PDF-")
        assert not (folder / "sandbox" / "connection.json").exists()
        assert [line for line in _command_lines() if str(folder) in line] == [], "the server is gone"


def test_the_demo_says_what_is_wrong_and_touches_no_folder_that_is_no_sandbox(tmp_path: Path) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "mine").write_text("keep")
    done = _run(sys.executable, ROOT / "deploy" / "demo" / "demo.py", tmp_path, cwd=tmp_path)
    assert done.returncode == 1
    assert "is no sandbox" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "sandbox" / "mine").read_text() == "keep"


def test_a_sandbox_that_runs_is_not_touched_by_a_second_one(tmp_path: Path) -> None:
    program = (
        f"import sys; from pathlib import Path; sys.path.insert(0, {str(ROOT / 'deploy' / 'demo')!r}); "
        f"import run; run.FOLDER = Path({str(tmp_path / 'sandbox')!r}); sys.exit(run.main())"
    )
    signed, log = tmp_path / "signed.pdf", tmp_path / "sandbox.log"
    connection = copy_sandbox(tmp_path / "sandbox") / "connection.json"
    signed.write_bytes(b"of the demo at work")
    log.write_text("of the sandbox at work\n")
    process = subprocess.Popen(
        [BIN / "trien-server", "sandbox", "--dir", tmp_path / "sandbox"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 120
        while not connection.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        before = connection.read_bytes()
        for command in ((sys.executable, "-c", program), (sys.executable, ROOT / "deploy/demo/demo.py", tmp_path)):
            done = _run(*command, cwd=tmp_path)
            assert done.returncode == 1
            said = f"A sandbox already runs in {tmp_path / 'sandbox'}; its connection file is {connection}."
            assert said in done.stderr
            assert len(done.stderr.strip().splitlines()) == 1
            assert connection.read_bytes() == before
            assert log.read_text() == "of the sandbox at work\n"
            assert signed.read_bytes() == b"of the demo at work"
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def test_the_decision_has_the_paper_margins_and_typeface_of_the_decree(tmp_path: Path) -> None:
    document = tmp_path / "decision.pdf"
    made = _run(sys.executable, ROOT / "deploy" / "demo" / "decision.py", document, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    boxes = _Boxes()
    boxes.feed(_run("pdftotext", "-bbox", document, "-", cwd=tmp_path).stdout)
    assert [round(length / MM) for length in boxes.page] == [210, 297]
    assert len(boxes.words) > 150
    left, right = min(word[0] for word in boxes.words), max(word[2] for word in boxes.words)
    top, bottom = min(word[1] for word in boxes.words), max(word[3] for word in boxes.words)
    assert 29.5 * MM <= left <= 35 * MM
    assert 15 * MM <= boxes.page[0] - right <= 20.5 * MM
    assert 20 * MM <= top <= 25 * MM
    assert boxes.page[1] - bottom >= 20 * MM
    fonts = _run("pdffonts", document, cwd=tmp_path).stdout.splitlines()[2:]
    assert len(fonts) == 4
    for font in fonts:
        assert re.match(r"[A-Z]{6}\+Liberation-Serif", font)
        assert font.split()[-5] == "yes", "embedded"


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md"])
def test_the_python_that_a_newcomer_copies_signs(page: str, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    with running_sandbox(tmp_path / "build" / "run") as installation:
        (tmp_path / "build" / "decision.pdf").write_bytes(b"any file")
        password = _password(installation)
        typed = f"import getpass\ngetpass.getpass = lambda _: {password!r}\n"
        check = "\nassert len(result.signatures) == 1 and result.audit_entry.startswith('auditEntries/')\n"
        done = _run(sys.executable, "-c", typed + code[1] + check, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", ["README.md", "docs/getting-started.md", "deploy/demo/run.py"])
def test_the_commands_that_a_newcomer_copies_sign_and_verify(page: str, tmp_path: Path) -> None:
    lines = re.findall(r"^ +\.venv/bin/trien ([^#\n]*)", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    lines = [line.replace("{sample}", "build/decision.pdf").strip() for line in lines]
    ran = []
    with running_sandbox(tmp_path / "build" / "run") as installation:
        made = _run(sys.executable, ROOT / "deploy" / "demo" / "decision.py", "build/decision.pdf", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        for line in lines:
            # The password that a person would type at the prompt.
            command = [*line.split(), "--otp-file", "-"] if line.startswith("sign") else line.split()
            connection = str(installation.directory / "connection.json")
            done = _run(
                BIN / "trien", *command, cwd=tmp_path, text=_password(installation), TRIEN_CONNECTION=connection
            )
            assert done.returncode == 0, done.stdout + done.stderr
            ran.append(line.split()[0])
    assert {"otp", "sign", "verify"} <= set(ran)


class _Boxes(HTMLParser):
    """Reads the page's size and the words' boxes from `pdftotext -bbox`."""

    def __init__(self) -> None:
        super().__init__()
        self.page: tuple[float, ...] = ()
        self.words: list[tuple[float, ...]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "page":
            self.page = (float(values["width"]), float(values["height"]))
        elif tag == "word":
            self.words.append(tuple(float(values[name]) for name in ("xmin", "ymin", "xmax", "ymax")))


def _command_lines() -> list[str]:
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            lines.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return lines
