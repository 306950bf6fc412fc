"""The arithmetic: from what was counted to rates, percentiles and ratios."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class ServiceStep:
    """What the generators counted while they drove the service once.

    `signatures`, `requests` and `latencies` (seconds) belong to the measured time, after the warm-up;
    `signatures_in_all` are all that were made, also before and after. `errors` counts failed requests by what they
    failed with, in all. `cpu_seconds` is what the generators took of the processors in all, `server_cpu_seconds` what
    the server took, where that can be told.
    """

    signatures: int
    requests: int
    seconds: float
    latencies: tuple[float, ...]
    signatures_in_all: int
    verified: int
    cpu_seconds: float
    server_cpu_seconds: float | None = None
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Signatures a second."""
        return self.signatures / self.seconds


def together(steps: Sequence[ServiceStep]) -> ServiceStep:
    """Adds up what several generators counted in the same time."""
    return ServiceStep(
        signatures=sum(step.signatures for step in steps),
        requests=sum(step.requests for step in steps),
        seconds=max(step.seconds for step in steps),
        latencies=tuple(latency for step in steps for latency in step.latencies),
        signatures_in_all=sum(step.signatures_in_all for step in steps),
        verified=sum(step.verified for step in steps),
        cpu_seconds=sum(step.cpu_seconds for step in steps),
        errors=sum((step.errors for step in steps), Counter()),
    )


@dataclass(frozen=True, kw_only=True)
class TokenStep:
    """What the processes that drive the token alone did once, after their warm-up."""

    rate: float
    """Signatures a second."""
    signatures: int
    cpu_seconds: float


@dataclass(frozen=True, kw_only=True)
class Round:
    """The service once and the token once, one right after the other."""

    service: ServiceStep
    token: TokenStep

    @property
    def ratio(self) -> float | None:
        """The service's rate by the token's; None when a request failed."""
        return ratio(self.service.rate, self.token.rate, errors=self.service.errors.total())


def per_signature(seconds: Sequence[float | None], signatures: int) -> float | None:
    """Returns seconds for each signature; None when some are not known, or nothing was signed."""
    known = [one for one in seconds if one is not None]
    return sum(known) / signatures if signatures and len(known) == len(seconds) else None


def median(values: Sequence[float]) -> float:
    """Returns the middle value, or the mean of the two in the middle."""
    return statistics.median(values)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Returns the smallest value that at least `percent` % of all do not exceed (nearest rank); None of no values."""
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile lies above 0 and up to 100, not at {percent}")
    if not values:
        return None
    ordered = sorted(values)
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1]


def ratio(service_rate: float, token_rate: float, *, errors: int) -> float | None:
    """Returns how much of the token's rate the service reached.

    None when a request failed, for a refusal costs less than a signature; and when either did nothing at all.
    """
    if errors or service_rate <= 0 or token_rate <= 0:
        return None
    return service_rate / token_rate
