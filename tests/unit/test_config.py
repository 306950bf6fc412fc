"""Where a setting comes from, and what is refused."""

import zoneinfo
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from trien_server.config import BadConfiguration, ServerSection, load, senders_of, waiters_of

FILE = """
[server]
tls_certificate_file = "tls/server.pem"
tls_key_file = "tls/server.key"
client_ca_file = "/etc/ca.pem"
threads = 40

[token]
module = "lib.so"
label = "from the file"
pin_file = "pin"

[store]
url = "sqlite:///data/trien.db"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trien.toml"
    path.write_text(FILE)
    return path


def test_flags_come_before_the_environment_before_the_file_before_defaults(file: Path) -> None:
    environment = {"TRIEN_TOKEN__LABEL": "from the environment", "TRIEN_LOG__FORMAT": "text", "TRIEN_CONNECTION": "x"}
    loaded = load(file, environment=environment, overrides=["log.format=json", "server.workers=4"])
    assert loaded.config.token.label == "from the environment"
    assert loaded.config.log.format == "json"
    assert (loaded.config.server.workers, loaded.config.server.threads) == (4, 40)
    assert loaded.config.server.concurrent_calls == 256
    assert loaded.sources["token.label"] == "environment TRIEN_TOKEN__LABEL"
    assert loaded.sources["log.format"] == "--set"
    assert loaded.sources["server.threads"] == str(file)
    assert "server.concurrent_calls" not in loaded.sources


def test_relative_paths_start_from_the_files_folder(file: Path) -> None:
    config = load(file, environment={}).config
    assert config.server.tls_key_file == file.parent / "tls" / "server.key"
    assert config.server.client_ca_file == Path("/etc/ca.pem")
    assert config.store.url == f"sqlite:///{file.parent}/data/trien.db"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("token.pin=1234", "did you mean 'pin_file'?"),
        ("servr.threads=4", "did you mean 'server'?"),
        ("server.treads=4", "did you mean 'threads'?"),
        ("server.threads=many", "server.threads"),
        ("server.threads=1", "server.threads"),
        ("server.threads=8", "server.signing_requests"),
        ("log.format=xml", "log.format"),
        ("threads=4", "SECTION.KEY=VALUE"),
        ("token.serial=x", "either label or serial"),
        ("server.token_address=127.0.0.1:99999", "server.token_address: expected HOST:PORT"),
        ("server.token_address=127.0.0.1:-1", "server.token_address: expected HOST:PORT"),
        ("server.token_address=8443", "server.token_address: expected HOST:PORT"),
        ("server.token_address=:8443", "server.token_address: expected HOST:PORT"),
        ("server.certificate_address=::1:8444", "server.certificate_address: expected HOST:PORT"),
        ("server.certificate_address=[::g]:8444", "server.certificate_address: expected HOST:PORT"),
        ("server.certificate_address=127.0.0.1:8443", "another address than server.token_address"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_hint(file: Path, override: str, expected: str) -> None:
    with pytest.raises(BadConfiguration) as refused:
        load(file, environment={}, overrides=[override])
    assert expected in str(refused.value)
    assert "1234" not in str(refused.value)


@pytest.mark.parametrize(
    ("token_address", "certificate_address"),
    [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::]:8443", "[::]:8444"),
        ("sign.district.example:65535", "0.0.0.0:65535"),
    ],
)
def test_addresses_are_names_or_numbers_with_a_port(file: Path, token_address: str, certificate_address: str) -> None:
    overrides = [f"server.token_address={token_address}", f"server.certificate_address={certificate_address}"]
    server = load(file, environment={}, overrides=overrides).config.server
    assert (server.token_address, server.certificate_address) == (token_address, certificate_address)


@pytest.mark.parametrize("threads", [8, 32, 64, 160])
def test_calls_that_wait_deliver_or_sign_leave_threads_for_the_others(file: Path, threads: int) -> None:
    def config_of(signing: int) -> ServerSection:
        overrides = [f"server.threads={threads}", f"server.signing_requests={signing}"]
        return load(file, environment={}, overrides=overrides).config.server

    most = next(signing for signing in range(threads, 0, -1) if _loads(config_of, signing))
    server = config_of(most)
    assert most + waiters_of(server) + senders_of(server) == threads - 2


def _loads(config_of: Callable[[int], ServerSection], signing: int) -> bool:
    try:
        config_of(signing)
    except BadConfiguration:
        return False
    return True


def test_every_fault_is_told_at_once(file: Path) -> None:
    file.write_text(FILE.replace("threads = 40", "threads = 30\nspeed = 3\ncolour = 4"))
    with pytest.raises(BadConfiguration) as refused:
        load(file, environment={"TRIEN_STORE__URI": "x"})
    assert len(str(refused.value).splitlines()) == 3


@pytest.mark.parametrize("zone", ["Asia/Ho_Chi_Minh", "Europe/Berlin", "UTC"])
def test_a_time_zone_is_one_of_the_tz_database_and_python_brings_it(file: Path, zone: str) -> None:
    # Without the system's own data, as on a small image: that of the package tzdata is found.
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    try:
        config = load(file, environment={"TRIEN_SERVICE__TIME_ZONE": zone}).config
        assert config.service.time_zone == zone
        for wrong in ("Asia/Nowhere", "", "../etc/passwd", "/etc/localtime", "+07:00", "asia\0"):
            with pytest.raises(BadConfiguration, match=r"service\.time_zone: .* is no time zone"):
                load(file, environment={}, overrides=[f"service.time_zone={wrong}"])
    finally:
        zoneinfo.reset_tzpath()


def test_a_missing_or_broken_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadConfiguration, match="trien-server init"):
        load(tmp_path / "none.toml", environment={})
    (tmp_path / "broken.toml").write_text("[server")
    with pytest.raises(BadConfiguration, match=r"broken\.toml"):
        load(tmp_path / "broken.toml", environment={})
    with pytest.raises(BadConfiguration) as refused:
        load(None, environment={})
    assert "server: Field required" in str(refused.value)
