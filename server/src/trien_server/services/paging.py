"""Pages of lists (AIP-158)."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from trien_server.core.errors import InvalidArgument
from trien_server.core.records import Record

R = TypeVar("R", bound=Record)

LARGEST = 100
DEFAULT = 50


@dataclass(frozen=True, kw_only=True)
class Page:
    """How many, and from behind which name."""

    size: int
    after: str

    @classmethod
    def parse(cls, size: int, token: str) -> "Page":
        """Returns the page that a request asks for. Raises `InvalidArgument` for a negative size or a foreign token."""
        if size < 0:
            raise InvalidArgument("page_size", "expected 0 or more")
        try:
            after = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
        except (binascii.Error, ValueError) as fault:
            raise InvalidArgument("page_token", "not a token that this server gave out") from fault
        if not after.isascii() or (after and not after.isprintable()):
            # Names are printable ASCII; PostgreSQL refuses a text with a NUL as an error of its own.
            raise InvalidArgument("page_token", "not a token that this server gave out")
        return cls(size=min(size or DEFAULT, LARGEST), after=after)


def page_of(found: Sequence[R], page: Page) -> tuple[Sequence[R], str]:
    """Returns the page out of one record more than it holds, and the next page's token or ""."""
    if len(found) <= page.size:
        return found, ""
    shown = found[: page.size]
    return shown, token_behind(shown[-1].name)


def token_behind(name: str) -> str:
    """Returns the token of the page that begins behind a name."""
    return base64.urlsafe_b64encode(name.encode()).decode()
