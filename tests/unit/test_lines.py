"""The log's lines when nobody reads them, and when they cannot be written."""

import fcntl
import io
import os
import time
from collections.abc import Callable

import pytest

from trien_server.host.lines import Lines


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_lines_are_written_in_order_and_to_the_end() -> None:
    stream = io.StringIO()
    lines = Lines(stream, on_lost=lambda lost: None)
    for number in range(1000):
        lines.write(f"{number}\n")
    lines.finish()
    assert stream.getvalue().splitlines() == [str(number) for number in range(1000)]


@pytest.mark.promise("P8")
def test_whoever_writes_to_a_pipe_that_nobody_reads_does_not_wait_and_what_is_lost_is_counted() -> None:
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"y" * size)
    told: list[int] = []
    with open(reading, "rb") as reader, open(writing, "w") as stream:
        lines = Lines(stream, on_lost=told.append, most=10)
        begun = time.monotonic()
        for number in range(1000):
            lines.write(f"{number}\n")
        assert time.monotonic() - begun < 10
        assert os.read(reader.fileno(), size) == b"y" * size
        wait_until(lambda: bool(told) and lines._waiting.empty())
        lines.write("the last\n")
        lines.finish()
        stream.close()
        kept = reader.read().splitlines()
    assert kept.pop() == b"the last"
    assert kept == [str(number).encode() for number in range(len(kept))]
    assert 10 <= len(kept) <= 11, "those in the queue, and one that was being written"
    assert told == [1000 - len(kept)]


@pytest.mark.promise("P8")
def test_a_full_disk_under_the_log_is_no_error_of_whoever_logs() -> None:
    told: list[int] = []
    with open("/dev/full", "w") as stream:
        lines = Lines(stream, on_lost=told.append)
        for _ in range(5):
            lines.write("lost\n")
        lines.finish()
        assert told == []
        assert lines._take_lost() == 5
