"""What the doctor says of files: whose they are, and who else reads and writes them."""

import os
from pathlib import Path

import pytest
from tests.support.subjects import found, subject_of, texts

from trien_server.cli.doctor.files import files, left_behind, permissions, user
from trien_server.cli.doctor.findings import Severity
from trien_server.cli.doctor.subject import Subject


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    tmp_path.chmod(0o700)
    for name in ("pin", "server.key", "server.pem", "ca.pem", "module.so", "trien.db", "trien.toml"):
        (tmp_path / name).touch(mode=0o600)
    made = subject_of(tmp_path)
    made.path = tmp_path / "trien.toml"
    return made


def test_files_of_ones_own_have_no_finding(subject: Subject) -> None:
    assert found(permissions, subject) == []
    assert found(user, subject) == []
    assert found(left_behind, subject) == []


@pytest.mark.parametrize("name", ["trien.toml", "module.so", "pin", "ca.pem", "trien.db"])
def test_a_file_that_others_write_is_an_error_with_the_command_that_mends_it(name: str, subject: Subject) -> None:
    path = Path(str(subject.folder)) / name
    path.chmod(0o622)
    (finding,) = [one for one in found(permissions, subject) if one.severity is Severity.ERROR]
    assert f"may write to {path} (mode 0622)" in finding.text
    assert f"chmod go-w {path}" in finding.advice


def test_a_folder_in_which_others_may_put_files_is_an_error_unless_it_is_sticky(
    subject: Subject, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)
    assert len(texts(found(permissions, subject))) >= 1
    tmp_path.chmod(0o1777)
    assert texts(found(permissions, subject)) == []


def test_a_link_is_judged_by_the_folder_that_it_leads_to_as_well(subject: Subject, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "ca.pem").rename(elsewhere / "ca.pem")
    (tmp_path / "ca.pem").symlink_to(elsewhere / "ca.pem")
    elsewhere.chmod(0o700)
    assert texts(found(permissions, subject)) == []
    elsewhere.chmod(0o777)
    (told,) = texts(found(permissions, subject))
    assert f"may write to {elsewhere} (mode 0777)" in told


def test_a_database_that_others_read_is_a_warning(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "trien.db").chmod(0o640)
    (told,) = texts(found(permissions, subject), Severity.WARNING)
    assert "(mode 0640)" in told


def test_secrets_that_init_left_are_warnings(subject: Subject, tmp_path: Path) -> None:
    for name in ("token-so-pin", "tls/ca.key", "operators/first.key", "operators/second.key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch(mode=0o600)
    told = texts(found(left_behind, subject), Severity.WARNING)
    assert len(told) == 3
    assert "first, second" in told[2]


def test_missing_files_and_wrong_ones_are_each_an_error(subject: Subject, tmp_path: Path) -> None:
    (tmp_path / "module.so").unlink()
    (tmp_path / "pin").chmod(0o604)
    told = texts(found(files, subject))
    assert any("token.module" in text and "does not exist" in text for text in told)
    assert any("token.pin_file" in text and "chmod 600" in text for text in told)
    assert any("server.tls_certificate_file" in text for text in told)


def test_a_place_for_the_audit_log_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    key = tmp_path / "syslog.key"
    key.touch(mode=0o644)
    audit = {"tile_folder": tmp_path / "tiles", "export_file": tmp_path / "absent" / "log.jsonl"}
    syslog = {"url": "tls://siem.example:6514", "key_file": key, "certificate_file": tmp_path / "absent.pem"}
    told = texts(found(files, subject_of(tmp_path, audit=audit, syslog=syslog)))
    for words in ("audit.tile_folder", "audit.export_file", "syslog.key_file", "syslog.certificate_file"):
        assert len([text for text in told if text.startswith(words)]) == 1
    (tmp_path / "tiles").mkdir()
    (tmp_path / "absent").mkdir()
    assert not [text for text in texts(found(files, subject_of(tmp_path, audit=audit))) if text.startswith("audit")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_is_told_to_look_as_the_servers_user_and_a_strangers_file_is_an_error(
    subject: Subject, tmp_path: Path
) -> None:
    os.chown(tmp_path / "pin", 65534, 65534)
    (finding,) = found(user, subject)
    assert finding.severity is Severity.ERROR
    assert "runuser -u " in finding.advice
    assert any("belongs to" in text for text in texts(found(permissions, subject)))
