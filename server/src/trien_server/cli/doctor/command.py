"""`trien-server doctor`, from a configuration's path to the exit code."""

import os
from collections.abc import Sequence
from pathlib import Path

from trien_server import config as configuration
from trien_server.cli.doctor.checks import CHECKS, CONFIGURATION
from trien_server.cli.doctor.examination import Examination, examine
from trien_server.cli.doctor.findings import Severity, error
from trien_server.cli.doctor.report import Progress, print_json, print_text
from trien_server.cli.doctor.subject import Subject


def doctor(path: Path | None, overrides: Sequence[str], *, as_json: bool, network: bool) -> bool:
    """Looks at everything and prints what was found; returns whether there was an error."""
    examination = _examine(path, overrides, network=network)
    if as_json:
        print_json(examination)
    else:
        print_text(examination)
    return examination.count(Severity.ERROR) > 0


def _examine(path: Path | None, overrides: Sequence[str], *, network: bool) -> Examination:
    try:
        loaded = configuration.load(path, environment=os.environ, overrides=overrides)
    except configuration.BadConfiguration as fault:
        advice = "Correct it; docs/operator.md has every key. `trien-server config show` prints what is in force."
        return Examination(
            findings=[(CONFIGURATION, error(line, advice)) for line in str(fault).splitlines()],
            looked_at=[CONFIGURATION],
            left_out={check.name: f"{CONFIGURATION} found an error" for check in CHECKS},
        )
    subject, progress = Subject(loaded.config, path=path), Progress()
    try:
        found = examine(CHECKS, subject, network=network, progress=progress)
    finally:
        progress.end()
        subject.close()
    return Examination(findings=found.findings, looked_at=[CONFIGURATION, *found.looked_at], left_out=found.left_out)
