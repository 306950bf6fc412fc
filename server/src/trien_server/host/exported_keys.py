"""The list of keys that custodians can bring back, which the configuration names (`token.exported_keys_file`)."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from trien_server.core.custody import CustodyRefused, read_check_values, write_check_values
from trien_server.core.ports import KeyMismatch
from trien_server.host.files import write_whole


def exported_keys(path: Path | None) -> Callable[[], Mapping[str, str]]:
    """Returns what reads the list anew each time: a rotation adds to it while servers run.

    It raises `KeyMismatch` when the list cannot be read, or when others than root and this user may write to it.
    """

    def read() -> Mapping[str, str]:
        return {} if path is None else read_list(path)

    return read


def read_list(path: Path) -> dict[str, str]:
    """Returns check values by label. Raises `KeyMismatch`."""
    try:
        status = path.stat()
        content = path.read_bytes()
    except OSError as fault:
        raise KeyMismatch(f"token.exported_keys_file: {path} cannot be read ({fault.strerror})") from fault
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise KeyMismatch(f"token.exported_keys_file: others may write to {path}, or it is somebody else's")
    try:
        return read_check_values(content)
    except CustodyRefused as fault:
        raise KeyMismatch(f"token.exported_keys_file: {path}: {fault}") from fault


def add_to_list(path: Path, values: Mapping[str, str]) -> None:
    """Adds check values to the list, which is made when it is not there.

    Raises `KeyMismatch` when it names another key under one of the labels: nothing is changed then; `OSError`.
    """
    before = read_list(path) if path.exists() else {}
    for label, value in values.items():
        if before.get(label, value) != value:
            raise KeyMismatch(f"{path} names another key {label!r}: {before[label]}, not {value}")
    if before != {**before, **values} or not path.exists():
        write_whole(path, write_check_values({**before, **values}).encode(), mode=0o644)
