"""Builds what restores a backup into the database of a configuration."""

from contextlib import suppress
from functools import partial

from trien_server.core.errors import Busy
from trien_server.core.sealing import LEASE_LIFETIME
from trien_server.services.restored_state import RestoredState
from trien_server.services.restores import Restore
from trien_server.store.lines import row_of
from trien_server.store.schema import HEAD
from trien_server.wiring.instance import Instance
from trien_server.wiring.use_cases import UseCases

_SEAL_SECONDS = 60.0

_LEASE_SECONDS = LEASE_LIFETIME.total_seconds() + 5
"""A restore that was killed a moment ago still holds the lease on the token's objects."""


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
            seal_log=partial(seal_log, instance.use),
        ),
        keep_checkpoint=partial(instance.use.log_witnesses.keep_newest, wait=_LEASE_SECONDS),
        clock=instance.clock,
        randomness=instance.randomness,
        decode=row_of,
        schema=HEAD,
    )


def seal_log(use: UseCases) -> None:
    """Makes the log's key that is asked for, seals what waits, and has the log signed; a server does the rest.

    The token's checkpoint stays the one before: while the restore is not complete, running it again asks for that one.
    """
    with suppress(Busy):
        use.log_keys.look(wait=_LEASE_SECONDS)
    use.log_sealing.catch_up(timeout=_SEAL_SECONDS, tell=False)
