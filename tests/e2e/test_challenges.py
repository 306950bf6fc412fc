"""Codes that answer a challenge, through a real server and the SDK: OpenSSL has the last word."""

import asyncio
import hashlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from tests.integration.client.command import at_terminal
from tests.support.administration import Administrator, Connection, Person, Refused, request_of
from tests.support.openssl import verifies
from tests.support.sandbox import Installation, environment
from trien.v1 import signer_service_pb2

from trien_client import (
    AsyncClient,
    Authorization,
    AuthorizationState,
    ChallengeNotPending,
    Client,
    NotAllowedByPolicy,
    OneTimePasswordRejected,
    SignatureAlgorithm,
    TrienError,
    qr,
)
from trien_client.ocra import Question, TestAuthenticator
from trien_server.core.algorithms import SignatureAlgorithm as ServerAlgorithm

ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256


@pytest.fixture(scope="session")
def sdk(installation: Installation) -> Iterator[Client]:
    with Client.from_connection_file(installation.directory / "connection.json") as client:
        yield client


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("challenged")


@pytest.fixture(scope="session")
def device(administrator: Administrator, person: Person) -> TestAuthenticator:
    name, made = administrator.create_ocra(person.name)
    assert name == f"{person.name}/authenticators/ocra"
    return made


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def authorize(sdk: Client, person: Person, *texts: str) -> Authorization:
    return sdk.create_authorization(person.credential, ALGORITHM, [digest(text) for text in texts], title="Báo cáo")


@pytest.mark.promise("P2", "P3", "P6")
def test_twenty_documents_are_approved_by_one_answer_and_signed(
    sdk: Client, person: Person, device: TestAuthenticator, tmp_path: Path
) -> None:
    documents = [f"document {number}" for number in range(20)]
    names = [authorize(sdk, person, text).name for text in documents]
    challenge = sdk.create_challenge(names, signer=person.name)
    assert challenge.ocra_question is not None
    shown = Question.from_uri(challenge.ocra_question.uri)
    assert (shown.count, shown.fingerprint) == (20, challenge.fingerprint)
    code = device.answer(challenge.ocra_question.uri)
    approval = sdk.approve_authorizations(
        names, signer=person.name, one_time_password=lambda _: code, challenge=challenge
    )
    assert approval.authorizations == tuple(names)
    verified = 0
    for name, text in zip(names, documents, strict=True):
        signed = sdk.sign_authorized(sdk.fetch_activation_data(name), ALGORITHM, [digest(text)])
        certificate = x509.load_der_x509_certificate(signed.certificate_chain[0])
        assert verifies(tmp_path, certificate, ServerAlgorithm.ECDSA_P256_SHA256, digest(text), signed.signatures[0])
        verified += 1
    assert verified == 20
    assert sdk.get_authorization(names[0]).title == "Báo cáo"


@pytest.mark.promise("P2")
def test_one_answer_of_sixty_four_at_once_approves(sdk: Client, person: Person, device: TestAuthenticator) -> None:
    names = [authorize(sdk, person, "raced").name]
    challenge = sdk.create_challenge(names, signer=person.name)
    assert challenge.ocra_question is not None
    code = device.answer(challenge.ocra_question.uri)

    def attempt(_: int) -> str:
        try:
            sdk.approve_authorizations(names, signer=person.name, one_time_password=code, challenge=challenge)
        except TrienError as error:
            return getattr(error, "reason", type(error).__name__)
        return "approved"

    with ThreadPoolExecutor(64) as callers:
        outcomes = list(callers.map(attempt, range(64)))
    assert outcomes.count("approved") == 1
    assert set(outcomes) <= {"approved", "CHALLENGE_NOT_PENDING", "AUTHORIZATION_NOT_PENDING", "BUSY"}


@pytest.mark.promise("P2")
def test_an_answer_is_for_its_list_alone(sdk: Client, person: Person, device: TestAuthenticator) -> None:
    first, second = (authorize(sdk, person, text).name for text in ("one", "two"))
    challenge = sdk.create_challenge([first, second], signer=person.name)
    assert challenge.ocra_question is not None
    code = device.answer(challenge.ocra_question.uri)
    for wrong in ([second, first], [first], [second]):
        with pytest.raises(ChallengeNotPending):
            sdk.approve_authorizations(wrong, signer=person.name, one_time_password=code, challenge=challenge.name)
    other = sdk.create_challenge([first, second], signer=person.name)
    with pytest.raises(OneTimePasswordRejected):
        sdk.approve_authorizations([first, second], signer=person.name, one_time_password=code, challenge=other)
    with pytest.raises(OneTimePasswordRejected):
        sdk.approve_authorizations([first, second], signer=person.name, one_time_password=code)
    assert sdk.approve_authorizations(
        [first, second], signer=person.name, one_time_password=code, challenge=challenge.name
    )
    with pytest.raises(TrienError) as again:
        sdk.approve_authorizations([first, second], signer=person.name, one_time_password=code, challenge=challenge)
    assert getattr(again.value, "reason", "") in {"AUTHORIZATION_NOT_PENDING", "CHALLENGE_NOT_PENDING"}


def test_signing_in_one_step_answers_no_challenge(client: Connection, person: Person) -> None:
    request = request_of(person)
    request.one_time_password.challenge = f"{person.name}/challenges/any"
    with pytest.raises(Refused) as refused:
        client.sign(request)
    assert (refused.value.reason, refused.value.metadata["field"]) == (
        "INVALID_ARGUMENT",
        "one_time_password.challenge",
    )
    request.one_time_password.challenge = ""
    assert client.sign(request).signatures, "the code was not looked at"


def test_without_a_carrier_no_code_is_delivered_and_none_is_made(
    sdk: Client, person: Person, administrator: Administrator
) -> None:
    administrator.create_delivery(person.name, signer_service_pb2.Authenticator.SMS, "+84912345678", "sms")
    name = authorize(sdk, person, "by SMS").name
    with pytest.raises(NotAllowedByPolicy, match="delivers no codes"):
        sdk.send_one_time_password([name], signer=person.name)


def test_the_client_that_is_awaited_does_the_same(
    installation: Installation, person: Person, device: TestAuthenticator
) -> None:
    async def approve() -> AuthorizationState:
        async with AsyncClient.from_connection_file(installation.directory / "connection.json") as client:
            made = await client.create_authorization(person.credential, ALGORITHM, [digest("awaited")], title="x")
            challenge = await client.create_challenge([made.name], signer=person.name)
            assert challenge.ocra_question is not None
            with pytest.raises(NotAllowedByPolicy):
                await client.send_one_time_password([made.name], signer=person.name)
            await client.approve_authorizations(
                [made.name],
                signer=person.name,
                one_time_password=device.answer(challenge.ocra_question.uri),
                challenge=challenge,
            )
            return (await client.get_authorization(made.name)).state

    assert asyncio.run(approve()) is AuthorizationState.APPROVED


def test_a_person_at_the_terminal_scans_a_question_and_types_its_answer(
    installation: Installation, sdk: Client, person: Person, device: TestAuthenticator
) -> None:
    names = [authorize(sdk, person, text).name for text in ("at the terminal", "and another")]

    def question(screen: str) -> str:
        (uri,) = re.findall(r"^(ocra:\S+)\r?$", screen, re.MULTILINE)
        assert Question.from_uri(uri).count == 2
        assert f"It has to show {Question.from_uri(uri).fingerprint}." in screen
        assert qr.terminal(uri).replace("\n", "\r\n") in screen
        return str(uri)

    def right(screen: str) -> str:
        return device.answer(question(screen))

    def wrong(screen: str) -> str:
        return "00000000" if right(screen) != "00000000" else "11111111"

    code, screen, prompts = at_terminal(
        ["authorizations", "approve", "--by", "ocra", *names],
        [wrong, right],
        environment(TRIEN_CONNECTION=str(installation.directory / "connection.json")),
    )
    assert (code, prompts) == (0, 2), screen
    assert "Look at the answer again." in screen
    assert f"Answer of {person.name} (not shown):" in screen
    assert "Approved: 2 authorizations" in screen
    assert right(screen) not in screen
    assert {sdk.get_authorization(name).state for name in names} == {AuthorizationState.APPROVED}
