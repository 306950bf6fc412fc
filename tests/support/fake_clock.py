"""The wall clock of another process, moved while it runs.

By a preloaded shim of our own: libfaketime, which can do it too, ends a process of many threads now and then while it
reads its file.
"""

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).with_name("fake_clock.c")


class FakeClock:
    """How far the clock of processes with `environment` is from the true time, in seconds."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("gcc") is None:
            pytest.skip("gcc is not installed")
        library, file = directory / "fake_clock.so", directory / "clock_offset"
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, _SOURCE], check=True)
        file.write_bytes(bytes(8))
        with file.open("r+b") as opened:
            self._mapped = mmap.mmap(opened.fileno(), 8)
        self.offset = 0
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(file)}

    def set(self, offset: int) -> None:
        """Steps the clock to so many seconds ahead of the true time."""
        self._mapped[:] = struct.pack("q", offset)
        self.offset = offset
