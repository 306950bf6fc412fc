"""The real use cases, asked the questions of the reference model, and what their store then holds in its words."""

import copy
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from tests.fakes.clock import ManualClock
from tests.fakes.hsm import MemoryHsm
from tests.fakes.store import MemoryStore
from tests.property import reference
from tests.property.breakable_ports import BreakableHsm, BreakableStore, Breaker, Crashed
from tests.property.reference import Names, State, Tries
from tests.support.world import AGENCY, CHAIR, CLERK, OFFICE, OPERATOR, P256, PORTAL, RSA, SEAL, World

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.errors import OneTimePasswordRejected, Refusal
from trien_server.core.ports import Snapshot, Store
from trien_server.core.principal import AuthenticatedBy, Principal, PrincipalKind
from trien_server.core.records import (
    HOT_RECORDS,
    SLOW_RECORDS,
    Activator,
    Approval,
    AuditEntry,
    AuthenticatorState,
    Authorization,
    Client,
    ClientAttempts,
    Credential,
    CredentialState,
    GrantedRequest,
    ItemKind,
    Key,
    Record,
    Signer,
    SignerAttempts,
)
from trien_server.core.sealing import activation_data_message
from trien_server.core.secret import Secret
from trien_server.services.approve_authorizations import ApproveAuthorizationsCommand
from trien_server.services.changes import Change
from trien_server.services.create_authorization import CreateAuthorizationCommand
from trien_server.services.deadline import Deadline
from trien_server.services.signing_commands import SignDigestsCommand, WithActivationData, WithOneTimePassword
from trien_server.services.transactions import next_version
from trien_server.store.schema import migrate
from trien_server.store.urls import open_store

ECDSA, PSS, PKCS1 = "ECDSA_P256_SHA256", "RSA_PSS_SHA256", "RSA_PKCS1_SHA256"
ACTIVATORS = {P256: CHAIR, RSA: CHAIR, SEAL: CLERK}
OWNERS = {P256: CHAIR, RSA: CHAIR, SEAL: AGENCY}
ALGORITHMS = {P256: {ECDSA}, RSA: {PSS, PKCS1}, SEAL: {ECDSA}}
SWITCHES: dict[str, type[Record]] = {
    OFFICE.name: Client,
    PORTAL.name: Client,
    CHAIR: Signer,
    CLERK: Signer,
    AGENCY: Signer,
    **dict.fromkeys(ACTIVATORS, Credential),
    **{f"keys/{name.partition('/')[2]}": Key for name in ACTIVATORS},
    **{f"{name}/{signer}": Activator for name, signer in ACTIVATORS.items()},
}
"""What an operator switches on and off."""
ENTRIES = {
    "authorization_created",
    "authorizations_approved",
    "authorization_denied",
    "signing_granted",
    "signing_resumed",
    "refused",
}


class Impatient(Deadline):
    """A deadline that looking at it brings nearer, for the clock stands still: whoever polls gives up."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, 60.0)
        self._looks = 0

    def remaining(self) -> float:
        self._looks += 1
        return max(0.0, 60.0 - 10.0 * (self._looks - 1))


@dataclass(frozen=True)
class Prepared:
    """A populated world to begin each example with."""

    world: World
    file: Path | None

    def clock(self) -> ManualClock:
        return ManualClock(self.world.clock.now())


@cache
def prepared(kind: str) -> Prepared:
    """Returns the world that all examples with a store of that kind begin with: memory or sqlite."""
    clock = ManualClock()
    if kind == "memory":
        return Prepared(World(clock=clock).populate(), None)
    file = Path(tempfile.mkdtemp(prefix="trien-model-")) / "trien.db"
    migrate(f"sqlite:///{file}")
    store = _open(file, clock)
    world = World(clock=clock, store=store).populate()
    store.close()
    return Prepared(world, file)


def _open(file: Path, clock: ManualClock) -> Store:
    store = open_store(f"sqlite:///{file}", on_fatal=lambda reason: pytest.fail(reason))
    store.now = clock.now  # type: ignore[method-assign]
    return store


@dataclass
class Answer:
    """What the service answered: OK, a reason, or CRASHED."""

    reason: str
    subject: str = ""
    signatures: tuple[bytes, ...] = ()
    remaining: int | None = None


class Service:
    """The use cases over a store of its own, with ports that break. Each question is asked at the clock's time."""

    def __init__(self, kind: str) -> None:
        start = prepared(kind)
        self.clock = start.clock()
        self.breaker = Breaker()
        self._folder: Path | None = None
        if start.file is None:
            assert isinstance(start.world.store, MemoryStore)
            self.raw: Store = start.world.store.reopened()
            self.raw.clock = self.clock.now  # type: ignore[attr-defined]
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="trien-model-"))
            shutil.copy(start.file, self._folder / "trien.db")
            self.raw = _open(self._folder / "trien.db", self.clock)
        token: MemoryHsm = copy.copy(start.world.hsm)
        token.signatures = 0
        self.token = token
        self.without_entry: list[str] = []
        self._granted: dict[str, set[str]] = {}
        self.world = World(
            clock=self.clock,
            hsm=BreakableHsm(token, self.breaker, self._before_signing),
            store=BreakableStore(self.raw, self.breaker),
            otp=dict(start.world.otp),
        )
        self.certificates = {name: start.world.certificate(name) for name in ACTIVATORS} if kind == "memory" else {}
        if not self.certificates:
            self.certificates = {name: self.world.certificate(name) for name in ACTIVATORS}
        self.asked = 0

    def close(self) -> None:
        self.raw.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)

    def restart(self) -> None:
        """Goes on with another process: empty caches over what is durable."""
        self.breaker.disarm()
        self.world.use = self.world.new_process()

    def facts(self) -> reference.Reference:
        """Returns what the model has to know of people and credentials."""
        return reference.Reference(
            credentials={
                name: reference.Credential(
                    key=f"keys/{name.partition('/')[2]}",
                    owner=OWNERS[name],
                    activator=activator,
                    algorithms=frozenset(ALGORITHMS[name]),
                    valid_until=x509.load_der_x509_certificate(self.certificates[name]).not_valid_after_utc,
                )
                for name, activator in ACTIVATORS.items()
            },
            clients=frozenset({OFFICE.name, PORTAL.name}),
            shows=self.shows,
            opens=self.opens,
        )

    def shows(self, signer: str, step: int) -> str:
        """Returns what a person's phone shows in a time step."""
        return str(self.world.otp[f"{signer}/phone"].generate_otp(step))

    def opens(self, name: str) -> bytes:
        """Returns the data that opens an authorization, by the token itself: a fault is for what the service does."""
        found = self.raw.read(lambda snapshot: snapshot.get(Authorization, name))
        if found is None:
            return b"nothing opens what does not exist"
        return self.token.authenticate(activation_data_message(found.record), generation=1)

    # Asking

    def ask(self, question: reference.Question) -> Answer:
        self.asked += 1
        try:
            return self._ask(question)
        except OneTimePasswordRejected as refused:
            return Answer(refused.reason, remaining=int(refused.metadata["remainingAttempts"]))
        except Refusal as refused:
            return Answer(refused.reason)
        except Crashed:
            return Answer("CRASHED")

    def _ask(self, question: reference.Question) -> Answer:
        use, deadline = self.world.use, Impatient(self.clock)
        match question:
            case reference.Create():
                command = CreateAuthorizationCommand(
                    credential=question.credential,
                    algorithm=SignatureAlgorithm(question.algorithm),
                    pss_salt_length=None,
                    item_kind=ItemKind.DIGEST,
                    digests=question.digests,
                    approver=question.approver,
                    lifetime=question.lifetime,
                    request_id=question.request_id,
                )
                return Answer("OK", use.create_authorization(_client(question.client), command, deadline).name)
            case reference.Approve():
                approve = ApproveAuthorizationsCommand(
                    names=question.names,
                    signer=question.signer,
                    password=Secret(question.code.encode()),
                    request_id=question.request_id,
                )
                return Answer(
                    "OK", use.approve_authorizations(_client(question.client), approve, deadline).approval.name
                )
            case reference.Deny():
                return Answer("OK", use.deny_authorization(_client(question.client), question.name, deadline).name)
            case reference.Fetch():
                data, authorization = use.fetch_activation_data(_client(question.client), question.name)
                assert data.reveal() == self.opens(authorization.name)
                return Answer("OK", authorization.name)
            case reference.Sign():
                result = use.sign_digests(_client(question.client), _sign_command(question), deadline)
                return Answer("OK", result.authorization, result.signatures)
            case reference.Switch():
                self._switch(question, deadline)
            case reference.Unlock():
                use.unlock_signer(OPERATOR, question.signer, deadline=deadline)
        return Answer("OK")

    def _switch(self, question: reference.Switch, deadline: Deadline) -> None:
        kind = SWITCHES[question.name]
        if kind is Client and not question.enabled:
            self.world.use.disable_client(OPERATOR, question.name, deadline=deadline)
            return

        def prepare(view: object) -> Change:
            found = view.require(kind, question.name)  # type: ignore[attr-defined]
            off = CredentialState.SUSPENDED if kind is Credential else getattr(type(found.state), "DISABLED", None)
            state = type(found.state).ENABLED if question.enabled else off
            return Change(kind="switched", slow=[next_version(found, state=state)])

        self.world.use.changes.make(OPERATOR.name, prepare, deadline=deadline)

    # Looking

    def state(self) -> State:
        """Returns what the store holds, in the model's words."""
        return self.raw.read(_state_of)

    def new_names(self, before: State, now: State) -> Names:
        """Returns the names of what was made since; at most one of each kind."""
        authorizations = now.authorizations.keys() - before.authorizations.keys()
        approvals = now.approvals.keys() - before.approvals.keys()
        assert len(authorizations) <= 1
        assert len(approvals) <= 1
        names = Names()
        return replace(
            names,
            authorization=next(iter(authorizations), names.authorization),
            approval=next(iter(approvals), names.approval),
        )

    def signatures_verify(self, question: reference.Sign, signatures: Sequence[bytes]) -> None:
        """Verifies an answer as an application does: over its digests, with the credential's certificate."""
        key = x509.load_der_x509_certificate(self.certificates[question.credential]).public_key()
        sha256 = Prehashed(hashes.SHA256())
        for digest, signature in zip(question.digests, signatures, strict=True):
            if isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(signature, digest, ec.ECDSA(sha256))
                continue
            assert isinstance(key, rsa.RSAPublicKey)
            scheme = (
                padding.PKCS1v15() if question.algorithm == PKCS1 else padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            )
            key.verify(signature, digest, scheme, sha256)

    def every_row_verifies(self) -> int:
        """Verifies the seal of every row (P5); returns how many there are."""

        def verify(snapshot: Snapshot) -> int:
            rows = [row for kind in (*SLOW_RECORDS, *HOT_RECORDS) for row in snapshot.find(kind, limit=100_000)]
            for row in rows:
                self.world.use.seals.verify(row)
            return len(rows)

        return self.raw.read(verify)

    def _before_signing(self, messages: Sequence[bytes]) -> None:
        """Notes what is signed without an entry that was durable before (P1)."""
        allowed: set[str] = set()

        def read(snapshot: Snapshot) -> None:
            for row in snapshot.find(AuditEntry, limit=100_000):
                entry = row.record
                if entry.kind in {"signing_granted", "signing_resumed"}:
                    known = self._granted.get(entry.name)
                    if known is None:
                        known = self._granted[entry.name] = set(json.loads(entry.details)["signedDigests"])
                    allowed.update(known)

        self.raw.read(read)
        self.without_entry += [message.hex() for message in messages if message.hex() not in allowed]


def _client(name: str) -> Principal:
    return Principal(kind=PrincipalKind.CLIENT, name=name, authenticated_by=AuthenticatedBy.BEARER_TOKEN)


def _sign_command(question: reference.Sign) -> SignDigestsCommand:
    from trien_server.core.items import DigestItem

    authority: WithOneTimePassword | WithActivationData
    if question.opens is None:
        authority = WithOneTimePassword(password=Secret(question.code.encode()), signer=question.signer)
    else:
        authority = WithActivationData(authorization=question.opens, activation_data=Secret(question.data))
    return SignDigestsCommand(
        credential=question.credential,
        algorithm=SignatureAlgorithm(question.algorithm),
        pss_salt_length=None,
        items=tuple(DigestItem(digest=digest) for digest in question.digests),
        request_id=question.request_id,
        authority=authority,
    )


def _state_of(snapshot: Snapshot) -> State:
    rows: Callable[..., list[object]] = lambda kind: [row.record for row in snapshot.find(kind, limit=100_000)]  # noqa: E731
    state = State()
    for authorization in rows(Authorization):
        assert isinstance(authorization, Authorization)
        signed = tuple(
            digest if used else b"" for digest, used in zip(authorization.digests, authorization.used, strict=True)
        )
        assert authorization.signed_digests == signed
        state.authorizations[authorization.name] = reference.Authorization(
            credential=authorization.credential,
            client=authorization.client,
            approver=authorization.approver,
            algorithm=str(authorization.algorithm),
            digests=authorization.digests,
            expires=authorization.expire_time,
            used=tuple(map(bool, authorization.used)),
            state=str(authorization.state),
            approval=authorization.approval,
        )
    for approval in rows(Approval):
        assert isinstance(approval, Approval)
        state.approvals[approval.name] = reference.Approval(
            approval.signer, approval.client, approval.accepted_value, approval.authorizations
        )
    for granted in rows(GrantedRequest):
        assert isinstance(granted, GrantedRequest)
        assert (snapshot.outcome(granted.name) is not None) is (granted.completed and granted.method == "SignDigests")
        state.granted[granted.client, granted.name.rpartition("/")[2]] = reference.Granted(
            method=granted.method,
            subject=granted.subject,
            positions=tuple(map(int, granted.positions)),
            created=granted.create_time,
            lease_until=granted.lease_expire_time,
            completed=granted.completed,
        )
    for memory in rows(AuthenticatorState):
        assert isinstance(memory, AuthenticatorState)
        state.next_step[memory.name.partition("/authenticators/")[0]] = memory.next_value
    for counts in rows(SignerAttempts):
        assert isinstance(counts, SignerAttempts)
        state.tries[counts.name] = Tries(counts.failures, counts.lock_failures, counts.locked_until)
    for through in rows(ClientAttempts):
        assert isinstance(through, ClientAttempts)
        signer, _, client = through.name.partition("/clients/")
        state.tries_through[signer, f"clients/{client}"] = Tries(
            through.failures, through.blocks, through.blocked_until
        )
    for kind in set(SWITCHES.values()):
        state.disabled |= {row.name for row in rows(kind) if row.state != "ENABLED"}  # type: ignore[attr-defined]
    state.entries = Counter(row.kind for row in rows(AuditEntry) if row.kind in ENTRIES)  # type: ignore[attr-defined]
    return state
