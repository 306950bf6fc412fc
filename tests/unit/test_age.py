"""Encrypted files: whole and durable, or not there."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from trien_server.host.age import NotDecrypted, identities_of, read_encrypted, recipients_of, write_encrypted

IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = IDENTITY.to_public()
CONTENT = [os.urandom(100_000), b"", b"x", os.urandom(70_000)]


def read(path: Path, identity: pyrage.x25519.Identity = IDENTITY) -> bytes:
    parts: list[bytes] = []
    read_encrypted(path, parts.append, identities=[identity])
    return b"".join(parts)


def test_what_was_written_is_read_again_and_by_the_age_command(tmp_path: Path) -> None:
    path = tmp_path / "b.age"
    second = pyrage.x25519.Identity.generate()
    size = write_encrypted(path, [part for part in CONTENT if part], recipients=[RECIPIENT, second.to_public()])
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (size, 0o600)
    assert list(tmp_path.iterdir()) == [path]
    assert read(path) == read(path, second) == b"".join(CONTENT)
    key = tmp_path / "key"
    key.write_text(f"# created by hand\n{second}\n")
    key.chmod(0o600)
    assert str(identities_of(key)[0]) == str(second)
    decrypted = subprocess.run(["age", "-d", "-i", key, path], capture_output=True, check=True)
    assert decrypted.stdout == b"".join(CONTENT)
    # And the other way round: what the command made is read.
    other = tmp_path / "other.age"
    subprocess.run(["age", "-r", str(RECIPIENT), "-o", other], input=b"hello", check=True)
    assert read(other) == b"hello"


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "b.age"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        write_encrypted(path, [b"x"], recipients=[RECIPIENT])
    assert path.read_text() == "mine"


def test_one_that_comes_meanwhile_stays_too(tmp_path: Path) -> None:
    path = tmp_path / "b.age"

    def chunks() -> Iterator[bytes]:
        yield b"x"
        path.write_text("mine")

    with pytest.raises(FileExistsError):
        write_encrypted(path, chunks(), recipients=[RECIPIENT])
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_what_is_written_leaves_nothing_and_is_told_as_it_is(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield os.urandom(200_000)
        raise LookupError("the source failed")

    with pytest.raises(LookupError, match="the source failed"):
        write_encrypted(tmp_path / "b.age", chunks(), recipients=[RECIPIENT])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [10, 70_000, 1_000_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    # The last bytes are flushed by the library, which tells nobody of what failed then: the file object does.
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_encrypted(tmp_path / "b.age", [os.urandom(size)], recipients=[RECIPIENT])
    assert list(tmp_path.iterdir()) == []


def test_a_changed_a_cut_and_a_foreign_file_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "b.age"
    write_encrypted(path, [os.urandom(150_000)], recipients=[RECIPIENT])
    whole = path.read_bytes()
    tried = 0
    for cut in (0, 1, 50, 200, 70_000, len(whole) - 65_000, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(NotDecrypted):
            read(path)
        tried += 1
    for at in range(0, len(whole), 9973):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(NotDecrypted):
            read(path)
        tried += 1
    assert tried > 20
    path.write_bytes(whole)
    with pytest.raises(NotDecrypted, match="not for this identity"):
        read(path, pyrage.x25519.Identity.generate())


def test_what_the_reader_raises_comes_through(tmp_path: Path) -> None:
    path = tmp_path / "b.age"
    write_encrypted(path, [b"x" * 100_000], recipients=[RECIPIENT])

    def refuse(_: bytes) -> None:
        raise OSError(errno.ENOSPC, "its own")

    with pytest.raises(OSError, match="its own"):
        read_encrypted(path, refuse, identities=[IDENTITY])


def test_wrong_recipients_and_identities_are_refused_without_repeating_a_secret(tmp_path: Path) -> None:
    for texts in ([], ["age1"], [str(IDENTITY)], ["ssh-ed25519 AAAA"]):
        with pytest.raises(ValueError, match="age-keygen prints it"):
            recipients_of(texts)
    assert [str(one) for one in recipients_of([str(RECIPIENT)])] == [str(RECIPIENT)]
    key = tmp_path / "key"
    for text in ("", "# nothing\n", "AGE-SECRET-KEY-1QQQ\n", "\xff"):
        key.write_text(text)
        key.chmod(0o600)
        with pytest.raises(ValueError, match="holds no identity") as refused:
            identities_of(key)
        assert "QQQ" not in str(refused.value)
    key.write_text(f"{IDENTITY}\n")
    key.chmod(0o644)
    with pytest.raises(PermissionError):
        identities_of(key)
