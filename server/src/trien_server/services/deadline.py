"""How long a call may take."""

from trien_server.core.errors import DeadlineTooShort
from trien_server.core.ports import Clock

LONGEST = 120.0


class Deadline:
    """The moment at which the caller stops waiting, on the monotonic clock."""

    def __init__(self, clock: Clock, seconds: float | None) -> None:
        self._clock = clock
        self._end = clock.monotonic() + min(LONGEST if seconds is None else seconds, LONGEST)

    def remaining(self) -> float:
        """Returns the seconds that are left, at least 0."""
        return max(0.0, self._end - self._clock.monotonic())

    def require(self, seconds: float) -> None:
        """Raises `DeadlineTooShort` when fewer are left: work that cannot finish is not started (P8)."""
        if self.remaining() < seconds:
            raise DeadlineTooShort(f"The call's deadline leaves less than the {seconds:.1f} s that it needs.")
