"""What the doctor looks at, for tests of single checks."""

from pathlib import Path
from typing import Any

from trien_server.cli.doctor.findings import Check, Finding, Severity
from trien_server.cli.doctor.subject import Subject
from trien_server.config import Config


def subject_of(folder: Path, **sections: dict[str, Any]) -> Subject:
    """Returns a subject whose files are in `folder`; `sections` add to the configuration or replace values in it."""
    values: dict[str, dict[str, Any]] = {
        "server": {
            "tls_certificate_file": folder / "server.pem",
            "tls_key_file": folder / "server.key",
            "client_ca_file": folder / "ca.pem",
        },
        "token": {"module": folder / "module.so", "label": "T", "pin_file": folder / "pin"},
        "store": {"url": f"sqlite:///{folder / 'trien.db'}"},
    }
    for section, changes in sections.items():
        values[section] = {**values.get(section, {}), **changes}
    return Subject(Config.model_validate(values), path=None)


def found(look: Any, subject: Subject) -> list[Finding]:
    """Returns what a check finds; each finding has words and advice."""
    findings = list((look.look if isinstance(look, Check) else look)(subject))
    assert all(finding.text and finding.advice for finding in findings)
    return findings


def texts(findings: list[Finding], severity: Severity = Severity.ERROR) -> list[str]:
    """Returns the texts of a severity."""
    return [finding.text for finding in findings if finding.severity is severity]
