"""What every record has."""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Record:
    """What every record has. `name` is unique in its table; `version` counts from 1, one by one."""

    table: ClassVar[str]
    hot: ClassVar[bool] = False

    name: str
    version: int = 1
