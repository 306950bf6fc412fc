"""What the documents say is what the code does."""

import re
from pathlib import Path

import pytest

from trien_server import config
from trien_server.cli.doctor.checks import CHECKS, CONFIGURATION, CONFIGURATION_SEES
from trien_server.core.delivered_text import Language, delivered_text
from trien_server.core.records import AuthenticatorKind
from trien_server.core.secret import Secret
from trien_server.services.restored_state import WHAT_HAPPENS
from trien_server.store.mapping import tables

ROOT = Path(__file__).resolve().parents[2]


def test_the_operators_page_lists_every_setting_with_its_default() -> None:
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    rows = []
    for section, model in config.SECTIONS.items():
        for key, field in model.model_fields.items():
            default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"
            rows.append(f"| `{section}.{key}` | {default} | {field.description} |")
    assert len(rows) > 15
    assert [row for row in rows if row not in page] == []
    shown = [line for line in page.splitlines() if line.startswith("| `") and line[3:].split(".")[0] in config.SECTIONS]
    assert len(shown) == len(rows)


def test_the_operators_page_lists_every_check_of_the_doctor() -> None:
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    section = page[page.index("## Ask the doctor") :].split("\n## ", 1)[0]
    rows = [f"| `{CONFIGURATION}` | {CONFIGURATION_SEES} |  |"]
    rows += [f"| `{one.name}` | {one.sees} | {', '.join(f'`{need}`' for need in one.needs)} |" for one in CHECKS]
    assert len(rows) > 20
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows
    before: set[str] = set()
    for one in CHECKS:
        assert before.issuperset(one.needs), "a check comes behind what it needs"
        before.add(one.name)


def test_the_operators_page_says_of_every_table_what_a_restore_does_with_it() -> None:
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    rows = [f"| `{table}` | {what} |" for table, what in WHAT_HAPPENS.items()]
    assert set(WHAT_HAPPENS) == set(tables()) - {"log_positions", "unsealed_entries"}
    assert "\n".join(rows) in page


def test_every_link_between_documents_leads_somewhere() -> None:

    checked = 0
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
            checked += 1
    assert checked > 3


@pytest.mark.parametrize(("page", "least"), [("threat-model.md", 40), ("reliability.md", 25), ("requirements.md", 100)])
def test_every_test_that_a_page_names_exists(page: str, least: int) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text)
    for path, function in named:
        assert (ROOT / path).exists(), path
        assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), function
    assert len(named) >= least


def test_the_operators_page_shows_the_texts_that_people_get() -> None:
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    for language in Language:
        text = delivered_text(
            kind=AuthenticatorKind.SMS,
            code=Secret(b"123456"),
            client_title="Văn phòng điện tử",
            count=20,
            fingerprint="4f2a 91c3",
            title="",
            service="Trien",
            language=language,
        )
        assert f"    {text.body.reveal().decode()}\n" in page
    assert len(Language) == 2
