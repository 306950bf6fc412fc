"""CreateChallenge: a question for a person's OCRA authenticator, that stands for an exact list (P2)."""

from datetime import tzinfo

from trien_server.core.errors import Refusal, SignerLocked
from trien_server.core.ports import Clock, Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import AuthenticatorKind
from trien_server.services import challenge_preparation
from trien_server.services.attempt_counting import require_open
from trien_server.services.authorization_lists import check_names, require_same
from trien_server.services.challenge_preparation import LEAST_TIME, ChallengeCommand, NewChallenge
from trien_server.services.deadline import Deadline
from trien_server.services.sign_digests import recordable
from trien_server.services.transactions import Ledger, Transactions

METHOD = "CreateChallenge"


class CreateChallenge:
    """Makes challenges for OCRA authenticators."""

    def __init__(self, *, transactions: Transactions, clock: Clock, randomness: Randomness, zone: tzinfo) -> None:
        self._transactions = transactions
        self._clock = clock
        self._randomness = randomness
        self._zone = zone

    def __call__(self, principal: Principal, command: ChallengeCommand, deadline: Deadline) -> NewChallenge:
        """Returns the challenge; it and its audit entry are durable.

        Raises what ApproveAuthorizations raises for the list and the person, `InvalidArgument` when it is not
        clear which authenticator is meant.
        """
        check_names(command.names, field="authorizations")
        deadline.require(LEAST_TIME)
        try:
            return self._transactions.decide(lambda: self._create(principal, command, deadline), deadline=deadline)
        except Refusal as refusal:
            if recordable(refusal):
                details = {"action": METHOD, "principal": principal.name, "authorizations": list(command.names)}
                self._transactions.record_refusal(refusal, details)
            raise

    def _create(self, principal: Principal, command: ChallengeCommand, deadline: Deadline) -> NewChallenge:
        at = self._clock.now()
        view, made = self._transactions.read(
            lambda found: (
                found,
                challenge_preparation.prepare(
                    found,
                    principal,
                    command,
                    method=f"AuthorizationService.{METHOD}",
                    kinds={AuthenticatorKind.OCRA},
                    randomness=self._randomness,
                    zone=self._zone,
                    at=at,
                ),
            )
        )

        def decide(ledger: Ledger) -> NewChallenge | Refusal:
            ledger.assert_unchanged(view)
            require_same(ledger, made.authorizations)
            details = {"action": METHOD, **challenge_preparation.details(made)}
            try:
                require_open(ledger, signer=command.signer, client=principal.name, at=ledger.at)
            except SignerLocked as locked:
                return ledger.refuse(locked, details)
            ledger.record("challenge_created", details)
            ledger.insert(made.challenge)
            return made

        return self._transactions.run(decide, timeout=deadline.remaining())
