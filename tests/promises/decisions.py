"""Approvals, authorizations, granted requests and the entries that were made before them (P1, P2, P3)."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from tests.promises.evidence import Evidence
from tests.promises.history import APPROVE, CREATE, SIGN
from tests.promises.violations import Broken, Violation

from trien_server.core.records import (
    Approval,
    AuditEntry,
    AuthenticatorState,
    Authorization,
    AuthorizationState,
    Challenge,
    GrantedRequest,
    ItemKind,
)

_KINDS = {
    SIGN: {"signing_granted", "signing_resumed"},
    APPROVE: {"authorizations_approved"},
    CREATE: {"authorization_created"},
}


def check_entries(evidence: Evidence, tolerance: timedelta) -> Iterator[Violation]:
    """Every granted request names an entry that was made for it, and that is no later than its signatures."""
    entries = evidence.of(AuditEntry)
    for granted in evidence.of(GrantedRequest).values():
        entry = entries.get(granted.audit_entry)
        if entry is None:
            yield Violation(Broken.ANSWER_WITHOUT_ENTRY, f"{granted.name} names {granted.audit_entry}")
            continue
        if entry.kind not in _KINDS[granted.method]:
            yield Violation(Broken.ENTRY_OF_ANOTHER, f"{granted.name}: {entry.name} is {entry.kind}")
            continue
        details = evidence.details(entry)
        differing = [name for name, value in _expected(evidence, granted) if details.get(name) != value]
        if differing:
            yield Violation(Broken.ENTRY_OF_ANOTHER, f"{granted.name}: {entry.name} has other {', '.join(differing)}")
        outcome = evidence.outcomes.get(granted.name)
        if outcome is not None and outcome.create_time < entry.time - tolerance:
            yield Violation(Broken.ENTRY_TOO_LATE, f"{entry.name} of {entry.time}, signed before")
    yield from _check_causes(evidence)


def _check_causes(evidence: Evidence) -> Iterator[Violation]:
    """Every entry of a decision has what it tells of: both were written in one transaction."""
    granted, approvals = evidence.of(GrantedRequest), evidence.of(Approval)
    authorizations = evidence.of(Authorization)
    begun: Counter[str] = Counter()
    told: Counter[str] = Counter()
    for entry in evidence.of(AuditEntry).values():
        details = evidence.details(entry)
        there = True
        if entry.kind in _KINDS[SIGN]:
            there = details["request"] in granted and details["approval"] in approvals
            begun[details["request"]] += entry.kind == "signing_granted"
        elif entry.kind in _KINDS[APPROVE]:
            there = details["approval"] in approvals
            told[details["approval"]] += 1
        elif entry.kind in _KINDS[CREATE]:
            there = details["authorization"] in authorizations
        if not there:
            yield Violation(Broken.ENTRY_WITHOUT_GRANT, f"{entry.name} ({entry.kind})")
    for name, request in granted.items():
        if request.method == SIGN and begun[name] != 1:
            yield Violation(Broken.ANSWER_WITHOUT_ENTRY, f"{name} has {begun[name]} entries of its grant")
    made_at_once = {
        authorizations[request.subject].approval
        for request in granted.values()
        if request.method == SIGN
        and request.subject in authorizations
        and authorizations[request.subject].create_time == request.create_time
    }
    for name in approvals:
        if told[name] != 1 and not (told[name] == 0 and name in made_at_once):
            yield Violation(Broken.APPROVAL_WITHOUT_ENTRY, f"{name} is told of by {told[name]}")


def _expected(evidence: Evidence, granted: GrantedRequest) -> list[tuple[str, Any]]:
    """Returns what the entry of a granted request has to say."""
    authorizations = evidence.of(Authorization)
    expected: list[tuple[str, Any]] = [("client", granted.client)]
    if granted.method == APPROVE:
        approval = evidence.of(Approval).get(granted.subject)
        names = () if approval is None else approval.authorizations
        found = {name: authorizations[name] for name in names if name in authorizations}
        digests = {name: [digest.hex() for digest in one.digests] for name, one in found.items()}
        return [*expected, ("approval", granted.subject), ("authorizations", list(names)), ("digests", digests)]
    expected.append(("authorization", granted.subject))
    authorization = authorizations.get(granted.subject)
    if authorization is None:
        return [*expected, ("digests", None)]
    expected.append(("algorithm", str(authorization.algorithm)))
    if granted.method == CREATE:
        return [*expected, ("digests", [digest.hex() for digest in authorization.digests])]
    positions = [int(position) for position in granted.positions]
    return [
        *expected,
        ("request", granted.name),
        ("credential", authorization.credential),
        ("approval", authorization.approval),
        ("digests", [authorization.digests[position].hex() for position in positions]),
        ("signedDigests", [authorization.signed_digests[position].hex() for position in positions]),
    ]


def check_approvals(evidence: Evidence) -> Iterator[Violation]:
    """One step or counter gave one approval, which names exactly the authorizations that name it."""
    approvals, authorizations = evidence.of(Approval), evidence.of(Authorization)
    challenged = _challenges_answered(evidence)
    yield from _check_challenges(evidence, challenged)
    values = Counter(
        (approval.authenticator, approval.accepted_value)
        for approval in approvals.values()
        if approval.name not in challenged
    )
    values.update(_accepted_elsewhere(evidence))
    for (authenticator, value), count in values.items():
        if count > 1:
            yield Violation(Broken.VALUE_TWICE, f"{authenticator} at {value}: {count} approvals")
    naming: dict[str, set[str]] = {}
    for authorization in authorizations.values():
        if authorization.approval is not None:
            naming.setdefault(authorization.approval, set()).add(authorization.name)
    for name in sorted(approvals.keys() | naming.keys()):
        listed = approvals[name].authorizations if name in approvals else ()
        if set(listed) != naming.get(name, set()) or len(set(listed)) != len(listed):
            yield Violation(Broken.APPROVAL_LIST, f"{name} lists {listed}, named by {sorted(naming.get(name, ()))}")
    for state in evidence.of(AuthenticatorState).values():
        accepted = [value for authenticator, value in values if authenticator == state.name]
        if state.next_value != max(accepted, default=-1) + 1:
            yield Violation(Broken.REPLAY_MEMORY, f"{state.name}: next {state.next_value}, accepted {sorted(accepted)}")
    for authenticator in {authenticator for authenticator, _ in values} - set(evidence.of(AuthenticatorState)):
        yield Violation(Broken.REPLAY_MEMORY, f"{authenticator} has none")


def _accepted_elsewhere(evidence: Evidence) -> Iterator[tuple[str, int]]:
    """Returns the steps and counters that were accepted for something else than an approval, such as an enrolment.

    The entries of one act have one time.
    """
    acts = set()
    for entry in evidence.of(AuditEntry).values():
        details = evidence.details(entry)
        if "acceptedValue" in details:
            acts.add((entry.time, str(details["authenticator"]), int(details["acceptedValue"])))
    return ((authenticator, value) for _, authenticator, value in acts)


def _challenges_answered(evidence: Evidence) -> dict[str, str]:
    """Returns the challenge that each approval answered, as its entry says; others were given by a step or counter."""
    entries = [entry for entry in evidence.of(AuditEntry).values() if entry.kind in _KINDS[APPROVE]]
    told = [evidence.details(entry) for entry in entries]
    return {details["approval"]: details["challenge"] for details in told if details.get("challenge") is not None}


def _check_challenges(evidence: Evidence, challenged: dict[str, str]) -> Iterator[Violation]:
    """A challenge gave at most one approval, of its own list by its own authenticator."""
    for name, count in Counter(challenged.values()).items():
        if count > 1:
            yield Violation(Broken.VALUE_TWICE, f"{name}: {count} approvals")
    for approval_name, name in challenged.items():
        approval, challenge = evidence.of(Approval).get(approval_name), evidence.of(Challenge).get(name)
        if approval is None:
            continue  # `_check_causes` tells
        if (
            challenge is None
            or not challenge.answered
            or (challenge.authenticator, challenge.authorizations)
            != (
                approval.authenticator,
                approval.authorizations,
            )
        ):
            yield Violation(Broken.APPROVAL_LIST, f"{approval_name} is not for what {name} asked")


def check_positions(evidence: Evidence) -> Iterator[Violation]:
    """What is used has a signed digest and was opened by one request; what is not used has neither."""
    opened: Counter[tuple[str, int]] = Counter()
    for granted in evidence.of(GrantedRequest).values():
        if granted.method == SIGN:
            opened.update((granted.subject, int(position)) for position in granted.positions)
    for authorization in evidence.of(Authorization).values():
        name, used = authorization.name, authorization.used
        same_length = len(authorization.digests) == len(used) == len(authorization.signed_digests)
        written = bytes(bool(digest) for digest in authorization.signed_digests)
        open_states = {AuthorizationState.APPROVED} if any(used) else set(AuthorizationState)
        states = {AuthorizationState.USED} if used and all(used) else open_states - {AuthorizationState.USED}
        approved = authorization.state in {AuthorizationState.APPROVED, AuthorizationState.USED}
        fits = authorization.state in states and approved is (authorization.approval is not None)
        if not (same_length and written == used and fits):
            yield Violation(Broken.POSITIONS, f"{name} is {authorization.state}, used {used.hex()}")
            continue
        for position, digest in enumerate(authorization.digests):
            if opened.pop((name, position), 0) != used[position]:
                yield Violation(Broken.POSITION_TWICE, f"{name} at {position}")
            signed = authorization.signed_digests[position]
            if used[position] and authorization.item_kind is not ItemKind.SIGNED_ATTRIBUTES and signed != digest:
                yield Violation(Broken.DIGESTS, f"{name} at {position}: {signed.hex()} was signed for {digest.hex()}")
    for (name, position), _ in sorted(opened.items()):
        if name not in evidence.of(Authorization):
            yield Violation(Broken.POSITION_TWICE, f"{name} at {position}: there is no such authorization")
