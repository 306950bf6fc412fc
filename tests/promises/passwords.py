"""Codes: each grants one request, wrong ones are counted, right ones are not lost (P2, P8)."""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from tests.promises.evidence import Evidence
from tests.promises.history import CREATE, History, Operation
from tests.promises.violations import Broken, Violation

from trien_server.core.attempts import CLIENT_LIMIT, client_attempts_name
from trien_server.core.records import Approval, AuditEntry, ClientAttempts, GrantedRequest, SignerAttempts

REJECTED = "ONE_TIME_PASSWORD_REJECTED"
_CONCURRENT = timedelta(seconds=5)
"""How far the times of decisions that were made side by side may be from the order of their commits."""


def check_codes(evidence: Evidence, history: History) -> Iterator[Violation]:
    """A code that granted a request grants no other, and one that granted nothing is still good."""
    granted = evidence.of(GrantedRequest)
    by_code: dict[tuple[str, str], set[str]] = {}
    for name, operations in history.by_request().items():
        codes = {(operation.signer, operation.code) for operation in operations}
        if name in granted and granted[name].method != CREATE and len(codes) == 1:
            signer, code = codes.pop()
            if signer is not None and code is not None:
                by_code.setdefault((signer, code), set()).add(name)
    for (signer, _), names in by_code.items():
        if len(names) > 1:
            yield Violation(Broken.CODE_TWICE, f"a code of {signer} granted {sorted(names)}")
    tried: dict[tuple[str | None, str | None], list[Operation]] = {}
    for operation in history:
        before = tried.setdefault((operation.signer, operation.code), [])
        if operation.right and operation.refusal == REJECTED:
            used = any(other.request in granted or other.request_id is None for other in before)
            if not used:
                yield Violation(Broken.CODE_LOST, f"operation {operation.number} of {operation.signer}")
        before.append(operation)


def check_failures(evidence: Evidence, history: History) -> Iterator[Violation]:
    """Every wrong code that was answered is in the log, at most one more for each call whose end is unknown.

    Looks at the people whose codes the history tells of; no one else may have tried theirs.
    """
    logged = _rejections(evidence)
    answered: Counter[tuple[str, str]] = Counter()
    unknown: Counter[tuple[str, str]] = Counter()
    for operation in history:
        if operation.signer is not None and operation.code is not None:
            pair = (operation.signer, operation.client)
            answered[pair] += operation.refusal == REJECTED
            unknown[pair] += not operation.decided
    for pair in answered:
        found = len(logged.get(pair, ()))
        if not answered[pair] <= found <= answered[pair] + unknown[pair]:
            finding = f"{pair}: {found} logged, {answered[pair]} answered, {unknown[pair]} unknown"
            yield Violation(Broken.FAILURES_LOGGED, finding)


def check_counts(evidence: Evidence, history: History) -> Iterator[Violation]:
    """The counts in force are the wrong codes that the log holds since the last right one.

    An unlocking begins the clients' counts anew, and enabling a signer all of them.
    """
    logged = _rejections(evidence)
    beside = _people_of_concurrent_calls(history)
    clients = {client for _, client in logged} | {approval.client for approval in evidence.of(Approval).values()}
    of_clients = evidence.of(ClientAttempts)
    for signer, counts in evidence.of(SignerAttempts).items():
        window = _CONCURRENT if signer in beside else timedelta(0)
        unlocked = [
            entry.time
            for entry in evidence.of(AuditEntry).values()
            if entry.kind == "signer_unlocked" and evidence.details(entry).get("signer") == signer
        ]
        right = [approval for approval in evidence.of(Approval).values() if approval.signer == signer]
        rejections = [at for (person, _), times in logged.items() if person == signer for at in times]
        enabled = [
            entry.time
            for entry in evidence.of(AuditEntry).values()
            if entry.kind == "signer_enabled" and entry.subject == signer
        ]
        resets = [*enabled, *(approval.create_time for approval in right)]
        if not _fits(counts.failures, rejections, resets, window):
            yield Violation(Broken.FAILURES_COUNTED, f"{signer}: {counts.failures} failures")
        for client in sorted(clients):
            found = of_clients.get(client_attempts_name(signer, client))
            failures = 0 if found is None else found.blocks * CLIENT_LIMIT + found.failures
            resets = [
                *enabled,
                *unlocked,
                *(approval.create_time for approval in right if approval.client == client),
            ]
            if not _fits(failures, logged.get((signer, client), []), resets, window):
                yield Violation(Broken.FAILURES_COUNTED, f"{signer} by {client}: {failures} failures")


def _rejections(evidence: Evidence) -> dict[tuple[str, str], list[datetime]]:
    """Returns the times of evaluated wrong codes by person and client."""
    found: dict[tuple[str, str], list[datetime]] = {}
    for entry in evidence.of(AuditEntry).values():
        if entry.kind == "refused":
            details = evidence.details(entry)
            if details.get("reason") == REJECTED:
                found.setdefault((details["approver"], details["client"]), []).append(entry.time)
    return found


def _fits(count: int, rejections: Iterable[datetime], resets: list[datetime], window: timedelta) -> bool:
    rejections = list(rejections)
    if not resets:
        return count == len(rejections)
    last = max(resets)
    return sum(at > last + window for at in rejections) <= count <= sum(at >= last - window for at in rejections)


def _people_of_concurrent_calls(history: History) -> set[str]:
    """Returns whose codes were brought by calls that ran side by side, or whose end is not known."""
    people: set[str] = set()
    ends: dict[str, datetime] = {}
    for operation in sorted(history, key=lambda one: one.begun):
        if operation.signer is None:
            continue
        if (
            operation.ended is None
            or not operation.decided
            or ends.get(operation.signer, operation.begun) > operation.begun
        ):
            people.add(operation.signer)
        if operation.ended is not None:
            ends[operation.signer] = max(operation.ended, ends.get(operation.signer, operation.ended))
    return people
