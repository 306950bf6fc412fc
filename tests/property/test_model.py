"""Whatever people and applications do, in any order, the service does what the model says (P1, P2, P3, P5, P7)."""

import time
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.property.machine import Machine

pytestmark = pytest.mark.promise("P1", "P2", "P3", "P5", "P7", "P8")

LONG_SECONDS = 600
QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]


def run(kind: str, **given: object) -> Counter[str]:
    """Runs the machine over one kind of store; returns what it counted."""
    counts: Counter[str] = Counter()
    machine = type("Machine", (Machine,), {"kind": kind, "counts": counts})
    known = {"deadline": None, "database": None, "suppress_health_check": QUIET, "stateful_step_count": 40}
    run_state_machine_as_test(machine, settings=settings(**known | given))  # type: ignore[arg-type]
    return counts


def told(kind: str, counts: Counter[str]) -> str:
    answers = ", ".join(
        f"{name.removeprefix('answered ')} {count}" for name, count in sorted(counts.items()) if "answered" in name
    )
    return (
        f"{kind}: examples {counts['examples']}, questions {counts['questions']}, broken on the way {counts['broken']},"
        f" signatures {counts['signatures']}, rows whose seal was verified {counts['rows']}; answers: {answers}"
    )


@pytest.mark.parametrize(("kind", "examples"), [("memory", 90), ("sqlite", 12)])
def test_the_service_does_what_the_model_says(
    kind: str, examples: int, record_property: Callable[[str, object], None]
) -> None:
    counts = run(kind, max_examples=examples, derandomize=True)
    record_property("count", told(kind, counts))
    assert counts["examples"] >= examples
    assert counts["questions"] >= 15 * examples
    assert counts["signatures"] >= examples // 2
    assert counts["broken"] >= examples // 10
    assert counts["answered REQUEST_ID_REUSED"] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "share"), [("memory", 0.7), ("sqlite", 0.3)])
def test_the_service_does_what_the_model_says_for_ten_minutes(
    kind: str, share: float, record_property: Callable[[str, object], None]
) -> None:
    """Random: each run tries other examples. A failure prints how to repeat it."""
    totals: Counter[str] = Counter()
    end = time.monotonic() + LONG_SECONDS * share
    while time.monotonic() < end:
        totals += run(kind, max_examples=50, stateful_step_count=80, print_blob=True)
    record_property("count", told(kind, totals))
    assert totals["questions"] >= 1000
    assert len([name for name in totals if "answered" in name]) >= 18
