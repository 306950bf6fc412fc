"""What a run says: lines for programs (JSON) and a table for people."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import Any

from rich.table import Table

from trien_client.bench.figures import Round, median, per_signature, percentile, ratio
from trien_client.bench.measurement import CaseRounds, Measured
from trien_client.bench.plan import VERIFIED_EVERY, Plan

Run = Mapping[str, Any]
"""One case of a run, as the report has it."""


def report_of(measured: Measured, *, at: datetime) -> dict[str, Any]:
    """Returns the report for programs; times are milliseconds where the name says so, and seconds elsewhere."""
    plan = measured.plan
    return {
        "trien_client": version("trien-client"),
        "time": at.isoformat(timespec="seconds"),
        "machine": asdict(measured.machine),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "warm_up_seconds": plan.warm_up_seconds,
        "generator_processes": plan.generators,
        "token_processes": plan.token_processes,
        "verified_every": VERIFIED_EVERY,
        "runs": [_run_of(plan, measured.store, done) for done in measured.cases],
    }


def _run_of(plan: Plan, store: str, done: CaseRounds) -> dict[str, Any]:
    """Returns one case: medians of the rounds' rates, and percentiles over the requests of all rounds."""
    rounds = done.rounds
    steps = [one.service for one in rounds]
    errors = sum((step.errors for step in steps), Counter[str]())
    latencies = [latency for step in steps for latency in step.latencies]
    service_rate = median([step.rate for step in steps])
    token_rate = median([one.token.rate for one in rounds])
    signatures_in_all = sum(step.signatures_in_all for step in steps)
    token_cpu = per_signature([one.token.cpu_seconds for one in rounds], sum(one.token.signatures for one in rounds))
    return {
        "key": done.case.key_type.value,
        "signature_algorithm": done.case.algorithm.value,
        "digests_per_request": done.case.digests,
        "store": store,
        "workers": plan.workers,
        "clients": plan.clients,
        "signatures_per_second": service_rate,
        "token_signatures_per_second": token_rate,
        "ratio": ratio(service_rate, token_rate, errors=errors.total()),
        **{f"p{percent}_ms": _milliseconds(percentile(latencies, percent)) for percent in (50, 95, 99)},
        "server_cpu_ms": _milliseconds(per_signature([step.server_cpu_seconds for step in steps], signatures_in_all)),
        "generator_cpu_ms": _milliseconds(per_signature([step.cpu_seconds for step in steps], signatures_in_all)),
        "token_cpu_ms": _milliseconds(token_cpu),
        "errors": errors.total(),
        "errors_by_reason": dict(errors),
        "requests": sum(step.requests for step in steps),
        "signatures": sum(step.signatures for step in steps),
        "signatures_in_all": signatures_in_all,
        "signatures_verified_again": sum(step.verified for step in steps),
        "by_round": [_round_of(one) for one in rounds],
    }


def _round_of(one: Round) -> dict[str, Any]:
    return {
        "signatures_per_second": one.service.rate,
        "token_signatures_per_second": one.token.rate,
        "ratio": one.ratio,
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1000 * seconds


def failures_of(report: Mapping[str, Any]) -> list[str]:
    """Returns a sentence for each case that has no ratio."""
    sentences = []
    for run in report["runs"]:
        if run["ratio"] is not None:
            continue
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(run["errors_by_reason"].items()))
        what = f"{run['errors']} requests failed ({reasons})" if run["errors"] else "nothing was signed"
        sentences.append(f"{run['key']}: {what}, so there is no ratio.")
    return sentences


FULL_WIDTH = 140
"""How wide the table is with every column."""
_LEFT_OUT = frozenset({"algorithm", "rounds", "p50 ms", "p95 ms", "token\ncpu ms"})
"""The columns that a narrower terminal does without; the report has them all."""


def table_of(report: Mapping[str, Any], *, width: int = FULL_WIDTH) -> Table:
    """Returns the table: one line a case, with fewer columns when `width` characters are too few for all."""
    machine = report["machine"]
    table = Table(
        title="Authorized signatures through the whole path, and the token alone",
        caption=(
            f"{report['rounds']} rounds of {report['seconds']:g} s in turns, medians; "
            f"{machine['cores']} cores ({machine['processor']}), load {machine['load_average']:.1f} before; "
            f"{machine['flush_milliseconds']:.1f} ms to flush 4 KiB"
        ),
    )
    rows = [_cells(run) for run in report["runs"]]
    shown = [heading for heading in _HEADINGS if width >= FULL_WIDTH or heading not in _LEFT_OUT]
    for heading in shown:
        table.add_column(heading, justify="left" if heading in {"key", "algorithm"} else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[heading] for heading in shown))
    return table


_HEADINGS = (
    "key",
    "algorithm",
    "digests",
    "service/s",
    "token/s",
    "ratio",
    "rounds",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "server\ncpu ms",
    "token\ncpu ms",
    "errors",
)


def _cells(run: Run) -> dict[str, str]:
    def number(name: str, digits: int) -> str:
        return "-" if run[name] is None else f"{run[name]:.{digits}f}"

    return {
        "key": run["key"],
        "algorithm": run["signature_algorithm"],
        "digests": str(run["digests_per_request"]),
        "service/s": number("signatures_per_second", 1),
        "token/s": number("token_signatures_per_second", 1),
        "ratio": "none" if run["ratio"] is None else number("ratio", 3),
        "rounds": _spread(run),
        "p50 ms": number("p50_ms", 1),
        "p95 ms": number("p95_ms", 1),
        "p99 ms": number("p99_ms", 1),
        "server\ncpu ms": number("server_cpu_ms", 2),
        "token\ncpu ms": number("token_cpu_ms", 2),
        "errors": str(run["errors"]),
    }


def _spread(run: Run) -> str:
    """Returns the lowest and the highest ratio of the rounds: how much the machine's noise is."""
    ratios = [one["ratio"] for one in run["by_round"] if one["ratio"] is not None]
    return f"{min(ratios):.3f}-{max(ratios):.3f}" if ratios else "-"
