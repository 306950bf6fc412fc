"""Checks a person's one-time password of now: prepared outside the transaction, decided inside (P2)."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from trien_server.core.errors import NotAllowedByPolicy, Refusal
from trien_server.core.one_time_password import Candidate, accept, candidates, still_shown
from trien_server.core.ports import DecryptionFailed, Hsm
from trien_server.core.records import SHOWING_KINDS, Authenticator, AuthenticatorKind, AuthenticatorState, State
from trien_server.core.secret import Secret
from trien_server.services.attempt_counting import Accepted, judge, require_open
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger
from trien_server.services.trusted import TrustedView


@dataclass(frozen=True, kw_only=True)
class PreparedCheck:
    """A person's authenticators with the passwords that each may show now."""

    signer: str
    authenticators: tuple[tuple[Authenticator, tuple[Candidate, ...]], ...]


class OneTimePasswords:
    """Evaluates one-time passwords. May be used from any thread."""

    def __init__(self, *, hsm: Hsm, seals: Seals) -> None:
        self._hsm = hsm
        self._seals = seals

    def prepare(
        self,
        view: TrustedView,
        password: Secret,
        *,
        signer: str,
        client: str,
        kinds: Collection[AuthenticatorKind] = SHOWING_KINDS,
        at: datetime,
        disabled: Collection[str] = (),
    ) -> PreparedCheck:
        """Computes the passwords to compare with; the token decrypts each authenticator's secret once.

        Disabled authenticators are passed over, but for those of the person's that `disabled` names. Raises
        `SignerLocked` without decrypting anything while the signer is locked, `HsmUnavailable`;
        `NotAllowedByPolicy` when the person has authenticators that show codes, and none of these kinds.
        """
        require_open(view, signer=signer, client=client, at=at)
        prepared = []
        showing = [
            authenticator
            for authenticator in view.find(Authenticator, signer=signer)
            if authenticator.kind in SHOWING_KINDS
            and (authenticator.state is State.ENABLED or authenticator.name in disabled)
        ]
        allowed = [authenticator for authenticator in showing if authenticator.kind in kinds]
        if showing and not allowed:
            raise NotAllowedByPolicy(f"The credential is approved by {' or '.join(sorted(kinds))} alone.")
        for authenticator in allowed:
            state = view.require(AuthenticatorState, authenticator.name)
            shown = candidates(
                reveal_secret(self._hsm, self._seals, authenticator),
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

        Returns the refusal to be recorded, as `attempt_counting.judge`.
        """
        return judge(ledger, lambda within: _evaluate(within, check, password), signer=check.signer, client=client)


def accepted_details(accepted: Accepted) -> dict[str, object]:
    """Returns what an audit entry says of a password that was consumed for a change."""
    return {"authenticator": accepted.authenticator.name, "acceptedValue": accepted.value}


def reveal_secret(hsm: Hsm, seals: Seals, authenticator: Authenticator) -> Secret:
    """Returns an authenticator's secret as the token decrypts it. Raises `RecordNotTrusted`, `HsmUnavailable`."""
    try:
        return hsm.decrypt(authenticator.encrypted_secret, associated_data=authenticator.name.encode())
    except DecryptionFailed as failed:
        finding = "its secret was not encrypted for it by this token"
        raise seals.distrust(authenticator.table, authenticator.name, finding) from failed


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
