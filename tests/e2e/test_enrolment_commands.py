"""Authenticators by the officers' and the persons' own commands: enrolled, replaced, disabled, frozen."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import pytest
from tests.integration.client.command import Trien, at_terminal
from tests.support.administration import CounterAuthenticator, TimeAuthenticator
from tests.support.carriers import LOOPBACK, SmsGateway, running, wait_for
from tests.support.sandbox import Installation, running_sandbox

from trien_client import Client, SignatureAlgorithm
from trien_client._errors import Refusal

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
DON, HOA = "signers/hoang-trinh-don", "signers/nguyen-thi-hoa"
P256 = "credentials/hoang-trinh-don-p256"


@dataclass
class District:
    """A server that sends by SMS, and the commands of those who use it."""

    installation: Installation
    gateway: SmsGateway

    @property
    def connection(self) -> Path:
        return self.installation.directory / "connection.json"

    @property
    def trien(self) -> Trien:
        return Trien(self.connection)

    def agree(self, *arguments: object) -> str:
        """Proposes as the first officer and approves as the second; returns what was shown."""
        shown = str(self.trien(*arguments).stdout)
        name, digest = re.findall(r"proposals/\w+", shown)[0], re.findall(r"sha256:[0-9a-f]{64}", shown)[0]
        decided = self.trien("proposals", "approve", name, "--digest", digest, "--as", "second").stdout
        assert "EXECUTED by operators/second" in decided
        return shown

    def enrol(self, *answers: Any) -> str:
        """Runs `trien enrol` at a terminal, and returns the screen."""
        environment = {"TRIEN_CONNECTION": str(self.connection), "COLUMNS": "100"}
        code, screen, prompts = at_terminal(["enrol"], answers, environment)
        assert (code, prompts) == (0, len(answers)), screen
        return screen

    def texts(self, containing: str) -> list[str]:
        return [posted.content["text"] for posted in self.gateway.taken if containing in posted.content["text"]]

    def person(self, name: str) -> TimeAuthenticator:
        """Returns a sandbox's person's app. Its next code is a later one than that which put it in force."""
        uri = next(
            signer["otpauth_uri"] for signer in self.installation.population["signers"] if signer["name"] == name
        )
        app = pyotp.parse_uri(uri)
        step = int(time.time()) // 30
        return TimeAuthenticator(f"{name}/authenticators/phone", app.secret, app.digits, last_step=step)


@pytest.fixture(scope="module")
def district(tmp_path_factory: pytest.TempPathFactory) -> Iterator[District]:
    directory = tmp_path_factory.mktemp("district")
    secret = directory / "gateway-secret"
    secret.touch(mode=0o600)
    secret.write_text(SECRET + "\n")
    with running(SmsGateway(None, SECRET)) as gateway:
        settings = (
            f"sms.url=http://{LOOPBACK}:{gateway.port}/messages",
            f"sms.secret_file={secret}",
            "enrolment.replacement_wait_hours=24",
        )
        with running_sandbox(directory / "installation", *settings) as installation:
            yield District(installation, gateway)
            assert installation.stop() == 0


def key_on(screen: str) -> str:
    """Returns the key that the screen shows for those who type it."""
    found = re.search(r"type this key into it:\s+([A-Z2-7 ]+)", screen)
    assert found is not None, screen
    return found[1].replace(" ", "").strip()


@pytest.mark.promise("P9", "P12")
def test_a_newcomer_enrols_at_a_terminal_with_the_code_from_a_short_message(district: District) -> None:
    trien = district.trien
    organization = "ubnd-xa-phu-lam"
    trien("signers", "create", "moi", "--name", "Người mới", "--organization", organization, "--phone", "+84912345678")
    shown = district.agree("enrolments", "propose", "moi", "--id", "phone")
    assert "+84912345678" in shown, "both officers see where the code will go"
    assert "signers/moi/enrolments/phone" in trien("enrolments", "list", "moi").stdout
    sent = trien("enrolments", "send-code", "moi/phone").stdout
    assert sent.startswith("A new code was sent to •••••••••678")
    wait_for(lambda: district.texts("trien-enrol-"), "the message arrives")
    [text] = district.texts("trien-enrol-")
    found = re.search(r"trien-enrol-[a-z2-7]{16}-[a-z2-7]{16}", text)
    assert found is not None

    keys: list[str] = []

    def first(screen: str) -> str:
        keys.append(key_on(screen))
        return pyotp.TOTP(keys[0]).now()

    screen = district.enrol(found[0], first)
    assert "signers/moi/authenticators/phone now makes your signing codes." in screen
    assert "▀" in screen
    assert found[0] not in screen
    listed = trien("authenticators", "list", "moi").stdout
    assert re.search(r"signers/moi/authenticators/phone\n  kind: +TOTP, 6 digits\n  state: +ENABLED", listed)
    wait_for(lambda: district.texts("đã có hiệu lực"), "the person is told")
    log = district.installation.log_path.read_text()
    assert found[0] not in log
    assert keys[0] not in log
    disabled = trien("authenticators", "disable", "moi/phone").stdout
    assert "DISABLED" in disabled
    assert "STATE_CONFLICT" in trien("authenticators", "disable", "moi/phone", exit_code=1).stderr


@pytest.mark.promise("P2", "P9")
def test_a_lost_phone_is_replaced_and_the_person_sees_and_stops_what_is_signed(district: District) -> None:
    trien, old = district.trien, district.person(DON)
    district.agree("signers", "update", "hoang-trinh-don", "--phone", "+84987654321")
    propose = ("enrolments", "propose", "hoang-trinh-don", "--id", "new", "--replaces", "hoang-trinh-don/phone")
    # Counted codes, for none of them has to be waited for.
    shown = district.agree(*propose, "--kind", "hotp")
    assert "DISABLED" in shown
    wait_for(lambda: district.texts("hai cán bộ đã cho phép"), "the person is told")
    halves = []
    for officer in ("first", "second"):
        said = trien("enrolments", "send-code", "hoang-trinh-don/new", "--as", officer).stdout
        found = re.search(r"half of the code: ([a-z2-7]{16})\n", said)
        assert found is not None, said
        halves.append(found[1])
    assert not district.texts(halves[0])
    assert "begins" in trien("enrolments", "show", "hoang-trinh-don/new").stdout

    apps: list[CounterAuthenticator] = []

    def first(screen: str) -> str:
        apps.append(CounterAuthenticator("new", key_on(screen), 6))
        return apps[0].take()

    screen = district.enrol(" ".join(halves), lambda _: old.take(), first)
    assert "can begin from" in screen
    [new] = apps

    trien("signers", "notices", "hoang-trinh-don", "on", "--otp-file", "-", code=new.take())
    with Client.from_connection_file(district.connection) as client:
        digest = bytes(range(32))
        algorithm = SignatureAlgorithm.ECDSA_P256_SHA256
        with pytest.raises(Refusal) as rejected:
            client.sign_digests(P256, algorithm, [digest], one_time_password=old.take())
        assert rejected.value.reason == "ONE_TIME_PASSWORD_REJECTED"
        client.sign_digests(P256, algorithm, [digest], one_time_password=new.take())
        wait_for(lambda: district.texts("0001 0203 0405 0607"), "the person is told of the signature")
        uses = json.loads(trien("signers", "uses", "hoang-trinh-don", "--as", "first", "--output", "json").stdout)
        assert [use["fingerprint"] for use in uses] == ["0001020304050607"]
        own = trien("signers", "uses", "hoang-trinh-don", "--otp-file", "-", code=new.take()).stdout
        assert "1 document, 0001 0203 0405 0607" in own
        frozen = trien("signers", "freeze", "hoang-trinh-don", "--otp-file", "-", code=new.take()).stdout
        assert "signers/hoang-trinh-don is frozen" in frozen
        with pytest.raises(Refusal) as refused:
            client.sign_digests(P256, algorithm, [digest], one_time_password=new.take())
        assert refused.value.reason == "CREDENTIAL_DISABLED"


def test_many_are_proposed_from_a_file_and_withdrawn(district: District, tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("\ufeffnguyen-thi-hoa  # văn thư\n\n# nobody else\n", encoding="utf-8")
    district.agree("enrolments", "propose", "--from-file", file, "--id", "tablet", "--kind", "hotp")
    trien = district.trien
    assert "CANCELLED" in trien("enrolments", "cancel", f"{HOA}/enrolments/tablet").stdout
    assert "ENROLMENT_NOT_PENDING" in trien("enrolments", "send-code", "nguyen-thi-hoa/tablet", exit_code=1).stderr
    for wrong in (["propose"], ["show", "nguyen-thi-hoa"], ["propose", "a", "b", "--replaces", "a/phone"]):
        trien("enrolments", *wrong, exit_code=2)
    created = district.agree("authenticators", "create", "nguyen-thi-hoa", "--kind", "sms", "--to", "+84911111111")
    assert "+84911111111" in created
