"""Makes docs/requirements.md of the reviewed list of requirements and of the tests that are marked with them.

`python -m tests.support.requirements` writes the page. Markers are read from the source, without running it:
`@pytest.mark.requirement("ASVS 5.0.0-6.5.1")` above a test function.
"""

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "tests" / "conformance" / "requirements.toml"
PAGE = ROOT / "docs" / "requirements.md"

SOURCES = {
    "ASVS 5.0.0-": "OWASP Application Security Verification Standard 5.0.0",
    "NIST 800-63B-4 ": "NIST SP 800-63B-4, Digital Identity Guidelines: Authentication and Authenticator Management",
}
CHAPTERS = {
    "6": "V6 Authentication",
    "8": "V8 Authorization",
    "11": "V11 Cryptography",
    "12": "V12 Secure Communication",
    "13": "V13 Configuration",
    "14": "V14 Data Protection",
    "16": "V16 Security Logging and Error Handling",
}

_HEAD = """\
# Requirements of others, and what shows them

<!-- Made by `make requirements` of tests/conformance/requirements.toml and the markers of the tests. Do not edit. -->

Two public lists of what is asked of a service like this one, beside the tests of this repository: the chapters of
the OWASP ASVS that concern a server with this task, and the parts of NIST SP 800-63B-4 about one-time passwords,
their binding and their loss. **Nothing here is certified, and nobody but its authors has judged it.** What is asked
is told in our own words and shortened; the standards' text counts. Requirements that are left out (passwords,
sessions, biometrics, browsers' storage) are about things that this server does not have, or were not looked at.

A test that is named here shows something of what its line says, in the place and to the extent of that test. Most
tests run with SoftHSM, which is for development: with another token the token's part has to be looked at again.
"""

_SOLE_CONTROL = """\
## Sole control, and EN 419 241-1

Not claimed, only laid side by side. At its lower level (SCAL1), EN 419 241-1 has the signing application
authenticate the signer before the key is used. At the higher (SCAL2), a signature activation module in a
tamper-protected environment decides, by signature activation data that come from the signer and bind the signer,
the key and what is signed. Here an ordinary process decides, which holds the token's PIN: who is inside that
process or root on its machine can use every key. What is signed is fixed before the code is checked, keys are used
in the token, and the activation data is derived by the token for one authorization and one client: the form of the
higher level without its protected place. A code that an application collects, and a TOTP or HOTP code, which is
bound to no document, stay below it in any case; an OCRA answer is bound to the list of documents. An auditor has no
other role here, and nobody is both administrator and security officer (`core/roles.py`), as that standard asks for
its roles.
"""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """One demand of a standard, and what is said of it."""

    name: str
    asks: str
    level: int | None = None
    not_met: str = ""
    not_applicable: str = ""

    @property
    def source(self) -> str:
        """The beginning of the name that says whose demand it is."""
        return next(source for source in SOURCES if self.name.startswith(source))

    @property
    def number(self) -> str:
        """The number within its source."""
        return self.name.removeprefix(self.source)


def requirements() -> list[Requirement]:
    """Reads the reviewed list, in its order."""
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [Requirement(name=name, **fields) for name, fields in listed.items()]


def markers() -> Iterator[tuple[str, list[str]]]:
    """Yields each marker: the test as `path::function`, and the requirements that it names."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.requirement":
                        names = [ast.literal_eval(argument) for argument in decorator.args]
                        yield f"{path.relative_to(ROOT).as_posix()}::{node.name}", names


def shown_by() -> dict[str, list[str]]:
    """Returns the tests of each requirement that is named by one."""
    found: dict[str, list[str]] = {}
    for test, names in markers():
        for name in names:
            found.setdefault(name, []).append(test)
    return found


def page() -> str:
    """Returns docs/requirements.md as it has to be."""
    listed, tests = requirements(), shown_by()
    parts = [_HEAD, _summary(listed, tests)]
    for source, title in SOURCES.items():
        parts.append(f"## {title}\n")
        of_source = [one for one in listed if one.source == source]
        if source.startswith("ASVS"):
            for chapter, heading in CHAPTERS.items():
                of_chapter = [one for one in of_source if one.number.partition(".")[0] == chapter]
                parts.append(f"### {heading}\n\n{_table(of_chapter, tests)}")
        else:
            parts.append(_table(of_source, tests))
    return "\n".join([*parts, _SOLE_CONTROL])


def _summary(listed: list[Requirement], tests: Mapping[str, list[str]]) -> str:
    rows = ["| | shown by tests | in part | not met | not applicable |", "|---|---|---|---|---|"]
    for source in SOURCES:
        counts = Counter(_standing(one, tests) for one in listed if one.source == source)
        cells = [str(counts[standing]) for standing in ("shown", "in part", "not met", "not applicable")]
        rows.append(f"| {source.rstrip(' -')} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _standing(one: Requirement, tests: Mapping[str, list[str]]) -> str:
    if one.not_applicable:
        return "not applicable"
    if one.not_met:
        return "in part" if one.name in tests else "not met"
    return "shown"


def _table(listed: list[Requirement], tests: Mapping[str, list[str]]) -> str:
    rows = ["| | asks for | what shows it, and what is missing |", "|---|---|---|"]
    for one in listed:
        number = one.number if one.level is None else f"{one.number} (L{one.level})"
        shown = [f"`{test}`" for test in tests.get(one.name, [])]
        if one.not_applicable:
            shown.insert(0, f"**Not applicable:** {one.not_applicable}")
        if one.not_met:
            shown.insert(0, f"**{'In part' if one.name in tests else 'Not met'}:** {one.not_met}")
        rows.append(f"| {number} | {one.asks} | {'<br>'.join(shown)} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
