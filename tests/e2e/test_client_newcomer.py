"""What a newcomer meets beside the straight way: Ctrl-C too early, and the demo's PDF in one's own hands."""

import re
import subprocess
import sys
from pathlib import Path

from tests.support.administration import Administrator
from tests.support.sandbox import Installation, environment, running_sandbox
from trien.v1 import algorithms_pb2, signer_service_pb2

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "deploy" / "demo"


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=180, check=False)


def python_of(*headings: str) -> list[str]:
    """Returns the Python under these headings of the integrator's page, in their order."""
    page = (ROOT / "docs" / "integrator.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
    return [block for heading in headings for block in re.findall(r"```python\n(.*?)```", sections[heading], re.DOTALL)]


def test_ctrl_c_before_the_sandbox_is_there_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "decision.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)\n"
    )
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(DEMO)!r}]; import run; sys.exit(run.main())"
    done = _run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "The sandbox is stopped." in done.stdout


def test_the_line_that_the_demo_prints_finds_its_pdf_good(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shown = _run(sys.executable, DEMO / "demo.py", folder, cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    [line] = re.findall(r"^  (\S*trien verify .*)$", shown.stdout, re.MULTILINE)
    verified = _run(*line.split(), cwd=ROOT)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "Signature 1 of 1: GOOD" in verified.stdout
    forged = _run(*line.replace("signed.pdf", "forged.pdf").split(), cwd=ROOT)
    assert forged.returncode == 1
    assert "CHANGED" in forged.stdout


def test_the_python_of_the_integrators_page_signs_in_one_round_trip_and_in_two_phases(tmp_path: Path) -> None:
    blocks = python_of("Connect", "One round trip", "Two phases")
    blocks = [block for block in blocks if "district.example" not in block]
    assert len(blocks) == 3
    with running_sandbox(tmp_path / "build" / "run") as installation:
        (tmp_path / "build" / "decision.pdf").write_bytes(b"any file")
        signers = installation.population["signers"]
        uri = next(one["otpauth_uri"] for one in signers if one["name"] == "signers/hoang-trinh-don")
        # Two codes without waiting for half a minute: that of now, and that of the next step. The one before may have
        # put the authenticator in force, when the sandbox was made.
        typed = (
            "import getpass, pyotp, time\n"
            f"totp, delays = pyotp.parse_uri({uri!r}), [0, -30]\n"
            "getpass.getpass = lambda _: totp.at(time.time() - delays.pop(0))\n"
        )
        check = "\nassert len(result.signatures) == 1 and delays == []\n"
        done = _run(sys.executable, "-c", typed + "".join(blocks) + check, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("credentials/")
    assert "auditEntries/" in done.stdout


def test_the_python_of_the_integrators_page_signs_in_every_other_way(
    installation: Installation, administrator: Administrator, tmp_path: Path
) -> None:
    blocks = python_of(
        "Both phases in one call",
        "Asynchronous code",
        "Files of any kind",
        "Keys for code that knows only `cryptography`",
    )
    assert len(blocks) == 4
    # A person with a counter, for a clock gives one code in half a minute.
    person = administrator.create_person("page-reader", key_type=algorithms_pb2.RSA_2048)
    codes = [person.authenticator.take() for _ in range(len(blocks))]
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "run").symlink_to(installation.directory)
    (tmp_path / "build" / "decision.pdf").write_bytes(b"any file")
    before = (
        "from getpass import getpass\n"
        "from trien_client import Client, HashFunction, SignatureAlgorithm, digest_file\n"
        f"codes = {codes!r}\n"
        "getpass = lambda _: codes.pop(0)\n"
        'digest = digest_file("build/decision.pdf", HashFunction.SHA256)\n'
    )
    checks = [
        "assert len(result.signatures) == 1 and result.approved_by == SIGNER; del result",
        "assert len(result.signatures) == 1",
        "open('build/decision.pdf.p7s', 'wb').write(signature)",
        "assert request.is_signature_valid and codes == []",
    ]
    program = before + "".join(f"{block}\n{check}\n" for block, check in zip(blocks, checks, strict=True))
    for shown, own in (
        ("credentials/hoang-trinh-don-rsa", person.credential),
        ("signers/hoang-trinh-don", person.name),
        ("SIGNER", repr(person.name)),
    ):
        assert shown in program
        program = program.replace(shown, own)
    done = _run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    trien = str(Path(sys.executable).with_name("trien"))
    verified = _run(
        trien, "verify", "build/decision.pdf.p7s", "--connection", "build/run/connection.json", cwd=tmp_path
    )
    assert "Signature 1 of 1: GOOD" in verified.stdout, verified.stderr


def test_the_python_of_the_integrators_page_approves_a_list_by_a_question_and_its_answer(
    installation: Installation, administrator: Administrator, tmp_path: Path
) -> None:
    question, message = python_of("Codes that are for one list")
    person = administrator.create_person("page-reader-ocra", key_type=algorithms_pb2.RSA_2048)
    _, uri = administrator.enrol(person.name, "ocra", signer_service_pb2.Authenticator.OCRA, 0)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "run").symlink_to(installation.directory)
    program = (
        "import hashlib\n"
        "from trien_client import AuthorizationState, Client, NotAllowedByPolicy, SignatureAlgorithm\n"
        "from trien_client.ocra import TestAuthenticator\n"
        f"device, prompts = TestAuthenticator.from_uri({uri!r}), []\n"
        "def getpass(prompt):\n"
        "    prompts.append(prompt)\n"
        "    return device.answer(challenge.ocra_question.uri)\n"
        "digest = hashlib.sha256(b'any file').digest()\n"
        f"{question}\n{message}\n"
        "assert prompts == [f'Answer for {challenge.fingerprint}: '] and page.startswith('<svg')\n"
        "with Client.from_connection_file('build/run/connection.json') as client:\n"
        "    states = [client.get_authorization(name).state for name in names]\n"
        "    assert states == [AuthorizationState.APPROVED] * 2\n"
        "    more = client.create_authorization(\n"
        "        'credentials/hoang-trinh-don-rsa', SignatureAlgorithm.RSA_PSS_SHA256, [digest]\n"
        "    )\n"
        "    try:\n"
        "        approve_by_message(client, [more.name])\n"
        "    except NotAllowedByPolicy as refusal:\n"
        "        print(refusal)\n"
    )
    for shown, own in (
        ("credentials/hoang-trinh-don-rsa", person.credential),
        ("signers/hoang-trinh-don", person.name),
    ):
        assert shown in program
        program = program.replace(shown, own)
    done = _run(sys.executable, "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "delivers no codes by SMS or e-mail" in done.stdout


def test_the_python_of_the_integrators_page_enrols_an_authenticator(
    installation: Installation, administrator: Administrator, tmp_path: Path
) -> None:
    signer = administrator.create_signer("page-answerer")
    [program] = [block for block in python_of("Administration") if "connection.json" in block]
    assert "signers/hoang-trinh-don" in program
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "run").symlink_to(installation.directory)
    done = _run(sys.executable, "-c", program.replace("signers/hoang-trinh-don", signer), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{signer}/authenticators/ocra" in done.stdout
