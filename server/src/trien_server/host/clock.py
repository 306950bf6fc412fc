"""The system's clock, behind `core.ports.Clock`."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Tells the time by the operating system."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
