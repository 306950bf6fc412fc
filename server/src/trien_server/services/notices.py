"""Tells persons what concerns them, behind the work itself: a bounded queue that delays and fails nothing."""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from trien_server.core.errors import Refusal
from trien_server.core.notice_text import NoticeTexts, Telling
from trien_server.core.ports import DeliveredText, Delivery, NameTaken, Randomness, Report
from trien_server.core.records import (
    Authenticator,
    AuthenticatorKind,
    Enrolment,
    Notice,
    Signer,
)
from trien_server.core.signature_uses import list_fingerprint
from trien_server.services.identifiers import new_id
from trien_server.services.persons import Channel, contact_channels, known_channels
from trien_server.services.signing_commands import GrantedWork
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import TrustedView

Job = Callable[[], object]

PLACES = 1_000
"""How many notices may wait, those of signatures in half of the places; what comes beyond is dropped and reported."""
_THREADS = 2
_DELIVERY_SECONDS = 10.0


class Notices:
    """Delivers notices at most once each, in threads of its own. May be used from any thread; never raises.

    A crash loses what waits. What a person has to have been told before something happens is remembered in the store
    (`was_told`), so that the one who lets it happen finds out.
    """

    def __init__(
        self,
        *,
        deliveries: Mapping[AuthenticatorKind, Delivery],
        texts: NoticeTexts,
        transactions: Transactions,
        randomness: Randomness,
        report: Report,
        places: int = PLACES,
    ) -> None:
        self._deliveries = deliveries
        self._texts = texts
        self._transactions = transactions
        self._randomness = randomness
        self._report = report
        self._jobs: queue.Queue[Job | None] = queue.Queue(places)
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"notices-{number}", daemon=True) for number in range(_THREADS)
        ]

    def start(self) -> None:
        """Begins to deliver."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends after the notices that are being delivered; those that wait are dropped and reported."""
        self._stopped.set()
        dropped = self._drain()
        if dropped:
            self._report("notices_dropped", {"count": str(dropped), "because": "the server stops"})
        for thread in self._threads:
            if thread.is_alive():
                self._jobs.put(None)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def work_off(self) -> None:
        """Delivers what waits, in this thread: for those that start none."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                self._do(job)

    def signed(self, work: GrantedWork, persons: Sequence[Signer]) -> None:
        """Tells persons of a signature."""
        if persons:
            # An application that signs and signs must not take the places of what warns a person.
            self._put(partial(self._tell_signed, work, persons), places=self._jobs.maxsize // 2)

    def tell(self, person: str, what: Telling, *, authenticator: str = "") -> None:
        """Tells a person of something on every known channel; of a new address on all others."""
        self._put(lambda: self._tell(person, what, authenticator))

    def tell_of_addresses(self, before: Signer, after: Signer) -> None:
        """Tells a person whose addresses are others than before, also at the ones that were taken away."""
        if contact_channels(before) != contact_channels(after):
            self._put(lambda: self._tell_of_addresses(before, after))

    def tell_of_enrolments(self, enrolments: Sequence[Enrolment]) -> None:
        """Tells persons of enrolments that were agreed on."""
        for enrolment in enrolments:
            self._put(partial(self.tell_of_enrolment, enrolment))

    def tell_of_enrolment(self, enrolment: Enrolment) -> bool:
        """Tells the person now, and remembers that it was done.

        Returns whether a carrier took it on for at least one of the person's channels, or the person has none that
        can be used.
        """
        channels = self._channels(enrolment.signer)
        taken = [
            self._deliver(
                channel,
                lambda kind: self._texts.told(
                    kind, Telling.ENROLMENT_AGREED, authenticator=enrolment.name, start=enrolment.start_time
                ),
            )
            for channel in channels
        ]
        if taken and not any(taken):
            return False

        def remember(ledger: Ledger) -> None:
            name = told_name(enrolment.name)
            if ledger.get(Notice, name) is None:
                ledger.insert(Notice(name=name, create_time=ledger.at))
                ledger.record("enrolment_told", {"enrolment": enrolment.name, "channels": len(channels)})

        try:
            self._transactions.run(remember, timeout=_DELIVERY_SECONDS)
        except (Refusal, NameTaken) as failure:
            because = failure.reason if isinstance(failure, Refusal) else "NameTaken"
            self._report("notice_not_remembered", {"enrolment": enrolment.name, "because": because})
        return True

    def _tell(self, person: str, what: Telling, authenticator: str) -> None:
        created = authenticator if what is Telling.AUTHENTICATOR_CREATED else ""
        for channel in self._channels(person, without=created):
            self._deliver(channel, lambda kind: self._texts.told(kind, what, authenticator=authenticator))

    def _tell_of_addresses(self, before: Signer, after: Signer) -> None:
        channels = [*self._channels(after.name), *contact_channels(after), *contact_channels(before)]
        for channel in dict.fromkeys(channels):
            self._deliver(channel, lambda kind: self._texts.told(kind, Telling.ADDRESSES_CHANGED))

    def _tell_signed(self, work: GrantedWork, persons: Sequence[Signer]) -> None:
        for person in persons:
            for channel in contact_channels(person):
                self._deliver(
                    channel,
                    lambda kind: self._texts.signed(
                        kind,
                        credential=work.request.usable.credential.name,
                        client=work.request.client,
                        count=len(work.request.items.authorized),
                        fingerprint=list_fingerprint(work.request.items.authorized),
                        at=work.granted.create_time,
                    ),
                )

    def _channels(self, person: str, *, without: str = "") -> list[Channel]:
        def read(view: TrustedView) -> tuple[Channel, ...]:
            held = view.find(Authenticator, signer=person)
            return known_channels(view.require(Signer, person), [one for one in held if one.name != without])

        return [channel for channel in self._transactions.read(read) if channel.kind in self._deliveries]

    def _deliver(self, channel: Channel, text: Callable[[AuthenticatorKind], DeliveredText]) -> bool:
        delivery = self._deliveries.get(channel.kind)
        if delivery is None:
            return False
        try:
            delivery.deliver(
                address=channel.address,
                text=text(channel.kind),
                message=new_id(self._randomness),
                timeout=_DELIVERY_SECONDS,
            )
        except Refusal as failure:
            self._report("notice_not_delivered", {"carrier": str(channel.kind), "because": failure.reason})
            return False
        return True

    def _put(self, job: Job, *, places: int | None = None) -> None:
        try:
            if places is not None and self._jobs.qsize() >= places:
                raise queue.Full
            self._jobs.put_nowait(job)
        except queue.Full:
            self._report("notices_dropped", {"count": "1", "because": "too many wait"})

    def _drain(self) -> int:
        dropped = 0
        while True:
            try:
                dropped += self._jobs.get_nowait() is not None
            except queue.Empty:
                return dropped

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._stopped.is_set():
            self._do(job)

    def _do(self, job: Job) -> None:
        try:
            job()
        except Exception as fault:  # noqa: BLE001 - the other notices are waiting
            because = fault.reason if isinstance(fault, Refusal) else type(fault).__name__
            self._report("notice_not_delivered", {"because": because})


def told_name(enrolment: str) -> str:
    """Returns the name of the record that the person was told of an enrolment."""
    return f"{enrolment}/notices/agreed"


def was_told(view: TrustedView, enrolment: Enrolment) -> bool:
    """Tells whether the person was told of an enrolment."""
    return view.get(Notice, told_name(enrolment.name)) is not None
