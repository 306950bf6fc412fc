"""Which generation of the sealing key seals: read from the sealed records, and never taken back."""

from trien_server.core import sealing
from trien_server.core.installation_keys import active_of, installation_key_name, sealing_generations
from trien_server.core.records import Installation, InstallationKey, InstallationKeyPurpose
from trien_server.core.sealing import Generations
from trien_server.services.seals import Seals
from trien_server.services.trusted import TrustedView

INSTALLATION = "installation"
"""The name of the one `Installation`."""


def read_generations(view: TrustedView, purpose: InstallationKeyPurpose) -> list[InstallationKey]:
    """Returns the records of all generations of a key of the installation's, in order."""
    keys: list[InstallationKey] = []
    while (key := view.get(InstallationKey, installation_key_name(purpose, len(keys) + 1))) is not None:
        keys.append(key)
    return keys


def active_wrapping_generation(view: TrustedView) -> int:
    """Returns the generation of the wrapping key that wraps new keys. Raises `ValueError` when there is none."""
    return active_of(read_generations(view, InstallationKeyPurpose.WRAPPING)).generation


def read_sealing_generations(view: TrustedView, seals: Seals) -> Generations:
    """Returns what the records in force say of the sealing key; the first generation before there is an installation.

    Whoever writes to the database can put old records back, but not beside a log that names newer ones; can take all
    of them away, but then no server goes on; and cannot have records that a retired key sealed.

    Raises `RecordNotTrusted`.
    """
    keys = read_generations(view, InstallationKeyPurpose.SEALING)
    if not keys and view.get(Installation, INSTALLATION) is None:
        return Generations()
    try:
        found = sealing_generations(keys)
    except ValueError as fault:
        raise seals.distrust(InstallationKey.table, "", str(fault)) from fault
    for (table, name), row in view.seen.items():
        generation = sealing.generation_of(row.seal_key, hot=False)
        if generation in found.retired:
            raise seals.distrust(table, name, "its seal is by a retired key")
        if generation not in {found.active, *found.others}:
            raise seals.distrust(table, name, "its seal is by a key that no record names")
    return found
