"""The page about others' requirements says what the reviewed list and the tests' markers say."""

import tokenize
from collections import Counter

from tests.support.requirements import CHAPTERS, PAGE, ROOT, SOURCES, markers, page, requirements, shown_by


def test_the_page_of_requirements_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "make requirements"


def test_every_requirement_has_a_test_or_says_why_it_has_none() -> None:
    listed, tests = requirements(), shown_by()
    for one in listed:
        assert one.name in tests or one.not_met or one.not_applicable, one.name
        assert not (one.not_applicable and (one.not_met or one.name in tests)), one.name
        assert one.asks.endswith((".", ").")), one.name
    assert len(listed) >= 40


def test_every_requirement_is_on_the_page_once() -> None:
    rows = Counter(
        line.split(" | ")[0] for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    )
    for one in requirements():
        number = one.number if one.level is None else f"{one.number} (L{one.level})"
        assert rows[f"| {number}"] == 1, one.name
        assert any(one.name.startswith(source) for source in SOURCES)
        assert one.level is None or one.number.partition(".")[0] in CHAPTERS


def test_tests_name_listed_requirements_and_each_once() -> None:
    listed = {one.name for one in requirements()}
    named = [(name, test) for test, names in markers() for name in names]
    assert {name for name, _ in named} - listed == set()
    assert [pair for pair, times in Counter(named).items() if times > 1] == []
    assert len(named) >= 40


def test_no_marker_of_a_requirement_is_overlooked() -> None:
    """Markers count on test functions alone: one in `pytestmark` or on a class would not be found."""
    words = ["requirement", "("]
    written = 0
    for path in (ROOT / "tests").rglob("test_*.py"):
        with path.open("rb") as source:
            tokens = [token.string for token in tokenize.tokenize(source.readline)]
        written += sum(tokens[at - 2 : at + 2] == ["mark", ".", *words] for at in range(2, len(tokens) - 1))
    assert written == len(list(markers()))
