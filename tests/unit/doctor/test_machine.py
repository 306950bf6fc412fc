"""Disks, file systems, locks and the kernel's word on the clock."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.subjects import subject_of

from trien_server.cli.doctor.database import database_place, locking_fault
from trien_server.cli.doctor.findings import Severity
from trien_server.cli.doctor.machine import disks, room_findings
from trien_server.host.mounts import file_system_of
from trien_server.host.time_synchronization import is_synchronized
from trien_server.wiring import WANTED_DESCRIPTORS

GIB = 2**30


def status(
    *, free: int, size: int = 100 * GIB, inodes: int = 1_000_000, all_inodes: int = 2_000_000
) -> os.statvfs_result:
    return os.statvfs_result((1024, 1024, size // 1024, free // 1024, free // 1024, all_inodes, inodes, inodes, 0, 255))


@pytest.mark.parametrize(
    ("told", "severity", "words"),
    [
        (status(free=50 * GIB), None, ""),
        (status(free=30 * 2**20), Severity.ERROR, "Only 30 MiB are free"),
        (status(free=500 * 2**20), Severity.WARNING, "Only 500 of 102400 MiB are free"),
        (status(free=4 * GIB), Severity.WARNING, "Only 4096 of 102400 MiB are free"),
        (status(free=50 * GIB, inodes=12), Severity.ERROR, "Only 12 files more"),
        (status(free=50 * GIB, inodes=9_000), Severity.WARNING, "Only 9000 files more"),
        (status(free=50 * GIB, inodes=0, all_inodes=0), None, ""),  # btrfs counts none
    ],
)
def test_a_disk_with_little_room_is_told_of_once_for_all_that_is_on_it(
    told: os.statvfs_result, severity: Severity | None, words: str, tmp_path: Path
) -> None:
    places = [("database", tmp_path), ("token", tmp_path), ("nothing", tmp_path / "absent")]
    found = list(room_findings(places, lambda _: told))
    assert [finding.severity for finding in found] == ([] if severity is None else [severity])
    if found:
        assert words in found[0].text
        assert "(database, token)" in found[0].text
        assert found[0].advice


def test_a_real_file_system_that_is_nearly_full_is_found(tmp_path: Path) -> None:
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("only root can mount")
    try:
        subject = subject_of(tmp_path)
        told = [finding.text for finding in disks(subject) if str(tmp_path) in finding.text]
        assert told == [f"Only 8 MiB are free on the disk of {tmp_path} (database)."]
        assert [finding.severity for finding in disks(subject) if str(tmp_path) in finding.text] == [Severity.ERROR]
        assert "is in memory (tmpfs)" in " ".join(finding.text for finding in database_place(subject))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_a_process_that_may_open_few_files_is_warned_about() -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]),) * 2);"
        "from trien_server.cli.doctor.machine import descriptors;"
        "print([finding.severity.value for finding in descriptors(None)])"
    )
    told = {}
    for limit in (512, WANTED_DESCRIPTORS):
        if limit <= resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
            done = subprocess.run(
                [sys.executable, "-c", program, str(limit)], capture_output=True, text=True, check=True
            )
            told[limit] = done.stdout.strip()
    assert told[512] == "['warning']"
    assert told.get(WANTED_DESCRIPTORS, "[]") == "[]"


MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:24 / /srv/with\\040space rw shared:1 - nfs4 server:/export rw
29 27 0:25 / /srv/with\\040space/inner rw - tmpfs tmpfs rw
30 27 0:26 / /later rw - ext4 /dev/vdb rw
31 27 0:27 / /later rw - cifs //server/share rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/with space/trien.db", "nfs4"),
        ("/srv/with space/inner/trien.db", "tmpfs"),
        ("/srv/other/trien.db", "ext4"),
        ("/srv/with spaces/trien.db", "ext4"),
        ("/later/trien.db", "cifs"),
    ],
)
def test_a_file_is_on_the_file_system_of_the_innermost_and_latest_mount(path: str, kind: str) -> None:
    assert file_system_of(Path(path), MOUNTS) == kind


def test_an_ordinary_folder_locks_files_and_keeps_nothing(tmp_path: Path) -> None:
    assert locking_fault(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert "no file can be made" in str(locking_fault(tmp_path / "absent"))


def test_the_kernel_says_whether_the_clock_is_kept_in_step() -> None:
    assert is_synchronized() in (True, False, None)
