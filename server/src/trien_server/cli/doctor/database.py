"""The database: whether it can be used as promise P1 needs it, where it lies, and what its clock says."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trien_server.cli.doctor.findings import Finding, error, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.core.errors import ClockNotTrusted, StoreUnavailable
from trien_server.host.mounts import file_system_of
from trien_server.services.clock_guard import ClockGuard
from trien_server.store.schema import SchemaMismatch, SchemaVerdict, schema_state
from trien_server.store.urls import is_postgresql, weaknesses

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gfs2", "ocfs2", "fuse.sshfs",
     "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "virtiofs", "vboxsf"}
)  # fmt: skip
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_REACH = "Look whether the database server runs, and whether store.url names it, its database and the server's role."
_LOCAL = "Put the database on a local disk of this machine; for several machines, use PostgreSQL."


def database(subject: Subject) -> Iterator[Finding]:
    """Yields why the database cannot be used: away, another schema, or settings that lose what was signed for."""
    url = subject.config.store.url
    try:
        state = schema_state(url)
    except (StoreUnavailable, ValueError) as fault:
        yield error(f"store.url: {_text(fault)}", _REACH if is_postgresql(url) else _LOCAL)
        return
    found = list(weaknesses(url))
    for weakness in found:
        yield error(weakness, "Change the setting, or the database server's role: no server starts meanwhile.")
    if state.verdict is not SchemaVerdict.CURRENT:
        finding, _, advice = str(SchemaMismatch(state)).partition(". ")
        yield error(f"{finding}.", advice)
    elif not found:
        try:
            subject.store.read(lambda snapshot: snapshot.latest_time())
        except (StoreUnavailable, SchemaMismatch) as fault:
            yield error(
                _text(fault),
                "When the schema was changed, find out who did it, and undo it or restore a backup. `trien-server "
                "fsck` looks at every row.",
            )


def database_place(subject: Subject) -> Iterator[Finding]:
    """Yields why a SQLite database is where it must not be: a network, memory, or a disk without locks."""
    path = subject.database
    if path is None or not path.parent.is_dir():
        return
    kind = file_system_of(path)
    if kind in _NETWORK:
        yield error(f"The database {path} is on a network file system ({kind}): locks and flushes cannot be relied on.",
                    _LOCAL)  # fmt: skip
    elif kind in _IN_MEMORY:
        yield warning(f"The database {path} is in memory ({kind}): it is gone when the machine starts anew.", _LOCAL)
    fault = locking_fault(path.parent)
    if fault is not None:
        yield error(f"The disk of {path} does not lock files: {fault}.", _LOCAL)


def locking_fault(folder: Path) -> str | None:
    """Returns why files in a folder cannot be locked, as two open descriptions of a throw-away one show; or None."""
    try:
        first, name = tempfile.mkstemp(dir=folder, prefix=".trien-doctor-")
    except OSError as fault:
        return f"no file can be made in {folder} ({fault.strerror})"
    try:
        second = os.open(name, os.O_RDWR)
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return None
            return "two could lock the same file at once"
        except OSError as fault:
            return str(fault.strerror)
        finally:
            os.close(second)
    finally:
        os.close(first)
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()


def clock(subject: Subject) -> Iterator[Finding]:
    """Yields how far this machine's clock is from the database's, or behind the newest audit entry."""
    told: dict[str, str] = {}
    guard = ClockGuard(store=subject.store, clock=subject.clock, report=lambda _, fields: told.update(fields))
    try:
        guard.check()
    except ClockNotTrusted:
        yield error(
            f"The clock is not to be trusted: here it is {told['now']}, in the database {told['store']}, and the "
            f"newest audit entry is of {told['log']}.",
            "Set the clock that is wrong, and keep all in step (NTP). When an entry is from the future, the clock was "
            "wrong then: the server signs again when that time has come.",
        )


def _text(fault: Exception) -> str:
    return fault.message if isinstance(fault, StoreUnavailable) else f"{fault}"
