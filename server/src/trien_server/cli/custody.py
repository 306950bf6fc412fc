"""Keys under two custodians' shares, from the host."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from trien_server import custody
from trien_server.config import Config
from trien_server.core.custody import Export
from trien_server.host.files import read_secret


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


def key_lines(export: Export, made: Sequence[str]) -> Iterator[str]:
    """Yields a line for each key with its check value, and whether it was brought just now."""
    for key in export.keys:
        done = "brought" if key.label in made else "there"
        yield f"{key.label:30}{key.check_value}  {done}{', trusted' if key.trusted else ''}"
