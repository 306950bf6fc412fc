"""Secrets have types, so that they do not reach a log by accident (P12)."""

import hmac
from typing import Final


class Secret:
    """Holds secret bytes; `repr` hides them and comparison takes constant time.

    `reveal` hands them out, and is easy to find in a review.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value: Final = value

    def reveal(self) -> bytes:
        """Returns the bytes in clear."""
        return self._value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")
