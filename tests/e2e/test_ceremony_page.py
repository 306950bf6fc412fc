"""docs/ceremony.md: every command of the page runs, in its order, and prints what the page shows."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.ceremony import OFFICERS, Ceremony
from tests.support.console_page import Console, Step, steps_of
from tests.support.softhsm import environment_kept

PAGE = Path(__file__).parents[2] / "docs" / "ceremony.md"
PLACE = "/srv/ceremony"
"""Where the page's ceremony takes place."""


class Table(Console):
    """The page's computers; what is in the test's folder is in the page's."""

    place: Path

    def _compare(self, step: Step, printed: list[str]) -> None:
        super()._compare(step, [line.replace(str(self.place), PLACE) for line in printed])


@pytest.mark.skipif(shutil.which("softhsm2-util") is None, reason="softhsm2-util is not installed")
def test_the_commands_of_the_page_print_what_the_page_shows(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ceremony = Ceremony(tmp_path / "server")
    ceremony.replace('hosts = ["localhost", "127.0.0.1", "::1"]', 'hosts = ["localhost"]')
    for officer in OFFICERS:
        for kind in ("csr", "key"):
            (ceremony.folder / f"{officer}.{kind}").unlink()
    people = {name: (tmp_path / name, {}) for name in ("server", "first", "second")}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    console = Table(people=people)
    console.place = ceremony.folder
    with environment_kept("SOFTHSM2_CONF"):
        for step in steps_of(PAGE.read_text()):
            console.run(step)
            for request in (tmp_path / step.who).glob("*.csr"):
                shutil.copy(request, tmp_path / "server") if step.who != "server" else None
    assert console.ran >= 11
    record_property("count", f"commands of the ceremony's page {console.ran}")
