"""Texts that people read."""

import unicodedata

from trien_server.core.errors import InvalidArgument

LONGEST_TITLE = 200


def parse_title(value: str, *, field: str, required: bool = True) -> str:
    """Returns a one-line text of 1 to 200 characters in Unicode's normal form C.

    Raises `InvalidArgument` for an empty, too long or multi-line one, or control characters.
    """
    normal = unicodedata.normalize("NFC", value).strip()
    if (required and not normal) or len(normal) > LONGEST_TITLE:
        raise InvalidArgument(field, f"expected {'1' if required else '0'} to {LONGEST_TITLE} characters")
    if any(unicodedata.category(character) in {"Cc", "Cf", "Zl", "Zp", "Cs"} for character in normal):
        raise InvalidArgument(field, "expected one line without control characters")
    return normal
