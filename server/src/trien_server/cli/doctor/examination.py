"""Runs the checks, in order and each by itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from trien_server.cli.checks import explain
from trien_server.cli.doctor.findings import Check, Finding, NotLookedAt, Severity, error
from trien_server.cli.doctor.subject import Subject

_OPEN = (
    "This is a defect of the doctor, or a fault that it does not know: the rest was looked at. Tell it to the makers."
)


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What every check found, by the check's name, and which were left out because of what."""

    findings: Sequence[tuple[str, Finding]]
    looked_at: Sequence[str]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def count(self, severity: Severity) -> int:
        return sum(1 for _, finding in self.findings if finding.severity is severity)


def examine(
    checks: Sequence[Check], subject: Subject, *, network: bool, progress: Callable[[str], None] = lambda _: None
) -> Examination:
    """Runs the checks; `progress` hears of each one's name before it looks.

    A fault in one of them is a finding of its own and hides no other.
    """
    findings: list[tuple[str, Finding]] = []
    looked_at: list[str] = []
    left_out: dict[str, str] = {}
    failed: set[str] = set()
    for check in checks:
        if check.network and not network:
            left_out[check.name] = "they contact others and --network was not given"
            continue
        missing = next((need for need in check.needs if need in failed or need in left_out), None)
        if missing is not None:
            left_out[check.name] = left_out.get(missing) or f"{missing} found an error"
            continue
        progress(check.name)
        try:
            found = _look(check, subject)
        except NotLookedAt as reason:
            left_out[check.name] = str(reason)
            continue
        looked_at.append(check.name)
        findings += [(check.name, finding) for finding in found]
        if any(finding.severity is Severity.ERROR for finding in found):
            failed.add(check.name)
    return Examination(findings=findings, looked_at=looked_at, left_out=left_out)


def _look(check: Check, subject: Subject) -> list[Finding]:
    found: list[Finding] = []
    try:
        for finding in check.look(subject):
            found.append(finding)  # noqa: PERF402 - what was found before a fault stays found
    except NotLookedAt:
        if not found:
            raise
    except Exception as fault:  # noqa: BLE001 - one check must not end the others
        known = explain(fault)
        text = known if known is not None else f"The check did not come to its end: {type(fault).__name__}: {fault}"
        found.append(
            error(text, _OPEN if known is None else "Mend it, and run the doctor again: it looked no further.")
        )
    return found
