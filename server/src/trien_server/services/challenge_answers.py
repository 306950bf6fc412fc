"""Checks a code that answers a challenge: of an OCRA authenticator, or one that was delivered (P2)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.challenges import assert_answerable, code_message, question
from trien_server.core.errors import ChallengeNotPending, NotAllowedByPolicy, PermissionDenied, Refusal
from trien_server.core.ocra import OcraSuite, ocra, suite_of
from trien_server.core.ports import Hsm, VersionConflict
from trien_server.core.records import Authenticator, AuthenticatorKind, Authorization, Challenge, State
from trien_server.core.secret import Secret
from trien_server.services.attempt_counting import Accepted, judge, require_open
from trien_server.services.one_time_passwords import reveal_secret
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger, next_version
from trien_server.services.trusted import Stale, TrustedView


@dataclass(frozen=True, kw_only=True)
class PreparedAnswer:
    """A challenge with what was given and what is right: the codes themselves, or the token's HMACs of them."""

    challenge: Challenge
    authenticator: Authenticator
    given: Secret
    right: Secret


class ChallengeAnswers:
    """Evaluates answers to challenges. May be used from any thread."""

    def __init__(self, *, hsm: Hsm, seals: Seals) -> None:
        self._hsm = hsm
        self._seals = seals

    def prepare(
        self,
        view: TrustedView,
        code: Secret,
        authorizations: Sequence[Authorization],
        *,
        challenge: str,
        signer: str,
        client: str,
        kinds: Collection[AuthenticatorKind],
        at: datetime,
    ) -> PreparedAnswer:
        """Computes what the code is compared with, for the authorizations as they are; one token call.

        Raises `PermissionDenied` for a challenge of another client or person as for an unknown one (P11),
        `NotAllowedByPolicy` when its authenticator is of none of these kinds, `SignerLocked`, `ChallengeNotPending`,
        `HsmUnavailable`.
        """
        found = view.get(Challenge, challenge)
        if found is None or (found.client, found.signer) != (client, signer):
            raise PermissionDenied
        require_open(view, signer=signer, client=client, at=at)
        assert_answerable(found, [authorization.name for authorization in authorizations], at=at)
        authenticator = view.require(Authenticator, found.authenticator)
        if authenticator.state is not State.ENABLED:
            raise ChallengeNotPending("The challenge's authenticator is not enabled; make a challenge for another.")
        if authenticator.kind not in kinds:
            raise NotAllowedByPolicy(f"The credential is approved by {' or '.join(sorted(kinds))} alone.")
        asked = question(found.name, found.nonce, authorizations)
        given, right = self._compared(found, authenticator, asked, code)
        return PreparedAnswer(challenge=found, authenticator=authenticator, given=given, right=right)

    def consume(self, ledger: Ledger, answer: PreparedAnswer) -> Accepted | Refusal:
        """Accepts the code and marks the challenge as answered, or counts the failure, in the transaction.

        Returns the refusal to be recorded, as `attempt_counting.judge`. Raises `ChallengeNotPending`, `Stale`.
        """
        challenge = answer.challenge
        return judge(ledger, lambda within: _evaluate(within, answer), signer=challenge.signer, client=challenge.client)

    def _compared(
        self, challenge: Challenge, authenticator: Authenticator, asked: bytes, code: Secret
    ) -> tuple[Secret, Secret]:
        if authenticator.kind is AuthenticatorKind.OCRA:
            suite = suite_of(hash_function=authenticator.hash_function, digits=authenticator.digits)
            secret = reveal_secret(self._hsm, self._seals, authenticator)
            return code, Secret(ocra(secret, OcraSuite.parse(suite), asked.hex()).encode("ascii"))
        if challenge.code_mac is None:
            raise self._seals.distrust(Challenge.table, challenge.name, "no code was made for it")
        message = code_message(challenge, asked, code.reveal())
        right = self._seals.authenticated(message, challenge.code_mac, made=challenge.create_time)
        return Secret(challenge.code_mac if right else b""), Secret(challenge.code_mac)


def _evaluate(ledger: Ledger, answer: PreparedAnswer) -> Accepted | None:
    current = ledger.require(Challenge, answer.challenge.name)
    # Whoever answered it meanwhile was first: one code, one approval.
    assert_answerable(current, current.authorizations, at=ledger.at)
    if current != answer.challenge:
        raise Stale
    if answer.given != answer.right:
        return None
    try:
        ledger.replace(next_version(current, answered=True))
    except VersionConflict as conflict:
        raise Stale from conflict
    return Accepted(authenticator=answer.authenticator, value=0)
