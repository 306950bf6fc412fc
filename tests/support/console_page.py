"""Runs the commands of a page in their order, and compares what they print with what the page shows.

In a block ```console a line `first$ command` is run as `first`; the lines below it are its output. What differs each
time (random names, digests, times) is matched by its form: the page's word then stands for the real one in the commands
that follow. `…` alone in a line stands for any lines.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
_COMMAND = re.compile(r"^([a-z]+)\$ (.*)$")
_CHANGING = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?"
    r"|(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{43}=|\b[a-z2-7]{32}\b|\b[a-z2-7]{16}\b"
    r"|\b(?:[0-9a-f]{4} ){3}[0-9a-f]{4}\b|\b[0-9a-f]{4,64}\b"
)
"""Random names, digests whole or cut at the end of a line, what people compare, and times."""
_NAMING = 16
"""How long a word is that commands name again."""
_ANYTHING = "…"
_PATH = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))


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
    words: dict[str, str] = field(default_factory=dict)
    ran: int = 0

    def run(self, step: Step) -> list[str]:
        """Runs a command, compares what it printed with the page, and returns it."""
        command = step.command
        for word, real in self.words.items():
            command = command.replace(word, real)
        folder, environment = self.people[step.who]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            env={**os.environ, "PATH": _PATH, "COLUMNS": "100", "LANG": "C.UTF-8", **environment},
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
            if len(word) >= _NAMING:
                self.words[word] = real
