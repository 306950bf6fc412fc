"""Runs one function of this package in a child process of its own.

A module that crashes takes its process with it, and SoftHSM reads its configuration from the
environment: some work is better done elsewhere. Secrets go through the child's standard input,
never its arguments or environment, which others can read in the process list.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

_PROGRAM: Final = (
    "import json, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "  # a PIN must not reach a core file
    "from {module} import {function} as work; "
    "work(**json.load(sys.stdin))"
)


def run_in_child(
    module: str,
    function: str,
    arguments: Mapping[str, object],
    *,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Calls `function(**arguments)` in a child process, waits for its end, and returns what it printed.

    The arguments are JSON values. `environment` is added to this process's own.

    Raises `ChildFailed` unless the child ended well within `timeout` seconds.
    """
    program = _PROGRAM.format(module=module, function=function)
    try:
        ended = subprocess.run(  # noqa: S603 - our own interpreter, and constants
            [sys.executable, "-c", program],
            input=json.dumps(arguments),
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        printed = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        # Its text would show nothing of the input; it is cut off all the same.
        raise ChildFailed(f"{function} did not end within {timeout:g} s", printed) from None
    if ended.returncode != 0:
        last = ended.stderr.strip().rsplit("\n", 1)[-1]
        raise ChildFailed(f"{function} ended with {ended.returncode}: {last}", ended.stdout)
    return ended.stdout


class ChildFailed(Exception):  # noqa: N818
    """The child crashed, refused, or took too long; the text is its last line, `printed` what it wrote before."""

    def __init__(self, text: str, printed: str = "") -> None:
        super().__init__(text)
        self.printed = printed
