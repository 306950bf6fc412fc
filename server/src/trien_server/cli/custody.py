"""Keys under two custodians' shares, from the host."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from trien_server import custody
from trien_server.config import Config
from trien_server.core.custody import Export
from trien_server.core.errors import StateConflict
from trien_server.core.installation_keys import token_label
from trien_server.core.records import InstallationKeyPurpose, InstallationKeyState
from trien_server.host.exported_keys import exported_keys
from trien_server.host.files import read_secret
from trien_server.host.log import Log
from trien_server.services.sealing_generations import read_generations
from trien_server.wiring import Instance


def import_lines(config: Config, *, export: Path, shares: Sequence[Path], so_pin_file: Path | None) -> Iterator[str]:
    """Brings exported keys to the token; yields what to tell.

    Raises `CustodyRefused`, `KeyMismatch`, `NotProvisioned`, `PinRejected`, `HsmUnavailable`, `OSError`.
    """
    custody.keep_out_of_core_files()
    so_pin = None if so_pin_file is None else read_secret(so_pin_file)
    found, made = custody.import_keys(config.token, export_file=export, share_files=shares, so_pin=so_pin)
    yield from key_lines(found, made)
    yield f"They are named in {config.token.exported_keys_file}."
    if not made:
        yield "The token had all of them: nothing was changed."
    yield "Put both shares back where they are kept, and remove copies."


def is_in_custody(config: Config, purpose: InstallationKeyPurpose) -> bool:
    """Tells whether a purpose's keys are exported ones. Raises `KeyMismatch` when the list cannot be read."""
    return token_label(purpose, 1) in exported_keys(config.token.exported_keys_file)()


def add_lines(
    config: Config,
    purpose: InstallationKeyPurpose,
    *,
    export: Path,
    shares: Sequence[Path],
    so_pin_file: Path | None,
) -> Iterator[str]:
    """Makes the next generation of a key in custody and adds it to the export; yields what to tell.

    The next sealing key is made once its rotation is agreed on, the next wrapping key before or after. Raises
    `StateConflict`, and as `import_lines`.
    """
    custody.keep_out_of_core_files()
    if not is_in_custody(config, purpose):
        raise StateConflict("The keys of this installation are not in custody: its servers make the next ones.")
    if not export.exists():
        raise StateConflict(f"{export} does not exist: the next key is added to the export of the ones before.")
    label = token_label(purpose, _next_generation(config, purpose))
    added = custody.make_in_custody(
        config.token,
        [label],
        shares=custody.read_shares(shares),
        export_file=export,
        so_pin=None if so_pin_file is None else read_secret(so_pin_file),
    )
    yield f"{label:30}{added.check_values()[label]}"
    yield f"The export has {len(added.keys)} keys now. Replace its copies, and put both shares back."


def _next_generation(config: Config, purpose: InstallationKeyPurpose) -> int:
    """Returns the generation that is to be made, or that may be made beforehand. Raises `StateConflict`."""
    instance = Instance(config, log=Log(form=config.log.format))
    try:
        instance.use.check_start()
        newest = instance.use.transactions.read(lambda view: read_generations(view, purpose))[-1]
    finally:
        instance.close()
    if newest.state is InstallationKeyState.PENDING_GENERATION:
        return newest.generation
    if purpose is InstallationKeyPurpose.SEALING:
        raise StateConflict("No new sealing key was agreed on. First: trien keys installation rotate --purpose sealing")
    return newest.generation + 1


def key_lines(export: Export, made: Sequence[str]) -> Iterator[str]:
    """Yields a line for each key with its check value, and whether it was brought just now."""
    for key in export.keys:
        done = "brought" if key.label in made else "there"
        yield f"{key.label:30}{key.check_value}  {done}{', trusted' if key.trusted else ''}"
