"""A clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)


class ManualClock:
    """The port `Clock`, moved by hand. `monotonic` follows `advance` but not `step`."""

    def __init__(self, at: datetime = START) -> None:
        self.at = at
        self.seconds = 1000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.seconds

    def advance(self, by: timedelta) -> None:
        """Lets time pass."""
        self.at += by
        self.seconds += by.total_seconds()

    def step(self, by: timedelta) -> None:
        """Sets the wall clock to another time, as an administrator or NTP does."""
        self.at += by
