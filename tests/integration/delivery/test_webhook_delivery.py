"""SMS: what a gateway gets, how it verifies it, and what it may answer."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError
from tests.support.carriers import LOOPBACK, SmsGateway, Tls, running

from trien_server.core.errors import DeliveryFailed
from trien_server.core.ports import DeliveredText
from trien_server.core.secret import Secret
from trien_server.delivery import WebhookDelivery, signing_key, verifying_context
from trien_server.delivery.webhook import signature
from trien_server.host.clock import SystemClock

SECRET = "whsec_" + base64.b64encode(b"secret of the gateway, 32 bytes!").decode()
BODY = '482915 là mã ký 20 văn bản, do "Văn phòng điện tử" gửi.'
MESSAGE = "mfzwizltoqxw4y3p"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.create(tmp_path_factory.mktemp("webhook") / "tls")


class Sender:
    """A delivery to a test's gateway, and what it reported."""

    def __init__(self, gateway: SmsGateway, **changes: Any) -> None:
        self.reports: list[Mapping[str, str]] = []
        scheme = "http" if gateway.tls is None else "https"
        options: dict[str, Any] = {
            "url": f"{scheme}://{LOOPBACK}:{gateway.port}/v1/messages?account=trien",
            "secret": Secret(SECRET.encode()),
            "bearer_token": None,
            "context": verifying_context(None if gateway.tls is None else gateway.tls.ca_file),
        }
        self._delivery = WebhookDelivery(
            **(options | changes), clock=SystemClock(), report=lambda event, fields: self.reports.append(fields)
        )

    def send(self, *, message: str = MESSAGE, timeout: float = 60.0) -> None:
        text = DeliveredText(subject="", body=Secret(BODY.encode()))
        self._delivery.deliver(address="+84912345678", text=text, message=message, timeout=timeout)

    def fails(self, *, timeout: float = 60.0) -> str:
        """Sends, fails, and returns the reason that was reported."""
        self.reports.clear()
        with pytest.raises(DeliveryFailed):
            self.send(timeout=timeout)
        (fields,) = self.reports
        return fields["reason"]


def test_a_gateway_gets_a_request_that_a_standard_library_verifies(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET)) as gateway:
        Sender(gateway).send()
    (posted,) = gateway.taken
    assert posted.path == "/v1/messages?account=trien"
    assert json.loads(posted.body) == {"message": MESSAGE, "to": "+84912345678", "text": BODY}
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["webhook-id"] == MESSAGE
    assert "authorization" not in posted.headers
    # The same library refuses what was changed on the way, and another's secret.
    another = "whsec_" + base64.b64encode(bytes(32)).decode()
    for secret, body, headers in (
        (SECRET, posted.body.replace(b"482915", b"482916"), posted.headers),
        (SECRET, posted.body, posted.headers | {"webhook-id": "another"}),
        (
            SECRET,
            posted.body,
            posted.headers | {"webhook-timestamp": str(int(posted.headers["webhook-timestamp"]) + 1)},
        ),
        (another, posted.body, posted.headers),
    ):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, headers)


def test_the_signature_is_that_of_the_specifications_libraries() -> None:
    # The known answer of the reference libraries' own tests.
    key = signing_key(Secret(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    made = signature(key, message="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=b'{"test": 2432232314}')
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_raw_secret_and_a_bearer_token(tls: Tls) -> None:
    raw = b"a raw secret of a gateway, as it is"
    with running(SmsGateway(tls, raw)) as gateway:
        Sender(gateway, secret=Secret(raw), bearer_token=Secret(b"abc.DEF-123")).send()
    assert gateway.taken[0].headers["authorization"] == "Bearer abc.DEF-123"


@pytest.mark.parametrize("secret", [b"", b"too short", b"whsec_dG9vIHNob3J0", b"whsec_" + b"*" * 40])
def test_a_bad_secret_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match=r"secret|base64"):
        signing_key(Secret(secret))


@pytest.mark.parametrize("status", ["200", "201", "202", "204"])
def test_a_status_of_success_takes_it(tls: Tls, status: str) -> None:
    with running(SmsGateway(tls, SECRET, misbehaviour=status)) as gateway:
        Sender(gateway).send()
    assert len(gateway.taken) == 1


@pytest.mark.parametrize("status", ["304", "400", "401", "404", "429", "500", "503"])
def test_any_other_status_does_not_and_is_not_tried_again(tls: Tls, status: str) -> None:
    with running(SmsGateway(tls, SECRET, misbehaviour=status)) as gateway:
        assert Sender(gateway).fails() == f"it answered {status}"
    assert gateway.connections == 1


@pytest.mark.promise("P12")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(tls: Tls, status: int) -> None:
    with running(SmsGateway(tls, SECRET)) as elsewhere, running(SmsGateway(tls, SECRET)) as gateway:
        gateway.misbehaviour = f"{status} https://{LOOPBACK}:{elsewhere.port}/"
        assert Sender(gateway).fails() == f"it answered {status}"
    assert (gateway.connections, elsewhere.connections) == (1, 0)


def test_a_connection_that_failed_before_anything_was_sent_is_tried_once_more(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET, misbehaviour="close", at="HANDSHAKE", times=1)) as gateway:
        Sender(gateway).send()
    assert (gateway.connections, len(gateway.taken)) == (2, 1)
    with running(SmsGateway(tls, SECRET, misbehaviour="close", at="HANDSHAKE")) as gateway:
        Sender(gateway).fails()
    assert (gateway.connections, len(gateway.taken)) == (2, 0)


def test_a_request_that_was_sent_is_not_repeated(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET, misbehaviour="close", times=1)) as gateway:
        assert "closed the connection" in Sender(gateway).fails()
    assert (gateway.connections, len(gateway.taken)) == (1, 0)


@pytest.mark.promise("P8")
@pytest.mark.parametrize("misbehaviour", ["silent", "drip"])
def test_a_gateway_that_hangs_in_the_handshake_is_left_in_time(tls: Tls, misbehaviour: str) -> None:
    with running(SmsGateway(tls, SECRET, misbehaviour=misbehaviour, at="HANDSHAKE")) as gateway:
        sender = Sender(gateway)
        for timeout in (1.0, 8.0, 30.0):  # a busy machine may need longer to get there
            sender.fails(timeout=timeout)
            if gateway.reached.is_set():
                break
        assert gateway.reached.is_set()
    assert gateway.taken == []


def test_an_answer_without_end_is_not_read(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET, misbehaviour="flood")) as gateway:
        Sender(gateway).send()
    assert gateway.reached.is_set()
    assert gateway.written < 64 * 1024 * 1024


@pytest.mark.requirement("ASVS 5.0.0-12.3.2")
def test_a_gateway_of_another_name_is_told_nothing(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET)) as gateway:
        sender = Sender(gateway, url=f"https://127.0.0.2:{gateway.port}/")
        assert sender.fails()
        by_name = Sender(gateway, url=f"https://localhost:{gateway.port}/")
        by_name.send()
    assert len(gateway.taken) == 1


def test_on_this_machine_it_may_go_without_tls() -> None:
    with running(SmsGateway(None, SECRET)) as gateway:
        Sender(gateway).send()
    assert len(gateway.taken) == 1


@pytest.mark.requirement("ASVS 5.0.0-12.3.1")
def test_without_tls_no_other_machine_is_connected(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET)) as gateway:
        reason = Sender(gateway, url="http://192.0.2.1/messages").fails()
    assert "without TLS nothing else is connected" in reason


def test_the_same_message_has_the_same_id_so_that_a_gateway_can_tell(tls: Tls) -> None:
    with running(SmsGateway(tls, SECRET)) as gateway:
        sender = Sender(gateway)
        sender.send()
        sender.send()
        with pytest.raises(ValueError, match="id"):
            sender.send(message="with.dot")
    assert [posted.headers["webhook-id"] for posted in gateway.taken] == [MESSAGE, MESSAGE]
