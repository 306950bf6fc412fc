"""What is found wrong with what is at rest."""

from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is wrong, in kinds that have one advice each."""

    ROW = "ROW"
    DELETED = "DELETED"
    REFERENCE = "REFERENCE"
    LOG = "LOG"
    DECISION = "DECISION"
    REPLAY_MEMORY = "REPLAY_MEMORY"
    OUTCOME = "OUTCOME"
    PROPOSAL = "PROPOSAL"
    KEY_MISSING = "KEY_MISSING"
    KEY_UNKNOWN = "KEY_UNKNOWN"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong: of which row (or object of the token), and what."""

    fault: Fault
    table: str
    name: str
    text: str
