"""The sections [ca] and [revocation]."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.fakes.public_ca import issue
from tests.unit.test_config_delivery import FILE

from trien_server.cli.checks import file_findings
from trien_server.config import BadConfiguration, Config, load
from trien_server.wiring import build_revocation_source, certificates_of_the_host, own_ca_settings


def configured(directory: Path, text: str) -> Config:
    path = directory / "trien.toml"
    path.write_text(FILE + text)
    return load(path, environment={}).config


def test_nobody_is_asked_and_nothing_published_unless_configured(tmp_path: Path) -> None:
    config = configured(tmp_path, "")
    assert build_revocation_source(config.revocation) is None
    settings = own_ca_settings(config.ca)
    assert (settings.publication, settings.crl_url) == (None, None)


def test_folders_start_from_the_files_folder_and_are_checked(tmp_path: Path) -> None:
    config = configured(tmp_path, '[ca]\ncrl_folder = "crl"\n[revocation]\ncrl_folder = "others"\n')
    assert config.ca.crl_folder == tmp_path / "crl"
    found = file_findings(config)
    assert f"ca.crl_folder: {tmp_path / 'crl'} is no folder that this user may write to" in found
    assert f"revocation.crl_folder: {tmp_path / 'others'} is no folder that this user may read" in found
    for name in ("crl", "others"):
        (tmp_path / name).mkdir()
    assert not [line for line in file_findings(config) if "crl_folder" in line]
    assert build_revocation_source(config.revocation) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://pki.example/crl",
        "ftp://pki.example/",
        "pki.example",
        "http://",
        "http://a b/",
        "http://u:p@pki.example/",
        "http://pki.example/?a=b",
        "http://[::1",
        "http://ví-dụ.example/",
    ],
)
def test_a_list_is_fetched_by_plain_http(tmp_path: Path, url: str) -> None:
    with pytest.raises(BadConfiguration, match=r"ca\.crl_url: expected a URL with http"):
        configured(tmp_path, f'[ca]\ncrl_url = "{url}"\n')


def test_a_list_is_made_before_the_last_one_is_over(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="expected less than the 1 days"):
        configured(tmp_path, "[ca]\ncrl_days = 1\ncrl_hours = 24\n")
    assert configured(tmp_path, "[ca]\ncrl_days = 1\ncrl_hours = 23\n").ca.crl_hours == 23


def test_the_files_certificates_that_expire_first_are_watched(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    soon, late = (issue(name, at=now, end=timedelta(days=days)) for name, days in (("soon", 3), ("late", 90)))
    pem = [one.certificate.public_bytes(Encoding.PEM) for one in (soon, late)]
    (tmp_path / "server.pem").write_bytes(pem[1] + pem[0])
    (tmp_path / "ca.pem").write_bytes(pem[1])
    found = certificates_of_the_host(configured(tmp_path, ""))
    assert [(one.name, one.certificate) for one in found] == [
        ("server/tls-certificate", soon.der),
        ("server/client-ca", late.der),
    ]
