"""A delivery's line, and what its cut leaves."""

import pytest

from trien_server.delivery.lines import Line


@pytest.mark.promise("P8")
def test_an_answer_that_the_cut_left_is_none() -> None:
    line = Line(60.0)
    assert not line.cut()
    with pytest.raises(TimeoutError):
        line.take()
    assert not line.cut()


def test_what_was_taken_before_the_cut_is_taken() -> None:
    line = Line(60.0)
    line.take()
    assert line.cut()
