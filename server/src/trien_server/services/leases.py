"""What one process does at a time, also among several nodes: under a lease in the store."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from trien_server.core.errors import Busy, Refusal
from trien_server.core.ports import NameTaken, Randomness, Report, VersionConflict
from trien_server.core.records import Lease
from trien_server.core.sealing import LEASE_LIFETIME
from trien_server.services.identifiers import new_id
from trien_server.services.transactions import Ledger, Transactions, next_version

TOKEN_OBJECTS = "leases/token-objects"
"""Creating and destroying objects on the token: what one process does there others may miss while it happens."""

_POLL_SECONDS = 0.2
_STORE_SECONDS = 10.0


class Leases:
    """Takes leases by compare-and-swap. May be used from any thread; the holder is the process.

    A crash leaves a lease that expires. A lease tells who may begin, not that nobody else is at work: a holder
    that was paused until its lease lapsed goes on when it wakes, so what it does must also be right beside the
    next one.
    """

    def __init__(self, *, transactions: Transactions, randomness: Randomness, report: Report) -> None:
        self._transactions = transactions
        self._report = report
        self._holder = new_id(randomness)

    @contextmanager
    def hold(self, name: str, *, wait: float, stopped: threading.Event) -> Iterator[Lease]:
        """Holds a lease while the block runs, and gives it back.

        Raises `Busy` when others hold it for `wait` seconds or until `stopped` is set; `StoreUnavailable`.
        """
        lease = self._take(name)
        tries = round(wait / _POLL_SECONDS)
        while lease is None:
            if tries == 0 or stopped.wait(_POLL_SECONDS):
                raise Busy(f"Another process holds {name}.")
            tries -= 1
            lease = self._take(name)
        try:
            yield lease
        finally:
            self._release(lease)

    def _take(self, name: str) -> Lease | None:
        """Takes a lease that is free, expired or this process's own: the answer to the first commit may be lost."""

        def take(ledger: Ledger) -> Lease | None:
            found = ledger.get(Lease, name)
            until = ledger.at + LEASE_LIFETIME
            if found is None:
                lease = Lease(name=name, holder=self._holder, expire_time=until)
            elif found.expire_time <= ledger.at or found.holder == self._holder:
                lease = next_version(found, holder=self._holder, expire_time=until)
            else:
                return None
            try:
                ledger.put_or_keep(lease)
            except (NameTaken, VersionConflict):
                return None
            return lease

        return self._transactions.run(take, timeout=_STORE_SECONDS)

    def _release(self, lease: Lease) -> None:
        """Ends the lease at once, unless another has it by now; a failure only makes others wait."""

        def release(ledger: Ledger) -> None:
            if ledger.get(Lease, lease.name) == lease:
                ledger.replace(next_version(lease, expire_time=ledger.at))

        try:
            self._transactions.run(release, timeout=_STORE_SECONDS)
        except Refusal as failure:
            self._report("lease_not_released", {"lease": lease.name, "because": failure.reason})
