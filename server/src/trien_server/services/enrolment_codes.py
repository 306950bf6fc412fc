"""SendEnrolmentCode: how an enrolment's code reaches the person, and no operator."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass

from trien_server.core.delivery_addresses import masked
from trien_server.core.enrolments import assert_open, enrolment_code, hash_of, new_half
from trien_server.core.errors import Busy, DeliveryFailed, DeliveryLimitReached, Refusal, StateConflict
from trien_server.core.notice_text import NoticeTexts
from trien_server.core.ports import Clock, Delivery, NameTaken, Randomness, VersionConflict
from trien_server.core.principal import Principal
from trien_server.core.records import AuthenticatorKind, Enrolment, EnrolmentState, Signer
from trien_server.core.secret import Secret
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.delivery_counting import count_delivery
from trien_server.services.enrolments import require_enrolment, waits
from trien_server.services.identifiers import new_id
from trien_server.services.notices import Notices, was_told
from trien_server.services.persons import Channel, contact_channels
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import Stale, TrustedView

_LEAST_TIME = 2.0
_LONGEST_DELIVERY = 10.0
_TIME_FOR_THE_ANSWER = 0.5
_SENDERS = 2
"""How many codes a process delivers at once."""


@dataclass(frozen=True, kw_only=True)
class SentCode:
    """What became of an enrolment code: where it was sent, shortened; or the caller's half of it."""

    sent_to: str = ""
    half: Secret | None = None


class SendEnrolmentCode:
    """Makes enrolment codes anew, which ends the ones before, and an enrolment that was begun begins anew.

    The code goes to the address that both operators agreed on, if there is one; then no operator has any of it. Else
    each of the two has one half to hand over.
    """

    method = "SignerService.SendEnrolmentCode"

    def __init__(
        self,
        *,
        transactions: Transactions,
        changes: Changes,
        deliveries: Mapping[AuthenticatorKind, Delivery],
        notices: Notices,
        texts: NoticeTexts,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._transactions = transactions
        self._changes = changes
        self._deliveries = deliveries
        self._notices = notices
        self._texts = texts
        self._clock = clock
        self._randomness = randomness
        self._places = threading.BoundedSemaphore(_SENDERS)

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> SentCode:
        """Sends the code, or returns the caller's half.

        Raises `PermissionDenied`, `EnrolmentNotPending`, `DeliveryLimitReached`, `DeliveryFailed`, `Busy`;
        `StateConflict` when the person's address is no longer the one that was agreed on, or for a half, when the
        caller is neither of the two who agreed.
        """
        deadline.require(_LEAST_TIME)

        def read(view: TrustedView) -> tuple[Enrolment, bool]:
            _, enrolment = require_enrolment(view, principal, self.method, name)
            assert_open(enrolment, at=self._clock.now())
            return enrolment, waits(enrolment) and not was_told(view, enrolment)

        enrolment, untold = self._transactions.read(read)
        if untold and not self._notices.tell_of_enrolment(enrolment):
            raise DeliveryFailed("The person could not be told of the enrolment on any known channel.")
        if not enrolment.address:
            return self._hand_over(principal, name, untold=untold, deadline=deadline)
        if not self._places.acquire(blocking=False):
            raise Busy("Too many codes are being delivered.")
        try:
            return self._send(principal, name, untold=untold, deadline=deadline)
        finally:
            self._places.release()

    def _hand_over(self, principal: Principal, name: str, *, untold: bool, deadline: Deadline) -> SentCode:
        half = new_half(self._randomness)

        def prepare(view: TrustedView) -> Change:
            operator, enrolment = require_enrolment(view, principal, self.method, name)
            assert_open(enrolment, at=self._clock.now())
            halves = {enrolment.proposer: "first_half_hash", enrolment.approver: "second_half_hash"}
            if enrolment.address or operator.name not in halves:
                raise StateConflict("Only the two operators who agreed on the enrolment hand over its code.")
            hashes = {halves[operator.name]: hash_of(half.reveal().decode())}
            return Change(kind="enrolment_code_made", slow=[self._renewed(enrolment, untold=untold, **hashes)])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return SentCode(half=half)

    def _send(self, principal: Principal, name: str, *, untold: bool, deadline: Deadline) -> SentCode:
        """Makes the code, and has it delivered once its hashes are durable.

        A crash in between leaves a code that nobody has; it is sent anew.
        """
        first, second = new_half(self._randomness), new_half(self._randomness)
        agreed: tuple[Enrolment, Channel] | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal agreed
            _, enrolment = require_enrolment(view, principal, self.method, name)
            assert_open(enrolment, at=self._clock.now())
            person = view.require(Signer, enrolment.signer)
            channel = next((one for one in contact_channels(person) if one.address == enrolment.address), None)
            if channel is None:
                raise StateConflict("The person's address is not the one that was agreed on: propose it anew.")
            renewed = self._renewed(
                enrolment,
                untold=untold,
                first_half_hash=hash_of(first.reveal().decode()),
                second_half_hash=hash_of(second.reveal().decode()),
            )
            agreed = renewed, channel
            return Change(
                kind="enrolment_code_sent",
                slow=[renewed],
                details={"sentTo": masked(channel.address)},
                decide=lambda ledger: _count(ledger, signer=person.name, sender=principal.name),
            )

        self._changes.make(principal.name, prepare, deadline=deadline)
        if agreed is None:
            raise AssertionError("a change was made without being prepared")
        enrolment, channel = agreed
        delivery = self._deliveries.get(channel.kind)
        if delivery is None:
            raise DeliveryFailed(f"This installation delivers nothing by {channel.kind}.")
        delivery.deliver(
            address=channel.address,
            text=self._texts.enrolment(channel.kind, code=enrolment_code(first, second), until=enrolment.expire_time),
            message=new_id(self._randomness),
            timeout=min(max(deadline.remaining() - _TIME_FOR_THE_ANSWER, 0.0), _LONGEST_DELIVERY),
        )
        return SentCode(sent_to=masked(channel.address))

    def _renewed(self, enrolment: Enrolment, *, untold: bool, **hashes: bytes) -> Enrolment:
        """Returns the enrolment with a new code. The wait begins when the person was told, also after a crash."""
        begins = enrolment.start_time
        if untold:
            begins = max(begins, self._clock.now() + (enrolment.start_time - enrolment.create_time))
        return next_version(
            enrolment,
            state=EnrolmentState.PENDING,
            encrypted_secret=b"",
            confirmation_hash=None,
            start_time=begins,
            **hashes,
        )


def _count(ledger: Ledger, *, signer: str, sender: str) -> dict[str, object] | Refusal:
    try:
        count_delivery(ledger, signer=signer, client=sender)
    except DeliveryLimitReached as refusal:
        return refusal
    except (NameTaken, VersionConflict) as conflict:
        raise Stale from conflict
    return {}
