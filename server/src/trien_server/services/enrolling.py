"""OpenEnrolment, BeginEnrolment and ConfirmEnrolment: what a person does with an enrolment code.

Only a person who has the whole code can begin; what begins it gets the secret, once, and completes it with the first
code. While the person's signature is disabled or frozen, nothing of it is possible.
"""

import base64
import hmac
from dataclasses import dataclass

from trien_server.core.enrolments import (
    MOST_FAILURES,
    SECRET_SIZES,
    assert_begins,
    assert_open,
    authenticator_of,
    hash_of,
    question_of,
)
from trien_server.core.errors import EnrolmentNotPending, OneTimePasswordRejected, PermissionDenied, Refusal
from trien_server.core.notice_text import Telling
from trien_server.core.ocra import OcraSuite, ocra, ocra_uri, suite_of
from trien_server.core.one_time_password import TOTP_PERIOD, accept, candidates, otpauth_uri
from trien_server.core.ports import Clock, DecryptionFailed, Hsm, Randomness
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import (
    SHOWING_KINDS,
    Authenticator,
    AuthenticatorKind,
    AuthenticatorState,
    Enrolment,
    EnrolmentState,
    Signer,
    SignerState,
)
from trien_server.core.secret import Secret
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.enrolments import ended
from trien_server.services.notices import Notices
from trien_server.services.one_time_passwords import OneTimePasswords, accepted_details
from trien_server.services.seals import Seals
from trien_server.services.transactions import Ledger, Transactions, next_version
from trien_server.services.trusted import TrustedView

CHANNEL = "clients/-"
"""Under which name wrong codes count that come with an enrolment code; no client has it."""


@dataclass(frozen=True, kw_only=True)
class BegunEnrolment:
    """What only the person gets: the URI with the secret, what completes the enrolment, and for OCRA the question."""

    enrolment: Enrolment
    uri: Secret
    confirmation_key: Secret
    question: bytes | None


class OpenEnrolment:
    """Shows an enrolment to the person who has its code, and changes nothing."""

    def __init__(self, *, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock

    def __call__(self, principal: Principal) -> tuple[Enrolment, bool]:
        """Returns it, and whether it can begin now. Raises `PermissionDenied`, `EnrolmentNotPending`."""
        enrolment = self._transactions.read(lambda view: _require_enrolment(view, principal))
        at = self._clock.now()
        assert_open(enrolment, at=at)
        return enrolment, at >= enrolment.start_time


class BeginEnrolment:
    """Gives the person the secret of the new authenticator, once."""

    def __init__(
        self,
        *,
        changes: Changes,
        one_time_passwords: OneTimePasswords,
        hsm: Hsm,
        clock: Clock,
        randomness: Randomness,
        issuer: str,
    ) -> None:
        self._changes = changes
        self._one_time_passwords = one_time_passwords
        self._hsm = hsm
        self._clock = clock
        self._randomness = randomness
        self._issuer = issuer

    def __call__(self, principal: Principal, *, password: Secret | None = None, deadline: Deadline) -> BegunEnrolment:
        """Returns the secret; `password` is a code of an authenticator that the person has, or of the replaced one.

        With it the enrolment need not wait, and it is consumed and counted as any other. It is looked at only before
        the enrolment's time. Raises `PermissionDenied`, `EnrolmentNotPending`, `OneTimePasswordRejected`,
        `SignerLocked`, `HsmUnavailable`.
        """
        confirmation_key = Secret(base64.urlsafe_b64encode(self._randomness.bytes(32)).rstrip(b"="))
        made: tuple[Enrolment, Secret, str] | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal made
            enrolment = _require_enrolment(view, principal)
            at = self._clock.now()
            assert_open(enrolment, at=at)
            if enrolment.state is not EnrolmentState.PENDING:
                raise EnrolmentNotPending("The enrolment was begun before: ask for a new code.")
            if password is None:
                assert_begins(enrolment, at=at)
            secret = Secret(self._randomness.bytes(SECRET_SIZES[enrolment.hash_function]))
            begun = next_version(
                enrolment,
                state=EnrolmentState.BEGUN,
                encrypted_secret=self._hsm.encrypt(secret, associated_data=authenticator_of(enrolment.name).encode()),
                confirmation_hash=hash_of(confirmation_key.reveal().decode()),
            )
            made = (begun, secret, view.require(Signer, enrolment.signer).display_name)
            if password is None or at >= enrolment.start_time:
                return Change(kind="enrolment_begun", slow=[begun])
            return self._with_code(view, begun, password)

        self._changes.make(principal.name, prepare, deadline=deadline)
        if made is None:
            raise AssertionError("a change was made without being prepared")
        begun, secret, account = made
        return BegunEnrolment(
            enrolment=begun,
            uri=self._uri(begun, secret, account),
            confirmation_key=confirmation_key,
            question=question_of(begun) if begun.kind is AuthenticatorKind.OCRA else None,
        )

    def _with_code(self, view: TrustedView, begun: Enrolment, password: Secret) -> Change:
        check = self._one_time_passwords.prepare(
            view,
            password,
            signer=begun.signer,
            client=CHANNEL,
            at=self._clock.now(),
            disabled=() if begun.replaces is None else (begun.replaces,),
        )

        def decide(ledger: Ledger) -> dict[str, object] | Refusal:
            accepted = self._one_time_passwords.consume(ledger, check, password, client=CHANNEL)
            return accepted if isinstance(accepted, Refusal) else accepted_details(accepted)

        return Change(kind="enrolment_begun", slow=[begun], details={"enrolment": begun.name}, decide=decide)

    def _uri(self, enrolment: Enrolment, secret: Secret, account: str) -> Secret:
        kind, digits, hash_function = enrolment.kind, enrolment.digits, enrolment.hash_function
        if kind is AuthenticatorKind.OCRA:
            suite = suite_of(hash_function=hash_function, digits=digits)
            return ocra_uri(secret, suite=suite, account=account, issuer=self._issuer)
        return otpauth_uri(
            secret, kind=kind, digits=digits, hash_function=hash_function, account=account, issuer=self._issuer
        )


class ConfirmEnrolment:
    """Puts an authenticator in force by its first code, which is consumed."""

    def __init__(self, *, changes: Changes, notices: Notices, hsm: Hsm, seals: Seals, clock: Clock) -> None:
        self._changes = changes
        self._notices = notices
        self._hsm = hsm
        self._seals = seals
        self._clock = clock

    def __call__(
        self, principal: Principal, *, confirmation_key: Secret, password: Secret, deadline: Deadline
    ) -> Authenticator:
        """Returns the authenticator; the person is told on every known channel.

        Raises `PermissionDenied`, `EnrolmentNotPending`; `OneTimePasswordRejected` with how many tries are left, after
        the failure was counted.
        """
        made: Authenticator | None = None
        refusal: Refusal | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal made, refusal
            made, refusal = None, None
            enrolment = _require_enrolment(view, principal)
            assert_open(enrolment, at=self._clock.now())
            expected = enrolment.confirmation_hash
            if enrolment.state is not EnrolmentState.BEGUN or expected is None:
                raise EnrolmentNotPending("The enrolment has not begun.")
            if not hmac.compare_digest(hash_of(confirmation_key.reveal().decode("utf-8", "replace")), expected):
                raise EnrolmentNotPending("The enrolment was begun by somebody else: ask for a new code.")
            accepted = self._accept(enrolment, password)
            if accepted is None:
                failed, refusal = _failed(enrolment)
                return Change(kind="enrolment_code_rejected", slow=[failed])
            made, state = accepted
            completed = ended(enrolment, EnrolmentState.COMPLETED)
            if state is None:
                return Change(kind="authenticator_enrolled", slow=[made, completed])
            accepted_value = {"authenticator": made.name, "acceptedValue": state.next_value - 1}
            return Change(kind="authenticator_enrolled", slow=[made, completed], hot=[state], details=accepted_value)

        self._changes.make(principal.name, prepare, deadline=deadline)
        if refusal is not None:
            raise refusal
        if made is None:
            raise AssertionError("a change was made without being prepared")
        self._notices.tell(made.signer, Telling.ENROLLED, authenticator=made.name)
        return made

    def _accept(self, enrolment: Enrolment, password: Secret) -> tuple[Authenticator, AuthenticatorState | None] | None:
        """Returns the authenticator with its replay memory when the code is the new secret's."""
        name = authenticator_of(enrolment.name)
        try:
            secret = self._hsm.decrypt(enrolment.encrypted_secret, associated_data=name.encode())
        except DecryptionFailed as failed:
            finding = "its secret was not encrypted for it by this token"
            raise self._seals.distrust(enrolment.table, enrolment.name, finding) from failed
        at = self._clock.now()
        made = Authenticator(
            name=name,
            signer=enrolment.signer,
            kind=enrolment.kind,
            digits=enrolment.digits,
            hash_function=enrolment.hash_function,
            period=TOTP_PERIOD if enrolment.kind is AuthenticatorKind.TOTP else 0,
            encrypted_secret=enrolment.encrypted_secret,
            create_time=at,
        )
        if enrolment.kind not in SHOWING_KINDS:
            suite = OcraSuite.parse(suite_of(hash_function=enrolment.hash_function, digits=enrolment.digits))
            right = Secret(ocra(secret, suite, question_of(enrolment).hex()).encode())
            return (made, None) if right == password else None
        memory = AuthenticatorState(name=name, next_value=0)
        among = candidates(
            secret,
            kind=enrolment.kind,
            digits=enrolment.digits,
            hash_function=enrolment.hash_function,
            at=at,
            state=memory,
            password=password,
        )
        value, _ = accept(password, among=among, kind=enrolment.kind, state=memory)
        if value is None:
            return None
        return made, AuthenticatorState(name=name, next_value=value + 1)


def _failed(enrolment: Enrolment) -> tuple[Enrolment, Refusal]:
    failures = enrolment.failures + 1
    rejected = OneTimePasswordRejected(MOST_FAILURES - failures)
    if failures >= MOST_FAILURES:
        return ended(enrolment, EnrolmentState.CANCELLED, failures=failures), rejected
    return next_version(enrolment, failures=failures), rejected


def _require_enrolment(view: TrustedView, principal: Principal) -> Enrolment:
    """Returns the enrolment that the caller is. Raises `PermissionDenied`, `EnrolmentNotPending`."""
    if principal.kind is not PrincipalKind.ENROLMENT:
        raise PermissionDenied
    enrolment = view.get(Enrolment, principal.name)
    if enrolment is None:
        raise PermissionDenied
    if view.require(Signer, enrolment.signer).state is not SignerState.ENABLED:
        raise EnrolmentNotPending("The person's signature is disabled or frozen.")
    return enrolment
