"""Runs the tracer beside a request, and plans which of its system calls to act at."""

import json
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import pytest

TRACER = Path(__file__).with_name("tracer.py")
SECONDS = 60.0

FUTEX, TOKEN, MEMORY, REST = "futex", "token", "memory", "rest"
DATABASE, FILES = "database", "files"

Group = tuple[str, Sequence[str] | None, Sequence[str] | None]

EVERY_CALL: Sequence[Group] = (
    (FUTEX, ["futex"], None),
    (TOKEN, None, ["token"]),
    # SoftHSM asks at each step whether it is still the same process.
    (TOKEN, ["getpid"], None),
    (MEMORY, ["brk", "mmap", "mprotect", "munmap", "madvise"], None),
    (REST, None, None),
)
"""Every system call is in one of these."""

_CAN_FAIL = [
    "read", "write", "pread64", "pwrite64", "readv", "writev", "openat", "close", "fsync", "fdatasync", "ftruncate",
    "fallocate", "unlink", "flock", "lseek", "newfstatat", "fstat", "recvmsg", "sendmsg", "recvfrom", "sendto",
    "getrandom",
]  # fmt: skip
_FILL = ["write", "pwrite64", "writev", "openat", "fsync", "fdatasync", "ftruncate", "fallocate"]
_OUTSIDE = ["", "token", "log", "socket"]
CALLS_THAT_CAN_FAIL: Sequence[Group] = ((DATABASE, _CAN_FAIL, [DATABASE]), (FILES, _CAN_FAIL, _OUTSIDE))
"""Calls on the database's files, and those on other files and sockets; not those that only wake threads."""
CALLS_THAT_FILL_A_DISK: Sequence[Group] = ((DATABASE, _FILL, [DATABASE]), (FILES, _FILL, ["log"]))
"""Calls that a full disk fails: on the database's files, and on the log."""


@cache
def system_calls() -> Mapping[int, str]:
    """Returns this machine's system calls by number, from the C library's header."""
    if platform.system() != "Linux" or shutil.which("gcc") is None:
        pytest.skip("needs Linux and gcc")
    defines = subprocess.run(
        ["gcc", "-E", "-dM", "-"], input="#include <sys/syscall.h>\n", capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^#define __NR_(\w+) (\d+)$", defines, re.MULTILINE)
    assert len(found) > 200
    return {int(number): name for name, number in found}


@dataclass(frozen=True, kw_only=True)
class Target:
    """The `at`-th call of a group: killed at, or with an `error` (errno) failed; `ongoing`: and all that follow."""

    group: str
    at: int
    error: int = 0
    ongoing: bool = False


@dataclass(frozen=True)
class Seen:
    """What the tracer saw from the first `recvmsg` to the last `sendmsg`; `hits` are the calls that it acted on."""

    hits: tuple[str, ...]
    counts: Mapping[str, int]
    calls: Mapping[str, Mapping[str, int]]


@dataclass
class Tally:
    """What was acted at, over many requests."""

    hits: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    """Calls that the request did not make this time: threads do not always wait in the same order."""

    def add(self, seen: Seen) -> None:
        self.hits.update(seen.hits[:1])
        self.missed += not seen.hits

    @property
    def points(self) -> int:
        return self.hits.total()

    def names(self) -> str:
        by_name: Counter[str] = Counter()
        for call, count in self.hits.items():
            by_name[call.partition(" ")[0]] += count
        return ", ".join(f"{name} {count}" for name, count in by_name.most_common())


class Tracing:
    """Follows a process while a request is served."""

    def __init__(self, pid: int, groups: Sequence[Group], places: Mapping[str, str], target: Target | None) -> None:
        """`places` names what lies behind paths, by their beginning: the first that fits."""
        plan: dict[str, Any] = {
            "pid": pid,
            "names": system_calls(),
            "places": list(places.items()),
            "begin": "recvmsg",
            "end": "sendmsg",
            "groups": groups,
            "target": None if target is None else vars(target),
        }
        command = [sys.executable, "-I", "-S", str(TRACER), json.dumps(plan)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != "attached\n":
            _, fault = self._process.communicate(timeout=SECONDS)
            if "Operation not permitted" in fault:
                pytest.skip("processes may not be traced here")
            if "x86_64 alone" in fault:
                pytest.skip(fault.strip())
            raise AssertionError(f"the tracer did not begin: {line!r} {fault}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> Seen:
        """Lets go of the process, or waits for its end when it was killed; returns what was seen."""
        self._process.send_signal(signal.SIGTERM)
        output, fault = self._process.communicate(timeout=SECONDS)
        if not output.endswith("}\n"):  # it may end by the signal, after its last word
            raise AssertionError(f"the tracer failed: {fault}")
        summary = json.loads(output)
        return Seen(tuple(summary["hits"]), summary["counts"], summary["calls"])


def spread(count: int, most: int) -> list[int]:
    """Returns up to `most` numbers of 1 to `count`, spread evenly, the first and the last among them."""
    if count <= most:
        return list(range(1, count + 1))
    return sorted({1 + round(step * (count - 1) / (most - 1)) for step in range(most)})
