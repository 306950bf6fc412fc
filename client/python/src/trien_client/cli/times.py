"""Times as people type them."""

from datetime import datetime

from trien_client.cli.outcome import CommandError


def parse_time(text: str, *, option: str) -> datetime:
    """Returns a time that was typed as ISO 8601; a day is its beginning. Without an offset it is this computer's time.

    Raises `CommandError`.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise CommandError(f"{option}: {text!r} is no time such as 2027-07-01 or 2027-07-01T08:00+07:00.") from None
