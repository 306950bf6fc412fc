"""Files that are written whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trien_client.cli.outcome import CommandError


def require_file(path: Path) -> None:
    """Raises `CommandError` when `path` is not a file."""
    if path.is_dir():
        raise CommandError(f"{path} is a folder: name the files in it.")
    if not path.is_file():
        raise CommandError(f"There is no file {path}.")


def require_writable(
    path: Path, *, overwrite: bool, inputs: tuple[Path, ...] = (), folder_is_made: bool = False
) -> None:
    """Raises `CommandError` when `path` may not be written: asked before anyone is asked for a password."""
    if not path.parent.is_dir() and (path.parent.exists() or not folder_is_made):
        raise CommandError(f"There is no folder {path.parent}.")
    if not path.exists():
        return
    if any(given.exists() and path.samefile(given) for given in inputs):
        raise CommandError(f"{path} is also what is to be signed: give the signed file another name.")
    if path.is_dir():
        raise CommandError(f"{path} is a folder.")
    if not overwrite:
        raise CommandError(f"{path} exists: give another name, or --force to replace it.")


@contextmanager
def new_file(path: Path, *, overwrite: bool, like: Path | None = None) -> Iterator[BinaryIO]:
    """Gives a file to write into that becomes `path` when all went well, and vanishes otherwise.

    Without `overwrite` a file that came into being meanwhile is kept. A crash leaves `path` as it was, and at most a
    hidden file beside it.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644 if like is None else like.stat().st_mode & 0o777)
        if overwrite:
            temporary.replace(path)
        else:
            _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        raise CommandError(f"{path} exists: give another name, or --force to replace it.") from None
    except OSError:
        # File systems without hard links (memory sticks): the check and the rename are two steps there.
        if path.exists():
            raise CommandError(f"{path} exists: give another name, or --force to replace it.") from None
        temporary.replace(path)
