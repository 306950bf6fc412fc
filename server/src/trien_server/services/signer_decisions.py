"""FreezeSigner and SetSignatureNotices: what a person does alone, by a one-time password of one's own."""

from collections.abc import Callable, Collection

from trien_server.core.errors import InvalidArgument, Refusal, StateConflict
from trien_server.core.notice_text import Telling
from trien_server.core.ports import Clock
from trien_server.core.principal import Principal
from trien_server.core.records import Enrolment, EnrolmentState, Signer, SignerState
from trien_server.core.secret import Secret
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.notices import Notices
from trien_server.services.one_time_passwords import OneTimePasswords, accepted_details
from trien_server.services.persons import contact_channels, require_person_of
from trien_server.services.sign_digests import recordable
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView


class SignerDecisions:
    """Puts a person's decision about the person's own record in force: the code consumed and the change, or neither.

    The code counts as any other: it serves once, and wrong ones lock. It is looked at after everything else.
    """

    def __init__(
        self, *, transactions: Transactions, changes: Changes, one_time_passwords: OneTimePasswords, clock: Clock
    ) -> None:
        self._transactions = transactions
        self._changes = changes
        self._one_time_passwords = one_time_passwords
        self._clock = clock

    def make(
        self,
        principal: Principal,
        method: str,
        name: str,
        password: Secret,
        decided: Callable[[Signer], Signer],
        *,
        kind: str,
        disabled: Callable[[TrustedView, str], Collection[str]] = lambda _view, _name: (),
        deadline: Deadline,
    ) -> Signer:
        """Returns the person as `decided` made of it. `disabled` names disabled authenticators whose codes are taken.

        Raises `PermissionDenied`, `OneTimePasswordRejected`, `SignerLocked`, and what `decided` raises.
        """
        result: Signer | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal result
            client, person = require_person_of(view, principal, method, name)
            result = decided(person)
            check = self._one_time_passwords.prepare(
                view,
                password,
                signer=name,
                client=client.name,
                at=self._clock.now(),
                disabled=disabled(view, name),
            )

            def decide(ledger: Ledger) -> dict[str, object] | Refusal:
                accepted = self._one_time_passwords.consume(ledger, check, password, client=client.name)
                return accepted if isinstance(accepted, Refusal) else accepted_details(accepted)

            return Change(
                kind=kind,
                slow=[result],
                details={"client": client.name, "approver": name},
                decide=decide,
            )

        deadline.require(0.5)
        try:
            self._changes.make(principal.name, prepare, deadline=deadline)
        except Refusal as refusal:
            if recordable(refusal):
                self._transactions.record_refusal(refusal, {"action": kind, "principal": principal.name})
            raise
        if result is None:
            raise AssertionError("a change was made without being prepared")
        return result


class FreezeSigner:
    """Freezes persons: nothing of theirs is signed, approved or enrolled until two officers undo it."""

    method = "SignerService.FreezeSigner"

    def __init__(self, *, decisions: SignerDecisions, notices: Notices) -> None:
        self._decisions = decisions
        self._notices = notices

    def __call__(self, principal: Principal, name: str, *, password: Secret, deadline: Deadline) -> Signer:
        """Returns the frozen person. No request whose transaction begins later is granted.

        A code of an authenticator that an open enrolment replaces is taken too: whoever is told of a replacement that
        was not asked for stops it with the phone that is said to be lost. Raises `PermissionDenied`, `StateConflict`,
        `OneTimePasswordRejected`, `SignerLocked`.
        """
        frozen = self._decisions.make(
            principal,
            self.method,
            name,
            password,
            _frozen,
            kind="signer_frozen",
            disabled=_being_replaced,
            deadline=deadline,
        )
        self._notices.tell(name, Telling.FROZEN)
        return frozen


class SetSignatureNotices:
    """Switches on or off that a person is told of each signature."""

    method = "SignerService.SetSignatureNotices"

    def __init__(self, *, decisions: SignerDecisions, notices: Notices) -> None:
        self._decisions = decisions
        self._notices = notices

    def __call__(
        self, principal: Principal, name: str, *, password: Secret, wanted: bool, deadline: Deadline
    ) -> Signer:
        """Returns the person; who is told that it was switched, on or off.

        Raises `InvalidArgument` when there is no address to tell, `PermissionDenied`, `OneTimePasswordRejected`,
        `SignerLocked`.
        """

        def decided(person: Signer) -> Signer:
            if wanted and not contact_channels(person):
                raise InvalidArgument("signature_notices", "the person has no mail address and no telephone number")
            return next_version(person, signature_notices=wanted)

        changed = self._decisions.make(
            principal, self.method, name, password, decided, kind="signature_notices_set", deadline=deadline
        )
        self._notices.tell(name, Telling.NOTICES_ON if wanted else Telling.NOTICES_OFF)
        return changed


def _frozen(person: Signer) -> Signer:
    if person.state is SignerState.DISABLED:
        raise StateConflict("The signer is disabled.")
    return next_version(person, state=SignerState.FROZEN)


def _being_replaced(view: TrustedView, signer: str) -> Collection[str]:
    return [
        enrolment.replaces
        for enrolment in view.find(Enrolment, signer=signer)
        if enrolment.replaces is not None and enrolment.state in (EnrolmentState.PENDING, EnrolmentState.BEGUN)
    ]
