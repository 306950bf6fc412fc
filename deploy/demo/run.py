"""Starts a sandbox server that stays up until Ctrl-C, and tells how to connect.

    make run

It is kept in build/run and used again the next time; `rm -r build/run` makes the next one new.
"""

import signal
import sys
from datetime import datetime
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "run"
SAMPLE = ROOT / "build" / "decision.pdf"
TEXT = """\
  +----------------------------------------------------------------------------+
  |  THIS IS A SANDBOX. Its token is made of files, and anyone who can read    |
  |  its folder can make everyone's one-time passwords. Try things out, and    |
  |  never sign a real document with it.                                       |
  +----------------------------------------------------------------------------+

It serves gRPC over TLS on {address}. In another terminal, in this folder:

  export TRIEN_CONNECTION={connection}
  .venv/bin/trien credentials list
  .venv/bin/trien otp --signer hoang-trinh-don          # what the signer's phone would show
  .venv/bin/trien sign pdf {sample} build/signed.pdf --credential hoang-trinh-don-rsa
  .venv/bin/trien verify build/signed.pdf

Its log is {log}. Ctrl-C stops it."""


def main() -> int:
    """Runs the sandbox and returns the exit code."""
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _run()
    except KeyboardInterrupt:
        print("\nThe sandbox is stopped.")
        return 0


def _run() -> int:
    print("Starting a sandbox in build/run …", flush=True)
    # These take a second, in which a person may press Ctrl-C.
    import decision
    from sandbox_process import SandboxFailed, SandboxProcess
    from trien_client import ConnectionFile

    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        with SandboxProcess(FOLDER) as sandbox:
            connection = sandbox.start()
            decision.make(SAMPLE, on=datetime.now(decision.VIETNAM).date())
            text = TEXT.format(
                address=ConnectionFile.load(connection).address,
                connection=connection,
                sample=SAMPLE.relative_to(ROOT),
                log=sandbox.log.relative_to(ROOT),
            )
            print(f"\n{text}", flush=True)
            code = sandbox.wait()
            print(f"run: the sandbox ended by itself with exit code {code}; see {sandbox.log}", file=sys.stderr)
            return 1
    except (SandboxFailed, decision.FontMissing, OSError) as failure:
        print(f"\nrun: {failure}", file=sys.stderr)
        return 1


def _interrupt(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
