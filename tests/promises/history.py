"""What clients did: every operation that was begun, and how it ended for the one who began it.

Begin an operation before the call is made; afterwards tell its answer or its refusal. One that was told
neither has an unknown end: the server may have done everything or nothing.
"""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.core.records import ItemKind

SIGN, APPROVE, CREATE = "SignDigests", "ApproveAuthorizations", "CreateAuthorization"

UNDECIDED = frozenset({"BUSY", "HSM_UNAVAILABLE", "STORE_UNAVAILABLE", "CLOCK_NOT_TRUSTED", "DEADLINE_TOO_SHORT"})
"""Refusals that say nothing of whether the request was granted, by this call or by an earlier one."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a request asks for; never the code, nor the activation data.

    `digests` are what is authorized; `messages` what the key signs, position by position: the digest, the hash of
    the attributes, or the data. `authorizations` are those to approve, or the one that was opened.
    """

    method: str
    credential: str = ""
    algorithm: SignatureAlgorithm | None = None
    pss_salt_length: int | None = None
    kind: ItemKind = ItemKind.DIGEST
    digests: tuple[bytes, ...] = ()
    messages: tuple[bytes, ...] = ()
    authorizations: tuple[str, ...] = ()
    signer: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a granted request was answered.

    `authorizations` is what was signed, approved or made; a created authorization names no entry.
    """

    authorizations: tuple[str, ...]
    signatures: tuple[bytes, ...] = ()
    audit_entry: str | None = None
    leaf_hash: bytes | None = None


@dataclass(eq=False, kw_only=True)
class Operation:
    """One call. `refusal` is a reason of the API; with neither answer nor refusal its end is unknown.

    `signer` is whose code it brought. `right` tells whether the code was that person's and not yet used, as far as
    the caller knew; None when it did not know.
    """

    number: int
    client: str
    content: Content
    request_id: str | None
    signer: str | None
    code: str | None = field(repr=False)
    right: bool | None
    begun: datetime
    ended: datetime | None = None
    answer: Answer | None = None
    refusal: str | None = None

    @property
    def request(self) -> str:
        """The name of the record that the request id binds."""
        return f"{self.client}/requests/{self.request_id}"

    @property
    def decided(self) -> bool:
        """Tells whether the caller learned what was decided."""
        return self.answer is not None or (self.refusal is not None and self.refusal not in UNDECIDED)


class History:
    """All operations, in the order of their begin. May be used from any thread."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._lock = threading.Lock()

    def begin(
        self,
        client: str,
        content: Content,
        *,
        request_id: str | None,
        signer: str | None = None,
        code: str | None = None,
        right: bool | None = None,
        at: datetime | None = None,
    ) -> Operation:
        """Notes that a call begins; `at` is the time of the clock that the server goes by, by default this machine's.

        `signer` has to be told with a code whose failures are to be counted.
        """
        with self._lock:
            operation = Operation(
                number=len(self._operations) + 1,
                client=client,
                content=content,
                request_id=request_id,
                signer=signer,
                code=code,
                right=right,
                begun=at or datetime.now(UTC),
            )
            self._operations.append(operation)
        return operation

    @staticmethod
    def answered(operation: Operation, answer: Answer, *, at: datetime | None = None) -> None:
        """Notes the answer."""
        operation.ended, operation.answer = at or datetime.now(UTC), answer

    @staticmethod
    def refused(operation: Operation, reason: str, *, at: datetime | None = None) -> None:
        """Notes a refusal by its reason."""
        operation.ended, operation.refusal = at or datetime.now(UTC), reason

    @staticmethod
    def lost(operation: Operation, *, at: datetime | None = None) -> None:
        """Notes that the call ended without telling what was decided."""
        operation.ended = at or datetime.now(UTC)

    def __len__(self) -> int:
        return len(self._operations)

    def __iter__(self) -> Iterator[Operation]:
        with self._lock:
            return iter(list(self._operations))

    def by_request(self) -> dict[str, list[Operation]]:
        """Returns the operations with a request id, by the name of the record that it binds."""
        found: dict[str, list[Operation]] = {}
        for operation in self:
            if operation.request_id is not None:
                found.setdefault(operation.request, []).append(operation)
        return found
