"""The machine: room on its disks, descriptors, and whether something keeps its clock in step."""

import os
import resource
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from trien_server.cli.doctor.findings import Finding, NotLookedAt, error, warning
from trien_server.cli.doctor.subject import Subject
from trien_server.host.time_synchronization import is_synchronized
from trien_server.wiring import WANTED_DESCRIPTORS

_MIB = 2**20
_LEAST_BYTES, _FEW_BYTES = 64 * _MIB, 1024 * _MIB
_LEAST_INODES, _FEW_INODES = 1_000, 10_000
_FEW_SHARE = 0.05
_ROOM = "Make room there, or move what is in it to a larger disk. On a full disk the server refuses to sign."


def disks(subject: Subject) -> Iterator[Finding]:
    """Yields which disks that the server writes to are nearly full."""
    yield from room_findings(_written(subject))


def room_findings(
    places: Iterable[tuple[str, Path]], statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
) -> Iterator[Finding]:
    """Yields a finding for each file system with too little room or too few inodes, once for all that is on it."""
    by_device: dict[int, list[tuple[str, Path]]] = {}
    for what, path in places:
        if path.exists():
            by_device.setdefault(path.stat().st_dev, []).append((what, path))
    for on_it in by_device.values():
        path = on_it[0][1]
        where = f"the disk of {path} ({', '.join(what for what, _ in on_it)})"
        status = statvfs(path)
        free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
        if free < _LEAST_BYTES:
            yield error(f"Only {free // _MIB} MiB are free on {where}.", _ROOM)
        elif free < _FEW_BYTES or free < _FEW_SHARE * size:
            yield warning(f"Only {free // _MIB} of {size // _MIB} MiB are free on {where}.", _ROOM)
        # Some file systems (btrfs) count no inodes.
        if status.f_files and status.f_favail < _LEAST_INODES:
            yield error(f"Only {status.f_favail} files more can be made on {where} (inodes).", _ROOM)
        elif status.f_files and status.f_favail < min(_FEW_INODES, _FEW_SHARE * status.f_files):
            yield warning(f"Only {status.f_favail} files more can be made on {where} (inodes).", _ROOM)


def _written(subject: Subject) -> Iterator[tuple[str, Path]]:
    database = subject.database
    if database is not None:
        yield "database", database.parent
    if subject.token_folder is not None:
        yield "token", subject.token_folder
    export = subject.config.audit.export_file
    for key, folder in (
        ("audit.tile_folder", subject.config.audit.tile_folder),
        ("audit.export_file", None if export is None else export.parent),
        ("ca.crl_folder", subject.config.ca.crl_folder),
    ):
        if folder is not None:
            yield key, folder
    yield "the system's log", Path("/var/log")


def descriptors(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001 - every check takes the subject
    """Yields a finding when a process that is started as this one may open fewer files than a server wants."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < WANTED_DESCRIPTORS:
        yield warning(
            f"A process that is started as this one was may open {hard:,} files, fewer than {WANTED_DESCRIPTORS:,}: "
            "the server takes on fewer connections.",
            "Raise the hard limit: LimitNOFILE= in the service's unit, or /etc/security/limits.conf. A service manager "
            "may give the server another limit than this shell has: see /proc/PID/limits.",
        )


def clock_synchronization(subject: Subject) -> Iterator[Finding]:  # noqa: ARG001 - every check takes the subject
    """Yields a finding when nothing told the kernel that it keeps the clock in step."""
    synchronized = is_synchronized()
    if synchronized is None:
        raise NotLookedAt("this system does not tell")
    if not synchronized:
        yield warning(
            "Nothing keeps this machine's clock in step, as far as its kernel knows (STA_UNSYNC).",
            "Run systemd-timesyncd, ntpd, or chrony with `rtcsync`. Where the host of this virtual machine or "
            "container keeps the clock, look there: from here it is not seen. A clock that is wrong by 90 s "
            "refuses every one-time password.",
        )
