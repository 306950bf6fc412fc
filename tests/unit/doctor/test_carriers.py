"""Whether carriers can be reached, tried without a message."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.carriers import MailServer, SmsGateway, Tls
from tests.support.subjects import found, subject_of, texts

from trien_server.cli.doctor.carriers import carriers
from trien_server.cli.doctor.findings import NotLookedAt

SECRET = "whsec_bm90IGEgcmVhbCBzZWNyZXQgb2YgYW55Ym9keQ=="


def private(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content)
    return path


def sections(folder: Path, tls: Tls, mail: MailServer, gateway: SmsGateway, password: str) -> dict[str, dict[str, Any]]:
    return {
        "email": {
            "host": "127.0.0.1",
            "port": mail.port,
            "ca_file": tls.ca_file,
            "user": "trien",
            "password_file": private(folder / "password", password),
            "from_address": "no-reply@district.example",
        },
        "sms": {
            "url": f"https://127.0.0.1:{gateway.port}/messages",
            "secret_file": private(folder / "secret", SECRET),
            "ca_file": tls.ca_file,
        },
    }


@pytest.mark.promise("P12")
def test_carriers_are_reached_without_a_message_and_one_that_refuses_is_told_of(tmp_path: Path) -> None:
    tls = Tls.create(tmp_path / "tls")
    mail = MailServer(tls, user=("trien", "a password")).start(0)
    gateway = SmsGateway(tls, SECRET).start(0)
    try:
        assert found(carriers, subject_of(tmp_path, **sections(tmp_path, tls, mail, gateway, "a password"))) == []
        (told,) = texts(found(carriers, subject_of(tmp_path, **sections(tmp_path, tls, mail, gateway, "another"))))
        assert "refused the log-in" in told
        assert "another" not in told
    finally:
        mail.stop()
        gateway.stop()
    told = "\n".join(
        texts(found(carriers, subject_of(tmp_path, **sections(tmp_path, tls, mail, gateway, "a password"))))
    )
    assert "email: the carrier cannot be used: the connection failed" in told
    assert "sms: the carrier cannot be used: the connection failed" in told
    assert (mail.taken, gateway.taken) == ([], [])


def test_where_no_carrier_is_configured_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(NotLookedAt, match="neither"):
        found(carriers, subject_of(tmp_path))
