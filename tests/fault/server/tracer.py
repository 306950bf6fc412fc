"""Follows every thread of a running process and acts at one of its system calls.

strace counts the calls of each thread by itself, so that "the 7th write" may be one of several. Here all threads'
calls stand in one order, counted from the first `begin` call on, in groups that the plan defines; the process is
killed at the entry of the n-th call of a group, before the kernel does it, or that call fails with an error.

A program of its own, for ptrace belongs to one thread, which waits for all that it follows:

    python -I -S tracer.py PLAN      a JSON object: pid, names, places, begin, end, groups, and perhaps target

It prints `attached`, and one JSON object when the process has ended or SIGTERM came. Then it lets go.
"""

import ctypes
import json
import os
import platform
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

_SYSCALL, _GETREGS, _SETREGS = 24, 12, 13
_SEIZE, _INTERRUPT, _GET_SYSCALL_INFO = 0x4206, 0x4207, 0x420E
_SYSGOOD, _TRACE_CLONE = 1, 8
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_WALL = 0x40000000
_ENTRY, _EXIT = 1, 2
_RAX, _ORIG_RAX, _REGISTERS = 10, 15, 27

_BY_PATH = {"openat": 1, "newfstatat": 1, "unlink": 0, "unlinkat": 1, "access": 0, "faccessat2": 1, "statx": 1}
"""Calls that name a file, by which argument; an empty name means the descriptor before it."""
_WITHOUT_DESCRIPTOR = {"futex", "getpid", "gettid", "brk", "mmap", "mprotect", "munmap", "madvise", "getrandom"}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, of an entry."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class LetGo(Exception):  # noqa: N818
    """SIGTERM came."""


def _ptrace(request: int, thread: int, address: Any = None, data: Any = None) -> int:
    result = int(_libc.ptrace(request, thread, address, data))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


class Tracer:
    """One process under observation."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._pid: int = plan["pid"]
        self._names = {int(number): name for number, name in plan["names"].items()}
        self._places: list[tuple[str, str]] = plan["places"]
        self._begin, self._end = plan["begin"], plan["end"]
        self._groups: list[tuple[str, list[str] | None, list[str] | None]] = plan["groups"]
        self._target: dict[str, Any] | None = plan.get("target")
        self._begun = False
        self._counts: Counter[str] = Counter()
        self._calls: dict[str, Counter[str]] = {}
        self._at_end: dict[str, int] = {}
        self._calls_at_end: dict[str, dict[str, int]] = {}
        self._hits: list[str] = []
        self._failing: dict[int, int] = {}

    def attach(self) -> None:
        """Takes hold of every thread."""
        held: set[int] = set()
        while fresh := {int(path.name) for path in Path(f"/proc/{self._pid}/task").iterdir()} - held:
            for thread in fresh:
                _ptrace(_SEIZE, thread, 0, _SYSGOOD | _TRACE_CLONE)
                _ptrace(_INTERRUPT, thread)
            held |= fresh

    def follow(self) -> None:
        """Goes on until the process has ended. Raises `LetGo`."""
        while True:
            try:
                thread, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                continue
            number, event, deliver = os.WSTOPSIG(status), status >> 16, 0
            try:
                if number == _SYSCALL_STOP:
                    self._on_call(thread)
                elif event == 0:
                    deliver = number
                _ptrace(_SYSCALL, thread, 0, deliver)
            except ProcessLookupError:
                continue  # it was killed meanwhile

    def summary(self) -> dict[str, Any]:
        """What happened: `hits` are the calls that were acted on; counts are up to the last `end` call."""
        return {"hits": self._hits, "counts": self._at_end, "calls": self._calls_at_end}

    def _on_call(self, thread: int) -> None:
        info = _Info()
        _ptrace(_GET_SYSCALL_INFO, thread, ctypes.sizeof(info), ctypes.byref(info))
        if info.op == _EXIT and thread in self._failing:
            self._set_register(thread, _RAX, -self._failing.pop(thread))
        if info.op != _ENTRY:
            return
        name = self._names.get(info.number, f"#{info.number}")
        self._begun = self._begun or name == self._begin
        if not self._begun:
            return
        place = self._place(name, info.arguments)
        group = self._group(name, place)
        if group is not None:
            self._counts[group] += 1
            self._calls.setdefault(group, Counter())[f"{name} {place}".strip()] += 1
        if name == self._end:
            self._at_end = dict(self._counts)
            self._calls_at_end = {group: dict(calls) for group, calls in self._calls.items()}
        if group is not None and self._target is not None and self._target["group"] == group:
            self._act(thread, self._target, self._counts[group], f"{name} {place}".strip())

    def _act(self, thread: int, target: dict[str, Any], at: int, call: str) -> None:
        if at != target["at"] and not (target["ongoing"] and at > target["at"]):
            return
        self._hits.append(call)
        if target["error"]:
            self._set_register(thread, _ORIG_RAX, -1)  # no such call: the kernel does nothing
            self._failing[thread] = target["error"]
        else:
            os.kill(self._pid, signal.SIGKILL)

    def _group(self, name: str, place: str) -> str | None:
        for group, names, places in self._groups:
            if (names is None or name in names) and (places is None or place in places):
                return group
        return None

    def _place(self, name: str, arguments: Any) -> str:
        if name in _WITHOUT_DESCRIPTOR:
            return ""
        path = ""
        if name in _BY_PATH:
            path = self._text(arguments[_BY_PATH[name]])
        if not path:
            try:
                path = os.readlink(f"/proc/{self._pid}/fd/{arguments[0]}")
            except OSError:
                return ""
        return next((place for prefix, place in self._places if path.startswith(prefix)), "")

    def _text(self, address: int) -> str:
        try:
            with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:
                memory.seek(address)
                return memory.read(512).partition(b"\0")[0].decode(errors="replace")
        except (OSError, OverflowError):
            return ""

    @staticmethod
    def _set_register(thread: int, index: int, value: int) -> None:
        registers = (ctypes.c_int64 * _REGISTERS)()
        _ptrace(_GETREGS, thread, 0, ctypes.byref(registers))
        registers[index] = value
        _ptrace(_SETREGS, thread, 0, ctypes.byref(registers))


def main() -> None:
    plan = json.loads(sys.argv[1])
    if (plan.get("target") or {}).get("error") and platform.machine() != "x86_64":
        raise SystemExit("errors are injected on x86_64 alone")

    following = True

    def let_go(*_: object) -> None:
        if following:
            raise LetGo

    tracer = Tracer(plan)
    tracer.attach()
    try:
        signal.signal(signal.SIGTERM, let_go)
        print("attached", flush=True)  # noqa: T201
        tracer.follow()
        following = False
    except LetGo:
        pass
    print(json.dumps(tracer.summary()), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
