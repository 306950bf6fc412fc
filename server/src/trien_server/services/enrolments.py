"""Enrolments: how a person gets an authenticator whose secret no operator sees.

Two operators agree that a person may enrol (CreateEnrolments). The enrolment code has two halves, and only a person
who has both can begin; what begins it gets the secret, once, and completes it with the first code.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import timedelta

from trien_server.core.encoding import encode_all
from trien_server.core.errors import (
    AlreadyExists,
    EnrolmentNotPending,
    InvalidArgument,
    OneTimePasswordRejected,
    PermissionDenied,
    Refusal,
    StateConflict,
)
from trien_server.core.names import parent_of
from trien_server.core.ocra import OcraSuite, ocra, ocra_uri, suite_of
from trien_server.core.one_time_password import TOTP_PERIOD, accept, candidates, otpauth_uri
from trien_server.core.ports import Clock, DecryptionFailed, Hsm, Randomness
from trien_server.core.principal import Principal, PrincipalKind
from trien_server.core.records import (
    DELIVERED_KINDS,
    SHOWING_KINDS,
    Authenticator,
    AuthenticatorKind,
    AuthenticatorState,
    Enrolment,
    EnrolmentState,
    Proposal,
    Signer,
)
from trien_server.core.secret import Secret
from trien_server.services.access import require_operator
from trien_server.services.authenticators import parse_digits, require_person
from trien_server.services.changes import Change, Changes
from trien_server.services.deadline import Deadline
from trien_server.services.proposals import Agreement, Plan, Proposals
from trien_server.services.seals import Seals
from trien_server.services.transactions import Transactions, next_version
from trien_server.services.trusted import TrustedView

LIFETIME = timedelta(days=14)
"""How long an enrolment can be completed."""
MOST_FAILURES = 5
"""How many wrong first codes end an enrolment."""
MOST_AT_ONCE = 1000

_SECRET_SIZES = {"SHA1": 20, "SHA256": 32, "SHA512": 64}
"""The secret is as long as the hash (RFC 4226, section 4, R6; RFC 6238, section 5.1)."""
_PREFIX = "trien-enrol-"
_CODE = re.compile(r"[a-z2-7]{32}", re.ASCII)
_HALF_BYTES = 10
_HALF_LENGTH = 16


@dataclass(frozen=True, kw_only=True)
class NewEnrolment:
    """An enrolment that is to be; empty and 0 are the kind's own."""

    name: str
    kind: AuthenticatorKind
    digits: int = 0
    hash_function: str = ""
    replaces: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewEnrolments:
    """Enrolments of different persons, agreed on together."""

    enrolments: tuple[NewEnrolment, ...]


@dataclass(frozen=True, kw_only=True)
class EnrolmentHalf:
    """A half of an enrolment code, for the operator who hands it over."""

    half: Secret


@dataclass(frozen=True, kw_only=True)
class BegunEnrolment:
    """What only the person gets: the URI with the secret, what completes the enrolment, and for OCRA the question."""

    enrolment: Enrolment
    uri: Secret
    confirmation_key: Secret
    question: bytes | None


def parse_code(value: str) -> tuple[bytes, bytes] | None:
    """Returns the SHA-256 of the two halves of an enrolment code; None for what is none. Hyphens and case are free."""
    if not value.lower().startswith(_PREFIX):
        return None
    code = value.lower().removeprefix(_PREFIX).replace("-", "")
    if _CODE.fullmatch(code) is None:
        return None
    return _hash(code[:_HALF_LENGTH]), _hash(code[_HALF_LENGTH:])


def enrolment_code(first: Secret, second: Secret) -> Secret:
    """Returns the enrolment code of two halves, as people see it."""
    return Secret(b"-".join((_PREFIX.rstrip("-").encode(), first.reveal(), second.reveal())))


class CreateEnrolments:
    """Lets persons enrol authenticators of kind TOTP, HOTP and OCRA."""

    method = "SignerService.CreateEnrolments"

    def __init__(self, *, proposals: Proposals) -> None:
        self._proposals = proposals
        proposals.register(
            Plan(
                method=self.method,
                command=NewEnrolments,
                make=self._plan,
                set_on_approval=frozenset({"approver", "start_time", "expire_time"}),
            )
        )

    def __call__(self, principal: Principal, new: NewEnrolments, *, deadline: Deadline) -> Proposal:
        """Proposes the enrolments. Raises `PermissionDenied`, `InvalidArgument`, `AlreadyExists`."""
        return self._proposals.propose(principal, self.method, new, deadline=deadline)

    @staticmethod
    def _plan(view: TrustedView, new: NewEnrolments, agreement: Agreement) -> Change:
        if not 1 <= len(new.enrolments) <= MOST_AT_ONCE:
            raise InvalidArgument("enrolments", f"expected 1 to {MOST_AT_ONCE}")
        if len({parent_of(wanted.name) for wanted in new.enrolments}) != len(new.enrolments):
            raise InvalidArgument("enrolments", "a person is named twice")
        made = [
            _enrolment(view, wanted, agreement, field=f"enrolments[{position}]")
            for position, wanted in enumerate(new.enrolments)
        ]
        return Change(kind="enrolment_created", slow=made)


def _enrolment(view: TrustedView, wanted: NewEnrolment, agreement: Agreement, *, field: str) -> Enrolment:
    signer = parent_of(wanted.name)
    require_person(view, signer, field=f"{field}.name")
    if wanted.kind in DELIVERED_KINDS:
        raise InvalidArgument(f"{field}.kind", "expected TOTP, HOTP or OCRA: delivered codes need no enrolment")
    if view.get(Enrolment, wanted.name) is not None or view.get(Authenticator, authenticator_of(wanted.name)):
        raise AlreadyExists(f"{wanted.name}, or an authenticator of that id, exists.")
    return Enrolment(
        name=wanted.name,
        signer=signer,
        kind=wanted.kind,
        digits=parse_digits(wanted.digits, kind=wanted.kind, field=f"{field}.digits"),
        hash_function=wanted.hash_function or ("SHA256" if wanted.kind is AuthenticatorKind.OCRA else "SHA1"),
        replaces=wanted.replaces,
        proposer=agreement.proposer,
        approver=agreement.approver,
        start_time=agreement.at,
        expire_time=agreement.at + LIFETIME,
        create_time=agreement.at,
    )


class SendEnrolmentCode:
    """Makes enrolment codes anew."""

    method = "SignerService.SendEnrolmentCode"

    def __init__(self, *, changes: Changes, clock: Clock, randomness: Randomness) -> None:
        self._changes = changes
        self._clock = clock
        self._randomness = randomness

    def __call__(self, principal: Principal, name: str, *, deadline: Deadline) -> EnrolmentHalf:
        """Makes the caller's half anew, and returns it: each of the two operators who agreed has one.

        An enrolment that was begun begins anew. Raises `PermissionDenied`, `EnrolmentNotPending`, `StateConflict` for
        an operator who is neither of the two.
        """
        half = Secret(base64.b32encode(self._randomness.bytes(_HALF_BYTES)).lower())

        def prepare(view: TrustedView) -> Change:
            operator = require_operator(view, principal, self.method)
            enrolment = view.get(Enrolment, name)
            if enrolment is None:
                raise PermissionDenied
            _require_open(enrolment, self._clock)
            halves = {enrolment.proposer: "first_half_hash", enrolment.approver: "second_half_hash"}
            if operator.name not in halves:
                raise StateConflict("Only the two operators who agreed on the enrolment hand over its code.")
            renewed = next_version(
                enrolment,
                state=EnrolmentState.PENDING,
                encrypted_secret=b"",
                confirmation_hash=None,
                **{halves[operator.name]: _hash(half.reveal().decode())},
            )
            return Change(kind="enrolment_code_made", slow=[renewed])

        self._changes.make(principal.name, prepare, deadline=deadline)
        return EnrolmentHalf(half=half)


class GetEnrolment:
    """Reads enrolments."""

    method = "SignerService.GetEnrolment"

    def __init__(self, *, transactions: Transactions) -> None:
        self._transactions = transactions

    def __call__(self, principal: Principal, name: str) -> Enrolment:
        """Returns it. Raises `PermissionDenied`."""

        def work(view: TrustedView) -> Enrolment:
            require_operator(view, principal, self.method)
            enrolment = view.get(Enrolment, name)
            if enrolment is None:
                raise PermissionDenied
            return enrolment

        return self._transactions.read(work)


class BeginEnrolment:
    """Gives the person the secret of the new authenticator, once."""

    def __init__(self, *, changes: Changes, hsm: Hsm, clock: Clock, randomness: Randomness, issuer: str) -> None:
        self._changes = changes
        self._hsm = hsm
        self._clock = clock
        self._randomness = randomness
        self._issuer = issuer

    def __call__(self, principal: Principal, *, deadline: Deadline) -> BegunEnrolment:
        """Returns the secret. Raises `PermissionDenied`, `EnrolmentNotPending`, `HsmUnavailable`."""
        confirmation_key = Secret(base64.urlsafe_b64encode(self._randomness.bytes(32)).rstrip(b"="))
        made: tuple[Enrolment, Secret, str] | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal made
            enrolment = _require_enrolment(view, principal)
            _require_open(enrolment, self._clock)
            if enrolment.state is not EnrolmentState.PENDING:
                raise EnrolmentNotPending("The enrolment was begun before: ask for a new code.")
            secret = Secret(self._randomness.bytes(_SECRET_SIZES[enrolment.hash_function]))
            begun = next_version(
                enrolment,
                state=EnrolmentState.BEGUN,
                encrypted_secret=self._hsm.encrypt(secret, associated_data=authenticator_of(enrolment.name).encode()),
                confirmation_hash=_hash(confirmation_key.reveal().decode()),
            )
            made = (begun, secret, view.require(Signer, enrolment.signer).display_name)
            return Change(kind="enrolment_begun", slow=[begun])

        self._changes.make(principal.name, prepare, deadline=deadline)
        if made is None:
            raise AssertionError("a change was made without being prepared")
        begun, secret, account = made
        return BegunEnrolment(
            enrolment=begun,
            uri=self._uri(begun, secret, account),
            confirmation_key=confirmation_key,
            question=_question(begun) if begun.kind is AuthenticatorKind.OCRA else None,
        )

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

    def __init__(self, *, changes: Changes, hsm: Hsm, seals: Seals, clock: Clock) -> None:
        self._changes = changes
        self._hsm = hsm
        self._seals = seals
        self._clock = clock

    def __call__(
        self, principal: Principal, *, confirmation_key: Secret, password: Secret, deadline: Deadline
    ) -> Authenticator:
        """Returns the authenticator.

        Raises `PermissionDenied`, `EnrolmentNotPending`; `OneTimePasswordRejected` with how many tries are left, after
        the failure was counted.
        """
        made: Authenticator | None = None
        refusal: Refusal | None = None

        def prepare(view: TrustedView) -> Change:
            nonlocal made, refusal
            made, refusal = None, None
            enrolment = _require_enrolment(view, principal)
            _require_open(enrolment, self._clock)
            expected = enrolment.confirmation_hash
            if enrolment.state is not EnrolmentState.BEGUN or expected is None:
                raise EnrolmentNotPending("The enrolment has not begun.")
            if not hmac.compare_digest(_hash(confirmation_key.reveal().decode()), expected):
                raise EnrolmentNotPending("The enrolment was begun by somebody else: ask for a new code.")
            accepted = self._accept(enrolment, password)
            if accepted is None:
                failed, refusal = _failed(enrolment)
                return Change(kind="enrolment_code_rejected", slow=[failed])
            made, state = accepted
            completed = next_version(
                enrolment,
                state=EnrolmentState.COMPLETED,
                encrypted_secret=b"",
                confirmation_hash=None,
                first_half_hash=None,
                second_half_hash=None,
            )
            if state is None:
                return Change(kind="authenticator_enrolled", slow=[made, completed])
            accepted_value = {"authenticator": made.name, "acceptedValue": state.next_value - 1}
            return Change(kind="authenticator_enrolled", slow=[made, completed], hot=[state], details=accepted_value)

        self._changes.make(principal.name, prepare, deadline=deadline)
        if refusal is not None:
            raise refusal
        if made is None:
            raise AssertionError("a change was made without being prepared")
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
            right = Secret(ocra(secret, suite, _question(enrolment).hex()).encode())
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


def authenticator_of(enrolment: str) -> str:
    """Returns the name of the authenticator that an enrolment makes."""
    return enrolment.replace("/enrolments/", "/authenticators/")


def _failed(enrolment: Enrolment) -> tuple[Enrolment, Refusal]:
    failures = enrolment.failures + 1
    state = EnrolmentState.CANCELLED if failures >= MOST_FAILURES else enrolment.state
    return next_version(enrolment, failures=failures, state=state), OneTimePasswordRejected(MOST_FAILURES - failures)


def _require_enrolment(view: TrustedView, principal: Principal) -> Enrolment:
    if principal.kind is not PrincipalKind.ENROLMENT:
        raise PermissionDenied
    enrolment = view.get(Enrolment, principal.name)
    if enrolment is None:
        raise PermissionDenied
    return enrolment


def _require_open(enrolment: Enrolment, clock: Clock) -> None:
    at = clock.now()
    if enrolment.state not in (EnrolmentState.PENDING, EnrolmentState.BEGUN) or at >= enrolment.expire_time:
        raise EnrolmentNotPending("The enrolment is over.")
    if at < enrolment.start_time:
        raise EnrolmentNotPending(f"The enrolment can begin from {enrolment.start_time:%Y-%m-%d %H:%M} UTC on.")


def _question(enrolment: Enrolment) -> bytes:
    """Returns the question that an OCRA authenticator answers first: SHA-256 over the enrolment's name."""
    return hashlib.sha256(encode_all("trien/enrolment", [enrolment.name])).digest()


def _hash(text: str) -> bytes:
    """Returns what is kept of a half or a key of 80 random bits and more: its SHA-256."""
    return hashlib.sha256(text.encode()).digest()
