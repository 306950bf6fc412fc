"""Gives entries their positions in a log of fakes, without a Merkle tree: for tests of who reads it."""

from tests.support.world import World

from trien_server.core.ports import Transaction
from trien_server.core.records import AuditEntry, LogHead
from trien_server.services.audit_entries import LOG_HEAD


def assign_all(world: World) -> int:
    """Assigns a position to every entry that has none, by time, and returns the log's size."""
    seals = world.use.seals
    at = world.clock.now()
    seals.prepare(at)

    def work(transaction: Transaction) -> int:
        head = transaction.get(LogHead, LOG_HEAD)
        first = 0 if head is None else head.record.size
        unsealed = sorted(transaction.unsealed(limit=100_000), key=lambda row: (row.record.time, row.record.name))
        transaction.assign_positions(first, [row.record.name for row in unsealed])
        grown = LogHead(
            name=LOG_HEAD,
            version=1 if head is None else head.record.version + 1,
            origin="test",
            size=first + len(unsealed),
            root=b"",
            frontier=(),
            time=at,
        )
        (transaction.insert if head is None else transaction.replace)(seals.seal_hot(grown, at=at))
        return grown.size

    return world.store.transact(work, timeout=300.0)


def entries_by_position(world: World) -> list[AuditEntry]:
    """Returns all entries that have a position, in its order, without a look at their seals."""
    return [row.record for _, row in world.store.read(lambda snapshot: snapshot.log(0, limit=1_000_000))]
