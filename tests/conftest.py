"""What every test shares: the counts that tests keep are shown at the end of a run.

A test that counts its rounds, kill points or requests says so by pytest's own `record_property`:
`record_property("count", "SQLite: kill points 413")`.
"""

from typing import Any

import pytest


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints what the tests counted, by test."""
    counted = [
        (report.nodeid, value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport) and report.when == "call"
        for name, value in report.user_properties
        if name == "count"
    ]
    if counted:
        terminalreporter.section("counts")
    last = ""
    for test, value in sorted(counted):
        if test != last:
            terminalreporter.line(test)
        terminalreporter.line(f"    {value}")
        last = test
