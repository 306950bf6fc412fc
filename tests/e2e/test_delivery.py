"""One-time passwords that a real server sends by mail and by SMS, and what they open: OpenSSL has the last word."""

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from tests.e2e.test_canary import find
from tests.support.administration import Administrator, Person
from tests.support.carriers import LOOPBACK, MailServer, SmsGateway, Tls, running
from tests.support.openssl import verifies
from tests.support.sandbox import Installation, running_sandbox, trien_server
from trien.v1 import signer_service_pb2

from trien_client import Client, DeliveryFailed, SignatureAlgorithm
from trien_server.core.algorithms import SignatureAlgorithm as ServerAlgorithm

ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBnYXRld2F5LCAzMiBieXRlcw=="
PASSWORD = "a password of the mail server"
CODE = re.compile(r"^([0-9]{6,8}) ")


@dataclass
class Office:
    """A server with both carriers, and who uses it."""

    installation: Installation
    administrator: Administrator
    sdk: Client
    mail: MailServer
    gateway: SmsGateway
    codes: dict[str, bytes]

    def person(self, identifier: str, kind: Any, address: str) -> Person:
        person = self.administrator.create_person(identifier)
        self.administrator.create_delivery(person.name, kind, address)
        return person

    def authorize(self, person: Person, *texts: str) -> list[str]:
        return [
            self.sdk.create_authorization(person.credential, ALGORITHM, [digest(text)], title="Tờ trình số 5/TTr").name
            for text in texts
        ]

    def code(self, text: str) -> str:
        """Returns the code that a delivered text begins with, and keeps it for the search."""
        found = CODE.match(text)
        assert found is not None, text
        self.codes[f"code {len(self.codes)}"] = found[1].encode()
        return found[1]

    def log(self) -> list[dict[str, Any]]:
        return self.installation.lines()


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    directory = tmp_path_factory.mktemp("office")
    tls = Tls.create(directory / "carriers")
    for name, content in (("sms-secret", SECRET), ("mail-password", PASSWORD)):
        (directory / name).touch(mode=0o600)
        (directory / name).write_text(content)
    with running(MailServer(tls, user=("trien", PASSWORD))) as mail, running(SmsGateway(tls, SECRET)) as gateway:
        settings = [
            f"email.host={LOOPBACK}",
            f"email.port={mail.port}",
            f"email.ca_file={tls.ca_file}",
            "email.user=trien",
            f"email.password_file={directory / 'mail-password'}",
            "email.from_address=no-reply@district.example",
            f"sms.url=https://{LOOPBACK}:{gateway.port}/messages",
            f"sms.secret_file={directory / 'sms-secret'}",
            f"sms.ca_file={tls.ca_file}",
        ]
        with (
            running_sandbox(directory / "installation", *settings) as installation,
            Administrator(installation) as administrator,
            Client.from_connection_file(installation.directory / "connection.json") as sdk,
        ):
            yield Office(installation, administrator, sdk, mail, gateway, {})


def _mails(office: Office) -> list[str]:
    return [mail.text for mail in office.mail.taken]


def _messages(office: Office) -> list[str]:
    return [posted.content["text"] for posted in office.gateway.taken]


@pytest.mark.promise("P2", "P3", "P6")
@pytest.mark.parametrize(
    ("identifier", "kind", "address", "texts"),
    [
        ("by-mail", signer_service_pb2.Authenticator.EMAIL, "hoa.nguyen@xa.example", _mails),
        ("by-sms", signer_service_pb2.Authenticator.SMS, "+84912345678", _messages),
    ],
)
def test_a_delivered_code_approves_two_documents_and_they_are_signed(
    office: Office,
    tmp_path: Path,
    identifier: str,
    kind: Any,
    address: str,
    texts: Callable[[Office], list[str]],
) -> None:
    person = office.person(identifier, kind, address)
    names = office.authorize(person, "first", "second")
    challenge = office.sdk.send_one_time_password(names, signer=person.name)
    (text,) = texts(office)
    assert "là mã ký 2 văn bản" in text
    assert f"Số đối chiếu: {challenge.fingerprint}." in text
    assert '"Tờ trình số 5/TTr"' in text
    code = office.code(text)
    office.sdk.approve_authorizations(names, signer=person.name, one_time_password=code, challenge=challenge)
    verified = 0
    for name, document in zip(names, ("first", "second"), strict=True):
        signed = office.sdk.sign_authorized(office.sdk.fetch_activation_data(name), ALGORITHM, [digest(document)])
        certificate = x509.load_der_x509_certificate(signed.certificate_chain[0])
        signature = signed.signatures[0]
        assert verifies(tmp_path, certificate, ServerAlgorithm.ECDSA_P256_SHA256, digest(document), signature)
        verified += 1
    assert verified == 2


@pytest.mark.requirement("ASVS 5.0.0-16.5.2")
@pytest.mark.promise("P8", "P11")
def test_a_carrier_that_is_down_harms_nothing_else(office: Office) -> None:
    person = office.person("waiting", signer_service_pb2.Authenticator.SMS, "+84987654321")
    names = office.authorize(person, "third")
    before = len(office.gateway.taken)
    office.gateway.misbehaviour = "503"
    try:
        with pytest.raises(DeliveryFailed) as failed:
            office.sdk.send_one_time_password(names, signer=person.name)
    finally:
        office.gateway.misbehaviour = ""
    office.code(office.gateway.taken[before].content["text"])
    assert "503" not in str(failed.value)
    (told,) = [line for line in office.log() if line["event"] == "delivery_failed"]
    assert (told["carrier"], told["reason"]) == ("sms", "it answered 503")
    # The authorization waits as before, and the person's other authenticator approves it.
    office.sdk.approve_authorizations(names, signer=person.name, one_time_password=person.authenticator.take())
    signed = office.sdk.sign_authorized(office.sdk.fetch_activation_data(names[0]), ALGORITHM, [digest("third")])
    assert len(signed.signatures) == 1
    # The other carrier goes on.
    reader = office.person("reading", signer_service_pb2.Authenticator.EMAIL, "b@xa.example")
    office.sdk.send_one_time_password(office.authorize(reader, "fourth"), signer=reader.name)
    office.code(_mails(office)[-1])


@pytest.mark.promise("P12")
def test_no_code_and_no_secret_of_a_carrier_is_in_the_log_or_the_files(office: Office) -> None:
    person = office.person("searched", signer_service_pb2.Authenticator.SMS, "+84911111111")
    office.sdk.send_one_time_password(office.authorize(person, "fifth"), signer=person.name)
    office.code(_messages(office)[-1])
    secrets = {**office.codes, "mail password": PASSWORD.encode(), "gateway's secret": SECRET.encode()}
    haystack = {"the log": office.installation.log_path.read_bytes()}
    for path in sorted(office.installation.directory.rglob("*")):
        if path.is_file() and path.name.startswith("trien.db"):
            haystack[path.name] = path.read_bytes()
    assert find(haystack, secrets) == []
    assert len(office.codes) >= 1
    assert len(haystack["the log"]) > 1000
    assert "trien.db-wal" in haystack


def test_an_operator_tries_the_configuration_beside_the_running_server(office: Office) -> None:
    settings = [part for setting in office.installation.settings for part in ("--set", setting)]
    config = str(office.installation.directory / "trien.toml")
    tried = trien_server(
        "delivery", "test", "--config", config, *settings, "--kind", "email", "--to", "you@district.example"
    )
    assert tried.returncode == 0, tried.stderr
    assert "tin nhắn thử" in office.mail.taken[-1].text
    assert office.mail.taken[-1].recipients == ["you@district.example"]
