"""Twenty documents, one code: exactly these twenty, or none (P2). One that changes meanwhile is named."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

import pytest
from tests.fakes.clock import ManualClock
from tests.support.world import CHAIR, OFFICE, OPERATOR, P256, P384, RSA, World, digests, new_request_id

from trien_server.core import errors
from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.ports import Snapshot, Store, Transaction
from trien_server.core.records import (
    Activator,
    Approval,
    AuditEntry,
    AuthenticatorState,
    Authorization,
    AuthorizationState,
    Client,
    ClientAttempts,
    Credential,
    CredentialClient,
    CredentialState,
    GrantedRequest,
    Key,
    KeyState,
    Record,
    SignerAttempts,
    State,
)
from trien_server.services.changes import Change
from trien_server.services.transactions import next_version
from trien_server.wiring import UseCases

pytestmark = pytest.mark.promise("P2", "P8")

T = TypeVar("T")
TWENTY = 20
ALGORITHMS = {
    P256: SignatureAlgorithm.ECDSA_P256_SHA256,
    P384: SignatureAlgorithm.ECDSA_P384_SHA384,
    RSA: SignatureAlgorithm.RSA_PSS_SHA256,
}
SIZES = {P256: 32, P384: 48, RSA: 32}
KEY = "keys/chair-p384"


class Meanwhile:
    """A store in which something happens once, after a decision was prepared and before its transaction begins."""

    def __init__(self, store: Store) -> None:
        self.happens: Callable[[], None] | None = None
        self._store = store

    def transact(self, work: Callable[[Transaction], T], *, timeout: float) -> T:
        if self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return self._store.transact(work, timeout=timeout)

    def read(self, work: Callable[[Snapshot], T]) -> T:
        return self._store.read(work)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@dataclass(frozen=True)
class Case:
    """What happens to one of the twenty, how the refusal says so, and what makes it good again."""

    happens: Callable[[World, Authorization], None]
    reason: type[errors.Refusal]
    named: bool = True
    undo: Callable[[World], None] = lambda world: None


def switch(world: World, kind: type[Record], name: str, state: object) -> None:
    """Puts a record in force that says it is enabled or disabled, as an operator's act does."""
    prepare: Any = lambda view: Change(kind="switched", slow=[next_version(view.require(kind, name), state=state)])  # noqa: E731
    world.use.changes.make(OPERATOR.name, prepare, deadline=world.deadline())


def switched(kind: type[Record], name: str, reason: type[errors.Refusal], *, named: bool = True) -> Case:
    states: dict[type[Record], tuple[StrEnum, StrEnum]] = {
        Key: (KeyState.ENABLED, KeyState.DISABLED),
        Credential: (CredentialState.ENABLED, CredentialState.SUSPENDED),
    }
    on, off = states.get(kind, (State.ENABLED, State.DISABLED))
    return Case(
        happens=lambda world, _: switch(world, kind, name, off),
        reason=reason,
        named=named,
        undo=lambda world: switch(world, kind, name, on),
    )


CASES = {
    "denied": Case(
        lambda world, one: world.use.deny_authorization(OFFICE, one.name, world.deadline()) and None,
        errors.AuthorizationNotPending,
    ),
    "expired": Case(
        lambda world, _: world.clock.advance(timedelta(seconds=6)),
        errors.AuthorizationExpired,
    ),
    "credential disabled": switched(Credential, P384, errors.CredentialDisabled),
    "key disabled": switched(Key, KEY, errors.CredentialDisabled),
    "activator removed": switched(Activator, f"{P384}/{CHAIR}", errors.PermissionDenied),
    "client may not ask any more": switched(CredentialClient, f"{P384}/{OFFICE.name}", errors.PermissionDenied),
    "client disabled": switched(Client, OFFICE.name, errors.PermissionDenied, named=False),
}


@cache
def populated() -> World:
    return World().populate()


@pytest.fixture
def world() -> World:
    return fresh()


def fresh() -> World:
    """Returns a world with the same people and nothing asked yet: a store that held much would only be slow."""
    origin = populated()
    clock = ManualClock(origin.clock.now())
    store = origin.store.reopened()
    store.clock = clock.now
    return World(clock=clock, hsm=origin.hsm, store=store, otp=origin.otp)


def make(world: World, count: int, *, odd: int | None = None) -> list[Authorization]:
    """Makes authorizations over the chair's three credentials; `odd` is the only one of the third, and ends first."""
    made: dict[int, Authorization] = {}
    if odd is not None:
        made[odd] = _authorize(world, P384, odd, lifetime=timedelta(minutes=1))
        world.clock.advance(timedelta(seconds=55))
    for number in range(count):
        if number not in made:
            credential = (P256, RSA)[number % 2] if odd is not None else (P256, P384, RSA)[number % 3]
            made[number] = _authorize(world, credential, number)
    return [made[number] for number in range(count)]


def _authorize(world: World, credential: str, number: int, **given: Any) -> Authorization:
    digest = digests(1, of=f"document {number}")[0]
    wanted = (digest * 2)[: SIZES[credential]]
    return world.authorize([wanted], credential=credential, algorithm=ALGORITHMS[credential], **given)


def states(world: World, authorizations: list[Authorization]) -> list[AuthorizationState]:
    found = {row.record.name: row.record for row in world.store.rows(Authorization)}
    return [found[authorization.name].state for authorization in authorizations]


def held(world: World) -> list[object]:
    """Returns all that an approval writes, but its entry."""
    kinds = (Authorization, Approval, AuthenticatorState, GrantedRequest, SignerAttempts, ClientAttempts)
    return [row.record for kind in kinds for row in world.store.rows(kind)]


def test_one_code_approves_exactly_the_twenty_over_three_credentials(world: World) -> None:
    others = make(world, 5)
    twenty = make(world, TWENTY)
    later = make(world, 5)
    assert len({authorization.credential for authorization in twenty}) == 3
    code = world.code()
    result = world.approve(*twenty, password=code)
    assert result.approval.authorizations == tuple(authorization.name for authorization in twenty)
    assert states(world, twenty) == [AuthorizationState.APPROVED] * TWENTY
    assert states(world, others + later) == [AuthorizationState.PENDING] * 10
    with pytest.raises(errors.OneTimePasswordRejected):
        world.approve(*others, password=code)
    assert states(world, others + later) == [AuthorizationState.PENDING] * 10
    # Each of the twenty signs what it names; none of the others signs anything.
    signed = 0
    for authorization in twenty:
        data = world.activation_data(authorization)
        result_of_one = world.sign(
            list(authorization.digests),
            credential=authorization.credential,
            algorithm=authorization.algorithm,
            activated=(authorization.name, data),
        )
        signed += len(result_of_one.signatures)
    for authorization in others + later:
        with pytest.raises(errors.AuthorizationNotApproved):
            world.activation_data(authorization)
    assert signed == TWENTY
    world.next_step()
    world.approve(*others)


@pytest.mark.parametrize("between", [False, True], ids=["before", "between check and commit"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_one_that_changed_is_named_and_the_same_code_approves_the_other_nineteen(case: Case, between: bool) -> None:
    tried = 0
    for position in range(TWENTY):
        world = fresh()
        store = Meanwhile(world.store)
        use = world.new_process(store=store) if between else world.use  # type: ignore[arg-type]
        twenty = make(world, TWENTY, odd=position)
        pending = make(world, 1)
        code, request_id = world.code(), new_request_id()
        before: list[list[object]] = []

        def happens(
            world: World = world, one: Authorization = twenty[position], before: list[list[object]] = before
        ) -> None:
            case.happens(world, one)
            before.append(held(world))

        if between:
            store.happens = happens
        else:
            happens()
        refused_entries = _refused(world)
        with pytest.raises(case.reason) as caught:
            _approve(world, use, twenty, code, request_id)
        assert store.happens is None
        assert caught.value.metadata.get("authorization") == (twenty[position].name if case.named else None)
        # Nothing of the call is there but the entry that it was refused.
        assert held(world) == before[0]
        assert _refused(world) == refused_entries + 1
        case.undo(world)
        nineteen = [authorization for at, authorization in enumerate(twenty) if at != position]
        _approve(world, use, nineteen, code, request_id)
        assert states(world, nineteen) == [AuthorizationState.APPROVED] * (TWENTY - 1)
        assert AuthorizationState.APPROVED not in states(world, [twenty[position], *pending])
        tried += 1
    assert tried == TWENTY


def _approve(world: World, use: UseCases, authorizations: list[Authorization], code: str, request_id: str) -> None:
    of_others, world.use = world.use, use
    try:
        world.approve(*authorizations, password=code, request_id=request_id)
    finally:
        world.use = of_others


def _refused(world: World) -> int:
    return sum(row.record.kind == "refused" for row in world.store.rows(AuditEntry))


@pytest.mark.promise("P7")
def test_a_client_that_was_disabled_gets_no_earlier_approval_again(world: World) -> None:
    authorization, request_id = make(world, 1)[0], new_request_id()
    first = world.approve(authorization, request_id=request_id)
    assert world.approve(authorization, password="000000", request_id=request_id) == first
    switch(world, Client, OFFICE.name, State.DISABLED)
    with pytest.raises(errors.PermissionDenied):
        world.approve(authorization, password="000000", request_id=request_id)
    switch(world, Client, OFFICE.name, State.ENABLED)
    assert world.approve(authorization, password="000000", request_id=request_id) == first
