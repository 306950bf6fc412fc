"""A sealed log over fakes or any store: keys in memory sign what the token would."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tests.support.log_keys import LogKeyPair

from trien_server.core.installation_keys import installation_key_name
from trien_server.core.merkle import EMPTY_ROOT, Frontier, grow_tiles, hash_leaf
from trien_server.core.ports import Transaction
from trien_server.core.records import (
    AuditEntry,
    InstallationKey,
    InstallationKeyPurpose,
    InstallationKeyState,
    LogCheckpoint,
    LogHead,
    LogTile,
)
from trien_server.services.audit_entries import LOG_HEAD
from trien_server.services.log_history import LOG_CHECKPOINT, tile_name


@dataclass
class SealedLog:
    """Seals the log of a world as a server does, one step after the other: what a test wants of it."""

    world: Any
    pairs: list[LogKeyPair] = field(default_factory=lambda: [LogKeyPair.generate()])

    @property
    def key(self) -> LogKeyPair:
        return self.pairs[-1]

    def enter_key(self) -> None:
        """Puts the record of the newest key in force."""
        at = self.world.clock.now()
        generation = len(self.pairs)
        name = installation_key_name(InstallationKeyPurpose.LOG, generation)
        present = self.world.store.read(lambda snapshot: snapshot.get(InstallationKey, name))
        record = InstallationKey(
            name=name,
            version=1 if present is None else present.record.version + 1,
            purpose=InstallationKeyPurpose.LOG,
            generation=generation,
            state=InstallationKeyState.ACTIVE,
            state_time=at,
            create_time=at,
            key_type=self.key.key.key_type,
            object_id=bytes([generation]) * 16,
            public_key=self.key.key.public_key,
            origin=self.key.origin,
            succession=None if generation == 1 else self.pairs[-2].succeed(self.key.key),
        )
        row = self.world.use.seals.seal(record)
        self.world.use.transactions.run(lambda ledger: ledger.put(row, kind="test", details={}), timeout=10.0)

    def rotate(self, pair: LogKeyPair) -> None:
        self.pairs.append(pair)
        self.enter_key()

    def seal(self, *, most: int = 100_000) -> LogCheckpoint:
        """Gives entries their positions, and signs the checkpoint of all that have one."""
        self.assign(most=most)
        return self.sign()

    def assign(self, *, most: int = 100_000) -> LogHead:
        """Gives entries their positions, by time, and grows the tiles; no checkpoint covers them yet."""
        use, at = self.world.use, self.world.clock.now()
        use.seals.prepare(at)

        def put(transaction: Transaction, record: Any) -> None:
            present = transaction.get(type(record), record.name)
            version = 1 if present is None else present.record.version + 1
            row = use.seals.seal_hot(dataclasses.replace(record, version=version), at=at)
            (transaction.insert if present is None else transaction.replace)(row)

        def work(transaction: Transaction) -> LogHead:
            head = transaction.get(LogHead, LOG_HEAD)
            frontier = Frontier() if head is None else Frontier(head.record.size, head.record.frontier)
            rows = sorted(transaction.unsealed(limit=most), key=lambda row: (row.record.time, row.record.name))
            entries: list[AuditEntry] = [row.record for row in rows]
            transaction.assign_positions(frontier.size, [entry.name for entry in entries])

            def get_tile(level: int, index: int) -> bytes:
                tile = transaction.get(LogTile, tile_name(level, index))
                return b"" if tile is None else tile.record.hashes

            hashes = [hash_leaf(entry.leaf) for entry in entries]
            for tile, content in grow_tiles(get_tile, frontier.size, hashes).items():
                put(transaction, LogTile(name=tile_name(tile.level, tile.index), version=1, hashes=content, time=at))
            grown = frontier.extend(hashes)
            made = LogHead(
                name=LOG_HEAD,
                version=1,
                origin=self.key.origin,
                size=grown.size,
                root=grown.root() if grown.size else EMPTY_ROOT,
                frontier=grown.hashes,
                time=at,
            )
            put(transaction, made)
            return made

        head: LogHead = self.world.store.transact(work, timeout=30.0)
        return head

    def sign(self) -> LogCheckpoint:
        """Signs the log's head, as it is read back."""
        head = self.world.store.read(lambda snapshot: snapshot.get(LogHead, LOG_HEAD)).record
        return self.put_checkpoint(head.size, head.root)

    def put_checkpoint(self, size: int, root: bytes) -> LogCheckpoint:
        """Signs a checkpoint and puts it in the row, whatever it says."""
        use, at = self.world.use, self.world.clock.now()
        use.seals.prepare(at)

        def work(transaction: Transaction) -> LogCheckpoint:
            present = transaction.get(LogCheckpoint, LOG_CHECKPOINT)
            made = LogCheckpoint(
                name=LOG_CHECKPOINT,
                version=1 if present is None else present.record.version + 1,
                origin=self.key.origin,
                size=size,
                root=root,
                note=self.key.checkpoint(size, root),
                time=at,
            )
            row = use.seals.seal_hot(made, at=at)
            (transaction.insert if present is None else transaction.replace)(row)
            return made

        made: LogCheckpoint = self.world.store.transact(work, timeout=30.0)
        return made
