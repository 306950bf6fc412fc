"""Runs the command `trien` in this process, or as a person does at a terminal."""

import codecs
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from trien_client.cli.main import build_app

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
URI = f"otpauth://totp/Trien:don?secret={SECRET}&issuer=Trien&digits=6&period=30"
CODE = "111111"
INTERRUPT = "\x03"
# The child takes its terminal by itself: no Python code runs between fork and exec in this process, whose gRPC threads
# may hold locks at that moment.
PROGRAM = (
    "import fcntl, signal, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    # Whoever runs the tests in the background may have them ignore Ctrl-C; a person's terminal does not.
    "signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from trien_client.cli.main import main; import sys; sys.argv[0] = 'trien'; main()"
)


class Trien:
    """Runs the command with the connection file of the running fake server."""

    def __init__(self, connection: Path) -> None:
        self.connection = connection
        self.runner = CliRunner()

    def __call__(self, *arguments: object, code: str | None = None, exit_code: int = 0, **environment: str) -> Any:
        result = self.runner.invoke(
            build_app(completion=False),
            [str(argument) for argument in arguments],
            input=None if code is None else code + "\n",
            env={"TRIEN_CONNECTION": str(self.connection), **environment},
        )
        assert "Traceback" not in result.output
        assert result.exit_code == exit_code, (result.output, result.exception)
        return result


def at_terminal(
    arguments: list[str],
    answers: Sequence[str | Callable[[str], str]],
    environment: dict[str, str],
    *,
    prompt: str = "(not shown):",
) -> tuple[int, str, int]:
    """Runs `trien` on a terminal of its own; types one answer at each prompt. Returns exit code, screen, prompts.

    An answer that depends on what the person sees is a function of the screen.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    os.close(slave)
    decoder = codecs.getincrementaldecoder("utf-8")()
    screen, prompts, end = "", 0, time.monotonic() + 120
    try:
        while time.monotonic() < end:
            ready, _, _ = select.select([master], [], [], 1)
            if ready:
                try:
                    piece = os.read(master, 65536)
                except OSError:
                    break
                if not piece:
                    break
                screen += decoder.decode(piece)
            if screen.count(prompt) > prompts:
                time.sleep(0.2)
                answer = answers[prompts]
                typed = answer if isinstance(answer, str) else answer(screen)
                os.write(master, typed.encode() + (b"" if typed == INTERRUPT else b"\n"))
                prompts += 1
        return process.wait(60), screen, prompts
    finally:
        os.close(master)
        process.kill()
        process.wait()
