"""Files that hold secrets, or that others wait for."""

import os
import stat
import tempfile
from pathlib import Path

from trien_server.core.secret import Secret


def write_private(path: Path, content: bytes) -> None:
    """Writes a file of mode 0600 at once: after a crash it is there whole, or as it was before."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, content, mode=0o600)


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Writes a file at once, in a folder that is there. Raises `OSError`; then it is as it was before."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def require_own(path: Path) -> None:
    """Raises `PermissionError` when somebody else could have put there what is in a file or folder.

    Does nothing when it does not exist. A symbolic link is judged as itself.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{path} is not yours alone: it has another owner, is a link, or others may write to it")


def read_secret(path: Path) -> Secret:
    """Returns a file's content without the line end behind it.

    Raises `OSError`, or `PermissionError` when others than the owner may read it.
    """
    if path.stat().st_mode & 0o077:
        raise PermissionError(f"{path} may be read by others than its owner: run `chmod 600 {path}`")
    return Secret(path.read_bytes().rstrip(b"\r\n"))
