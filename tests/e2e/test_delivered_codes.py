"""Codes by SMS through a real server and a real HTTP gateway: sent, typed, signed with."""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from tests.e2e.test_client_newcomer import python_of
from tests.integration.client.command import at_terminal
from tests.support.administration import Administrator, Person
from tests.support.carriers import LOOPBACK, SmsGateway, running
from tests.support.openssl import verifies
from tests.support.sandbox import Installation, environment, running_sandbox
from trien.v1 import signer_service_pb2

from trien_client import (
    AuthorizationState,
    ChallengeNotPending,
    Client,
    DeliveryFailed,
    DeliveryLimitReached,
    OneTimePasswordRejected,
    SignatureAlgorithm,
)
from trien_server.core.algorithms import SignatureAlgorithm as ServerAlgorithm

SECRET = "whsec_" + base64.b64encode(b"secret of the gateway, 32 bytes!").decode()
ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256
ADDRESS = "+84912345678"
DIGEST = hashlib.sha256(b"a document").digest()


class Phones:
    """A server with an SMS gateway beside it, and what arrives."""

    def __init__(self, installation: Installation, gateway: SmsGateway) -> None:
        self.installation = installation
        self.gateway = gateway

    def person(self, identifier: str) -> Person:
        with Administrator(self.installation) as administrator:
            made = administrator.create_person(identifier)
            administrator.create_delivery(made.name, signer_service_pb2.Authenticator.SMS, ADDRESS)
        return made

    def newest(self) -> str:
        """Returns the newest text."""
        taken = self.gateway.taken[-1].content
        assert taken["to"] == ADDRESS
        return taken["text"]

    def code(self) -> str:
        """Returns the code of the newest text, which begins with it."""
        found = re.match(r"([0-9]{6}) ", self.newest())
        assert found is not None
        return found[1]


@pytest.fixture(scope="module")
def phones(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phones]:
    directory = tmp_path_factory.mktemp("delivered")
    secret = directory / "gateway-secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET + "\n")
    with running(SmsGateway(None, SECRET)) as gateway:
        settings = [f"sms.url=http://{LOOPBACK}:{gateway.port}/messages", f"sms.secret_file={secret}"]
        with running_sandbox(directory / "installation", *settings) as installation:
            yield Phones(installation, gateway)
            assert installation.stop() == 0


@pytest.fixture
def sdk(phones: Phones) -> Iterator[Client]:
    with Client.from_connection_file(phones.installation.directory / "connection.json") as client:
        yield client


def authorize(sdk: Client, person: Person, count: int) -> list[str]:
    return [
        sdk.create_authorization(person.credential, ALGORITHM, [DIGEST], title="Báo cáo mùa vụ").name
        for _ in range(count)
    ]


@pytest.mark.requirement("ASVS 5.0.0-6.6.2")
@pytest.mark.promise("P2", "P6")
def test_a_code_by_sms_approves_its_list_and_nothing_else(phones: Phones, sdk: Client, tmp_path: Path) -> None:
    person = phones.person("by-sms")
    names = authorize(sdk, person, 2)
    challenge = sdk.send_one_time_password(names, signer=person.name)
    assert challenge.masked_address == "•••••••••678"
    text, code = phones.newest(), phones.code()
    assert challenge.fingerprint in text
    assert "Báo cáo mùa vụ" in text
    assert "2 văn bản" in text
    with pytest.raises(DeliveryLimitReached) as soon:
        sdk.send_one_time_password(names, signer=person.name)
    assert soon.value.retry_after is not None
    assert soon.value.retry_after <= timedelta(seconds=30)
    wrong = "000000" if code != "000000" else "111111"
    with pytest.raises(OneTimePasswordRejected):
        sdk.approve_authorizations(names, signer=person.name, one_time_password=wrong, challenge=challenge)
    with pytest.raises(ChallengeNotPending):
        sdk.approve_authorizations(names[::-1], signer=person.name, one_time_password=code, challenge=challenge)
    sdk.approve_authorizations(names, signer=person.name, one_time_password=code, challenge=challenge)
    verified = 0
    for name in names:
        signed = sdk.sign_authorized(sdk.fetch_activation_data(name), ALGORITHM, [DIGEST])
        certificate = x509.load_der_x509_certificate(signed.certificate_chain[0])
        assert verifies(tmp_path, certificate, ServerAlgorithm.ECDSA_P256_SHA256, DIGEST, signed.signatures[0])
        verified += 1
    assert verified == 2
    events = [line for line in phones.installation.lines() if line.get("method") == "SendOneTimePassword"]
    assert [line["outcome"] for line in events] == ["OK", "DELIVERY_LIMIT_REACHED"]


def test_a_gateway_that_refuses_is_said_so_and_the_next_try_has_to_wait(phones: Phones, sdk: Client) -> None:
    person = phones.person("no-sms")
    (name,) = authorize(sdk, person, 1)
    taken = len(phones.gateway.taken)
    phones.gateway.misbehaviour = "400"
    try:
        with pytest.raises(DeliveryFailed):
            sdk.send_one_time_password([name], signer=person.name)
    finally:
        phones.gateway.misbehaviour = ""
    assert len(phones.gateway.taken) == taken + 1, "it was asked, once"
    with phones.installation.read_database() as database:
        told = database.execute("SELECT details FROM audit_entries WHERE kind = 'refused'").fetchall()
    assert any("DELIVERY_FAILED" in details for (details,) in told)
    with pytest.raises(DeliveryLimitReached):
        sdk.send_one_time_password([name], signer=person.name)


def test_a_person_at_the_terminal_types_the_code_of_the_message(phones: Phones, sdk: Client) -> None:
    person = phones.person("terminal-sms")
    names = authorize(sdk, person, 2)
    code, screen, prompts = at_terminal(
        ["authorizations", "approve", "--by", "delivery", *names],
        [lambda _: phones.code()],
        environment(TRIEN_CONNECTION=str(phones.installation.directory / "connection.json")),
    )
    assert (code, prompts) == (0, 1), screen
    assert "A code was sent to •••••••••678." in screen
    (fingerprint,) = re.findall(r"has to show ([0-9a-f]{4} [0-9a-f]{4})\.", screen)
    assert fingerprint in phones.newest()
    assert phones.code() not in screen
    assert ADDRESS not in screen
    assert {sdk.get_authorization(name).state for name in names} == {AuthorizationState.APPROVED}


def test_the_python_of_the_integrators_page_approves_by_message(
    phones: Phones, sdk: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    person = phones.person("page-sms")
    (name,) = authorize(sdk, person, 1)
    shown = python_of("Codes that are for one list")[1].replace("signers/hoang-trinh-don", person.name)
    assert person.name in shown
    names = {"getpass": lambda _: phones.code()}
    exec(compile(shown, "integrator.md", "exec"), names)
    names["approve_by_message"](sdk, [name])  # type: ignore[call-arg]
    assert sdk.get_authorization(name).state is AuthorizationState.APPROVED
    assert capsys.readouterr().out.startswith("Sent to •••••••••678; its text has to show ")
