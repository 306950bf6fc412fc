"""What making a challenge for a code and sending a code have in common."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from trien_server.core.challenges import LIFETIME, NONCE_SIZE, question
from trien_server.core.errors import InvalidArgument, NotAllowedByPolicy, PermissionDenied
from trien_server.core.ports import Randomness
from trien_server.core.principal import Principal
from trien_server.core.records import Authenticator, AuthenticatorKind, Authorization, Challenge, State
from trien_server.services.attempt_counting import require_open
from trien_server.services.authorization_lists import require_list
from trien_server.services.identifiers import new_id
from trien_server.services.trusted import TrustedView

LEAST_TIME = 0.5


@dataclass(frozen=True, kw_only=True)
class ChallengeCommand:
    """A request for a challenge: about an exact, ordered list, for one person."""

    signer: str
    names: tuple[str, ...]
    authenticator: str | None


@dataclass(frozen=True, kw_only=True)
class NewChallenge:
    """A challenge with the authenticator that it is for and the question that stands for its list."""

    challenge: Challenge
    authenticator: Authenticator
    question: bytes
    authorizations: tuple[Authorization, ...]


def prepare(
    view: TrustedView,
    principal: Principal,
    command: ChallengeCommand,
    *,
    method: str,
    kinds: Collection[AuthenticatorKind],
    randomness: Randomness,
    zone: tzinfo,
    at: datetime,
) -> NewChallenge:
    """Returns a challenge that can be written, after every check of ApproveAuthorizations but the code itself.

    It ends with the first of its authorizations. Raises as `authorization_lists.require_list`, `SignerLocked`,
    `PermissionDenied` for an authenticator that is not the person's, `InvalidArgument`.
    """
    waiting = require_list(
        view, principal, command.names, signer=command.signer, method=method, kinds=kinds, zone=zone, at=at
    )
    authorizations = waiting.authorizations
    require_open(view, signer=command.signer, client=principal.name, at=at)
    authenticator = _choose(view, command, kinds, waiting.kinds)
    challenge = Challenge(
        name=f"{command.signer}/challenges/{new_id(randomness)}",
        signer=command.signer,
        client=principal.name,
        authenticator=authenticator.name,
        authorizations=command.names,
        nonce=randomness.bytes(NONCE_SIZE),
        create_time=at,
        expire_time=min([at + LIFETIME, *(authorization.expire_time for authorization in authorizations)]),
    )
    return NewChallenge(
        challenge=challenge,
        authenticator=authenticator,
        question=question(challenge.name, challenge.nonce, authorizations),
        authorizations=authorizations,
    )


def details(made: NewChallenge) -> dict[str, object]:
    """Returns what audit entries about a challenge say: never a code, and not where it went."""
    return {
        "challenge": made.challenge.name,
        "client": made.challenge.client,
        "approver": made.challenge.signer,
        "authenticator": made.authenticator.name,
        "authenticatorKind": str(made.authenticator.kind),
        "authorizations": list(made.challenge.authorizations),
        "question": made.question.hex(),
    }


def _choose(
    view: TrustedView,
    command: ChallengeCommand,
    kinds: Collection[AuthenticatorKind],
    allowed: Collection[AuthenticatorKind],
) -> Authenticator:
    if command.authenticator is not None:
        wanted = view.get(Authenticator, command.authenticator)
        if wanted is None or wanted.signer != command.signer or wanted.state is not State.ENABLED:
            raise PermissionDenied
        if wanted.kind in kinds and wanted.kind not in allowed:
            raise NotAllowedByPolicy(f"The credential is approved by {' or '.join(sorted(allowed))} alone.")
        fitting: Sequence[Authenticator] = [wanted] if wanted.kind in kinds else []
    else:
        found = view.find(Authenticator, signer=command.signer)
        fitting = [one for one in found if one.kind in allowed and one.state is State.ENABLED]
    if len(fitting) != 1:
        named = " or ".join(sorted(kinds))
        raise InvalidArgument("authenticator", f"name one of kind {named}; it may be absent when the person has one")
    return fitting[0]
