"""Runs the commands of a page, and tells what each of them printed."""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "-- end of command --"


@dataclass(frozen=True)
class Command:
    """A command of a page, which may go over several lines, and what the page says that it prints."""

    text: str
    printed: str


def commands_of(page: Path) -> list[Command]:
    """Returns the commands of the `console` blocks: lines after `$ `, continued by `> `, then what they print."""
    found: list[Command] = []
    for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            end = next((at for at, line in enumerate(lines) if at and not line.startswith("> ")), len(lines))
            text = "\n".join([lines[0], *(line[2:] for line in lines[1:end])])
            found.append(Command(text, "".join(f"{line}\n" for line in lines[end:])))
    return found


def run_all(commands: list[Command], *, folder: Path, environment: dict[str, str]) -> list[str]:
    """Runs the commands one after another in one bash, in a folder. Returns what each printed, errors included."""
    shell = shutil.which("bash")
    assert shell is not None
    script = "exec 2>&1\n" + "".join(f"{command.text}\necho '{_MARK}'\n" for command in commands)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [shell, "-c", script],
        cwd=folder,
        env={"PATH": path, "LC_ALL": "C.UTF-8", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    printed = done.stdout.split(f"{_MARK}\n")
    assert printed.pop() == "", "a command ended the shell"
    return printed
