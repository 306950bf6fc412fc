"""How many one-time passwords may be sent: codes that come again and again cost money and wear people down.

Counts are per day in UTC. They are no defence against guessing, and a code that is sent anew does not reset the
count of wrong ones (`core.attempts`).
"""

from datetime import datetime, timedelta

from trien_server.core.errors import DeliveryLimitReached
from trien_server.core.records import DeliveryCount

SHORTEST_PAUSE = timedelta(seconds=30)
"""How long after a code was sent to a person the next one may be."""
MOST_TO_SIGNER = 30
MOST_TO_SIGNER_BY_CLIENT = 15
MOST_BY_CLIENT = 1_000


def delivery_count_name(at: datetime, *, signer: str = "", client: str = "") -> str:
    """Returns the name of the record that counts a day's codes to a signer, by a client, or by a client to a signer."""
    return "/".join(part for part in (signer, client, f"deliveries/{_day(at)}") if part)


def assert_pause(last: DeliveryCount | None, *, at: datetime) -> None:
    """Raises `DeliveryLimitReached` when the last code was sent to the signer too short a time ago."""
    if last is not None and at < last.last_time + SHORTEST_PAUSE:
        message = "A one-time password was sent to this person a moment ago."
        raise DeliveryLimitReached(message, retry_after=last.last_time + SHORTEST_PAUSE - at)


def after_delivery(count: DeliveryCount | None, *, name: str, most: int, at: datetime) -> DeliveryCount:
    """Returns a day's count with one more code. Raises `DeliveryLimitReached` when it would be more than `most`."""
    if count is None:
        return DeliveryCount(name=name, day=_day(at), sent=1, last_time=at)
    if count.sent >= most:
        tomorrow = datetime.combine(at.date(), datetime.min.time(), at.tzinfo) + timedelta(days=1)
        message = "Too many one-time passwords were sent today to this person, or by this client."
        raise DeliveryLimitReached(message, retry_after=tomorrow - at)
    return DeliveryCount(name=name, version=count.version + 1, day=count.day, sent=count.sent + 1, last_time=at)


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"
