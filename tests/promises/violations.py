"""What can be found wrong with an installation, each with the promise that it breaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Broken(Enum):
    """A way to break a promise. Every one has a test that shows that it is found."""

    ANSWER_WITHOUT_GRANT = "P1", "an answer was given for a request that no record grants"
    ANSWER_WITHOUT_ENTRY = "P1", "an answer, or what it rests on, names no entry of the log"
    ENTRY_OF_ANOTHER = "P1", "the entry that a grant names is about something else"
    ENTRY_TOO_LATE = "P1", "an entry is later than the signature or the answer that rests on it"
    ENTRY_WITHOUT_GRANT = "P1", "an entry tells of a decision that is not there"
    APPROVAL_WITHOUT_ENTRY = "P1", "an approval is not told of by exactly one entry"
    LOG = "P10", "an entry has two positions or none, or head or checkpoint are of another history"
    LEAF = "P10", "a leaf does not commit to its entry, or is not the answer's"

    VALUE_TWICE = "P2", "one time step or counter gave two approvals"
    CODE_TWICE = "P2", "one code granted two requests"
    APPROVAL_LIST = "P2", "an approval's list and the authorizations that name it differ"
    REPLAY_MEMORY = "P2", "what an authenticator may show next is not what follows its last approval"
    FAILURES_LOGGED = "P2", "the log does not hold the wrong codes that were answered"
    FAILURES_COUNTED = "P2", "the failures counted are not those that the log holds"

    DIGESTS = "P3", "what was asked, authorized, granted, logged or written down are not the same digests"
    POSITIONS = "P3", "used positions, signed digests and state of an authorization do not fit each other"
    POSITION_TWICE = "P3", "a position was opened by two requests, or used by none"
    SIGNATURE = "P6", "a signature does not verify over what was authorized, or signatures are missing"

    SEAL = "P5", "a row's seal does not verify"
    NOT_IN_FORCE = "P5", "a slow row is not the version that the log names last"

    CONTENT = "P7", "one request id was granted for two contents, or for another one than was asked"
    OUTCOME = "P7", "a request's answers and its recorded outcome differ, or a completed one has none"
    REFUSED_BUT_GRANTED = "P7", "a request that was refused and not repeated is granted"
    REUSED_WITHOUT_CAUSE = "P7", "a request id that had one content was refused as reused"
    UNSETTLED = "P7", "a request whose outcome was not known was never completed or decided"

    CODE_LOST = "P8", "a right code that nothing had used was rejected"

    def __init__(self, promise: str, meaning: str) -> None:
        self.promise = promise
        self.meaning = meaning


@dataclass(frozen=True)
class Violation:
    """One finding."""

    broken: Broken
    finding: str

    def __str__(self) -> str:
        return f"{self.broken.promise} {self.broken.name}: {self.broken.meaning}: {self.finding}"


class PromisesBroken(AssertionError):  # noqa: N818
    """An installation does not keep its promises; the message has one line for each violation."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("\n".join(map(str, violations)))
        self.violations = tuple(violations)
