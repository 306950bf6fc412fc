"""The sections for delivering one-time passwords, and the command that tries them."""

from pathlib import Path

import pytest
from tests.support.carriers import LOOPBACK, MailServer, SmsGateway, Tls, running
from typer.testing import CliRunner

from trien_server.cli.main import app
from trien_server.config import BadConfiguration, Config, load
from trien_server.core.records import AuthenticatorKind
from trien_server.host.clock import SystemClock
from trien_server.wiring import build_deliveries

FILE = """
[server]
tls_certificate_file = "server.pem"
tls_key_file = "server.key"
client_ca_file = "ca.pem"

[token]
module = "lib.so"
label = "x"
pin_file = "pin"

[store]
url = "sqlite:///trien.db"
"""
EMAIL = """
[email]
host = "mail.example"
from_address = "no-reply@district.example"
"""
SMS = """
[sms]
url = "https://gateway.example/messages"
secret_file = "sms-secret"
"""
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBnYXRld2F5LCAzMiBieXRlcw=="


def _file(directory: Path, *sections: str) -> Path:
    path = directory / "trien.toml"
    path.write_text("".join((FILE, *sections)))
    return path


def _private(path: Path, content: str) -> Path:
    path.touch(mode=0o600)
    path.write_text(content)
    return path


def _deliveries(config: Config) -> set[AuthenticatorKind]:
    return set(build_deliveries(config, clock=SystemClock(), report=lambda event, fields: None))


@pytest.mark.requirement("ASVS 5.0.0-6.3.6")
def test_without_its_sections_nothing_is_delivered(tmp_path: Path) -> None:
    config = load(_file(tmp_path), environment={}).config
    assert (config.email, config.sms, config.delivery.language) == (None, None, "vi")
    assert _deliveries(config) == set()


def test_each_section_adds_its_carrier(tmp_path: Path) -> None:
    _private(tmp_path / "sms-secret", SECRET)
    assert _deliveries(load(_file(tmp_path, EMAIL), environment={}).config) == {AuthenticatorKind.EMAIL}
    assert _deliveries(load(_file(tmp_path, SMS), environment={}).config) == {AuthenticatorKind.SMS}
    both = load(_file(tmp_path, EMAIL, SMS), environment={"TRIEN_DELIVERY__LANGUAGE": "en"}).config
    assert _deliveries(both) == {AuthenticatorKind.EMAIL, AuthenticatorKind.SMS}
    # A worker gets the configuration as JSON.
    assert Config.model_validate_json(both.model_dump_json()) == both


@pytest.mark.parametrize(
    ("sections", "overrides", "expected"),
    [
        (EMAIL, ["email.tls=none"], "email.tls: 'none' is for a mail server on this machine"),
        (EMAIL, ["email.tls=ssl"], "email.tls"),
        (EMAIL, ["email.user=trien"], "email: set both user and password_file"),
        (EMAIL, ["email.password_file=x"], "email: set both user and password_file"),
        (EMAIL, ["email.user=người", "email.password_file=x"], "email.user: expected ASCII"),
        (EMAIL, ["email.from_address=nobody"], "email.from_address: expected one mail address"),
        (EMAIL, ["email.from_address=a@b.example, c@d.example"], "email.from_address"),
        (EMAIL, ["email.from_address=a@b.example\nBcc: c@d.example"], "email.from_address"),
        (EMAIL, ["email.port=0"], "email.port"),
        (EMAIL, ["email.password=1234"], "did you mean 'password_file'?"),
        (EMAIL, ["delivery.language=fr"], "delivery.language"),
        ("", ["email.host=mail.example"], "email.from_address: Field required"),
        (SMS, ["sms.url=http://gateway.example/"], "sms.url: http is for a gateway on this machine"),
        (SMS, ["sms.url=ftp://gateway.example/"], "sms.url: expected a URL with https"),
        (SMS, ["sms.url=gateway.example"], "sms.url: expected a URL with https"),
        (SMS, ["sms.url=https://"], "sms.url: expected a URL with https"),
        (SMS, ["sms.url=https://user:secret@gateway.example/"], "sms.url: a user, password or fragment"),
        (SMS, ["sms.url=https://gateway.example/#x"], "sms.url: a user, password or fragment"),
        (SMS, ["sms.url=https://gateway.example:99999/"], "sms.url: Port out of range"),
        (SMS, ["sms.url=https://gateway.example/a b"], "sms.url: expected ASCII"),
        (SMS, ["sms.secret=x"], "did you mean 'secret_file'?"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, sections: str, overrides: list[str], expected: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        load(_file(tmp_path, sections), environment={}, overrides=overrides)
    assert expected in str(refused.value)
    assert "secret@" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_on_this_machine_there_may_be_no_tls(tmp_path: Path, host: str) -> None:
    shown = f"[{host}]" if ":" in host else host
    overrides = ["email.tls=none", f"email.host={host}", f"sms.url=http://{shown}:8025/"]
    config = load(_file(tmp_path, EMAIL, SMS), environment={}, overrides=overrides).config
    assert config.email is not None
    assert config.email.host == host


def _try(directory: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["delivery", "test", "--config", str(directory / "trien.toml"), *arguments])
    return result.exit_code, result.output


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return Tls.create(tmp_path_factory.mktemp("try") / "tls")


def test_an_operator_tries_both_carriers(tmp_path: Path, tls: Tls) -> None:
    _private(tmp_path / "sms-secret", SECRET)
    _private(tmp_path / "password", "a password\n")
    with running(MailServer(tls, user=("trien", "a password"))) as mail, running(SmsGateway(tls, SECRET)) as gateway:
        email = f'port = {mail.port}\nuser = "trien"\npassword_file = "password"\nca_file = "{tls.ca_file}"\n'
        sms = SMS.replace("gateway.example", f"{LOOPBACK}:{gateway.port}") + f'ca_file = "{tls.ca_file}"\n'
        _file(tmp_path, EMAIL.replace("mail.example", LOOPBACK), email, sms)
        code, said = _try(tmp_path, "--kind", "email", "--to", "hoa@xa.example")
        assert (code, "took the test message" in said) == (0, True), said
        code, said = _try(tmp_path, "--kind", "sms", "--to", "+84912345678")
        assert (code, "took the test message" in said) == (0, True), said
        gateway.misbehaviour = "503"
        code, said = _try(tmp_path, "--kind", "sms", "--to", "+84912345678")
        assert (code, "it answered 503" in said) == (1, True), said
        _private(tmp_path / "password", "another")
        code, said = _try(tmp_path, "--kind", "email", "--to", "hoa@xa.example")
        assert (code, "it refused the log-in (535)" in said) == (1, True), said
    assert "tin nhắn thử" in mail.taken[0].text
    assert mail.taken[0].message["Subject"] == "Trien: tin nhắn thử"
    assert "tin nhắn thử" in gateway.taken[0].content["text"]


def test_an_operator_is_told_what_is_wrong_with_the_files(tmp_path: Path) -> None:
    _file(tmp_path, EMAIL, 'user = "trien"\npassword_file = "password"\nca_file = "none.pem"\n', SMS)
    _private(tmp_path / "sms-secret", "short")
    _private(tmp_path / "password", "x").chmod(0o644)
    code, said = _try(tmp_path, "--kind", "email", "--to", "hoa@xa.example")
    assert code == 1
    assert "email.password_file" in said
    assert "chmod 600" in said
    assert "email.ca_file" in said
    _file(tmp_path, SMS)
    code, said = _try(tmp_path, "--kind", "sms", "--to", "+84912345678")
    assert (code, "fewer than 24 bytes" in said, "short" in said) == (1, True, False), said
    _private(tmp_path / "sms-secret", SECRET)
    _private(tmp_path / "token", "two words")
    _file(tmp_path, SMS, 'bearer_token_file = "token"\n')
    code, said = _try(tmp_path, "--kind", "sms", "--to", "+84912345678")
    assert (code, "holds no bearer token" in said) == (1, True), said


def test_an_operator_is_told_what_cannot_be_sent(tmp_path: Path) -> None:
    _private(tmp_path / "sms-secret", SECRET)
    _file(tmp_path, SMS)
    for arguments, expected in (
        (("--kind", "fax", "--to", "x"), "expected sms or email"),
        (("--kind", "email", "--to", "hoa@xa.example"), "no section [email]"),
        (("--kind", "sms", "--to", "0912345678"), "E.164"),
    ):
        code, said = _try(tmp_path, *arguments)
        assert (code, expected in said) == (2, True), said


def test_config_show_shows_what_is_not_configured_as_a_comment(tmp_path: Path) -> None:
    path = _file(tmp_path, EMAIL)
    result = CliRunner().invoke(app, ["config", "show", "--config", str(path)])
    assert result.exit_code == 0
    assert '[email]\nhost = "mail.example"' in result.output
    assert "# [sms]" in result.output
