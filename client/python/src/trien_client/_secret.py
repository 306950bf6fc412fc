"""Secrets have a type, so that they do not reach a log by accident."""

from typing import Final, NoReturn


class Secret:
    """Holds a secret text; `repr` and `str` hide it.

    `reveal` hands it out, and is easy to find in a review.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value: Final = value

    def reveal(self) -> str:
        """Returns the text in clear."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")
