"""The judge of the promises can say no: each of its findings is shown on a doctored database or history."""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import pytest
from tests.promises.checker import assert_promises, find_violations
from tests.promises.evidence import Evidence, read_evidence
from tests.promises.history import APPROVE, SIGN, History, Operation
from tests.promises.recording import RecordedWorld
from tests.promises.violations import Broken, PromisesBroken
from tests.support.world import CHAIR, ED, OFFICE, P256, PORTAL, RSA, World, digests, new_request_id

from trien_server.core import sealing
from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.audit import leaf_of, make_entry
from trien_server.core.errors import OneTimePasswordRejected, Refusal
from trien_server.core.items import DataItem, DigestItem, Item
from trien_server.core.ports import Sealed
from trien_server.core.receipts import items_root
from trien_server.core.records import (
    Approval,
    AuditEntry,
    AuthenticatorState,
    Authorization,
    AuthorizationState,
    Client,
    GrantedRequest,
    ItemKind,
    LogHead,
    Outcome,
    Record,
    SignerAttempts,
)
from trien_server.core.secret import Secret
from trien_server.services.approve_authorizations import ApproveAuthorizationsCommand
from trien_server.services.create_authorization import CreateAuthorizationCommand
from trien_server.services.signing_commands import SignDigestsCommand, WithActivationData, WithOneTimePassword

R = TypeVar("R", bound=Record)


def command(
    items: list[Item],
    code: str | None = None,
    *,
    credential: str = P256,
    algorithm: SignatureAlgorithm = SignatureAlgorithm.ECDSA_P256_SHA256,
    opened: tuple[str, Secret] | None = None,
    request_id: str | None = None,
) -> SignDigestsCommand:
    return SignDigestsCommand(
        credential=credential,
        algorithm=algorithm,
        pss_salt_length=None,
        items=tuple(items),
        request_id=request_id or new_request_id(),
        authority=WithOneTimePassword(password=Secret((code or "").encode()), signer=None)
        if opened is None
        else WithActivationData(authorization=opened[0], activation_data=opened[1]),
    )


@dataclass
class Case:
    """A true history and database, to be doctored."""

    world: World
    history: History
    evidence: Evidence

    def the(self, kind: type[R], holds: Callable[[Any], object] = lambda record: True) -> R:
        """Returns the first record that a condition holds for."""
        return next(record for record in self.evidence.of(kind).values() if holds(record))

    def operation(self, holds: Callable[[Operation], object]) -> Operation:
        return next(operation for operation in self.history if holds(operation))

    def put(self, *records: Record) -> None:
        """Writes rows with seals that are right, in the place of those of the same name."""
        names = {(type(record), record.name) for record in records}
        kept = [row for row in self.evidence.rows if (type(row.record), row.record.name) not in names]
        rows = (*kept, *(self.sealed(record) for record in records))
        self.evidence = dataclasses.replace(self.evidence, rows=rows)

    def change(self, record: Record, **changes: Any) -> None:
        self.put(dataclasses.replace(record, **changes))

    def remove(self, record: Record) -> None:
        kept = tuple(row for row in self.evidence.rows if row.record is not record)
        self.evidence = dataclasses.replace(self.evidence, rows=kept)

    def outcome(self, request: str, **changes: Any) -> None:
        changed = dataclasses.replace(self.evidence.outcomes[request], **changes)
        self.evidence = dataclasses.replace(self.evidence, outcomes={**self.evidence.outcomes, request: changed})

    def sealed(self, record: Record) -> Sealed[Record]:
        authenticate = self.world.hsm.authenticate
        if not record.hot:
            key = sealing.slow_seal_key()
            return Sealed(record=record, seal_key=key, seal=authenticate(sealing.encode_row(record, key)))
        key = sealing.day_seal_key(self.world.clock.now())
        seal = sealing.day_seal(authenticate(sealing.day_key_message(key)), record, key)
        return Sealed(record=record, seal_key=key, seal=seal)

    def found(self) -> set[Broken]:
        violations = find_violations(self.history, self.evidence, authenticate=self.world.hsm.authenticate)
        return {violation.broken for violation in violations}


def live(world: World) -> History:
    """Signs with codes and with activation data, is wrong twice, repeats, and loses an answer."""
    history = History()
    recorded = RecordedWorld(world, history)
    once: list[Item] = [DigestItem(digest=digest) for digest in digests(2)]
    first = command(once, world.code())
    recorded.sign(OFFICE, first, signer=CHAIR, right=True)
    recorded.sign(OFFICE, first, signer=CHAIR)
    world.next_step()
    data: list[Item] = [DataItem(data=b"one"), DataItem(data=b"two")]
    by_data = command(data, world.code(), credential=ED, algorithm=SignatureAlgorithm.ED25519)
    recorded.sign(PORTAL, by_data, signer=CHAIR, right=True)
    world.next_step()
    pss = command(once, world.code(), credential=RSA, algorithm=SignatureAlgorithm.RSA_PSS_SHA256)
    recorded.sign(OFFICE, pss, signer=CHAIR, right=True)
    made = [
        recorded.create(
            OFFICE,
            CreateAuthorizationCommand(
                credential=P256,
                algorithm=SignatureAlgorithm.ECDSA_P256_SHA256,
                pss_salt_length=None,
                item_kind=ItemKind.DIGEST,
                digests=tuple(digests(3, of=name)),
                approver=None,
                lifetime=None,
                request_id=new_request_id(),
            ),
        )
        for name in ("a", "b")
    ]
    world.next_step()
    approval = ApproveAuthorizationsCommand(
        names=tuple(one.name for one in made),
        signer=CHAIR,
        password=Secret(world.code().encode()),
        request_id=new_request_id(),
    )
    recorded.approve(OFFICE, approval, right=True)
    opened = (made[0].name, recorded.activation_data(OFFICE, made[0].name))
    for part in (made[0].digests[:1], made[0].digests[1:]):
        recorded.sign(OFFICE, command([DigestItem(digest=digest) for digest in part], opened=opened))
    lose(recorded)
    for _ in range(2):
        with pytest.raises(OneTimePasswordRejected):
            recorded.sign(OFFICE, command(once, world.wrong_code()), signer=CHAIR, right=False)
    return history


def lose(recorded: RecordedWorld) -> None:
    """Loses an answer after the commit, and asks again."""
    recorded.world.next_step()
    again = command([DigestItem(digest=digest) for digest in digests(1, of="lost")], recorded.world.code())
    recorded.world.store.fail_transact(persisted=True)
    with pytest.raises(Refusal):
        recorded.sign(OFFICE, again, signer=CHAIR, right=True)
    recorded.world.clock.advance(timedelta(seconds=60))
    recorded.sign(OFFICE, again, signer=CHAIR)


@pytest.fixture
def case() -> Case:
    world = World().populate()
    history = live(world)
    return Case(world, history, read_evidence(world.store))


def test_a_true_history_has_no_violations(case: Case) -> None:
    assert_promises(case.history, case.evidence, authenticate=case.world.hsm.authenticate)
    assert len(case.history) == 13
    assert sum(operation.answer is not None for operation in case.history) == 10
    assert sum(operation.refusal == "ONE_TIME_PASSWORD_REJECTED" for operation in case.history) == 2
    assert len(case.evidence.outcomes) == 6


def test_a_history_of_nothing_proves_nothing(case: Case) -> None:
    with pytest.raises(AssertionError, match="nothing is proved"):
        assert_promises(History(), case.evidence, authenticate=case.world.hsm.authenticate)


def signed(operation: Operation) -> bool:
    return operation.content.method == SIGN and operation.answer is not None


def answer_without_grant(case: Case) -> None:
    case.remove(case.evidence.of(GrantedRequest)[case.operation(signed).request])


def answer_without_entry(case: Case) -> None:
    operation = case.operation(signed)
    assert operation.answer is not None
    case.remove(case.the(AuditEntry, lambda entry: entry.name == operation.answer.audit_entry))  # type: ignore[union-attr]


def entry_of_another(case: Case) -> None:
    one, other = [granted for granted in case.evidence.of(GrantedRequest).values() if granted.method == SIGN][:2]
    case.change(one, audit_entry=other.audit_entry)


def entry_too_late(case: Case) -> None:
    granted = case.evidence.of(GrantedRequest)[next(iter(case.evidence.outcomes))]
    entry = case.evidence.of(AuditEntry)[granted.audit_entry]
    late = entry.time + timedelta(minutes=20)
    case.put(
        make_entry(
            name=entry.name,
            time=late,
            kind=entry.kind,
            details=case.evidence.details(entry),
            head_salt=entry.head_salt,
            salt=entry.salt,
            items_root=entry.items_root,
        )
    )


def entry_without_grant(case: Case) -> None:
    operation = case.operation(signed)
    case.history = without(case.history, lambda one: one.request_id == operation.request_id)
    case.remove(case.evidence.of(GrantedRequest)[operation.request])


def approval_without_entry(case: Case) -> None:
    case.remove(case.the(AuditEntry, lambda entry: entry.kind == "authorizations_approved"))


def leaf(case: Case) -> None:
    case.change(case.the(AuditEntry, lambda entry: entry.kind == "signing_granted"), leaf=b"\x00" * 40)


def leaf_of_other_digests(case: Case) -> None:
    """An entry whose leaf is its own, but whose root is over other digests than its details name."""
    entry = case.the(AuditEntry, lambda entry: entry.kind == "signing_granted")
    lying = dataclasses.replace(entry, items_root=items_root(entry.salt, [b"another"]))
    case.change(entry, items_root=lying.items_root, leaf=leaf_of(lying))


def entry_without_a_place(case: Case) -> None:
    case.evidence = dataclasses.replace(case.evidence, unsealed=case.evidence.unsealed[1:])


def head_of_another_history(case: Case) -> None:
    case.change(case.the(LogHead), root=b"\x01" * 32)


def value_twice(case: Case) -> None:
    one, other = list(case.evidence.of(Approval).values())[:2]
    case.change(one, accepted_value=other.accepted_value)


def code_twice(case: Case) -> None:
    one, other = [one for one in case.history if one.code is not None and one.answer and one.client == OFFICE.name][1:3]
    assert one.request_id != other.request_id
    for operation in case.history:
        if operation.request_id == other.request_id:
            operation.code = one.code


def approval_list(case: Case) -> None:
    approval = case.the(Approval, lambda one: len(one.authorizations) == 2)
    case.change(approval, authorizations=approval.authorizations[:1])


def answers_challenge(case: Case, approval: Approval) -> None:
    """Lets an entry say that an approval answered a challenge."""
    details = {"approval": approval.name, "challenge": "challenges/one"}
    entry = case.the(AuditEntry)
    name = f"auditEntries/{approval.name}"
    case.put(
        make_entry(
            name=name,
            time=entry.time,
            kind="authorizations_approved",
            details=details,
            head_salt=entry.head_salt,
            salt=entry.salt,
        )
    )


def challenge_of_another_list(case: Case) -> None:
    answers_challenge(case, case.the(Approval))


def challenge_twice(case: Case) -> None:
    for approval in list(case.evidence.of(Approval).values())[:2]:
        answers_challenge(case, approval)


def replay_memory(case: Case) -> None:
    state = case.the(AuthenticatorState, lambda one: one.next_value)
    case.change(state, next_value=state.next_value - 1)


def failures_logged(case: Case) -> None:
    case.remove(case.the(AuditEntry, lambda entry: entry.kind == "refused"))


def failures_counted(case: Case) -> None:
    case.change(case.the(SignerAttempts, lambda one: one.failures == 2), failures=1)


def digests_differ(case: Case) -> None:
    operation = case.operation(lambda one: signed(one) and one.content.kind is ItemKind.DIGEST)
    digest = hashlib.sha256(b"another").digest()
    operation.content = dataclasses.replace(operation.content, digests=(digest, *operation.content.digests[1:]))


def positions(case: Case) -> None:
    authorization = case.the(Authorization, lambda one: one.state is AuthorizationState.USED)
    case.change(authorization, used=bytes(len(authorization.used)))


def position_twice(case: Case) -> None:
    granted = case.the(GrantedRequest, lambda one: one.method == SIGN)
    case.put(dataclasses.replace(granted, name=f"{OFFICE.name}/requests/{new_request_id()}", completed=False))


def signature(case: Case) -> None:
    granted = case.the(GrantedRequest, lambda one: len(case.evidence.outcomes.get(one.name, NONE).signatures) == 2)
    case.outcome(granted.name, signatures=tuple(reversed(case.evidence.outcomes[granted.name].signatures)))


def fewer_signatures(case: Case) -> None:
    operation = case.operation(lambda one: signed(one) and len(one.content.digests) == 2)
    assert operation.answer is not None
    operation.answer = dataclasses.replace(operation.answer, signatures=operation.answer.signatures[:1])


def data_of_another(case: Case) -> None:
    operation = case.operation(lambda one: signed(one) and one.content.kind is ItemKind.DATA)
    operation.content = dataclasses.replace(operation.content, messages=tuple(reversed(operation.content.messages)))


def hot_seal(case: Case) -> None:
    rows = [
        dataclasses.replace(row, seal=bytes(32)) if isinstance(row.record, Approval) else row
        for row in case.evidence.rows
    ]
    case.evidence = dataclasses.replace(case.evidence, rows=tuple(rows))


def slow_seal(case: Case) -> None:
    rows = [
        Sealed(record=dataclasses.replace(row.record, display_name="x"), seal_key=row.seal_key, seal=row.seal)
        if isinstance(row.record, Client)
        else row
        for row in case.evidence.rows
    ]
    case.evidence = dataclasses.replace(case.evidence, rows=tuple(rows))


def not_in_force(case: Case) -> None:
    client = case.the(Client)
    case.change(client, version=client.version + 1)


def content_of_another(case: Case) -> None:
    one, other = [one for one in case.history if signed(one) and one.code is not None and one.client == OFFICE.name][
        1:3
    ]
    one.request_id = other.request_id


def outcome(case: Case) -> None:
    first, again = [one for one in case.history if signed(one)][:2]
    assert first.request_id == again.request_id
    assert again.answer is not None
    again.answer = dataclasses.replace(again.answer, signatures=(b"another", b"one"))


def completed_without_outcome(case: Case) -> None:
    name = next(iter(case.evidence.outcomes))
    kept = {key: value for key, value in case.evidence.outcomes.items() if key != name}
    case.evidence = dataclasses.replace(case.evidence, outcomes=kept)


def refused_but_granted(case: Case) -> None:
    operation = case.operation(lambda one: one.content.method == APPROVE)
    operation.answer, operation.refusal = None, "PERMISSION_DENIED"


def reused_without_cause(case: Case) -> None:
    again = [one for one in case.history if signed(one)][1]
    again.answer, again.refusal = None, "REQUEST_ID_REUSED"


def unsettled(case: Case) -> None:
    lost = case.operation(lambda one: one.refusal == "STORE_UNAVAILABLE")
    case.history = without(case.history, lambda one: one.request_id == lost.request_id and one is not lost)


def code_lost(case: Case) -> None:
    case.operation(lambda one: one.right is False).right = True


def without(history: History, holds: Callable[[Operation], bool]) -> History:
    """Returns a history that lacks some operations."""
    kept = History()
    kept._operations = [operation for operation in history if not holds(operation)]
    return kept


NONE = Outcome(request="", signatures=(), create_time=sealing.datetime.min)
DOCTORED: list[tuple[Broken, Callable[[Case], None]]] = [
    (Broken.ANSWER_WITHOUT_GRANT, answer_without_grant),
    (Broken.ANSWER_WITHOUT_ENTRY, answer_without_entry),
    (Broken.ENTRY_OF_ANOTHER, entry_of_another),
    (Broken.ENTRY_TOO_LATE, entry_too_late),
    (Broken.ENTRY_WITHOUT_GRANT, entry_without_grant),
    (Broken.APPROVAL_WITHOUT_ENTRY, approval_without_entry),
    (Broken.LEAF, leaf),
    (Broken.LEAF, leaf_of_other_digests),
    (Broken.LOG, entry_without_a_place),
    (Broken.LOG, head_of_another_history),
    (Broken.VALUE_TWICE, value_twice),
    (Broken.CODE_TWICE, code_twice),
    (Broken.APPROVAL_LIST, approval_list),
    (Broken.APPROVAL_LIST, challenge_of_another_list),
    (Broken.VALUE_TWICE, challenge_twice),
    (Broken.REPLAY_MEMORY, replay_memory),
    (Broken.FAILURES_LOGGED, failures_logged),
    (Broken.FAILURES_COUNTED, failures_counted),
    (Broken.DIGESTS, digests_differ),
    (Broken.POSITIONS, positions),
    (Broken.POSITION_TWICE, position_twice),
    (Broken.SIGNATURE, signature),
    (Broken.SIGNATURE, fewer_signatures),
    (Broken.SIGNATURE, data_of_another),
    (Broken.SEAL, hot_seal),
    (Broken.SEAL, slow_seal),
    (Broken.NOT_IN_FORCE, not_in_force),
    (Broken.CONTENT, content_of_another),
    (Broken.OUTCOME, outcome),
    (Broken.OUTCOME, completed_without_outcome),
    (Broken.REFUSED_BUT_GRANTED, refused_but_granted),
    (Broken.REUSED_WITHOUT_CAUSE, reused_without_cause),
    (Broken.UNSETTLED, unsettled),
    (Broken.CODE_LOST, code_lost),
]


@pytest.mark.parametrize(("broken", "doctor"), DOCTORED, ids=[doctor.__name__ for _, doctor in DOCTORED])
def test_what_was_doctored_is_found(case: Case, broken: Broken, doctor: Callable[[Case], None]) -> None:
    assert case.found() == set()
    doctor(case)
    assert broken in case.found()
    with pytest.raises(PromisesBroken, match=broken.name):
        assert_promises(case.history, case.evidence, authenticate=case.world.hsm.authenticate)


def test_every_finding_is_shown_to_be_possible() -> None:
    assert {broken for broken, _ in DOCTORED} == set(Broken)


def test_a_request_that_is_still_unknown_breaks_nothing_while_the_history_goes_on(case: Case) -> None:
    unsettled(case)
    case.history.begin("clients/office", case.operation(signed).content, request_id=new_request_id())
    authenticate = case.world.hsm.authenticate
    assert find_violations(case.history, case.evidence, authenticate=authenticate, settled=False) == []


def test_a_code_of_a_lost_call_may_have_been_counted(case: Case) -> None:
    rejected = case.operation(lambda one: one.refusal == "ONE_TIME_PASSWORD_REJECTED")
    rejected.refusal = None
    authenticate = case.world.hsm.authenticate
    assert find_violations(case.history, case.evidence, authenticate=authenticate, settled=False) == []
