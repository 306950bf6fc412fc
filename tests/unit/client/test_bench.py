"""`trien bench`: its arithmetic, its plan and its report."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from trien_client import KeyType, SignatureAlgorithm
from trien_client.bench import measurement
from trien_client.bench.figures import (
    Round,
    ServiceStep,
    TokenStep,
    median,
    per_signature,
    percentile,
    ratio,
    together,
)
from trien_client.bench.machine import Machine
from trien_client.bench.measurement import CaseRounds, Measured
from trien_client.bench.plan import Case, Plan, make_plan
from trien_client.bench.report import failures_of, report_of, table_of
from trien_client.cli.main import build_app

NOW = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)


def step(rate: float, *, errors: Counter[str] | None = None) -> ServiceStep:
    """Two seconds at this rate, with latencies of 1 to 100 ms."""
    return ServiceStep(
        signatures=int(2 * rate),
        requests=100,
        seconds=2.0,
        latencies=tuple(number / 1000 for number in range(1, 101)),
        signatures_in_all=int(3 * rate),
        verified=7,
        cpu_seconds=rate / 100,
        server_cpu_seconds=rate / 50,
        errors=errors or Counter(),
    )


def token_step(rate: float) -> TokenStep:
    """Two seconds at this rate, half of them on the processor."""
    return TokenStep(rate=rate, signatures=int(2 * rate), cpu_seconds=1.0)


def measured(*rounds: tuple[float, float], errors: Counter[str] | None = None) -> Measured:
    """A run of one case with these rates of service and token; `errors` happen in the first round."""
    plan = make_plan(key_types=[KeyType.EC_P256], rounds=3, workers=2, clients=5)
    done = [
        Round(service=step(service, errors=errors if number == 0 else None), token=token_step(token))
        for number, (service, token) in enumerate(rounds)
    ]
    return Measured(
        plan=plan,
        machine=Machine(cores=2, processor="a processor", load_average=0.25, flush_milliseconds=1.5),
        store="sqlite",
        cases=(CaseRounds(case=plan.cases[0], rounds=tuple(done)),),
    )


def test_a_median_is_the_middle_whatever_the_order() -> None:
    assert median([9.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 100.0]) == 3.0


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([15.0, 20.0, 35.0, 40.0, 50.0], 30, 20.0),
        ([15.0, 20.0, 35.0, 40.0, 50.0], 40, 20.0),
        ([50.0, 15.0, 40.0, 20.0, 35.0], 50, 35.0),
        ([15.0, 20.0, 35.0, 40.0, 50.0], 100, 50.0),
        ([7.0], 99, 7.0),
        (list(map(float, range(1, 1001))), 99, 990.0),
        ([], 50, None),
    ],
)
def test_a_percentile_is_the_nearest_rank(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@pytest.mark.parametrize("percent", [0, -1, 100.1])
def test_there_is_no_percentile_outside_of_a_hundred(percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        percentile([1.0], percent)


def test_a_ratio_needs_that_nothing_failed_and_something_was_done() -> None:
    assert ratio(120.0, 480.0, errors=0) == 0.25
    assert ratio(120.0, 480.0, errors=1) is None
    assert ratio(0.0, 480.0, errors=0) is None
    assert ratio(120.0, 0.0, errors=0) is None


def test_the_time_for_a_signature_is_not_told_when_a_part_is_not_known() -> None:
    assert per_signature([1.0, 2.0], 4) == 0.75
    assert per_signature([1.0, None], 4) is None
    assert per_signature([1.0, 2.0], 0) is None


def test_what_several_generators_counted_is_added_up() -> None:
    one, other = step(10.0, errors=Counter({"BUSY": 2})), step(30.0, errors=Counter({"BUSY": 1, "INTERNAL": 1}))
    both = together([one, other])
    assert both.rate == one.rate + other.rate == 40.0
    assert (both.requests, len(both.latencies), both.signatures_in_all, both.verified) == (200, 200, 120, 14)
    assert both.cpu_seconds == pytest.approx(0.4)
    assert both.errors == {"BUSY": 3, "INTERNAL": 1}


def test_the_report_has_the_medians_of_the_rounds_and_their_ratio() -> None:
    report = report_of(measured((100.0, 400.0), (300.0, 500.0), (110.0, 1000.0)), at=NOW)
    [run] = json.loads(json.dumps(report))["runs"]
    assert (run["key"], run["signature_algorithm"], run["digests_per_request"]) == ("EC_P256", "ECDSA_P256_SHA256", 1)
    assert (run["store"], run["workers"], run["clients"], run["errors"]) == ("sqlite", 2, 5, 0)
    assert (run["signatures_per_second"], run["token_signatures_per_second"]) == (110.0, 500.0)
    assert run["ratio"] == pytest.approx(0.22)
    assert [one["ratio"] for one in run["by_round"]] == pytest.approx([0.25, 0.6, 0.11])
    assert [run["p50_ms"], run["p95_ms"], run["p99_ms"]] == pytest.approx([50.0, 95.0, 99.0])
    assert (run["requests"], run["signatures"], run["signatures_in_all"]) == (300, 1020, 1530)
    # By the rates, the generators took 1 + 3 + 1.1 s and the server twice that, for what was made with the warm-up.
    assert run["generator_cpu_ms"] == pytest.approx(1000 * 5.1 / 1530)
    assert run["server_cpu_ms"] == pytest.approx(1000 * 10.2 / 1530)
    assert run["token_cpu_ms"] == pytest.approx(1000 * 3 / 3800)
    assert failures_of(report) == []
    shown = shown_of(report)
    for text in ("EC_P256", "110.0", "500.0", "0.220", "0.110-0.600", "95.0", "6.67", "0.79", "2 cores (a processor)"):
        assert text in shown


def test_a_run_with_an_error_has_no_ratio_and_says_why() -> None:
    errors = Counter({"BUSY": 2, "DeadlineExceeded": 1})
    report = report_of(measured((100.0, 400.0), (300.0, 500.0), (110.0, 1000.0), errors=errors), at=NOW)
    [run] = report["runs"]
    assert (run["ratio"], run["errors"]) == (None, 3)
    assert [one["ratio"] is None for one in run["by_round"]] == [True, False, False]
    assert failures_of(report) == [
        "EC_P256: 3 requests failed (BUSY 2, DeadlineExceeded 1), so there is no ratio.",
    ]
    assert "none" in shown_of(report)


def test_a_run_in_which_nothing_was_signed_has_no_ratio() -> None:
    report = report_of(measured((0.0, 400.0), (0.0, 500.0), (0.0, 500.0)), at=NOW)
    assert report["runs"][0]["ratio"] is None
    assert failures_of(report) == ["EC_P256: nothing was signed, so there is no ratio."]


def test_the_command_ends_with_1_and_still_reports_when_a_request_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = measured((100.0, 400.0), (300.0, 500.0), (110.0, 1000.0), errors=Counter({"BUSY": 2}))
    monkeypatch.setattr(measurement, "measure", lambda *_, **__: failing)
    file = tmp_path / "made" / "report.json"
    for output, place in (("text", []), ("json", ["--report", str(file)])):
        result = CliRunner().invoke(build_app(completion=False), ["bench", "--output", output, *place])
        assert result.exit_code == 1, result.output
        assert "EC_P256: 2 requests failed (BUSY 2), so there is no ratio." in result.stderr
        assert "EC_P256" in result.stdout
    assert json.loads(result.stdout) == json.loads(file.read_text(encoding="utf-8"))
    assert json.loads(result.stdout)["runs"][0]["ratio"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "2"], "--rounds"),
        (["--clients", "25"], "--clients"),
        (["--key", "DSA"], "--key"),
        (["--key", "EC_ED25519"], "Ed25519 signs no digests"),
        (["--digests", "0"], "--digests"),
        (["--seconds", "0.1"], "--seconds"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(build_app(completion=False), ["bench", *arguments])
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    result = CliRunner().invoke(build_app(completion=False), ["bench", "--dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "is not an empty folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_without_the_driver_of_the_token_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pkcs11" else object())
    result = CliRunner().invoke(build_app(completion=False), ["bench"])
    assert result.exit_code == 2
    assert "python-pkcs11, which drives the token alone, is not installed: install trien-client[bench]" in result.stderr


def test_the_plan_is_what_the_options_say() -> None:
    plan = make_plan()
    assert [case.key_type for case in plan.cases] == [KeyType.RSA_3072, KeyType.RSA_2048, KeyType.EC_P256]
    assert {case.digests for case in plan.cases} == {1}
    assert (plan.rounds, plan.seconds) == (3, 5.0)
    quick = make_plan(quick=True)
    assert quick.rounds == 3
    assert quick.seconds < plan.seconds
    assert make_plan(quick=True, seconds=2.0).seconds == 2.0
    chosen = make_plan(key_types=[KeyType.RSA_2048, KeyType.EC_P256], digests=[1, 16], pkcs1=True)
    assert [(case.algorithm, case.digests) for case in chosen.cases] == [
        (SignatureAlgorithm.RSA_PKCS1_SHA256, 1),
        (SignatureAlgorithm.RSA_PKCS1_SHA256, 16),
        (SignatureAlgorithm.ECDSA_P256_SHA256, 1),
        (SignatureAlgorithm.ECDSA_P256_SHA256, 16),
    ]
    assert chosen.key_types == (KeyType.RSA_2048, KeyType.EC_P256)


def test_service_and_token_come_first_in_turn_and_are_asked_for_the_same() -> None:
    asked: list[tuple[str, Any]] = []

    class FakeCrew:
        def __init__(self, name: str, answer: dict[str, Any]) -> None:
            self.name, self.answer = name, answer

        def ask(self, message: Any, *, timeout: float) -> list[Any]:
            asked.append((self.name, message))
            assert timeout > message["seconds"]
            return [self.answer, self.answer]

    service = FakeCrew(
        "service",
        {
            "signatures": 50,
            "requests": 50,
            "seconds": 5.0,
            "latencies": [0.01] * 50,
            "signatures_in_all": 60,
            "verified": 4,
            "cpu_seconds": 0.5,
            "errors": {},
        },
    )
    token = FakeCrew("token", {"signatures": 401, "seconds": 5.0125, "cpu_seconds": 4.5})
    plan: Plan = make_plan(key_types=[KeyType.RSA_2048], digests=[16])
    case: Case = plan.cases[0]
    said: list[str] = []
    clock = iter((1.0, 3.0, 4.0, 6.0, 7.0, 9.0))
    rounds = measurement._measure_case(
        plan,
        case,
        service,  # type: ignore[arg-type]
        token,  # type: ignore[arg-type]
        server_cpu_seconds=lambda: next(clock),
        say=said.append,
    )
    assert [name for name, _ in asked] == ["service", "token", "token", "service", "service", "token"]
    assert {(message["key_type"], message["algorithm"], message["digests"]) for _, message in asked} == {
        ("RSA_2048", "RSA_PSS_SHA256", 16)
    }
    assert [(one.service.rate, one.token.rate) for one in rounds] == [(20.0, pytest.approx(160.0))] * 3
    assert [(one.service.server_cpu_seconds, one.service.cpu_seconds) for one in rounds] == [(2.0, 1.0)] * 3
    assert len(said) == 3


def shown_of(report: dict[str, Any]) -> str:
    console = Console(width=140, record=True, force_terminal=False)
    with console.capture() as capture:
        console.print(table_of(report))
    return capture.get()


def test_a_narrow_terminal_gets_fewer_columns_and_cuts_none() -> None:
    report = report_of(measured((100.0, 400.0), (110.0, 1000.0), (120.0, 900.0)), at=NOW)
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(table_of(report, width=80))
    shown = capture.get()
    for told in ("EC_P256", "service/s", "token/s", "ratio", "p99 ms", "errors"):
        assert told in shown
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
