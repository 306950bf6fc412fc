"""Backups and restores over fakes: a world's content as a backup, and a world that it is put back into."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.fakes.hsm import MemoryHsm
from tests.fakes.store import MemoryStore
from tests.support.world import World, operators

from trien_client.cli.statements import restore_approval
from trien_server.core.audit_lines import json_line
from trien_server.core.records import LogCheckpoint
from trien_server.core.restores import (
    KnownCheckpoint,
    LostEntry,
    StatementApproval,
    parse_approval,
    parse_known_checkpoint,
    parse_lost_entry,
)
from trien_server.host.randomness import SystemRandomness
from trien_server.services.backups import TakeBackup
from trien_server.services.restored_state import RestoredState
from trien_server.services.restores import Done, Examined, Restore
from trien_server.store.lines import line_of, row_of
from trien_server.wiring.restoring import seal_log as seal_restored_log

SCHEMA = "0001"


def seal_log(world: World) -> str:
    """Gives every entry its position and has the log signed; returns the checkpoint."""
    use = world.use  # one process: others wait for its lease
    use.log_keys.look()
    while use.log_sealing.seal():
        pass
    use.log_sealing.sign()
    (signed,) = world.store.rows(LogCheckpoint)
    return str(signed.record.note)


def known(note: str) -> KnownCheckpoint:
    """Returns a checkpoint as the token keeps it."""
    return parse_known_checkpoint(note, found="the token", on_token=True)


def exported(world: World, first: int) -> list[LostEntry]:
    """Returns the log's entries from a position on, as they come out of an export."""
    rows = world.store.read(lambda snapshot: snapshot.log(first, limit=100_000))
    return [parse_lost_entry(json_line(position, row.record)) for position, row in rows]


def backup(world: World) -> bytes:
    """Returns what a backup of a world holds, before it is encrypted."""
    parts: list[bytes] = []

    def write(chunks: Iterator[bytes]) -> None:
        parts.extend(chunks)

    take = TakeBackup(store=world.store, schema=SCHEMA, encode=line_of, clock=world.clock)
    take(write, progress=lambda _, __: None)
    return b"".join(parts)


@dataclass
class Restoring:
    """A backup on its way into an empty store, with the same token or another one."""

    content: bytes
    world: World
    store: MemoryStore = field(default_factory=MemoryStore)
    known: Sequence[KnownCheckpoint] = ()
    lost: Sequence[LostEntry] = ()
    leaves: Callable[[int], bytes | None] = lambda _: None
    hsm: MemoryHsm | None = None

    def __post_init__(self) -> None:
        self.store.clock = self.world.clock.now
        self.restored = World(
            clock=self.world.clock,
            hsm=self.hsm or self.world.hsm,
            store=self.store,
            otp=dict(self.world.otp),
            tokens=dict(self.world.tokens),
        )

    def use(self) -> Restore:
        """Returns the use case as another process has it: with empty caches."""
        use = self.restored.new_process()
        state = RestoredState(
            hsm=self.restored.hsm,
            store=self.store,
            transactions=use.transactions,
            changes=use.changes,
            clock=self.world.clock,
            randomness=SystemRandomness(),
            seal_log=partial(seal_restored_log, use),
        )
        return Restore(
            store=self.store,
            seals=use.seals,
            state=state,
            clock=self.world.clock,
            randomness=SystemRandomness(),
            decode=row_of,
            schema=SCHEMA,
            keep_checkpoint=use.log_witnesses.keep_newest,
        )

    def source(self, take: Callable[[bytes], None]) -> None:
        for begin in range(0, len(self.content), 50_000):
            take(self.content[begin : begin + 50_000])

    def examine(self, use: Restore) -> Examined:
        return use.examine(
            self.source, known=self.known, lost=self.lost, leaves=self.leaves, progress=lambda _, __: None
        )

    def run(self, *officers: str) -> Done:
        """Restores with the approvals of officers; both where none is named."""
        use = self.use()
        examined = self.examine(use)
        approvals = [approval(examined, name) for name in officers or ("first", "second")]
        return use(self.source, examined, approvals, progress=lambda _, __: None)


def approval(examined: Examined, name: str) -> StatementApproval:
    """Returns an officer's approval, as `trien proposals approve-statement` makes it."""
    identity = operators()[name]
    made = restore_approval(examined.statement.encode(), certificate=identity.certificate, key=identity.private_key)
    return parse_approval(made.encode(), examined.statement)
