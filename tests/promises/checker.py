"""One judge of the promises P1 to P8, as far as data can show them: for every test of faults, races and histories.

    history = History()                     # or a recorder of tests.promises.recording, which fills one
    …                                       # calls, faults, restarts, retries
    assert_promises(history, read_evidence(store), authenticate=hsm.authenticate)

It reads the database through the product's store, and judges by what clients did and were told. What it cannot see:
signatures that left the token and reached nobody, and time within a request.
"""

from collections.abc import Iterator
from datetime import timedelta

from tests.promises.decisions import check_approvals, check_entries, check_positions
from tests.promises.evidence import Evidence
from tests.promises.history import History
from tests.promises.log import Authenticate, check_in_force, check_leaves, check_log, check_seals
from tests.promises.passwords import check_codes, check_counts, check_failures
from tests.promises.requests import check_requests, check_told
from tests.promises.signatures import check_answers, check_outcomes
from tests.promises.violations import PromisesBroken, Violation


def find_violations(
    history: History,
    evidence: Evidence,
    *,
    authenticate: Authenticate,
    settled: bool = True,
    tolerance: timedelta = timedelta(0),
) -> list[Violation]:
    """Returns everything that breaks a promise.

    The history has every call that brought codes of the people it names. `settled` says that every request whose
    end was unknown was repeated until its end was known. `tolerance` is how far the clients' clock may be behind
    the server's.
    """

    def checks() -> Iterator[Violation]:
        yield from check_seals(evidence, authenticate)
        yield from check_in_force(evidence)
        yield from check_leaves(evidence)
        yield from check_log(evidence)
        yield from check_entries(evidence, tolerance)
        yield from check_approvals(evidence)
        yield from check_positions(evidence)
        yield from check_outcomes(evidence)
        yield from check_answers(evidence, history)
        yield from check_told(evidence, history, tolerance)
        yield from check_requests(evidence, history, settled=settled)
        yield from check_codes(evidence, history)
        yield from check_failures(evidence, history)
        yield from check_counts(evidence, history)

    return list(checks())


def assert_promises(
    history: History,
    evidence: Evidence,
    *,
    authenticate: Authenticate,
    settled: bool = True,
    tolerance: timedelta = timedelta(0),
) -> None:
    """Raises `PromisesBroken` with all that `find_violations` finds; a history without calls proves nothing."""
    if not len(history) or not evidence.rows:
        raise AssertionError("nothing happened, so nothing is proved")
    violations = find_violations(history, evidence, authenticate=authenticate, settled=settled, tolerance=tolerance)
    if violations:
        raise PromisesBroken(violations)
