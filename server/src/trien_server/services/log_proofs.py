"""GetCheckpoint, GetConsistencyProof and GetLogKeys: what anyone needs who checks the log."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from trien_server.core.errors import InvalidArgument, LogNotSealed
from trien_server.core.merkle import consistency_proof, root_at, verify_consistency
from trien_server.core.ports import Report
from trien_server.core.principal import Principal
from trien_server.services.signed_log import (
    LogFaults,
    LogKeys,
    SignedLog,
    distrust_log,
    read_published_keys,
    read_signed_log,
    require_log_reader,
)
from trien_server.services.transactions import Transactions
from trien_server.services.trusted import TrustedView

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ProvenConsistency:
    """That the log of one size continues that of another, and the newest checkpoint."""

    first_size: int
    second_size: int
    hashes: tuple[bytes, ...]
    log: SignedLog


class _LogReader:
    """What the use cases of this module share: they read one snapshot, and report a log that cannot be trusted."""

    def __init__(self, *, transactions: Transactions, report: Report) -> None:
        self._transactions = transactions
        self._report = report

    def _read(self, principal: Principal, method: str, work: Callable[[TrustedView], T]) -> T:
        def permitted(view: TrustedView) -> T:
            require_log_reader(view, principal, method)
            return work(view)

        try:
            return self._transactions.read(permitted)
        except LogFaults as fault:
            raise distrust_log(self._report, fault) from fault


class GetCheckpoint(_LogReader):
    """Reads the newest checkpoint."""

    def __call__(self, principal: Principal) -> SignedLog:
        """Returns it, its signature verified. Raises `PermissionDenied`, `LogNotSealed`, `LogNotTrusted`."""
        return self._read(principal, "AuditService.GetCheckpoint", require_signed_log)


class GetConsistencyProof(_LogReader):
    """Proves that the log continues what it was."""

    def __call__(self, principal: Principal, *, first_size: int, second_size: int) -> ProvenConsistency:
        """Returns the proof from one size to another, by 0 to the newest checkpoint's; it was verified.

        Raises `PermissionDenied`, `InvalidArgument`, `LogNotSealed`, `LogNotTrusted`.
        """

        def work(view: TrustedView) -> ProvenConsistency:
            log = require_signed_log(view)
            second = second_size or log.size
            if not 0 <= second <= log.size:
                raise InvalidArgument("second_size", f"expected 0 to {log.size}, which the newest checkpoint covers")
            if not 1 <= first_size <= second:
                raise InvalidArgument("first_size", f"expected 1 to {second}")
            return ProvenConsistency(
                first_size=first_size, second_size=second, hashes=_prove(log, first_size, second), log=log
            )

        return self._read(principal, "AuditService.GetConsistencyProof", work)


class GetLogKeys(_LogReader):
    """Reads the log's public keys."""

    def __call__(self, principal: Principal) -> LogKeys:
        """Returns them; each follows the one before. Raises `PermissionDenied`, `LogNotSealed`, `LogNotTrusted`."""

        def work(view: TrustedView) -> LogKeys:
            keys = read_published_keys(view)
            if keys is None:
                raise LogNotSealed("The log has no key yet.")
            return keys

        return self._read(principal, "AuditService.GetLogKeys", work)


def require_signed_log(view: TrustedView) -> SignedLog:
    """Returns the log up to its newest checkpoint. Raises `LogNotSealed` before there is one."""
    log = read_signed_log(view)
    if log is None:
        raise LogNotSealed("The log has no checkpoint yet.")
    return log


def _prove(log: SignedLog, first: int, second: int) -> tuple[bytes, ...]:
    """Returns the proof from one size to another, when both lead to the root that the token signed."""
    first_root, second_root = root_at(log.read, first), root_at(log.read, second)
    hashes = consistency_proof(log.read, first, second)
    verify_consistency(first, second, first_root, second_root, hashes)
    to_signed = consistency_proof(log.read, second, log.size)
    verify_consistency(second, log.size, second_root, log.checkpoint.root, to_signed)
    return hashes
