"""`trien bench` as a person runs it: a short run on P-256. How fast anything is, no test says."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.sandbox import environment

FIELDS = {
    "key": str,
    "signature_algorithm": str,
    "digests_per_request": int,
    "store": str,
    "workers": int,
    "clients": int,
    "signatures_per_second": float,
    "token_signatures_per_second": float,
    "ratio": float,
    "p50_ms": float,
    "p95_ms": float,
    "p99_ms": float,
    "server_cpu_ms": float,
    "generator_cpu_ms": float,
    "token_cpu_ms": float,
    "errors": int,
}


TRIEN = str(Path(sys.executable).with_name("trien"))


@pytest.mark.promise("P1", "P6")
def test_a_short_run_reports_what_the_server_wrote_down(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder, file = tmp_path / "run", tmp_path / "report.json"
    options = ["--key", "EC_P256", "--digests", "3", "--clients", "4", "--seconds", "1"]
    done = subprocess.run(
        [TRIEN, "bench", *options, "--dir", folder, "--report", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "Authorized signatures through the whole path, and the token alone" in done.stdout
    report = json.loads(file.read_text(encoding="utf-8"))
    runs = report["runs"]
    assert [run["digests_per_request"] for run in runs] == [3]
    for run in runs:
        assert {name: type(run[name]) for name in FIELDS} == FIELDS
        assert (run["key"], run["signature_algorithm"]) == ("EC_P256", "ECDSA_P256_SHA256")
        assert (run["store"], run["workers"], run["clients"], run["errors"]) == ("sqlite", 1, 4, 0)
        assert 0 < run["ratio"] < 1.5
        assert run["ratio"] == pytest.approx(run["signatures_per_second"] / run["token_signatures_per_second"])
        assert len(run["by_round"]) == report["rounds"] == 3
        assert 0 < run["p50_ms"] <= run["p95_ms"] <= run["p99_ms"]
        assert run["signatures"] == run["requests"] * run["digests_per_request"]
        assert 0 < run["signatures"] <= run["signatures_in_all"]
        assert run["signatures_verified_again"] > 0
        assert all(run[f"{name}_cpu_ms"] > 0 for name in ("server", "generator", "token"))
    # What the generators counted is what the server wrote down before it signed, and recorded afterwards.
    requests = sum(run["signatures_in_all"] // run["digests_per_request"] for run in runs)
    with closing(sqlite3.connect(f"file:{folder / 'server' / 'trien.db'}?mode=ro", uri=True)) as database:
        for query in (
            "SELECT count(*) FROM audit_entries WHERE kind = 'signing_granted'",
            "SELECT count(*) FROM outcomes",
            "SELECT count(*) FROM granted_requests WHERE completed",
            "SELECT count(*) FROM approvals",
        ):
            assert database.execute(query).fetchone() == (requests,), query
    record_property("count", f"bench: signatures {sum(run['signatures_in_all'] for run in runs)}, requests {requests}")


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_who_stops_a_run_leaves_no_process_and_no_folder_behind(tmp_path: Path, number: signal.Signals) -> None:
    # Whoever runs the tests in the background may have them ignore Ctrl-C; a person's terminal does not.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    program += "from trien_client.cli.main import main; sys.argv[0] = 'trien'; main()"
    options = ["--key", "EC_P256", "--clients", "2", "--seconds", "300"]
    with subprocess.Popen(
        [sys.executable, "-c", program, "bench", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
    ) as process:
        try:
            # The copy of the token's last process is started, so everything that the run needs is running.
            wait_until(lambda: len(of_a_run(tmp_path)) == 1 + 2 + (os.cpu_count() or 1), process)
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert of_a_run(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def of_a_run(folder: Path) -> list[int]:
    """Returns the processes that a run in a folder below `folder` started: their standard error is a file in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/2"):
        try:
            if str(path.readlink()).startswith(f"{folder}/trien-bench-"):
                found.append(int(path.parts[2]))
        except OSError:
            continue  # it ended, or is another user's
    return found


def wait_until(done: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not done():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.05)
