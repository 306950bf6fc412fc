"""What clients were told, against what is recorded (P1, P7, P8)."""

from collections.abc import Iterator
from datetime import timedelta

from tests.promises.evidence import Evidence
from tests.promises.history import APPROVE, CREATE, SIGN, Content, History, Operation
from tests.promises.signatures import same_work
from tests.promises.violations import Broken, Violation

from trien_server.core.merkle import hash_leaf
from trien_server.core.records import Approval, AuditEntry, Authorization, GrantedRequest


def check_told(evidence: Evidence, history: History, tolerance: timedelta) -> Iterator[Violation]:
    """Every answer has its granted request and its entry, made before the client heard of it."""
    granted, entries = evidence.of(GrantedRequest), evidence.of(AuditEntry)
    for operation in history:
        answer = operation.answer
        if answer is None:
            continue
        where = f"operation {operation.number} ({operation.content.method})"
        if operation.request_id is not None and operation.request not in granted:
            yield Violation(Broken.ANSWER_WITHOUT_GRANT, f"{where}: {operation.request}")
        if answer.audit_entry is None:
            continue
        entry = entries.get(answer.audit_entry)
        if entry is None:
            yield Violation(Broken.ANSWER_WITHOUT_ENTRY, f"{where}: {answer.audit_entry}")
            continue
        if answer.leaf_hash is not None and hash_leaf(entry.leaf) != answer.leaf_hash:
            yield Violation(Broken.LEAF, f"{where}: the answer's leaf hash is not of {entry.name}")
        if operation.ended is not None and entry.time > operation.ended + tolerance:
            yield Violation(Broken.ENTRY_TOO_LATE, f"{where}: {entry.name} of {entry.time}, told at {operation.ended}")


def check_requests(evidence: Evidence, history: History, *, settled: bool) -> Iterator[Violation]:
    """One request id has one content and one outcome, and its end is known when everything is over."""
    granted = evidence.of(GrantedRequest)
    for name, operations in history.by_request().items():
        recorded = granted.get(name)
        answers = [operation for operation in operations if operation.answer is not None]
        contents = {operation.content for operation in answers}
        if len(contents) > 1:
            yield Violation(Broken.CONTENT, f"{name} was answered for {len(contents)} contents")
        if len({operation.answer for operation in answers}) > 1:
            yield Violation(Broken.OUTCOME, f"{name} was answered in several ways")
        if recorded is not None:
            asked = {operation.content for operation in operations}
            if not any(_granted_for(evidence, recorded, content) for content in contents or asked):
                yield Violation(Broken.CONTENT, f"{name} was granted for what nobody asked or what was not answered")
            if answers:
                yield from _check_outcome(evidence, recorded, answers[0])
            if all(operation.refusal is not None and operation.decided for operation in operations):
                yield Violation(Broken.REFUSED_BUT_GRANTED, name)
        if len({operation.content for operation in operations}) == 1 and any(
            operation.refusal == "REQUEST_ID_REUSED" for operation in operations
        ):
            yield Violation(Broken.REUSED_WITHOUT_CAUSE, name)
        if settled and not any(operation.decided for operation in _last(operations)):
            yield Violation(Broken.UNSETTLED, f"{name}: {operations[-1].refusal or 'no answer'}")
    for name, recorded in granted.items():
        if recorded.method == SIGN and recorded.completed is not (name in evidence.outcomes):
            yield Violation(Broken.OUTCOME, f"{name}: completed {recorded.completed}, but its outcome says otherwise")


def _last(operations: list[Operation]) -> list[Operation]:
    """Returns the operations that no other one began after: the last, and those that ran beside it."""
    latest = max(operation.begun for operation in operations)
    return [operation for operation in operations if operation.ended is None or operation.ended >= latest]


def _granted_for(evidence: Evidence, granted: GrantedRequest, content: Content) -> bool:
    if granted.method != content.method:
        return False
    if granted.method == APPROVE:
        approval = evidence.of(Approval).get(granted.subject)
        return approval is not None and (approval.signer, approval.authorizations, approval.client) == (
            content.signer,
            content.authorizations,
            granted.client,
        )
    authorization = evidence.of(Authorization).get(granted.subject)
    if authorization is None:
        return False
    if granted.method == CREATE:
        return (authorization.client, authorization.credential, authorization.algorithm, authorization.digests) == (
            granted.client,
            content.credential,
            content.algorithm,
            content.digests,
        )
    if content.authorizations and content.authorizations != (granted.subject,):
        return False
    return same_work(authorization, [int(position) for position in granted.positions], content, client=granted.client)


def _check_outcome(evidence: Evidence, granted: GrantedRequest, operation: Operation) -> Iterator[Violation]:
    """What was answered is what is recorded."""
    answer = operation.answer
    assert answer is not None
    subject: tuple[str, ...] = (granted.subject,)
    if granted.method == APPROVE:
        approval = evidence.of(Approval).get(granted.subject)
        subject = () if approval is None else approval.authorizations
    outcome = evidence.outcomes.get(granted.name)
    signatures = () if outcome is None else outcome.signatures
    entry = answer.audit_entry if granted.method == CREATE else granted.audit_entry
    if (answer.authorizations, answer.signatures, answer.audit_entry) != (subject, signatures, entry):
        yield Violation(Broken.OUTCOME, f"operation {operation.number}: {granted.name} is recorded otherwise")
