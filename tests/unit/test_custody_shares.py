"""Shares that are there before a ceremony makes them: an earlier run's own, or somebody else's."""

from pathlib import Path

import pytest

from trien_server import custody
from trien_server.core.custody import split, write_share
from trien_server.core.secret import Secret
from trien_server.host.files import write_private

pytestmark = pytest.mark.promise("P4")


def test_shares_that_somebody_else_can_have_put_there_are_not_taken_for_those_of_an_earlier_run(tmp_path: Path) -> None:
    held = custody.Custody(
        custodians=("C", "D"),
        share_files=(tmp_path / "c" / "share.toml", tmp_path / "d" / "share.toml"),
        export_file=tmp_path / "export.toml",
    )
    known = split([Secret(bytes(range(32))), Secret(bytes(range(32, 64)))], held.custodians)
    for share, path in zip(known, held.share_files, strict=True):
        write_private(path, write_share(share).reveal())
    assert custody.make_shares(held)[0].fingerprint == known[0].fingerprint
    for path in held.share_files:
        planted = path.with_name("planted")
        path.rename(planted)
        path.symlink_to(planted)
        with pytest.raises(PermissionError):
            custody.make_shares(held)
        path.unlink()
        planted.rename(path)
        path.chmod(0o620)
        with pytest.raises(PermissionError):
            custody.make_shares(held)
        path.chmod(0o600)
    assert custody.make_shares(held)[1].fingerprint == known[1].fingerprint
