"""What the figures depend on besides the code."""

import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FLUSHES: Final = 40
_PROCESSORS: Final = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine as it was before the run."""

    cores: int
    processor: str
    load_average: float
    """Over the last minute: what others did with the cores."""
    flush_milliseconds: float
    """How long the folder's disk takes to write 4 KiB and flush them, the median."""


def look_at_machine(folder: Path) -> Machine:
    """Looks at this machine, and at the disk that `folder` is on."""
    return Machine(
        cores=os.cpu_count() or 1,
        processor=_processor(),
        load_average=os.getloadavg()[0],
        flush_milliseconds=1000 * _flush_seconds(folder / "flushed"),
    )


def cpu_seconds(pid: int) -> float | None:
    """Returns what a process and its children, which still run, took of the processors; None where Linux is not."""
    try:
        # The name of the program, which may hold anything, is in brackets; behind it utime and stime are 12th and 13th.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return None
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(int(child)) or 0.0 for child in children)


def _processor() -> str:
    if _PROCESSORS.exists():
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _flush_seconds(path: Path) -> float:
    """Returns the median time that a small write with a flush takes: what a commit cannot be faster than."""
    taken = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for _ in range(_FLUSHES):
            begun = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fsync(descriptor)
            taken.append(time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(taken)
