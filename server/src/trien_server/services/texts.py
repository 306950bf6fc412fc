"""Texts that people read."""

import unicodedata

from trien_server.core.errors import InvalidArgument
from trien_server.core.quoting import INVISIBLE

LONGEST_TITLE = 200

_HIDDEN = INVISIBLE - {"\ufe0e", "\ufe0f"}
"""What shows nothing, but for the two that choose how an emoji looks: applications have these in their titles."""


def parse_title(value: str, *, field: str, required: bool = True) -> str:
    """Returns a one-line text of 1 to 200 characters. Raises as `parse_text`."""
    return parse_text(value, field=field, required=required, longest=LONGEST_TITLE)


def parse_text(value: str, *, field: str, longest: int, required: bool = True) -> str:
    """Returns a one-line text in Unicode's normal form C.

    Raises `InvalidArgument` for an empty, too long or multi-line one, control characters, or some that show nothing.
    """
    normal = unicodedata.normalize("NFC", value).strip()
    if (required and not normal) or len(normal) > longest:
        raise InvalidArgument(field, f"expected {'1' if required else '0'} to {longest} characters")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"} for character in normal):
        raise InvalidArgument(field, "expected one line without control characters")
    if not _HIDDEN.isdisjoint(normal):
        # Two titles that look alike would be two clients, or two persons, to whoever approves.
        raise InvalidArgument(field, "expected no characters that show nothing")
    return normal
