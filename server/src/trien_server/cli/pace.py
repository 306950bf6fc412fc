"""How long a walk over many rows takes: said once, from a measured rate, and then shown on a terminal."""

import sys
from collections.abc import Callable

from trien_server.cli.progress import Progress

_MEASURED_SECONDS = 1.0
"""How long the rate is measured before it is said how long the rest takes."""


class Pace:
    """Hears how many rows were looked at. What it says goes to the standard error; when `quiet` nothing does."""

    def __init__(self, total: int, *, monotonic: Callable[[], float], quiet: bool) -> None:
        self._total = total
        self._monotonic = monotonic
        self._quiet = quiet
        self._begun = monotonic()
        self._looked = 0
        self._said = False
        self._progress = Progress()

    def __call__(self, table: str, rows: int) -> None:
        self._looked += rows
        if self._quiet:
            return
        passed = self._monotonic() - self._begun
        if not self._said and passed >= _MEASURED_SECONDS and self._looked:
            self._said = True
            left = max(self._total - self._looked, 0) * passed / self._looked
            sys.stderr.write(f"{self._total:,} rows, {self._looked / passed:,.0f} a second: about {_duration(left)}.\n")
        share = min(100 * self._looked // max(self._total, 1), 100)
        self._progress(f"{share} %, {table}: looked at", self._looked)

    def end(self) -> None:
        """Takes the line of the progress away, for something else is written."""
        self._progress.end()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
