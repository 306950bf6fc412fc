"""What every `Delivery` does, by a mail server and by an SMS gateway: real ones, on this machine, over TLS."""

import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pytest
from tests.support.carriers import LOOPBACK, MailServer, SmsGateway, Tls, wait_for

from trien_server.core.errors import DeliveryFailed
from trien_server.core.ports import DeliveredText, Delivery
from trien_server.core.secret import Secret
from trien_server.delivery import SmtpDelivery, SmtpTls, WebhookDelivery, verifying_context
from trien_server.host.clock import SystemClock

SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBnYXRld2F5LCAzMiBieXRlcw=="
CODE = "482915"
TEXT = f'{CODE} là mã ký 20 văn bản, do "Văn phòng điện tử" gửi. Số đối chiếu: 4f2a 91c3.'
MESSAGE = "mfzwizltoqxw4y3pnfzwizltoqxw4y3p"
GENEROUS = 60.0
SHORT = 1.0
LONGER = (SHORT, 5.0, 30.0)
"""A busy machine may need longer to reach the point where the carrier misbehaves."""


class Carrier(Protocol):
    """A server that a test starts, makes misbehave, and asks what it took."""

    def start(self, misbehaviour: str = "") -> None: ...

    def stop(self) -> None: ...

    def reached(self) -> bool: ...

    def taken(self) -> list[tuple[str, str, str]]: ...

    def delivery(self, *, tls: Tls | None = None) -> Delivery: ...

    @property
    def address(self) -> str: ...


@dataclass
class ByMail:
    """A mail server with STARTTLS and a log-in."""

    tls: Tls
    reports: list[Mapping[str, str]]
    address: str = "hoa.nguyen@xa.phulam.example"
    servers: list[MailServer] = field(default_factory=list)
    running: bool = False

    def start(self, misbehaviour: str = "") -> None:
        refusal = f"550 5.7.1 not accepted: {TEXT}" if misbehaviour == "refuse" else misbehaviour
        server = MailServer(
            self.tls, user=("trien", "a password"), at="MESSAGE" if misbehaviour else "", misbehaviour=refusal
        )
        self.servers.append(server.start(self.servers[0].port if self.servers else 0))
        self.running = True

    def stop(self) -> None:
        if self.running:
            self.servers[-1].stop()
            self.running = False

    def reached(self) -> bool:
        return self.servers[-1].reached.is_set()

    def taken(self) -> list[tuple[str, str, str]]:
        return [
            (mail.recipients[0], mail.text, mail.message["Message-ID"].partition("@")[0].lstrip("<"))
            for server in self.servers
            for mail in server.taken
        ]

    def delivery(self, *, tls: Tls | None = None) -> Delivery:
        return SmtpDelivery(
            host=LOOPBACK,
            port=self.servers[0].port,
            tls=SmtpTls.STARTTLS,
            context=verifying_context((tls or self.tls).ca_file),
            login=("trien", Secret(b"a password")),
            from_address="no-reply@district.example",
            from_name="Ký số huyện",
            clock=SystemClock(),
            report=lambda event, fields: self.reports.append(fields),
        )


@dataclass
class BySms:
    """A gateway with https."""

    tls: Tls
    reports: list[Mapping[str, str]]
    address: str = "+84912345678"
    servers: list[SmsGateway] = field(default_factory=list)
    running: bool = False

    def start(self, misbehaviour: str = "") -> None:
        gateway = SmsGateway(self.tls, SECRET, misbehaviour={"refuse": "503"}.get(misbehaviour, misbehaviour))
        self.servers.append(gateway.start(self.servers[0].port if self.servers else 0))
        self.running = True

    def stop(self) -> None:
        if self.running:
            self.servers[-1].stop()
            self.running = False

    def reached(self) -> bool:
        return self.servers[-1].reached.is_set()

    def taken(self) -> list[tuple[str, str, str]]:
        return [
            (posted.content["to"], posted.content["text"], posted.content["message"])
            for server in self.servers
            for posted in server.taken
        ]

    def delivery(self, *, tls: Tls | None = None) -> Delivery:
        return WebhookDelivery(
            url=f"https://{LOOPBACK}:{self.servers[0].port}/messages",
            secret=Secret(SECRET.encode()),
            bearer_token=None,
            context=verifying_context((tls or self.tls).ca_file),
            clock=SystemClock(),
            report=lambda event, fields: self.reports.append(fields),
        )


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.create(tmp_path_factory.mktemp("carriers") / "tls")


@pytest.fixture(params=[ByMail, BySms], ids=["smtp", "webhook"])
def carrier(request: pytest.FixtureRequest, tls: Tls) -> Iterator[ByMail | BySms]:
    made = request.param(tls=tls, reports=[])
    yield made
    made.stop()


def deliver(delivery: Delivery, carrier: Carrier, *, timeout: float = GENEROUS, message: str = MESSAGE) -> None:
    text = DeliveredText(subject="Trien: mã ký văn bản", body=Secret(TEXT.encode()))
    delivery.deliver(address=carrier.address, text=text, message=message, timeout=timeout)


def test_a_text_arrives_whole_with_its_id(carrier: ByMail | BySms) -> None:
    carrier.start()
    deliver(carrier.delivery(), carrier)
    assert carrier.taken() == [(carrier.address, TEXT, MESSAGE)]
    assert carrier.reports == []


@pytest.mark.promise("P8", "P12")
@pytest.mark.parametrize("misbehaviour", ["refuse", "silent", "drip", "close"])
def test_a_carrier_that_does_not_take_it_fails_the_delivery_in_time_and_tells_no_code(
    carrier: ByMail | BySms, misbehaviour: str, caplog: pytest.LogCaptureFixture
) -> None:
    carrier.start(misbehaviour)
    for timeout in LONGER:
        carrier.reports.clear()
        begun = time.monotonic()
        with pytest.raises(DeliveryFailed) as failed:
            deliver(carrier.delivery(), carrier, timeout=timeout)
        # The carrier goes on for ever; that the call ended at all is the limit's doing.
        assert time.monotonic() - begun < timeout + 20
        if carrier.reached():
            break
    assert carrier.reached()
    if misbehaviour != "refuse":
        assert carrier.taken() == []
    told = "".join(traceback.format_exception(failed.value)) + caplog.text + repr(carrier.reports)
    assert CODE not in told
    assert carrier.address not in told
    assert [fields["message"] for fields in carrier.reports] == [MESSAGE]
    assert carrier.reports[0]["reason"]
    wait_for(lambda: not _threads(), "the delivery's thread ends")


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.endswith(" delivery")]


def test_a_carrier_that_is_down_fails_the_delivery(carrier: ByMail | BySms) -> None:
    carrier.start()
    carrier.stop()
    with pytest.raises(DeliveryFailed):
        deliver(carrier.delivery(), carrier)
    assert "refused" in carrier.reports[0]["reason"]


@pytest.mark.promise("P12")
def test_a_carrier_with_another_cas_certificate_is_told_nothing(carrier: ByMail | BySms, tmp_path: Path) -> None:
    carrier.start()
    with pytest.raises(DeliveryFailed):
        deliver(carrier.delivery(tls=Tls.create(tmp_path / "other")), carrier)
    assert "certificate does not verify" in carrier.reports[0]["reason"]
    assert carrier.taken() == []
    assert not carrier.reached()


def test_a_carrier_that_started_anew_takes_the_next_text(carrier: ByMail | BySms) -> None:
    carrier.start()
    delivery = carrier.delivery()
    deliver(delivery, carrier)
    carrier.stop()
    with pytest.raises(DeliveryFailed):
        deliver(delivery, carrier)
    carrier.start()
    deliver(delivery, carrier, message="another")
    assert [message for _, _, message in carrier.taken()] == [MESSAGE, "another"]


def test_many_texts_at_once_arrive_once_each(carrier: ByMail | BySms) -> None:
    carrier.start()
    delivery = carrier.delivery()
    wanted = [f"message-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda message: deliver(delivery, carrier, message=message), wanted))
    assert sorted(message for _, _, message in carrier.taken()) == sorted(wanted)


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_without_time_nothing_is_sent(carrier: ByMail | BySms, timeout: float) -> None:
    carrier.start()
    with pytest.raises(DeliveryFailed):
        deliver(carrier.delivery(), carrier, timeout=timeout)
    assert carrier.servers[0].connections == 0


def test_what_hangs_for_one_does_not_hold_up_another(carrier: ByMail | BySms) -> None:
    carrier.start("silent")
    delivery = carrier.delivery()
    ended: list[BaseException] = []

    def fails() -> None:
        with pytest.raises(DeliveryFailed) as failed:
            deliver(delivery, carrier, timeout=SHORT)
        ended.append(failed.value)

    callers = [threading.Thread(target=fails) for _ in range(20)]
    _run(callers)
    assert len(ended) == 20
    carrier.stop()
    wait_for(lambda: not _threads(), "the deliveries' threads end")
    carrier.start()
    deliver(delivery, carrier)
    assert len(carrier.taken()) == 1


def _run(threads: list[threading.Thread], each: Callable[[threading.Thread], None] = threading.Thread.start) -> None:
    for thread in threads:
        each(thread)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
