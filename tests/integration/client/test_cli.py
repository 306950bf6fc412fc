"""The command `trien`, against the fake server."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pyotp
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.documents.judge import require_good
from tests.documents.producers import reportlab_page
from tests.fakes.signing_service import (
    SIGNER,
    TOKEN,
    Abort,
    CertificateAuthority,
    FakeServer,
    FakeSigningService,
    Refuse,
    Tamper,
)
from tests.integration.client.command import CODE, INTERRUPT, SECRET, URI, Trien, at_terminal

from trien_client.cli.findings import unreadable
from trien_client.cli.options import Means
from trien_client.cli.outcome import ADVICE, MEANS_ADVICE, clock_time, describe, plain
from trien_client.cli.password import PasswordSource


@pytest.mark.parametrize(
    ("credential", "options"),
    [
        ("rsa", []),
        ("credentials/rsa", ["--algorithm", "RSA_PKCS1_SHA256", "--no-pades"]),
        ("p256", ["--reason", "Phê duyệt", "--location", "Hà Nội", "--new-field", "Lãnh đạo"]),
    ],
)
def test_a_pdf_is_signed_and_verified(
    trien: Trien, document: Path, tmp_path: Path, authority: CertificateAuthority, credential: str, options: list[str]
) -> None:
    out = tmp_path / "out.pdf"
    before = document.read_bytes()
    result = trien("sign", "pdf", document, out, "--credential", credential, "--otp-file", "-", *options, code=CODE)
    assert "auditEntries/e1" in result.stdout
    require_good(out, authority.root_pem)
    assert document.read_bytes() == before
    checked = trien("verify", out)
    assert "Signature 1 of 1: GOOD" in checked.stdout
    assert "Hoàng Trình Đôn" in checked.stdout
    if "--new-field" in options:
        assert "field Lãnh đạo" in checked.stdout


def test_many_pdfs_take_one_password(
    trien: Trien, service: FakeSigningService, tmp_path: Path, authority: CertificateAuthority
) -> None:
    folder = tmp_path / "made" / "signed"
    documents = [reportlab_page(tmp_path / f"{number}.pdf") for number in range(20)]
    sign = ["sign", "pdfs", *documents, "--output-dir", folder, "--credential", "p256", "--otp-file", "-"]
    result = trien(*sign, code=CODE)
    assert result.stdout.count("Signed: ") == 20
    assert service.approvals == 1
    [request] = service.requests("SignDigests")
    assert len(request.items) == 20
    for document in documents:
        require_good(folder / document.name, authority.root_pem)
    assert "--force" in trien(*sign, code="222222", exit_code=2).stderr
    assert service.approvals == 1


def test_one_bad_pdf_keeps_all_from_being_signed(trien: Trien, service: FakeSigningService, tmp_path: Path) -> None:
    folder = tmp_path / "signed"
    documents = [reportlab_page(tmp_path / f"{number}.pdf") for number in range(3)]
    documents[1].write_text("no pdf")
    sign = ["sign", "pdfs", *documents, "--output-dir", folder, "--credential", "p256", "--otp-file", "-"]
    assert "1.pdf is not a PDF" in trien(*sign, code=CODE, exit_code=2).stderr
    reportlab_page(documents[1])
    service.plan("SignDigests", Refuse("CREDENTIAL_DISABLED"))
    assert "CREDENTIAL_DISABLED" in trien(*sign, code=CODE, exit_code=1).stderr
    assert not folder.exists()
    assert service.approvals == 0
    folder.write_text("a file")
    assert "There is no folder" in trien(*sign, code=CODE, exit_code=2).stderr
    same = ["sign", "pdfs", documents[0], documents[0], "--output-dir", folder, "--credential", "p256"]
    assert "same name" in trien(*same, "--otp-file", "-", code=CODE, exit_code=2).stderr


def test_a_second_signature_takes_the_next_field(trien: Trien, document: Path, tmp_path: Path) -> None:
    once, twice = tmp_path / "once.pdf", tmp_path / "twice.pdf"
    trien("sign", "pdf", document, once, "--credential", "rsa", "--otp-file", "-", code="111111")
    trien("sign", "pdf", once, twice, "--credential", "p256", "--otp-file", "-", code="222222")
    content = json.loads(trien("verify", twice, "--output", "json").stdout)
    assert content["good"] is True
    assert [signature["field"] for signature in content["signatures"]] == ["Signature1", "Signature2"]
    assert [signature["whole"] for signature in content["signatures"]] == [False, True]


def test_verify_finds_what_is_wrong(
    trien: Trien, document: Path, tmp_path: Path, stranger: CertificateAuthority
) -> None:
    out = tmp_path / "out.pdf"
    trien("sign", "pdf", document, out, "--credential", "p256", "--otp-file", "-", code=CODE)
    (tmp_path / "stranger.pem").write_bytes(stranger.root_pem)
    result = trien("verify", out, "--trust-anchors", tmp_path / "stranger.pem", exit_code=1)
    unknown = "intact, but signed by a CA that is not among your trust anchors (issuer: Test Issuing CA): NOT GOOD"
    assert f"Signature 1 of 1: {unknown}" in result.stdout
    assert "NOT TRUSTED" in result.stdout
    assert "unchanged since" in result.stdout
    content = out.read_bytes()
    (tmp_path / "changed.pdf").write_bytes(content.replace(b"LibreOffice", b"LibreOffiCe", 1))
    assert content.count(b"LibreOffice") > 0
    changed = trien("verify", tmp_path / "changed.pdf", exit_code=1).stdout
    assert "NOT GOOD" in changed
    assert "certificate: leads to a trust anchor" in changed
    found = json.loads(trien("verify", tmp_path / "changed.pdf", "--output", "json", exit_code=1).stdout)
    assert [(one["good"], one["unchanged"], one["trusted"]) for one in found["signatures"]] == [(False, False, True)]
    nothing = unreadable("Signature1", "damaged")
    assert "certificate: not looked at" in nothing.text(1, 1)
    assert nothing.content()["trusted"] is None
    # Something that was added without being signed: another page content after the signature.
    from pyhanko.pdf_utils.generic import NameObject, TextStringObject
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter

    with out.open("rb") as source, (tmp_path / "added.pdf").open("wb") as target:
        writer = IncrementalPdfFileWriter(source)
        page, _ = writer.prev.root["/Pages"]["/Kids"][0], None
        page[NameObject("/Contents")] = TextStringObject("other")
        writer.mark_update(writer.prev.root["/Pages"]["/Kids"].raw_get(0))
        writer.write(target)  # type: ignore[no-untyped-call]
    result = trien("verify", tmp_path / "added.pdf", exit_code=1)
    assert "not permitted" in result.stdout
    assert "certificate: leads to a trust anchor" in result.stdout
    assert "holds no signature" in trien("verify", document, exit_code=1).stdout
    (tmp_path / "no.pdf").write_bytes(b"no pdf")
    assert "is not a PDF" in trien("verify", tmp_path / "no.pdf", exit_code=2).stderr
    assert "--trust-anchors" in trien("verify", out, exit_code=2, TRIEN_CONNECTION="").stderr


def test_several_files_are_verified_each(trien: Trien, document: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.pdf"
    trien("sign", "pdf", document, out, "--credential", "p256", "--otp-file", "-", code=CODE)
    assert trien("verify", out, out).stdout.count("Signature 1 of 1: GOOD") == 2
    mixed = trien("verify", out, document, exit_code=1)
    assert f"{out}\nSignature 1 of 1: GOOD" in mixed.stdout
    assert "holds no signature" in mixed.stdout
    (tmp_path / "no.pdf").write_bytes(b"no pdf")
    files = [tmp_path / "no.pdf", tmp_path / "missing.pdf", out]
    assert "Signature 1 of 1: GOOD" in trien("verify", *files, exit_code=2).stdout
    content = json.loads(trien("verify", *files, "--output", "json", exit_code=2).stdout)
    assert content["good"] is False
    assert [file["good"] for file in content["files"]] == [False, False, True]
    assert [file.get("error", "").rpartition("/")[2] for file in content["files"]] == [
        "no.pdf is not a PDF.", "missing.pdf.", "",
    ]  # fmt: skip
    beside = ["--signature", out, "--certificate", out]
    assert "one file" in trien("verify", out, out, *beside, exit_code=2).stderr


def test_digests_are_signed_and_verified_beside_their_file(
    trien: Trien, tmp_path: Path, stranger: CertificateAuthority
) -> None:
    (tmp_path / "stranger.pem").write_bytes(stranger.root_pem)
    file = tmp_path / "a.xml"
    file.write_text("<a/>")
    signature, chain = tmp_path / "a.sig", tmp_path / "a.pem"
    for credential, code in (("rsa", "111111"), ("p256", "222222"), ("p384", "333333"), ("ed25519", "444444")):
        trien(
            *("sign", "digest", "--credential", credential, "--file", file, "--otp-file", "-", "--force"),
            *("--signature-out", signature, "--certificate-out", chain),
            code=code,
        )
        assert "GOOD" in trien("verify", file, "--signature", signature, "--certificate", chain).stdout
        strange = ["--signature", signature, "--certificate", chain, "--trust-anchors", tmp_path / "stranger.pem"]
        assert (
            "among your trust anchors (issuer: Test Issuing CA)" in trien("verify", file, *strange, exit_code=1).stdout
        )
        file.write_text(file.read_text() + " ")
        result = trien("verify", file, "--signature", signature, "--certificate", chain, exit_code=1)
        assert "CHANGED" in result.stdout


def test_many_digests_take_one_password(trien: Trien, service: FakeSigningService, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    result = trien(
        *("sign", "digest", "--credential", "p256", "--file", tmp_path / "a", "--hex", "00" * 32, "--hex", "11" * 32),
        *("--otp-file", "-", "--output", "json"),
        code=CODE,
    )
    content = json.loads(result.stdout)
    assert len(content["signatures"]) == 3
    assert content["approved_by"] == SIGNER
    assert service.approvals == 1


def test_credentials_are_listed_in_80_columns(trien: Trien, service: FakeSigningService) -> None:
    def widen(answer: Any) -> None:
        answer.credentials[0].name = f"credentials/{'n' * 63}"
        answer.credentials[0].display_name = "Ủy ban nhân dân " * 12
        answer.credentials[0].activators.add(signer=f"signers/{'s' * 63}")

    service.plan("ListCredentials", Tamper(widen))
    lines = trien("credentials", "list").stdout.splitlines()
    assert max(map(len, lines)) == 80
    assert "n" * 63 in lines[0]
    assert "credentials/rsa" in trien("credentials", "list").stdout
    assert {c["name"] for c in json.loads(trien("credentials", "list", "--output", "json").stdout)} == {
        "credentials/rsa",
        "credentials/p256",
        "credentials/p384",
        "credentials/ed25519",
    }


def test_everything_can_be_said_without_a_connection_file(
    trien: Trien, server: FakeServer, document: Path, tmp_path: Path, authority: CertificateAuthority
) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "ca.pem").write_bytes(authority.root_pem)
    reach = ["--address", server.address, "--ca-file", tmp_path / "ca.pem", "--token-file", tmp_path / "token"]
    sign = ["sign", "pdf", document, tmp_path / "out.pdf", "--credential", "rsa", "--otp-file", "-"]
    result = trien(*sign, *reach, code=CODE, exit_code=2, TRIEN_CONNECTION="")
    assert "--trust-anchors" in result.stderr
    trien(*sign, *reach, "--trust-anchors", tmp_path / "ca.pem", code=CODE, TRIEN_CONNECTION="")
    # A token is not sent to a server that its file does not name.
    assert "--token-file" in trien("credentials", "list", "--address", "localhost:1", exit_code=2).stderr


# What goes wrong


FAILURES: list[tuple[Any, int, str]] = [
    (Refuse("CREDENTIAL_DISABLED"), 1, "CREDENTIAL_DISABLED"),
    (Refuse("PERMISSION_DENIED", grpc.StatusCode.PERMISSION_DENIED), 1, "PERMISSION_DENIED"),
    (
        Refuse("ONE_TIME_PASSWORD_REJECTED", grpc.StatusCode.PERMISSION_DENIED, {"remainingAttempts": "3"}),
        4,
        "3 attempts remain.",
    ),
    (
        Refuse("ONE_TIME_PASSWORD_REJECTED", grpc.StatusCode.PERMISSION_DENIED, {"remainingAttempts": "1"}),
        4,
        "not accepted. 1 attempt remains.",
    ),
    (
        Refuse("ONE_TIME_PASSWORD_REJECTED", grpc.StatusCode.PERMISSION_DENIED, {"remainingAttempts": "0"}),
        4,
        "The signer is locked for this application for a while",
    ),
    (Refuse("SIGNER_LOCKED", grpc.StatusCode.RESOURCE_EXHAUSTED), 4, "Ask your administrator to unlock"),
    (
        Refuse("SIGNER_LOCKED", grpc.StatusCode.RESOURCE_EXHAUSTED, retry_after=60),
        4,
        "(in 1 minute), or ask your administrator",
    ),
    (Refuse("BUSY", grpc.StatusCode.UNAVAILABLE, retry_after=600), 3, "BUSY"),
    (Refuse("CLOCK_NOT_TRUSTED", grpc.StatusCode.UNAVAILABLE), 3, "clock is wrong"),
    (Abort(grpc.StatusCode.DEADLINE_EXCEEDED), 3, "not known"),
    (Refuse("A_NEW_REASON"), 1, "A_NEW_REASON"),
    (Tamper(lambda answer: answer.ClearField("signatures")), 5, "NOT_VERIFIED"),
]


@pytest.mark.parametrize(("step", "exit_code", "told"), FAILURES)
@pytest.mark.parametrize("output", ["text", "json"])
def test_a_failure_is_one_line_and_leaves_no_file(
    trien: Trien,
    service: FakeSigningService,
    document: Path,
    tmp_path: Path,
    step: Any,
    exit_code: int,
    told: str,
    output: str,
) -> None:
    service.plan("SignDigests", step)
    folder = tmp_path / "out"
    folder.mkdir()
    result = trien(
        *("sign", "pdf", document, folder / "out.pdf", "--credential", "rsa", "--otp-file", "-", "--output", output),
        code=CODE,
        exit_code=exit_code,
    )
    assert result.stdout == ""
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert CODE not in result.output
    assert TOKEN not in result.output
    assert list(folder.iterdir()) == []
    if output == "json":
        assert json.loads(result.stderr)["error"]["exit_code"] == exit_code


def test_every_reason_has_advice() -> None:
    from trien_client import _errors

    assert set(ADVICE) == set(_errors.REFUSALS)


def test_the_advice_on_a_delivery_and_on_a_rejected_answer_is_what_the_command_can_do() -> None:
    from trien_client import DeliveryLimitReached, OneTimePasswordRejected

    def rejection(*_: object) -> None:
        raise OneTimePasswordRejected("No.", metadata={"remainingAttempts": "2"})

    limit = describe(DeliveryLimitReached("Too many.", retry_after=timedelta(minutes=5))).advice
    assert re.fullmatch(r"Wait until .* \(in 5 minutes\), or approve by another authenticator\.", limit)
    assert set(MEANS_ADVICE) == set(Means)
    for means in Means:
        source = PasswordSource("-", what="")
        source.instruct("how", means)
        with pytest.raises(OneTimePasswordRejected) as rejected:
            source.until_accepted(rejection)
        assert describe(rejected.value).advice == MEANS_ADVICE[means]
    assert "next code of your app" in describe(OneTimePasswordRejected("No.")).advice


def test_a_wrong_ca_is_asked_about_before_anybody_is_alarmed(
    trien: Trien, stranger: CertificateAuthority, document: Path, tmp_path: Path
) -> None:
    (tmp_path / "stranger.pem").write_bytes(stranger.root_pem)
    sign = ["sign", "pdf", document, tmp_path / "out.pdf", "--credential", "p256", "--otp-file", "-"]
    refused = trien(*sign, "--trust-anchors", tmp_path / "stranger.pem", code=CODE, exit_code=5)
    assert "First make sure that --trust-anchors" in refused.stderr


def test_a_server_that_is_not_there_is_said_so(trien: Trien, server: FakeServer, tmp_path: Path) -> None:
    content = json.loads(trien.connection.read_text())
    content["address"] = "localhost:1"
    trien.connection.write_text(json.dumps(content))
    result = trien("credentials", "list", "--timeout", "2", exit_code=3)
    assert "No connection to localhost:1" in result.stderr


@pytest.mark.requirement("ASVS 5.0.0-12.3.2")
def test_a_server_of_another_ca_is_not_trusted(trien: Trien, stranger: CertificateAuthority, tmp_path: Path) -> None:
    (tmp_path / "stranger.pem").write_bytes(stranger.root_pem)
    process = subprocess.run(
        [str(Path(sys.executable).with_name("trien")), "credentials", "list", "--ca-file", tmp_path / "stranger.pem"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TRIEN_CONNECTION": str(trien.connection)},
    )
    assert process.returncode == 5
    assert "SERVER_NOT_TRUSTED" in process.stderr
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda folder: ("missing.pdf", "out.pdf", []), "There is no file"),
        (lambda folder: ("in.pdf", "in.pdf", ["--force"]), "another name"),
        (lambda folder: ("in.pdf", "exists.pdf", []), "--force"),
        (lambda folder: ("in.pdf", "no/out.pdf", []), "There is no folder"),
        (lambda folder: ("text.pdf", "out.pdf", []), "is not a PDF"),
        (lambda folder: ("in.pdf", "link.pdf", ["--force"]), "another name"),
    ],
)
def test_files_that_cannot_be_used_cost_no_password(
    trien: Trien,
    service: FakeSigningService,
    tmp_path: Path,
    make: Callable[[Path], tuple[str, str, list[str]]],
    told: str,
) -> None:
    reportlab_page(tmp_path / "in.pdf")
    (tmp_path / "exists.pdf").write_text("mine")
    (tmp_path / "text.pdf").write_text("no pdf")
    (tmp_path / "link.pdf").symlink_to(tmp_path / "in.pdf")
    before = (tmp_path / "in.pdf").read_bytes()
    source, target, options = make(tmp_path)
    result = trien(
        *("sign", "pdf", tmp_path / source, tmp_path / target, "--credential", "rsa", "--otp-file", "-", *options),
        code=CODE,
        exit_code=2,
    )
    assert told in result.stderr
    assert service.requests("SignDigests") == []
    assert (tmp_path / "exists.pdf").read_text() == "mine"
    assert (tmp_path / "in.pdf").read_bytes() == before
    assert not (tmp_path / "out.pdf").exists()


def test_force_replaces_the_output_only(trien: Trien, document: Path, tmp_path: Path) -> None:
    (tmp_path / "out.pdf").write_text("old")
    trien(
        *("sign", "pdf", document, tmp_path / "out.pdf", "--credential", "rsa", "--otp-file", "-", "--force"), code=CODE
    )
    assert (tmp_path / "out.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "out.pdf").stat().st_mode == document.stat().st_mode


def test_without_a_terminal_and_a_file_it_says_how(trien: Trien, document: Path, tmp_path: Path) -> None:
    result = trien("sign", "pdf", document, tmp_path / "out.pdf", "--credential", "rsa", exit_code=2)
    assert "--otp-file" in result.stderr


def test_a_wait_ends_at_a_clock_time() -> None:
    now = datetime(2026, 11, 24, 23, 40, tzinfo=UTC)
    expected = {1: "23:40:01 (in 1 second)", 59: "23:40:59 (in 59 seconds)", 60: "23:41 (in 1 minute)"}
    expected |= {890: "23:54 (in 15 minutes)", 3600: "00:40 on 2026-11-25 (in 60 minutes)"}
    assert {seconds: clock_time(timedelta(seconds=seconds), now=now) for seconds in expected} == expected


@pytest.mark.parametrize("command", [["sign", "pdf"], ["sign", "digest"], ["credentials", "list"], ["otp"], ["verify"]])
def test_a_missing_connection_is_said_with_the_name_of_the_variable(
    trien: Trien, document: Path, tmp_path: Path, command: list[str]
) -> None:
    given: dict[str, list[object]] = {"pdf": [document, tmp_path / "out.pdf"], "digest": ["--file", document]}
    arguments = given.get(command[-1], [])
    arguments += ["--credential", "rsa", "--otp-file", "-"] if command[0] == "sign" else []
    arguments += [document] if command[0] == "verify" else []
    unset = trien(*command, *arguments, code=CODE, exit_code=2, TRIEN_CONNECTION="")
    assert "set TRIEN_CONNECTION" in unset.stderr
    missing = str(tmp_path / "none" / "connection.json")
    gone = trien(*command, *arguments, code=CODE, exit_code=2, TRIEN_CONNECTION=missing)
    assert f"{missing}, which TRIEN_CONNECTION names, is missing. Is the sandbox running? (make run)" in gone.stderr
    assert ("--trust-anchors" in gone.stderr) is (command == ["verify"])
    named = trien(*command, *arguments, "--connection", missing, code=CODE, exit_code=2)
    assert f"{missing} is missing." in named.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--credential", "Hoang Trinh Don"], "lower-case letters, digits and hyphens."),
        (["--credential", "signers/rsa"], "not a name in credentials"),
        (["--credential", "rsa", "--signer", "a_b"], "not a name in signers"),
        (["--credential", "rsa", "--otp-file", "none.txt"], "There is no file none.txt"),
    ],
)
def test_what_can_be_checked_here_is_checked_before_anything_is_asked_for(
    trien: Trien, service: FakeSigningService, document: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    for command in (["sign", "pdf", document, tmp_path / "out.pdf"], ["sign", "digest", "--file", document]):
        assert told in trien(*command, *options, exit_code=2).stderr
    assert service.calls == []
    assert "no file x" in trien("sign", "digest", "--credential", "rsa", "--file", "x", exit_code=2).stderr
    assert "hex digits" in trien("sign", "digest", "--credential", "rsa", "--hex", "xy", exit_code=2).stderr


def test_a_wrong_or_missing_signer_is_said_before_the_password_is_asked(
    trien: Trien, service: FakeSigningService, document: Path, tmp_path: Path
) -> None:
    sign = ["sign", "pdf", document, tmp_path / "out.pdf", "--credential", "rsa", "--otp-file", "-"]
    wrong = trien(*sign, "--signer", "hoang-trinh-dom", code=CODE, exit_code=2)
    assert "signers/hoang-trinh-dom may not use credentials/rsa. Give --signer signers/hoang-trinh-don." in wrong.stderr
    service.plan("GetCredential", Tamper(lambda answer: answer.activators.add(signer="signers/other")))
    several = trien(*sign, code=CODE, exit_code=2)
    assert "--signer signers/hoang-trinh-don or signers/other." in several.stderr
    assert service.requests("SignDigests") == []
    trien(*sign, "--signer", "hoang-trinh-don", code=CODE)


def test_an_empty_file_is_no_one_time_password(
    trien: Trien, service: FakeSigningService, document: Path, tmp_path: Path
) -> None:
    (tmp_path / "code.txt").write_text("\n")
    sign = ["sign", "pdf", document, tmp_path / "out.pdf", "--credential", "rsa", "--otp-file"]
    assert "code.txt holds no one-time password" in trien(*sign, tmp_path / "code.txt", exit_code=2).stderr
    assert "The standard input holds no one-time password" in trien(*sign, "-", code="", exit_code=2).stderr
    assert "alone in one line" in trien(*sign, "-", code="code: 111111", exit_code=2).stderr
    assert service.requests("SignDigests") == []


def test_an_open_sentence_of_the_server_is_closed() -> None:
    from trien_client import InvalidArgument

    failure = describe(InvalidArgument("expected a resource name such as 'credentials/{id}'"))
    assert failure.message.endswith("'credentials/{id}'.")


@pytest.mark.parametrize("command", [["sign", "pdf"], ["sign", "digest"], ["sign", "file"], ["nonsense"], ["verify"]])
def test_a_command_that_is_not_understood_exits_with_2(trien: Trien, command: list[str]) -> None:
    trien(*command, exit_code=2)


# A person at a terminal


def test_a_person_is_asked_again_and_what_is_typed_is_not_shown(
    trien: Trien, service: FakeSigningService, document: Path, tmp_path: Path, authority: CertificateAuthority
) -> None:
    arguments = ["sign", "pdf", str(document), str(tmp_path / "out.pdf"), "--credential", "p256"]
    code, screen, prompts = at_terminal(
        arguments, ["12345", "000000", "111 111"], {"TRIEN_CONNECTION": str(trien.connection)}
    )
    assert code == 0, screen
    assert prompts == 3
    assert "6 to 8 digits" in screen
    assert "2 attempts remain" in screen
    assert "quyết định.pdf" in screen
    for typed in ("12345", "000000", "111 111", "111111"):
        assert typed not in screen
    sent = service.requests("SignDigests")
    assert len(sent) == 2
    assert sent[0].request_id == sent[1].request_id
    require_good(tmp_path / "out.pdf", authority.root_pem)


@pytest.mark.parametrize("command", ["pdf", "digest"])
def test_a_person_may_break_off(trien: Trien, service: FakeSigningService, tmp_path: Path, command: str) -> None:
    document = reportlab_page(tmp_path / "in.pdf")
    arguments = {"pdf": [str(document), str(tmp_path / "out.pdf")], "digest": ["--file", str(document)]}[command]
    code, screen, _ = at_terminal(
        ["sign", command, *arguments, "--credential", "p256"],
        [INTERRUPT],
        {"TRIEN_CONNECTION": str(trien.connection)},
    )
    assert code == 130, screen
    assert "(not shown): \r\ntrien: Interrupted" in screen
    assert "Traceback" not in screen
    assert "pending" not in screen
    assert service.requests("SignDigests") == []
    assert {file.name for file in tmp_path.iterdir()} == {"in.pdf", "sandbox"}


def test_a_certificate_does_not_command_the_terminal() -> None:
    assert plain("Hoàng\x1b[2J Đôn\nSignature 2: GOOD\r") == "Hoàng�[2J Đôn�Signature 2: GOOD�"


def test_a_person_is_not_asked_again_when_locked(trien: Trien, service: FakeSigningService, tmp_path: Path) -> None:
    service.plan(
        "SignDigests",
        Refuse("ONE_TIME_PASSWORD_REJECTED", grpc.StatusCode.PERMISSION_DENIED, {"remainingAttempts": "0"}),
    )
    code, screen, prompts = at_terminal(
        ["sign", "digest", "--credential", "p256", "--hex", "00" * 32],
        ["111111"] * 3,
        {"TRIEN_CONNECTION": str(trien.connection)},
    )
    assert (code, prompts) == (4, 1), screen
    assert "locked for this application" in screen
    assert "next code" not in screen


# The sandbox's one-time passwords


def test_the_present_password_is_printed(trien: Trien) -> None:
    for options in ([], ["--signer", "hoang-trinh-don"], ["--credential", "rsa"]):
        result = trien("otp", *options)
        assert pyotp.TOTP(SECRET).verify(result.stdout.strip(), valid_window=1)
    content = json.loads(trien("otp", "--output", "json").stdout)
    assert content["signer"] == SIGNER
    assert 0 < content["valid_seconds"] <= 30


def test_outside_a_sandbox_no_password_is_made(server: FakeServer, trien: Trien, tmp_path: Path) -> None:
    folder = tmp_path / "real"
    folder.mkdir()
    connection = server.write_connection_file(folder, otpauth_uri=URI, sandbox=False)
    result = trien("otp", "--connection", connection, exit_code=2)
    assert "not a sandbox" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("uri", "told"),
    [(f"otpauth://hotp/Trien:don?secret={SECRET}&counter=0", "HOTP"), (f"nonsense {SECRET}", "not an otpauth URI")],
)
def test_what_cannot_be_computed_is_said_without_the_secret(
    server: FakeServer, trien: Trien, tmp_path: Path, uri: str, told: str
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    result = trien("otp", "--connection", server.write_connection_file(folder, otpauth_uri=uri), exit_code=2)
    assert told in result.stderr
    assert SECRET not in result.output


def test_help_is_there_for_every_command_and_fast(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        [],
        ["sign"],
        ["sign", "pdf"],
        ["sign", "pdfs"],
        ["sign", "digest"],
        ["sign", "file"],
        ["verify"],
        ["credentials", "list"],
        *(["authorizations", command] for command in ("list", "approve", "deny", "wait")),
        ["otp"],
        ["bench"],
    ]
    for command in commands:
        start = time.perf_counter()
        process = subprocess.run(
            [str(Path(sys.executable).with_name("trien")), *command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        seconds = time.perf_counter() - start
        assert "Usage: " in process.stdout
        with capsys.disabled():
            print(  # noqa: T201 - a measurement to look at, too dependent on the machine to assert
                f"\ntrien {' '.join(command)} --help: {seconds:.2f} s", end=""
            )
    assert len(commands) == 14


@pytest.mark.parametrize(
    "group",
    [
        [],
        ["sign"],
        ["credentials"],
        ["authorizations"],
        ["access"],
        ["access", "clients"],
        ["access", "operators"],
    ],
)
def test_no_summary_of_a_command_is_cut(trien: Trien, group: list[str]) -> None:
    listed = trien(*group, "--help", COLUMNS="80", TERMINAL_WIDTH="80").stdout
    summaries = re.findall(
        r"^  \w+ {2,}(.*)$", listed.partition("Commands:")[2].partition("Exit codes")[0], re.MULTILINE
    )
    assert summaries
    assert all(summary.endswith(".") and not summary.endswith("...") and len(summary) < 60 for summary in summaries)


def test_completion_can_be_installed_and_completes() -> None:
    program = [str(Path(sys.executable).with_name("trien"))]
    listed = subprocess.run([*program, "--help"], capture_output=True, text=True, check=True)
    assert "--install-completion" in listed.stdout
    completed = subprocess.run(
        program,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "_TRIEN_COMPLETE": "complete_bash", "COMP_WORDS": "trien si", "COMP_CWORD": "1"},
    )
    assert completed.stdout.split() == ["sign", "signers"], completed


def test_help_imports_neither_grpc_nor_pyhanko() -> None:
    program = (
        "import sys, trien_client.cli.main;"
        "print([m for m in ('grpc', 'google.protobuf', 'pyhanko', 'cryptography', 'rich') if m in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "[]"


def test_a_pinned_chain_can_be_read_by_openssl(trien: Trien, tmp_path: Path, authority: CertificateAuthority) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"content")
    trien(
        *("sign", "digest", "--credential", "rsa", "--file", file, "--otp-file", "-"),
        *("--signature-out", tmp_path / "a.sig", "--certificate-out", tmp_path / "a.pem"),
        code=CODE,
    )
    (tmp_path / "root.pem").write_bytes(authority.root.public_bytes(Encoding.PEM))
    key = subprocess.run(
        ["openssl", "x509", "-in", tmp_path / "a.pem", "-pubkey", "-noout"], capture_output=True, check=True
    )
    (tmp_path / "key.pem").write_bytes(key.stdout)
    verified = subprocess.run(
        [
            *("openssl", "dgst", "-sha256", "-verify", tmp_path / "key.pem", "-signature", tmp_path / "a.sig"),
            *("-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:32", file),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.stdout.strip() == "Verified OK"
