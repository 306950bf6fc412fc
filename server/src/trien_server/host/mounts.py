"""On which kind of file system a path is (proc(5), mountinfo)."""

from pathlib import Path
from typing import Final

_ESCAPES: Final = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


def file_system_of(path: Path, mounts: str | None = None) -> str | None:
    """Returns the type of the file system that a path is on, such as `ext4` or `nfs4`; None where that is not known.

    `mounts` is a text as in /proc/self/mountinfo, by default that file's.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    resolved, found, kind = path.resolve(), Path(), None
    for line in mounts.splitlines():
        before, separator, behind = line.partition(" - ")
        fields = before.split()
        if not separator or len(fields) < 5 or not behind:
            continue
        point = Path(_unescaped(fields[4]))
        # A later mount on the same point covers the one before.
        if resolved.is_relative_to(point) and len(point.parts) >= len(found.parts):
            found, kind = point, behind.split()[0]
    return kind


def _unescaped(text: str) -> str:
    for escape, character in _ESCAPES.items():
        text = text.replace(escape, character)
    return text
