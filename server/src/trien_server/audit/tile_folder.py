"""The log as a folder of files that any web server can serve (C2SP tlog-tiles)."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trien_server.core.ports import LogUpdate

CHECKPOINT = "checkpoint"
_LOCK = ".lock"
_NEW = ".new"
"""Where a file is written before it takes its place. One name, so that a crash leaves one such file at most."""
_NEW_FOLDER = ".new-folder"
_FILE_MODE = 0o644
_FOLDER_MODE = 0o755
_LARGEST_CHECKPOINT = 128 * 1024


class TileFolder:
    """Implements `core.ports.LogPublication` in a folder that is there; it is not made, for it may be a mount.

    One process of all nodes publishes at a time (`flock`, also on NFS); the others get `BlockingIOError`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def checkpoint(self) -> str | None:
        """Returns the file's text. Raises `OSError` also when the folder is not there: then nothing can be told."""
        self._require_folder()
        try:
            with _opened(self._folder / CHECKPOINT) as stream:
                content = stream.read(_LARGEST_CHECKPOINT + 1)
        except FileNotFoundError:
            return None
        if len(content) > _LARGEST_CHECKPOINT:
            raise OSError(errno.EFBIG, "the published checkpoint is too large")
        return content.decode(errors="replace")

    def publish(self, update: Callable[[str | None], LogUpdate | None]) -> bool:
        """Writes each file beside and renames it, all of them durable before the checkpoint.

        Partial tiles go once the full one is there: who has a checkpoint from before takes the full one instead.
        """
        self._require_folder()
        with self._alone():
            present = self.checkpoint()
            wanted = update(present)
            if wanted is None:
                return False
            touched: set[Path] = set()
            for path, content in wanted.files:
                self._write(path, content, touched)
            self._sync(touched)
            for path in wanted.outdated:
                _remove_partial(self._folder / path)
            if self.checkpoint() != present:
                # The lock of a file server can end while its holder is stopped. What was written since stays.
                raise BlockingIOError(errno.EAGAIN, "another process published meanwhile")
            self._write(CHECKPOINT, wanted.checkpoint.encode(), touched)
            self._sync({self._folder})
            return True

    def _require_folder(self) -> None:
        if not stat.S_ISDIR(self._folder.stat().st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        descriptor = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def _write(self, path: str, content: bytes, touched: set[Path]) -> None:
        """Puts a file in its place at once, whole and durable; its folder is not synchronized yet."""
        target = self._folder / path
        self._make_folders(target.parent, touched)
        touched.add(target.parent)
        if _has(target, content):
            return
        new = self._folder / _NEW
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE_MODE)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), _FILE_MODE)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(target)

    def _make_folders(self, folder: Path, touched: set[Path]) -> None:
        missing = []
        while folder != self._folder:
            if folder.is_symlink():
                raise OSError(errno.ELOOP, "a folder of the log is a link to elsewhere")
            if not folder.is_dir():
                missing.append(folder)
            folder = folder.parent
        new = self._folder / _NEW_FOLDER
        for one in reversed(missing):
            # Moved there with its mode: whatever the umask is, the web server reads what is in it, also after a crash.
            with suppress(FileExistsError):
                new.mkdir()
            new.chmod(_FOLDER_MODE)
            new.rename(one)
            touched.update((one.parent, self._folder))

    @staticmethod
    def _sync(folders: set[Path]) -> None:
        for folder in folders:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _opened(path: Path) -> BinaryIO:
    """Opens a file for reading: at once, and a file only. Raises `OSError`, also for a link, a pipe or a device."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "it is no file")
    return stream


def _has(target: Path, content: bytes) -> bool:
    """Tells whether a file is there as it would be written, durable."""
    try:
        with _opened(target) as stream:
            same = stream.read(len(content) + 1) == content
            if same and stat.S_IMODE(os.fstat(stream.fileno()).st_mode) == _FILE_MODE:
                os.fsync(stream.fileno())
                return True
    except FileNotFoundError:
        pass
    return False


def _remove_partial(folder: Path) -> None:
    """Removes the partial tiles of a folder, and it; what is not ours stays, also where a link leads to."""
    if folder.is_symlink():
        return
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return
    for name in names:
        if name.isdecimal():
            (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()
