"""How much memory and how many descriptors a process has, from outside."""

import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self


def resident_mib(pid: int) -> float:
    """Returns the resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} ended")


def descriptors(pid: int) -> int:
    """Returns how many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def processor_seconds(pid: int) -> float:
    """Returns how much time of the processors a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class VitalSigns:
    """Watches a process while the block runs."""

    def __init__(self, pid: int, *, every: float = 0.1) -> None:
        self.pid = pid
        self.memory_before = resident_mib(pid)
        self.descriptors_before = descriptors(pid)
        self.memory_peak = self.memory_before
        self.descriptors_peak = self.descriptors_before
        self._every = every
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(self._every):
            try:
                self.memory_peak = max(self.memory_peak, resident_mib(self.pid))
                self.descriptors_peak = max(self.descriptors_peak, descriptors(self.pid))
            except (OSError, AssertionError):
                return

    def settle(self, most: int, *, seconds: float = 30.0) -> int:
        """Waits until the process has at most so many descriptors; returns how many it has."""
        end = time.monotonic() + seconds
        while (count := descriptors(self.pid)) > most and time.monotonic() < end:
            time.sleep(0.1)
        return count
