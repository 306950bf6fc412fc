"""What the service promises about authorizations, codes and retries, written a second time, in dictionaries.

It shares no code with the product. Given what is there, what is asked and the time, it says what the answer is and
what is there afterwards; and where a failure or a crash on the way may leave it.
"""

import copy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
UNAVAILABLE = frozenset({"HSM_UNAVAILABLE", "STORE_UNAVAILABLE"})


# What is there


@dataclass
class Authorization:
    """A decision that was asked for: these digests, in this order, with this algorithm."""

    credential: str
    client: str
    approver: str | None
    algorithm: str
    digests: tuple[bytes, ...]
    expires: datetime
    used: tuple[bool, ...]
    state: str = "PENDING"
    approval: str | None = None


@dataclass
class Approval:
    """One person's decision by the code of one time step."""

    signer: str
    client: str
    step: int
    authorizations: tuple[str, ...]


@dataclass
class Granted:
    """A request whose id is bound to its content."""

    method: str
    subject: str
    positions: tuple[int, ...]
    created: datetime
    lease_until: datetime
    completed: bool
    content: object = field(compare=False, default=None)


@dataclass
class Tries:
    """Wrong codes in a row: of a person (`blocks` counts those before the lock), or through one client."""

    failures: int = 0
    blocks: int = 0
    until: datetime | None = None


@dataclass
class State:
    """Everything that the promises are about."""

    authorizations: dict[str, Authorization] = field(default_factory=dict)
    approvals: dict[str, Approval] = field(default_factory=dict)
    granted: dict[tuple[str, str], Granted] = field(default_factory=dict)
    next_step: dict[str, int] = field(default_factory=dict)
    tries: dict[str, Tries] = field(default_factory=dict)
    tries_through: dict[tuple[str, str], Tries] = field(default_factory=dict)
    disabled: set[str] = field(default_factory=set)
    entries: Counter[str] = field(default_factory=Counter)

    def copy(self) -> "State":
        return copy.deepcopy(self)


# What can be asked


@dataclass(frozen=True, kw_only=True)
class Create:
    client: str
    credential: str
    algorithm: str
    digests: tuple[bytes, ...]
    approver: str | None
    lifetime: timedelta
    request_id: str | None


@dataclass(frozen=True, kw_only=True)
class Approve:
    client: str
    names: tuple[str, ...]
    signer: str
    code: str
    request_id: str | None


@dataclass(frozen=True, kw_only=True)
class Deny:
    client: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Fetch:
    client: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Sign:
    """A request to sign; by a code, or with an authorization that was approved (`opens`) and the data that opens it."""

    client: str
    credential: str
    algorithm: str
    digests: tuple[bytes, ...]
    request_id: str
    signer: str | None = None
    code: str = ""
    opens: str | None = None
    data: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Switch:
    """An operator enables or disables something."""

    name: str
    enabled: bool


@dataclass(frozen=True, kw_only=True)
class Unlock:
    signer: str


Question = Create | Approve | Deny | Fetch | Sign | Switch | Unlock


# What is answered


class Refused(Exception):  # noqa: N818
    """`recorded` tells whether the audit log keeps it."""

    def __init__(self, reason: str, *, recorded: bool = True, remaining: int | None = None) -> None:
        self.reason = reason
        self.recorded = recorded
        self.remaining = remaining


@dataclass
class Prediction:
    """The answer, what is there afterwards, and where else a failure on the way may leave it."""

    answer: str
    after: State
    between: list[State] = field(default_factory=list)
    remaining: int | None = None
    subject: str = ""
    signatures: int = 0


@dataclass(frozen=True)
class Names:
    """The random names that the service chose, should it have made something."""

    authorization: str = "nothing new"
    approval: str = "nothing new"


@dataclass(frozen=True)
class Credential:
    """Who and what belongs together, and how long its certificate is valid."""

    key: str
    owner: str
    activator: str
    algorithms: frozenset[str]
    valid_until: datetime


@dataclass(frozen=True)
class Reference:
    """The people and credentials, what each phone shows at each step, and what opens each authorization."""

    credentials: dict[str, Credential]
    clients: frozenset[str]
    shows: Callable[[str, int], str]
    opens: Callable[[str], bytes]

    def predict(self, before: State, question: Question, at: datetime, names: Names) -> Prediction:
        after = before.copy()
        prediction = Prediction("OK", after)
        try:
            match question:
                case Create():
                    prediction.subject = self._create(after, question, at, names)
                case Approve():
                    prediction.subject = self._approve(after, question, at, names)
                case Deny():
                    self._deny(after, question, at)
                case Fetch():
                    self._fetch(after, question, at)
                case Sign():
                    self._sign(prediction, question, at, names)
                case Switch(name=name, enabled=True):
                    after.disabled.discard(name)
                case Switch(name=name):
                    after.disabled.add(name)
                case Unlock(signer=signer):
                    # What counts towards the hundred goes on.
                    after.tries[signer] = Tries(after.tries.get(signer, Tries()).failures)
                    for key in [key for key in after.tries_through if key[0] == signer]:
                        del after.tries_through[key]
        except Refused as refused:
            after.entries["refused"] += refused.recorded
            prediction.answer, prediction.remaining = refused.reason, refused.remaining
        return prediction

    # Each question

    def _create(self, state: State, question: Create, at: datetime, names: Names) -> str:
        try:
            credential = self._usable(state, question.client, question.credential, at)
            self._check_digests(credential, question.algorithm, question.digests)
            if question.approver is not None:
                self._assert_may_approve(state, question.credential, question.approver)
            content = ("create", question)
            if (made := self._repeated(state, question.client, question.request_id, content)) is not None:
                return made.subject
        except Refused as refused:
            raise Refused(refused.reason, recorded=False) from None
        state.authorizations[names.authorization] = Authorization(
            credential=question.credential,
            client=question.client,
            approver=question.approver,
            algorithm=question.algorithm,
            digests=question.digests,
            expires=at + question.lifetime,
            used=(False,) * len(question.digests),
        )
        state.entries["authorization_created"] += 1
        self._bind(state, question.client, question.request_id, content, "CreateAuthorization", names.authorization, at)
        return names.authorization

    def _approve(self, state: State, question: Approve, at: datetime, names: Names) -> str:
        if not 1 <= len(question.names) <= 100 or len(set(question.names)) < len(question.names):
            raise Refused("INVALID_ARGUMENT", recorded=False)
        if question.client in state.disabled:
            raise Refused("PERMISSION_DENIED")
        content = ("approve", question.client, question.signer, question.names)
        if (made := self._repeated(state, question.client, question.request_id, content)) is not None:
            return made.subject
        wanted = [self._own(state, question.client, name) for name in question.names]
        for authorization in wanted:
            self._usable(state, question.client, authorization.credential, at)
            if authorization.approver not in (None, question.signer):
                raise Refused("PERMISSION_DENIED")
            self._assert_may_approve(state, authorization.credential, question.signer)
            self._assert_pending(authorization, at)
        step = self._take_code(state, question.signer, question.client, question.code, at)
        for authorization in wanted:
            authorization.state, authorization.approval = "APPROVED", names.approval
        state.approvals[names.approval] = Approval(question.signer, question.client, step, question.names)
        state.entries["authorizations_approved"] += 1
        self._bind(state, question.client, question.request_id, content, "ApproveAuthorizations", names.approval, at)
        return names.approval

    def _deny(self, state: State, question: Deny, at: datetime) -> None:
        try:
            authorization = self._own(state, question.client, question.name)
            self._assert_pending(authorization, at)
        except Refused as refused:
            raise Refused(refused.reason, recorded=False) from None
        authorization.state = "DENIED"
        state.entries["authorization_denied"] += 1

    def _fetch(self, state: State, question: Fetch, at: datetime) -> None:
        try:
            authorization = self._own(state, question.client, question.name)
            self._assert_open(authorization, at)
        except Refused as refused:
            raise Refused(refused.reason, recorded=False) from None

    def _sign(self, prediction: Prediction, question: Sign, at: datetime, names: Names) -> None:
        state = prediction.after
        credential = self._usable(state, question.client, question.credential, at)
        self._check_digests(credential, question.algorithm, question.digests)
        authority = ("code", question.signer) if question.opens is None else ("authorization", question.opens)
        content = ("sign", question.client, question.credential, question.algorithm, question.digests, authority)
        granted = self._repeated(state, question.client, question.request_id, content)
        if granted is not None:
            self._sign_again(prediction, granted, at)
            return
        if question.opens is None:
            signer = question.signer or credential.activator
            self._assert_may_approve(state, question.credential, signer, named=question.signer is not None)
            step = self._take_code(state, signer, question.client, question.code, at)
            subject, positions = names.authorization, tuple(range(len(question.digests)))
            state.approvals[names.approval] = Approval(signer, question.client, step, (subject,))
            state.authorizations[subject] = Authorization(
                credential=question.credential,
                client=question.client,
                approver=signer,
                algorithm=question.algorithm,
                digests=question.digests,
                expires=at + 10 * MINUTE,
                used=(True,) * len(positions),
                state="USED",
                approval=names.approval,
            )
        else:
            subject, positions = question.opens, self._open(state, question, at)
        state.entries["signing_granted"] += 1
        granted = Granted(
            method="SignDigests",
            subject=subject,
            positions=positions,
            created=at,
            lease_until=at + _lease(len(positions)),
            completed=False,
            content=content,
        )
        state.granted[question.client, question.request_id] = granted
        self._work(prediction, granted, at)

    def _sign_again(self, prediction: Prediction, granted: Granted, at: datetime) -> None:
        """A repeat: after every check but the code it gets the outcome, or completes the work."""
        state = prediction.after
        authorization = state.authorizations[granted.subject]
        assert authorization.approval is not None
        self._assert_may_approve(state, authorization.credential, state.approvals[authorization.approval].signer)
        if granted.completed:
            if at - granted.created > 7 * DAY:
                raise Refused("AUTHORIZATION_EXPIRED")
            prediction.subject = granted.subject
            return
        if at - granted.created > 15 * MINUTE:
            raise Refused("AUTHORIZATION_EXPIRED")
        if granted.lease_until > at:
            raise Refused("BUSY", recorded=False)
        state.entries["signing_resumed"] += 1
        granted.lease_until = at + _lease(len(granted.positions))
        self._work(prediction, granted, at)

    @staticmethod
    def _work(prediction: Prediction, granted: Granted, at: datetime) -> None:
        """The key is used: a failure leaves the lease held or given up."""
        held = prediction.after.copy()
        held_until, granted.lease_until = granted.lease_until, at
        given_up = prediction.after.copy()
        granted.lease_until, granted.completed = held_until, True
        prediction.between = [held, given_up]
        prediction.subject, prediction.signatures = granted.subject, len(granted.positions)

    # What the questions share

    def _usable(self, state: State, client: str, name: str, at: datetime) -> Credential:
        credential = self.credentials.get(name)
        if client not in self.clients or client in state.disabled or credential is None:
            raise Refused("PERMISSION_DENIED")
        if state.disabled & {name, credential.owner, credential.key}:
            raise Refused("CREDENTIAL_DISABLED")
        if at > credential.valid_until:
            raise Refused("CERTIFICATE_NOT_VALID")
        return credential

    @staticmethod
    def _check_digests(credential: Credential, algorithm: str, digests: tuple[bytes, ...]) -> None:
        if algorithm not in credential.algorithms:
            raise Refused("ALGORITHM_MISMATCH", recorded=False)
        if not digests:
            raise Refused("INVALID_ARGUMENT", recorded=False)
        if any(len(digest) != 32 for digest in digests):
            raise Refused("INVALID_DIGEST", recorded=False)

    def _assert_may_approve(self, state: State, name: str, signer: str, *, named: bool = True) -> None:
        """Of several who may, one has to be named; here at most one may."""
        if self.credentials[name].activator != signer or f"{name}/{signer}" in state.disabled:
            raise Refused("PERMISSION_DENIED") if named else Refused("INVALID_ARGUMENT", recorded=False)
        if signer in state.disabled:
            raise Refused("PERMISSION_DENIED")

    @staticmethod
    def _own(state: State, client: str, name: str) -> Authorization:
        authorization = state.authorizations.get(name)
        if client in state.disabled or authorization is None or authorization.client != client:
            raise Refused("PERMISSION_DENIED")
        return authorization

    @staticmethod
    def _assert_pending(authorization: Authorization, at: datetime) -> None:
        if authorization.state != "PENDING":
            raise Refused("AUTHORIZATION_NOT_PENDING")
        if at >= authorization.expires:
            raise Refused("AUTHORIZATION_EXPIRED")

    @staticmethod
    def _assert_open(authorization: Authorization, at: datetime) -> None:
        if authorization.state == "USED":
            raise Refused("ACTIVATION_DATA_USED")
        if authorization.state != "APPROVED":
            raise Refused("AUTHORIZATION_NOT_APPROVED")
        if at >= authorization.expires:
            raise Refused("AUTHORIZATION_EXPIRED")

    def _open(self, state: State, question: Sign, at: datetime) -> tuple[int, ...]:
        """Uses the positions of the digests: unused ones, in the authorized order."""
        authorization = state.authorizations.get(question.opens or "")
        if (
            authorization is None
            or authorization.client != question.client
            or authorization.credential != question.credential
        ):
            raise Refused("PERMISSION_DENIED")
        if question.data != self.opens(question.opens or ""):
            raise Refused("ACTIVATION_DATA_REJECTED")
        self._assert_open(authorization, at)
        if question.algorithm != authorization.algorithm:
            raise Refused("DIGESTS_NOT_AUTHORIZED")
        used, positions, begin = list(authorization.used), [], 0
        for digest in question.digests:
            here = [at for at in range(begin, len(used)) if authorization.digests[at] == digest]
            free = [at for at in here if not used[at]]
            if not free:
                raise Refused("ACTIVATION_DATA_USED" if here else "DIGESTS_NOT_AUTHORIZED")
            positions.append(free[0])
            begin = free[0] + 1
        assert authorization.approval is not None
        self._assert_may_approve(state, question.credential, state.approvals[authorization.approval].signer)
        for position in positions:
            used[position] = True
        authorization.used = tuple(used)
        if all(used):
            authorization.state = "USED"
        return tuple(positions)

    def _take_code(self, state: State, signer: str, client: str, code: str, at: datetime) -> int:
        """Returns the time step whose code it is, and closes it; or counts the failure."""
        person = state.tries.setdefault(signer, Tries())
        through = state.tries_through.setdefault((signer, client), Tries())
        if any(end is not None and end > at for end in (person.until, through.until)):
            raise Refused("SIGNER_LOCKED")
        now = int(at.timestamp()) // 30
        for step in (now - 1, now, now + 1):
            if step >= state.next_step[signer] and self.shows(signer, step) == code:
                state.next_step[signer] = step + 1
                state.tries[signer] = Tries()
                state.tries_through[signer, client] = Tries()
                return step
        # A client that was shut out before costs the person no lock. The third failure through one client shuts it out.
        person.failures += 1
        if through.blocks == 0:
            person.blocks += 1
            if person.blocks >= 5:
                person.until = at + min(30 * SECOND * 2 ** (person.blocks - 5), 60 * MINUTE)
        before_lock = max(5 - person.blocks, 0) if through.blocks == 0 else 3
        through.failures += 1
        remaining = min(3 - through.failures, before_lock)
        if through.failures == 3:
            through.failures, through.until = 0, at + min(15 * MINUTE * 2**through.blocks, DAY)
            through.blocks += 1
        raise Refused("ONE_TIME_PASSWORD_REJECTED", remaining=remaining)

    @staticmethod
    def _repeated(state: State, client: str, request_id: str | None, content: object) -> Granted | None:
        """Returns what the request id made before: only a granted request binds it."""
        granted = state.granted.get((client, request_id or ""))
        if granted is not None and granted.content != content:
            raise Refused("REQUEST_ID_REUSED")
        return granted

    @staticmethod
    def _bind(
        state: State, client: str, request_id: str | None, content: object, method: str, subject: str, at: datetime
    ) -> None:
        if request_id is not None:
            state.granted[client, request_id] = Granted(
                method=method,
                subject=subject,
                positions=(),
                created=at,
                lease_until=at + 30 * SECOND,
                completed=True,
                content=content,
            )


def _lease(items: int) -> timedelta:
    return 30 * SECOND + items * SECOND / 10


def comparable(state: State, at: datetime) -> State:
    """Returns the state without what says nothing: counts of zero, and locks that are over."""
    state = state.copy()
    for tries in (state.tries, state.tries_through):
        for key in list(tries):
            found = tries[key]  # type: ignore[index]
            if found.until is not None and found.until <= at:
                found.until = None
            if found == Tries():
                del tries[key]  # type: ignore[arg-type]
    state.entries = +state.entries
    return state
