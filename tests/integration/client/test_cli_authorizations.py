"""`trien authorizations`, against the fake server and as a person at a terminal."""

import json
import threading
import time
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.fakes.signing_service import SIGNER, Abort, FakeSigningService, Refuse, Tamper
from tests.integration.client.command import CODE, INTERRUPT, Trien, at_terminal

from trien_client import Authorization, Client, SignatureAlgorithm, SignedAttributes

P256 = "credentials/p256"
ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256


def asked(client: Client, count: int = 1, **options: object) -> Authorization:
    digests = [bytes([number]) * 32 for number in range(count)]
    return client.create_authorization(P256, ALGORITHM, digests, **options)  # type: ignore[arg-type]


def test_what_waits_is_listed_with_all_that_a_person_has_to_know(trien: Trien, client: Client) -> None:
    assert trien("authorizations", "list").stdout == "Nothing waits for a decision.\n"
    one = asked(client, approver=SIGNER)
    many = asked(client, 3)
    document = client.create_authorization(
        "credentials/rsa", SignatureAlgorithm.RSA_PSS_SHA256, [SignedAttributes(document_digest=b"\xab" * 32, der=b"")]
    )
    shown = trien("authorizations", "list").stdout
    assert shown.count("PENDING until ") == 3
    assert shown.count("(in 10 minutes)") == 3
    for text in (
        *(one.name, many.name, document.name),
        "1 digest with ECDSA_P256_SHA256",
        "3 digests with ECDSA_P256_SHA256",
        "1 document with RSA_PSS_SHA256",
        "fingerprint: abab abab abab abab",
        "client:      clients/portal",
        f"approver:    {SIGNER}",
    ):
        assert text in shown
    assert max(map(len, shown.splitlines())) <= 80
    only = trien("authorizations", "list", "--credential", "rsa").stdout
    assert document.name in only
    assert many.name not in only
    content = json.loads(trien("authorizations", "list", "--output", "json").stdout)
    assert {found["name"]: len(found["items"]) for found in content} == {one.name: 1, many.name: 3, document.name: 1}
    assert {found["fingerprint"] for found in content} == {one.fingerprint, many.fingerprint, "ab" * 8}


def test_a_title_is_shown_wherever_somebody_decides_and_as_the_words_of_the_application(
    trien: Trien, client: Client
) -> None:
    words = "“Báo cáo mùa vụ” (the application's words)"
    name = asked(client, title="Báo cáo mùa vụ").name
    assert f"  title:       {words}\n" in trien("authorizations", "list").stdout
    [content] = json.loads(trien("authorizations", "list", "--output", "json").stdout)
    assert content["title"] == "Báo cáo mùa vụ"
    assert words in trien("authorizations", "wait", name, "--for", "0", exit_code=6).stdout
    code, screen, _ = at_terminal(
        ["authorizations", "approve", name], [INTERRUPT], {"TRIEN_CONNECTION": str(trien.connection)}
    )
    assert (code, words in screen) == (130, True), screen
    assert trien("authorizations", "deny", name).stdout == f"Denied: {name}\n  title: {words}\n"


def test_what_is_decided_or_has_expired_is_listed_only_when_all_is_asked_for(
    trien: Trien, client: Client, service: FakeSigningService
) -> None:
    denied, approved = asked(client), asked(client)
    service.lifetime = timedelta(seconds=-1)
    expired = asked(client)
    client.deny_authorization(denied.name)
    client.approve_authorizations([approved.name], signer=SIGNER, one_time_password=CODE)
    assert trien("authorizations", "list").stdout == "Nothing waits for a decision.\n"
    everything = trien("authorizations", "list", "--all").stdout
    assert "state:       DENIED" in everything
    assert "state:       APPROVED until" in everything
    assert "state:       PENDING, expired at" in everything
    assert f"approved by: {SIGNER}" in everything
    content = json.loads(trien("authorizations", "list", "--all", "--output", "json").stdout)
    assert {found["name"]: found["expired"] for found in content} == {
        denied.name: False,
        approved.name: False,
        expired.name: True,
    }


@pytest.mark.promise("P2")
def test_several_are_approved_with_one_password(trien: Trien, client: Client, service: FakeSigningService) -> None:
    names = [asked(client).name, asked(client, 20).name]
    result = trien("authorizations", "approve", *names, "--otp-file", "-", code=CODE)
    assert result.stderr.startswith("To be approved:")
    assert all(name in result.stderr for name in names)
    assert result.stdout == f"Approved: 2 authorizations (by {SIGNER}, auditEntries/e2)\n"
    assert service.approvals == 1
    [request] = service.requests("ApproveAuthorizations")
    assert list(request.names) == names
    again = asked(client).name
    content = json.loads(
        trien("authorizations", "approve", again, "--otp-file", "-", "--output", "json", code="222222").stdout
    )
    assert (content["authorizations"], content["signer"]) == ([again], SIGNER)


def test_a_person_sees_what_is_approved_and_is_asked_again(
    trien: Trien, client: Client, service: FakeSigningService
) -> None:
    one, many = asked(client, approver=SIGNER), asked(client, 20)
    code, screen, prompts = at_terminal(
        ["authorizations", "approve", one.name, many.name],
        ["000000", "111 111"],
        {"TRIEN_CONNECTION": str(trien.connection)},
    )
    assert (code, prompts) == (0, 2), screen
    for text in (one.name, many.name, "20 digests with ECDSA_P256_SHA256", "fingerprint 0000 0000 0000 0000"):
        assert text in screen
    assert screen.count("To be approved:") == 1
    assert f"One-time password of {SIGNER} (not shown):" in screen
    assert "2 attempts remain" in screen
    assert "111 111" not in screen
    sent = service.requests("ApproveAuthorizations")
    assert len({request.request_id for request in sent}) == 1


def test_a_person_may_break_off_an_approval(trien: Trien, client: Client, service: FakeSigningService) -> None:
    name = asked(client).name
    code, screen, _ = at_terminal(
        ["authorizations", "approve", name], [INTERRUPT], {"TRIEN_CONNECTION": str(trien.connection)}
    )
    assert code == 130, screen
    assert service.requests("ApproveAuthorizations") == []


def test_what_cannot_be_approved_is_named_before_a_password_is_asked_for(
    trien: Trien, client: Client, service: FakeSigningService
) -> None:
    good, denied = asked(client).name, asked(client).name
    client.deny_authorization(denied)
    approve = ["authorizations", "approve", "--otp-file", "-"]
    refused = trien(*approve, good, denied, code=CODE, exit_code=1)
    assert f"{denied} is DENIED, not pending." in refused.stderr
    assert "AUTHORIZATION_NOT_PENDING" in refused.stderr
    unknown = trien(*approve, good, f"{P256}/authorizations/none", code=CODE, exit_code=1)
    assert f"{P256}/authorizations/none: refused: PERMISSION_DENIED" in unknown.stderr
    assert "trien authorizations list" in unknown.stderr
    assert "not an authorization" in trien(*approve, "a1", code=CODE, exit_code=2).stderr
    assert "named twice" in trien(*approve, good, good, code=CODE, exit_code=2).stderr
    many = [f"{P256}/authorizations/n{number}" for number in range(101)]
    assert "at most 100" in trien(*approve, *many, code=CODE, exit_code=2).stderr
    other = trien(*approve, good, "--signer", "other", code=CODE, exit_code=2)
    assert f"signers/other cannot decide on {good}. Give --signer {SIGNER}." in other.stderr
    service.plan("GetCredential", Tamper(lambda answer: answer.activators.add(signer="signers/other")))
    assert f"--signer {SIGNER} or signers/other" in trien(*approve, good, code=CODE, exit_code=2).stderr
    assert service.requests("ApproveAuthorizations") == []


def test_the_one_that_the_server_refuses_is_named(trien: Trien, client: Client, service: FakeSigningService) -> None:
    service.lifetime = timedelta(seconds=-1)
    name = asked(client).name
    approve = ["authorizations", "approve", name, "--otp-file", "-"]
    assert f"{name}: refused: AUTHORIZATION_EXPIRED" in trien(*approve, code=CODE, exit_code=1).stderr
    error = json.loads(trien(*approve, "--output", "json", code=CODE, exit_code=1).stderr)["error"]
    assert (error["reason"], error["authorization"]) == ("AUTHORIZATION_EXPIRED", name)
    assert service.approvals == 0


@pytest.mark.promise("P7")
def test_an_approval_whose_answer_was_lost_is_not_made_twice(
    trien: Trien, client: Client, service: FakeSigningService
) -> None:
    name = asked(client).name
    service.plan("ApproveAuthorizations", Abort(work=True))
    assert "Approved: " in trien("authorizations", "approve", name, "--otp-file", "-", code=CODE).stdout
    assert len(service.requests("ApproveAuthorizations")) == 2
    assert service.approvals == 1


def test_a_denial_is_for_good(trien: Trien, client: Client, service: FakeSigningService) -> None:
    name = asked(client).name
    assert trien("authorizations", "deny", name).stdout == f"Denied: {name}\n"
    assert json.loads(trien("authorizations", "list", "--all", "--output", "json").stdout)[0]["state"] == "DENIED"
    again = trien("authorizations", "deny", name, exit_code=1)
    assert name in again.stderr
    assert "AUTHORIZATION_NOT_PENDING" in again.stderr
    assert service.approvals == 0


def test_a_wait_ends_with_the_decision(trien: Trien, client: Client, service: FakeSigningService) -> None:
    approved, denied, pending = (asked(client).name for _ in range(3))
    client.deny_authorization(denied)
    timer = threading.Timer(
        0.5, lambda: client.approve_authorizations([approved], signer=SIGNER, one_time_password=CODE)
    )
    timer.start()
    assert "state:       APPROVED" in trien("authorizations", "wait", approved).stdout
    timer.join()
    assert "state:       DENIED" in trien("authorizations", "wait", denied, exit_code=1).stdout
    still = trien("authorizations", "wait", pending, "--for", "0.2", exit_code=6)
    assert "state:       PENDING" in still.stdout
    assert "Nobody decided within 0.2 s; it still waits." in still.stderr


def test_a_wait_for_what_has_expired_ends_at_once(trien: Trien, client: Client, service: FakeSigningService) -> None:
    service.lifetime = timedelta(seconds=-1)
    name = asked(client).name
    begun = time.monotonic()
    shown = trien("authorizations", "wait", name, exit_code=1).stdout
    assert "PENDING, expired at" in shown
    assert time.monotonic() - begun < 30
    assert len(service.requests("WaitAuthorization")) == 1


def test_a_lost_answer_to_a_denial_is_said_to_be_unknown(
    trien: Trien, client: Client, service: FakeSigningService
) -> None:
    name = asked(client).name
    service.plan("DenyAuthorization", Abort(grpc.StatusCode.DEADLINE_EXCEEDED, work=True))
    assert "not known" in trien("authorizations", "deny", name, exit_code=3).stderr
    service.plan("GetAuthorization", Refuse("STORE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE, retry_after=600))
    assert trien("authorizations", "approve", name, "--otp-file", "-", code=CODE, exit_code=3).stdout == ""


def test_a_password_file_serves_an_approval(trien: Trien, client: Client, tmp_path: Path) -> None:
    (tmp_path / "code.txt").write_text("111 111\n")
    name = asked(client).name
    assert name in trien("authorizations", "approve", name, "--otp-file", tmp_path / "code.txt").stdout
    assert "There is no terminal" in trien("authorizations", "approve", name, exit_code=2).stderr
