"""The operator's page says what is kept how long as the code does it."""

import re
from pathlib import Path

from trien_server.config import RetentionSection
from trien_server.core.retention import DEFAULT_DAYS, LEAST_DAYS, REMOVED, RETENTION

ROOT = Path(__file__).resolve().parents[2]


def rows() -> list[str]:
    """Returns the lines of the page's table."""
    lines = []
    for kind, kept in RETENTION.items():
        until = "for ever" if kept.end is None else f"`request_days` from {kept.end_words}"
        lines.append(f"| `{kind.table}` | {until} | {kept.why} |")
    return lines


def test_the_operators_page_lists_every_table_with_how_long_it_is_kept() -> None:
    page = (ROOT / "docs" / "operator.md").read_text(encoding="utf-8")
    section = page.partition("## What is kept how long")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `.*$", section, re.MULTILINE) == rows()
    assert len(rows()) > 25
    assert f"is {DEFAULT_DAYS} by default" in section
    assert f"and {LEAST_DAYS} at least" in section
    assert RetentionSection().request_days == DEFAULT_DAYS


def test_the_databases_role_may_delete_exactly_what_is_removed() -> None:
    page = (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
    (granted,) = re.findall(r"GRANT DELETE ON ([a-z_,\s]+) TO trien_server;", page)
    assert set(re.split(r",\s*", granted)) == {kind.table for kind in REMOVED} | {"outcomes", "unsealed_entries"}
