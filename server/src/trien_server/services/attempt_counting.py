"""Counts wrong one-time passwords of every kind together, in the transaction that evaluates them (P2)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from trien_server.core import attempts
from trien_server.core.errors import OneTimePasswordRejected, Refusal, SignerLocked
from trien_server.core.records import Authenticator, ClientAttempts, SignerAttempts
from trien_server.services.transactions import Ledger
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Which authenticator's code was accepted.

    `value` is its time step or counter; 0 for a code that answers a challenge, for that is what it is bound to.
    """

    authenticator: Authenticator
    value: int


def require_open(view: TrustedView | Ledger, *, signer: str, client: str, at: datetime) -> None:
    """Raises `SignerLocked` while no code of the signer may be evaluated, or made, for the client."""
    attempts.assert_open(*_counts(view, signer=signer, client=client), at=at)


def judge(
    ledger: Ledger, evaluate: Callable[[Ledger], Accepted | None], *, signer: str, client: str
) -> Accepted | Refusal:
    """Returns what `evaluate` accepts, and counts a failure, or begins the counts anew.

    Returns the refusal to be recorded: `SignerLocked` without evaluating anything, or `OneTimePasswordRejected`.
    The counts are read here, so parallel guesses cannot exceed them.
    """
    counts, of_client = _counts(ledger, signer=signer, client=client)
    try:
        attempts.assert_open(counts, of_client, at=ledger.at)
    except SignerLocked as locked:
        return locked
    accepted = evaluate(ledger)
    if accepted is None:
        counts, of_client, remaining = attempts.after_failure(counts, of_client, at=ledger.at)
        ledger.replace(counts)
        ledger.put_or_keep(of_client)
        return OneTimePasswordRejected(remaining)
    if counts.failures or of_client.failures or of_client.blocks:
        counts, of_client = attempts.after_success(counts, of_client)
        ledger.replace(counts)
        ledger.put_or_keep(of_client)
    return accepted


def _counts(view: TrustedView | Ledger, *, signer: str, client: str) -> tuple[SignerAttempts, ClientAttempts]:
    name = attempts.client_attempts_name(signer, client)
    none = ClientAttempts(name=name, version=0, failures=0, blocks=0)
    return view.require(SignerAttempts, signer), view.get(ClientAttempts, name) or none
