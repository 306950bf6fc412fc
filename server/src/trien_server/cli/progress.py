"""How far a long command has come: on a terminal, once a second."""

import sys
from time import monotonic

_EVERY = 1.0


class Progress:
    """Writes over its own line on the standard error, and nothing where that is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = monotonic() + _EVERY
        self._written = 0

    def __call__(self, doing: str, rows: int) -> None:
        """Says what is being done, and how many rows it came to."""
        if self._shown and monotonic() >= self._next:
            self._next = monotonic() + _EVERY
            self._write(f"{doing} {rows:,} rows")

    def end(self) -> None:
        """Takes the line away."""
        if self._written:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def _write(self, text: str) -> None:
        sys.stderr.write(f"\r{text:{self._written}}")
        sys.stderr.flush()
        self._written = len(text)
