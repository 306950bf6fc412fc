"""The installation's own keys: their names, and what their records say together."""

from collections.abc import Sequence

from trien_server.core.records import InstallationKey, InstallationKeyPurpose, InstallationKeyState
from trien_server.core.sealing import Generations


def installation_key_name(purpose: InstallationKeyPurpose, generation: int) -> str:
    """Returns the name of a generation: `installationKeys/sealing-2`."""
    return f"installationKeys/{purpose.lower()}-{generation}"


def active_of(keys: Sequence[InstallationKey]) -> InstallationKey:
    """Returns the one generation of a purpose that is in use, of all its generations in order.

    Raises `ValueError` when the records contradict each other: one is missing, or not exactly one is ACTIVE, or one
    behind it is more than asked for.
    """
    active = [key for key in keys if key.state is InstallationKeyState.ACTIVE]
    if len(active) != 1:
        raise ValueError(f"{len(active)} generations are active, not one")
    for number, key in enumerate(keys, start=1):
        if key.generation != number or key.name != installation_key_name(keys[0].purpose, number):
            raise ValueError("the generations are not 1, 2, ... of one purpose")
        pending = key.state is InstallationKeyState.PENDING_GENERATION
        if pending is not (number > active[0].generation) or (pending and number != active[0].generation + 1):
            raise ValueError("a generation is in a state that it cannot be in")
    return active[0]


def sealing_generations(keys: Sequence[InstallationKey]) -> Generations:
    """Returns what the records of all generations of the sealing key, in order, say. Raises as `active_of`."""
    return Generations(
        active=active_of(keys).generation,
        others=frozenset(key.generation for key in keys if key.state is InstallationKeyState.RETIRING),
        retired={key.generation: key.state_time for key in keys if key.state is InstallationKeyState.RETIRED},
    )


ONE_TIME_PASSWORD_LABEL = "trien one-time password key 1"
"""The label on the token of the key that encrypts one-time password secrets."""


def token_label(purpose: InstallationKeyPurpose, generation: int) -> str:
    """Returns the label on the token of one of the installation's secret keys."""
    return f"trien {purpose.lower()} key {generation}"
