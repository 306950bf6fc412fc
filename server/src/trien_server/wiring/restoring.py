"""Builds what restores a backup into the database of a configuration."""

from trien_server.services.restored_state import RestoredState
from trien_server.services.restores import Restore
from trien_server.store.lines import row_of
from trien_server.store.schema import HEAD
from trien_server.wiring.instance import Instance


def build_restore(instance: Instance) -> Restore:
    """Returns the use case over an instance's token and database."""
    return Restore(
        store=instance.store,
        seals=instance.use.seals,
        state=RestoredState(
            hsm=instance.hsm,
            store=instance.store,
            transactions=instance.use.transactions,
            changes=instance.use.changes,
            clock=instance.clock,
            randomness=instance.randomness,
        ),
        clock=instance.clock,
        randomness=instance.randomness,
        decode=row_of,
        schema=HEAD,
    )
