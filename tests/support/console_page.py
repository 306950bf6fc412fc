"""Runs the commands of a page in their order, and compares what they print with what the page shows.

In a block ```console a line `first$ command` is run as `first`; the lines below it are its output. What differs from run
to run (random names, digests, times, figures) is matched by its form: the page's word then stands for the real one in
the commands that follow. `…` alone in a line stands for any lines.

    python -m tests.support.console_page rewrite docs/security-officer.md FOLDER    shows what commands print now
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
_COMMAND = re.compile(r"^([a-z]+)\$ (.*)$")
_CHANGING = re.compile(
    r"\b[0-9a-f]{64}\b|\b[0-9a-f]{40}\b|\b[a-z2-7]{32}\b|\b(?:[a-z2-7]{4}-){3}[a-z2-7]{4}\b|\b[a-z2-7]{16}\b"
    r"|\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d| UTC)?)?\b|\b[0-9]{8}\b|\b\d+\.\d+\b"
)
_ANYTHING = "…"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the page, who runs it, and what the page shows of it."""

    who: str
    command: str
    shown: tuple[str, ...]


def steps_of(text: str) -> Iterator[Step]:
    """Returns the page's commands in their order. A command goes on behind a backslash at the end of its line."""
    for block in _BLOCK.finditer(text):
        lines = block[1].splitlines()
        while lines:
            found = _COMMAND.match(lines.pop(0))
            if found is None:
                raise AssertionError(f"a block begins with other than a command: {block[1][:80]!r}")
            command = found[2]
            while command.endswith("\\"):
                command += "\n" + lines.pop(0)
            shown = []
            while lines and _COMMAND.match(lines[0]) is None:
                shown.append(lines.pop(0))
            yield Step(who=found[1], command=command, shown=tuple(shown))


@dataclass
class Console:
    """Where a page's commands run: each person in a folder with an environment of their own."""

    people: Mapping[str, tuple[Path, Mapping[str, str]]]
    answers: Mapping[str, Callable[["Console"], str]] = field(default_factory=dict)
    """What stands in a command for something that only the run knows, such as `CODE`."""
    words: dict[str, str] = field(default_factory=dict)
    ran: int = 0

    def run(self, step: Step, *, rewrite: bool = False) -> list[str]:
        """Runs a command, compares, and returns what it printed."""
        command = step.command
        for word, real in self.words.items():
            command = command.replace(word, real)
        for word, answer in self.answers.items():
            if word in command:
                command = command.replace(word, answer(self))
        folder, environment = self.people[step.who]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env={**os.environ, "COLUMNS": "100", "LANG": "C.UTF-8", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )
        self.ran += 1
        printed = [line.rstrip() for line in done.stdout.rstrip("\n").splitlines()]
        if done.returncode != 0 and "; echo" not in step.command:
            raise AssertionError(f"{step.who}$ {command}\nended with {done.returncode}:\n{done.stdout}")
        if not rewrite:
            self._compare(step, printed)
        return printed

    def _compare(self, step: Step, printed: list[str]) -> None:
        rest = list(printed)
        shown = list(step.shown)
        while shown:
            line = shown.pop(0)
            if line.strip() == _ANYTHING:
                following = next((one for one in shown if one.strip() != _ANYTHING), None)
                while rest and (following is None or not self._same(following, rest[0])):
                    rest.pop(0)
                continue
            if not rest or not self._same(line, rest[0]):
                raise AssertionError(
                    f"{step.who}$ {step.command}\nthe page shows {line!r}, the command printed:\n" + "\n".join(printed)
                )
            self._learn(line, rest.pop(0))
        if rest:
            raise AssertionError(f"{step.who}$ {step.command}\nprinted more than the page shows: {rest}")

    @staticmethod
    def _same(shown: str, printed: str) -> bool:
        return _CHANGING.sub("#", shown) == _CHANGING.sub("#", printed)

    def _learn(self, shown: str, printed: str) -> None:
        for word, real in zip(_CHANGING.findall(shown), _CHANGING.findall(printed), strict=True):
            if len(word) >= 8:
                self.words[word] = real


def rewritten(text: str, console: Console) -> str:
    """Returns the page with what its commands print now. Words of an earlier run become those of this one."""

    def block(found: re.Match[str]) -> str:
        lines = []
        for step in steps_of(found[0] + "\n"):
            command = step.command
            for word, real in console.words.items():
                command = command.replace(word, real)
            printed = console.run(step, rewrite=True)
            olds = [word for line in step.shown for word in _CHANGING.findall(line) if len(word) >= 8]
            news = [word for line in printed for word in _CHANGING.findall(line) if len(word) >= 8]
            console.words.update(zip(olds, news, strict=False))
            lines += [f"{step.who}$ {command}", *printed]
        return "```console\n" + "\n".join(lines) + "\n```"

    return _BLOCK.sub(block, text)
