"""Files that are encrypted in the format age (age-encryption.org/v1), a part at a time.

What is written is there whole and durable, or not at all; what is read is taken only once all of it was authenticated.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyrage

from trien_server.host.files import read_secret

_LARGEST_IDENTITY_FILE = 64 * 1024


class NotDecrypted(Exception):  # noqa: N818
    """A file is no age file, is not whole, or is for others; the message says which."""


def recipients_of(texts: Sequence[str]) -> list[pyrage.x25519.Recipient]:
    """Returns the recipients that `age1…` texts name. Raises `ValueError` for any other text, and for none."""
    if not texts:
        raise ValueError("a backup needs a recipient: age1…, as age-keygen prints it")
    found = []
    for text in texts:
        try:
            found.append(pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError as fault:
            raise ValueError(f"{text} is no recipient: expected age1…, as age-keygen prints it") from fault
    return found


def identities_of(path: Path) -> list[pyrage.x25519.Identity]:
    """Returns the identities of a file, as age-keygen writes it. Raises `OSError`, `ValueError`."""
    if path.stat().st_size > _LARGEST_IDENTITY_FILE:
        raise ValueError(f"{path} holds no identity: expected AGE-SECRET-KEY-1…, as age-keygen writes it")
    found = []
    for line in read_secret(path).reveal().splitlines():
        if line.strip() and not line.startswith(b"#"):
            try:
                found.append(pyrage.x25519.Identity.from_str(line.strip().decode()))
            except (pyrage.IdentityError, UnicodeDecodeError):
                # The line is not repeated: it may be a secret that was mistyped.
                raise ValueError(
                    f"{path} holds no identity: expected AGE-SECRET-KEY-1…, as age-keygen writes it"
                ) from None
    if not found:
        raise ValueError(f"{path} holds no identity: expected AGE-SECRET-KEY-1…, as age-keygen writes it")
    return found


def write_encrypted(path: Path, chunks: Iterable[bytes], *, recipients: Sequence[pyrage.x25519.Recipient]) -> int:
    """Writes a new file of mode 0600 with the chunks, encrypted, and returns its size in bytes.

    Once it returns the file is durable. A crash or an error before leaves nothing under that name. Raises
    `FileExistsError`, `OSError`, and whatever the chunks raise.
    """
    if path.exists() or path.is_symlink():
        raise FileExistsError(f"{path} exists: nothing was written")
    with _unnamed(path.parent) as (stream, give_name):
        source, target = _Source(iter(chunks)), _Target(stream.write)
        try:
            pyrage.encrypt_io(source, target, list(recipients))
        except Exception as fault:  # noqa: BLE001 - the library turns what it called into a text
            raise source.fault or target.fault or fault from None
        own = source.fault or target.fault
        if own is not None:
            raise own  # the library does not tell of what failed as it flushed
        stream.flush()
        os.fsync(stream.fileno())
        size = os.fstat(stream.fileno()).st_size
        give_name(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return size


def read_encrypted(path: Path, take: Callable[[bytes], None], *, identities: Sequence[pyrage.x25519.Identity]) -> None:
    """Hands the content of an encrypted file to `take`, in order, each chunk authenticated by itself.

    Only once it returned is it known that the end was not cut off. Raises `NotDecrypted`, `OSError`, and whatever
    `take` raises.
    """
    with path.open("rb") as stream:
        source, target = _Reader(stream), _Target(_whole(take))
        try:
            pyrage.decrypt_io(source, target, list(identities))
        except (OSError, pyrage.DecryptError) as fault:
            if (own := source.fault or target.fault) is not None:
                raise own from None
            if str(fault) == "No matching keys found":
                raise NotDecrypted(f"{path} is not for this identity.") from fault
            raise NotDecrypted(f"{path} is no age file, is not whole, or was changed.") from fault
        if (own := source.fault or target.fault) is not None:
            raise own


def _whole(take: Callable[[bytes], None]) -> Callable[[bytes], int]:
    def write(data: bytes) -> int:
        take(data)
        return len(data)

    return write


class _Source:
    """Chunks as a file to read from; remembers what they raised, which the library turns into a text."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""
        self.fault: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            if not self._left:
                self._left = next(self._chunks, b"")
        except BaseException as fault:
            self.fault = fault
            raise
        data, self._left = self._left[:size], self._left[size:]
        return data


class _Reader:
    """A file to read from that remembers its fault."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.fault: BaseException | None = None

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except BaseException as fault:
            self.fault = fault
            raise


class _Target:
    """A file to write to that remembers its first fault."""

    def __init__(self, write: Callable[[bytes], int]) -> None:
        self._write = write
        self.fault: BaseException | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._write(data)
        except BaseException as fault:
            self.fault = self.fault or fault
            raise

    def flush(self) -> None:
        """Does nothing: whoever has the stream flushes it."""


@contextlib.contextmanager
def _unnamed(folder: Path) -> Iterator[tuple[BinaryIO, Callable[[Path], None]]]:
    """Opens a file of mode 0600 that has no name yet, and gives it one that is free when asked.

    A process that is killed leaves nothing of it where the file system has files without a name (Linux); elsewhere a
    hidden file, which nothing reads.
    """
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except (OSError, AttributeError):
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=".backup.")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream, lambda path: os.link(name, path)
        finally:
            os.unlink(name)
        return
    with os.fdopen(descriptor, "wb") as stream:
        # src_dir_fd: without it Python calls link(2), which does not follow the symbolic link to the open file.
        yield stream, lambda path: os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor)
