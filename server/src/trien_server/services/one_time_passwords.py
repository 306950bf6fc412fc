"""Checks a person's one-time password: prepared outside the transaction, decided inside (P2)."""

from dataclasses import dataclass
from datetime import datetime

from trien_server.core import attempts
from trien_server.core.errors import OneTimePasswordRejected, Refusal, SignerLocked
from trien_server.core.one_time_password import Candidate, accept, candidates, still_shown
from trien_server.core.ports import DecryptionFailed, Hsm
from trien_server.core.records import Authenticator, AuthenticatorState, ClientAttempts, SignerAttempts, State
from trien_server.core.secret import Secret
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class PreparedCheck:
    """A person's authenticators with the passwords that each may show now."""

    signer: str
    authenticators: tuple[tuple[Authenticator, tuple[Candidate, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """Which authenticator's password was accepted, and its time step or counter."""

    authenticator: Authenticator
    value: int


class OneTimePasswords:
    """Evaluates one-time passwords. May be used from any thread."""

    def __init__(self, *, hsm: Hsm, seals: Seals) -> None:
        self._hsm = hsm
        self._seals = seals

    def prepare(self, view: TrustedView, password: Secret, *, signer: str, client: str, at: datetime) -> PreparedCheck:
        """Computes the passwords to compare with; the token decrypts each authenticator's secret once.

        Raises `SignerLocked` without decrypting anything while the signer is locked, `HsmUnavailable`.
        """
        counts = view.require(SignerAttempts, signer)
        name = attempts.client_attempts_name(signer, client)
        of_client = view.get(ClientAttempts, name) or _no_failures(name)
        attempts.assert_open(counts, of_client, at=at)
        prepared = []
        for authenticator in view.find(Authenticator, signer=signer):
            if authenticator.state is not State.ENABLED or authenticator.signer != signer:
                continue
            state = view.require(AuthenticatorState, authenticator.name)
            try:
                secret = self._hsm.decrypt(authenticator.encrypted_secret, associated_data=authenticator.name.encode())
            except DecryptionFailed as failed:
                finding = "its secret was not encrypted for it by this token"
                raise self._seals.distrust(authenticator.table, authenticator.name, finding) from failed
            shown = candidates(
                secret,
                kind=authenticator.kind,
                digits=authenticator.digits,
                hash_function=authenticator.hash_function,
                at=at,
                state=state,
                password=password,
            )
            prepared.append((authenticator, tuple(shown)))
        return PreparedCheck(signer=signer, authenticators=tuple(prepared))

    def consume(self, ledger: Ledger, check: PreparedCheck, password: Secret, *, client: str) -> Accepted | Refusal:
        """Accepts the password and uses up its step or counter, or counts the failure, in the transaction.

        Returns the refusal to be recorded: `SignerLocked` without evaluating anything, or
        `OneTimePasswordRejected`. The counts are read here, so parallel guesses cannot exceed them.
        """
        counts = ledger.require(SignerAttempts, check.signer)
        name = attempts.client_attempts_name(check.signer, client)
        of_client = ledger.get(ClientAttempts, name) or _no_failures(name)
        try:
            attempts.assert_open(counts, of_client, at=ledger.at)
        except SignerLocked as locked:
            return locked
        accepted = self._evaluate(ledger, check, password)
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

    @staticmethod
    def _evaluate(ledger: Ledger, check: PreparedCheck, password: Secret) -> Accepted | None:
        accepted: Accepted | None = None
        for authenticator, shown in check.authenticators:
            state = ledger.require(AuthenticatorState, authenticator.name)
            among = still_shown(shown, kind=authenticator.kind, at=ledger.at)
            value, after = accept(password, among=among, kind=authenticator.kind, state=state)
            if accepted is not None:
                continue
            if after is not state:
                ledger.replace(after)
            if value is not None:
                accepted = Accepted(authenticator=authenticator, value=value)
        return accepted


def _no_failures(name: str) -> ClientAttempts:
    return ClientAttempts(name=name, version=0, failures=0, blocks=0)
