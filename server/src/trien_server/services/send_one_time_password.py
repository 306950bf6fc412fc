"""SendOneTimePassword: a code for an exact list, delivered to a person by SMS or e-mail (P2)."""

import dataclasses
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo

from trien_server.core.challenges import code_message, fingerprint, new_code
from trien_server.core.delivered_text import Language, delivered_text
from trien_server.core.errors import Busy, DeliveryLimitReached, NotAllowedByPolicy, Refusal, SignerLocked
from trien_server.core.ports import Clock, DeliveredText, Delivery, NameTaken, Randomness, VersionConflict
from trien_server.core.principal import Principal
from trien_server.core.records import DELIVERED_KINDS, AuthenticatorKind, Client
from trien_server.core.secret import Secret
from trien_server.services import challenge_preparation
from trien_server.services.attempt_counting import require_open
from trien_server.services.authorization_lists import check_names, require_same
from trien_server.services.challenge_preparation import ChallengeCommand, NewChallenge
from trien_server.services.deadline import Deadline
from trien_server.services.delivery_counting import count_delivery
from trien_server.services.identifiers import new_id
from trien_server.services.seals import Seals
from trien_server.services.sign_digests import recordable
from trien_server.services.transactions import Ledger, Transactions
from trien_server.services.trusted import Stale, TrustedView

METHOD = "SendOneTimePassword"
_LEAST_TIME = 2.0
_LONGEST_DELIVERY = 10.0
_TIME_FOR_THE_ANSWER = 0.5


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    view: TrustedView
    made: NewChallenge
    client: Client


class SendOneTimePassword:
    """Makes codes and has them delivered.

    A delivery holds a thread of the server, so at most `senders` deliver at once: the others get `Busy`.
    """

    def __init__(
        self,
        *,
        seals: Seals,
        transactions: Transactions,
        deliveries: Mapping[AuthenticatorKind, Delivery],
        clock: Clock,
        randomness: Randomness,
        zone: tzinfo,
        service: str,
        language: Language,
        senders: int,
    ) -> None:
        self._seals = seals
        self._transactions = transactions
        self._deliveries = deliveries
        self._clock = clock
        self._randomness = randomness
        self._zone = zone
        self._service = service
        self._language = language
        self._places = threading.BoundedSemaphore(senders)

    def __call__(self, principal: Principal, command: ChallengeCommand, deadline: Deadline) -> NewChallenge:
        """Returns the challenge once the carrier has taken on its code.

        The challenge, the counts and the audit entry are durable before anything is delivered: a crash behind
        that leaves a challenge with a code that nobody got, which expires. Raises what ApproveAuthorizations
        raises for the list and the person, `DeliveryLimitReached`, `DeliveryFailed`, `Busy`.
        """
        check_names(command.names, field="authorizations")
        if not self._deliveries:
            raise NotAllowedByPolicy("This installation delivers no codes by SMS or e-mail.")
        deadline.require(_LEAST_TIME)
        if not self._places.acquire(blocking=False):
            raise Busy("Too many codes are being delivered.")
        try:
            made, text = self._transactions.decide(lambda: self._make(principal, command, deadline), deadline=deadline)
            self._deliver(made, text, deadline)
            return made
        except Refusal as refusal:
            if recordable(refusal):
                details = {"action": METHOD, "principal": principal.name, "authorizations": list(command.names)}
                self._transactions.record_refusal(refusal, details)
            raise
        finally:
            self._places.release()

    def _make(
        self, principal: Principal, command: ChallengeCommand, deadline: Deadline
    ) -> tuple[NewChallenge, DeliveredText]:
        prepared = self._transactions.read(lambda view: self._prepare(view, principal, command))
        code = new_code(self._randomness, digits=prepared.made.authenticator.digits)
        made = self._with_code(prepared.made, code)

        def decide(ledger: Ledger) -> NewChallenge | Refusal:
            ledger.assert_unchanged(prepared.view)
            require_same(ledger, made.authorizations)
            details = {"action": METHOD, **challenge_preparation.details(made)}
            try:
                require_open(ledger, signer=command.signer, client=principal.name, at=ledger.at)
                count_delivery(ledger, signer=command.signer, client=principal.name)
            except (SignerLocked, DeliveryLimitReached) as refusal:
                return ledger.refuse(refusal, details)
            except (NameTaken, VersionConflict) as conflict:
                raise Stale from conflict
            ledger.record("code_made", details)
            ledger.insert(made.challenge)
            return made

        self._transactions.run(decide, timeout=deadline.remaining())
        return made, self._text(made, code, prepared.client)

    def _prepare(self, view: TrustedView, principal: Principal, command: ChallengeCommand) -> _Prepared:
        made = challenge_preparation.prepare(
            view,
            principal,
            command,
            method=f"AuthorizationService.{METHOD}",
            kinds=DELIVERED_KINDS,
            randomness=self._randomness,
            zone=self._zone,
            at=self._clock.now(),
        )
        if made.authenticator.kind not in self._deliveries:
            raise NotAllowedByPolicy(f"This installation delivers no codes by {made.authenticator.kind}.")
        return _Prepared(view=view, made=made, client=view.require(Client, principal.name))

    def _with_code(self, made: NewChallenge, code: Secret) -> NewChallenge:
        mac = self._seals.authenticate(code_message(made.challenge, made.question, code.reveal()))
        return dataclasses.replace(made, challenge=dataclasses.replace(made.challenge, code_mac=mac))

    def _text(self, made: NewChallenge, code: Secret, client: Client) -> DeliveredText:
        titles = {authorization.title for authorization in made.authorizations}
        return delivered_text(
            kind=made.authenticator.kind,
            code=code,
            client_title=client.display_name,
            count=len(made.authorizations),
            fingerprint=fingerprint(made.question),
            title=titles.pop() if len(titles) == 1 else "",
            service=self._service,
            language=self._language,
        )

    def _deliver(self, made: NewChallenge, text: DeliveredText, deadline: Deadline) -> None:
        timeout = min(max(deadline.remaining() - _TIME_FOR_THE_ANSWER, 0.0), _LONGEST_DELIVERY)
        delivery = self._deliveries[made.authenticator.kind]
        delivery.deliver(
            address=made.authenticator.address, text=text, message=new_id(self._randomness), timeout=timeout
        )
