"""docs/security-officer.md: every command of the page runs, in its order, and prints what the page shows."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyotp
import pytest
from tests.support.administration import enrol_by_halves
from tests.support.console_page import Console, Step, steps_of
from tests.support.sandbox import Installation

PAGE = Path(__file__).parents[2] / "docs" / "security-officer.md"
PEOPLE = ("server", "first", "second", "third", "office")


class Office:
    """The computers of the page: a server, three officers and an application, each with a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in PEOPLE:
            (root / name).mkdir()
        connected = {name: {"TRIEN_CONNECTION": f"{name}.json"} for name in ("first", "second")}
        self.console = Console(people={name: (root / name, connected.get(name, {})) for name in PEOPLE})
        self.installation: Installation | None = None
        self.halves: list[str] = []

    def run(self, step: Step) -> None:
        if step.who != "server" and self.installation is None:
            self._start()
        if step.who == "office" and "trien sign" in step.command:
            self._give_to_application()
        printed = self.console.run(step)
        self.halves += re.findall(r"half of the code: (\w+)", "\n".join(printed))

    def _start(self) -> None:
        """Starts the server on ports of its own, and gives each officer what `init` made for one."""
        installation = self.installation = Installation(self.root / "server" / "installation")
        installation.start()
        self.console.words["localhost:8443"] = installation.address
        for name in ("first", "second"):
            for file in (f"{name}.json", f"{name}.pem", f"{name}.key", "ca.pem"):
                shutil.move(self.root / "server" / "installation" / "operators" / file, self.root / name) if (
                    file != "ca.pem"
                ) else shutil.copy(self.root / "server" / "installation" / "operators" / file, self.root / name)
            path = self.root / name / f"{name}.json"
            connection = json.loads(path.read_text())
            connection |= {
                "address": installation.address,
                "mutual_tls_address": installation.certificate_address,
            }
            path.write_text(json.dumps(connection))

    def _give_to_application(self) -> None:
        """The chair has set up the phone with both halves; the application gets its token, the CAs and a code."""
        assert self.installation is not None
        uri = enrol_by_halves(self.installation, self.halves)
        code = pyotp.parse_uri(uri)
        assert isinstance(code, pyotp.TOTP)
        office = self.root / "office"
        (office / "code").write_text(code.now())
        for file in ("first/e-office.token", "first/ca.pem", "server/signing-ca.pem"):
            shutil.copy(self.root / file, office)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    if made.installation is not None:
        made.installation.kill()


@pytest.mark.promise("P9")
@pytest.mark.parametrize("most", [16, pytest.param(1_000, marks=pytest.mark.slow)])
def test_the_commands_of_the_page_print_what_the_page_shows(
    office: Office, most: int, record_property: Callable[[str, object], None]
) -> None:
    steps = list(steps_of(PAGE.read_text()))
    assert len(steps) >= 60
    for step in steps[:most]:
        office.run(step)
    assert office.console.ran == min(most, len(steps))
    assert office.installation is not None
    assert office.installation.stop() == 0
    record_property("count", f"commands of the security officer's guide {office.console.ran}")
