"""The audit log as a file of JSON lines, for a collector that reads files."""

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from trien_server.core.audit_lines import json_line
from trien_server.core.records import AuditEntry

_TAIL = 1 << 20


class JsonLinesFile:
    """Appends a line for each entry, flushed to the disk before `write` returns. Used by one thread.

    The path is looked up for each write, so that a file which logrotate moved away is followed by a new one at once;
    nobody has to send a signal. A crash in the middle of a line leaves its beginning, which the next write cuts off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, entries: Sequence[tuple[int, AuditEntry]]) -> None:
        """Appends the entries, all of them or none. Raises `OSError`."""
        content = b"".join(json_line(position, entry) for position, entry in entries)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            # A process that was paused when its lease lapsed may be at it, too. Waiting for it would have no limit.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = _end_of_lines(descriptor)
            try:
                _write_all(descriptor, content, end)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)  # a full disk: no half line stays
                raise
            if end == 0:
                _sync_folder(self._path.parent)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Does nothing: no file is open between two writes."""


def _end_of_lines(descriptor: int) -> int:
    """Returns where the last whole line ends, and cuts off what is behind it."""
    size = os.fstat(descriptor).st_size
    begin = max(0, size - _TAIL)
    tail = os.pread(descriptor, _TAIL, begin)
    end = begin + tail.rfind(b"\n") + 1
    if end < size:
        os.ftruncate(descriptor, end)
    return end


def _write_all(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
