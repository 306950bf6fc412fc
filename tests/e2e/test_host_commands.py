"""What the host commands say to somebody who does something wrong, or who looks around."""

import shutil
import socket
import sqlite3
import time
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.administration import Connection, Refused, client_identity, e_office
from tests.support.sandbox import Installation, running_sandbox, trien_server
from trien.v1 import credential_service_pb2, signing_service_pb2

from trien_server.host.private_ca import PrivateCa
from trien_server.hsm.softhsm import find_softhsm_module, write_softhsm_configuration

FREE_PORTS = ("--set", "server.token_address=127.0.0.1:0", "--set", "server.certificate_address=127.0.0.1:0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that `init` made without --host; tests that change something take a copy."""
    directory = tmp_path_factory.mktemp("host") / "made"
    done = trien_server("init", "--dir", str(directory))
    assert done.returncode == 0, done.stderr
    assert "listens on 127.0.0.1" in done.stdout
    assert "names only localhost" in done.stdout
    return directory


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "copy"
    shutil.copytree(made, directory)
    write_softhsm_configuration(directory / "token")
    return directory


def lines_of_run(directory: Path, *arguments: str, code: int = 1) -> list[str]:
    """Runs a server that has to refuse; returns the lines in which it did."""
    done = trien_server("run", "--config", str(directory / "trien.toml"), *FREE_PORTS, *arguments)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    return done.stderr.splitlines()


def test_the_version_and_the_commands_are_told() -> None:
    assert trien_server("--version").stdout.startswith("trien-server 0.")
    summaries = 0
    for arguments in (
        ("-h",),
        ("config", "-h"),
        ("token", "-h"),
        ("delivery", "-h"),
        ("ca", "-h"),
        ("operators", "-h"),
    ):
        shown = trien_server(*arguments, COLUMNS="80")
        assert shown.returncode == 0
        _, _, commands = shown.stdout.partition("Commands:\n")
        for line in commands.splitlines():
            summary = line.split(maxsplit=1)[1]
            assert summary.endswith(".")
            assert not summary.endswith("...")
            assert len(summary) < 60
            summaries += 1
    assert summaries == 28
    for command in ("init", "run", "sandbox", "migrate"):
        assert "Usage:" in trien_server(command, "-h").stdout


def test_init_looks_at_an_existing_tokens_files_before_it_makes_anything(tmp_path: Path) -> None:
    module, pin, directory = Path(find_softhsm_module()), tmp_path / "pin", tmp_path / "new"
    token = ("--token-label", "T", "--pin-file", str(pin))

    def refused(module: Path) -> list[str]:
        done = trien_server("init", "--dir", str(directory), "--module", str(module), *token)
        assert done.returncode == 2
        assert not directory.exists()
        return done.stderr.splitlines()

    assert refused(module) == [f"--pin-file {pin} does not exist"]
    pin.touch(mode=0o600)
    assert refused(module) == [f"--pin-file {pin} is empty"]
    pin.write_text("1234\n")
    assert refused(tmp_path / "none.so") == [f"--module {tmp_path / 'none.so'} does not exist"]
    pin.chmod(0o644)
    assert f"chmod 600 {pin}" in refused(module)[0]


def test_init_where_an_installation_is_says_what_to_do(made: Path) -> None:
    done = trien_server("init", "--dir", str(made))
    assert done.returncode == 1
    assert done.stderr.startswith(f"An installation exists in {made}, and nothing was changed.")
    assert f"trien-server run --config {made / 'trien.toml'}" in done.stderr


@pytest.mark.promise("P8")
def test_files_that_are_missing_or_wrong_are_told_by_their_key(copy: Path) -> None:
    keys = {
        "token.pin_file": copy / "token-pin",
        "server.tls_key_file": copy / "tls" / "server.key",
        "server.tls_certificate_file": copy / "tls" / "server.pem",
        "server.client_ca_file": copy / "tls" / "ca.pem",
    }
    told = 0
    for key, path in keys.items():
        kept = path.rename(path.with_name("kept"))
        for workers in ("1", "2"):
            assert lines_of_run(copy, "--set", f"server.workers={workers}") == [f"{key}: {path} does not exist"]
            told += 1
        path.touch(mode=0o600)
        (line,) = lines_of_run(copy)
        assert line.startswith(f"{key}: {path} ")
        kept.replace(path)
    assert told == 8

    other = PrivateCa.create("another CA").issue_server(["localhost"])
    keys["server.tls_key_file"].write_bytes(other.private_key)
    (line,) = lines_of_run(copy)
    assert "is not the key of the certificate" in line


@pytest.mark.promise("P8")
def test_a_refused_pin_and_a_taken_port_are_one_line_each(copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for workers in ("1", "2"):
            said = lines_of_run(copy, "--set", f"server.workers={workers}", "--set", f"server.token_address={address}")
            assert said == [f"cannot listen on {address}: is the port taken?"]
    (copy / "token-pin").write_text("wrong-pin\n")
    (line,) = lines_of_run(copy, code=3)
    assert line.count("The token refused the PIN") == 1
    assert "Check the PIN file" in line


def test_without_a_configuration_file_only_that_is_said(tmp_path: Path) -> None:
    for command in (("run",), ("config", "check"), ("config", "show"), ("migrate",)):
        done = trien_server(*command, cwd=tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "trien-server init" in line
    # Who sets values by other means hears what is wrong with them.
    for arguments, added in ((("--set", "log.format=text"), {}), ((), {"TRIEN_LOG__FORMAT": "text"})):
        done = trien_server("config", "check", *arguments, cwd=tmp_path, **added)
        assert "store: Field required" in done.stderr


def test_what_config_show_prints_is_toml_that_can_be_used(made: Path, tmp_path: Path) -> None:
    name = 'Trien "của" \\ xã'
    arguments = ("--set", f"service.name={name}", "--set", "server.reflection=true")
    shown = trien_server("config", "show", "--config", str(made / "trien.toml"), *arguments)
    assert shown.returncode == 0, shown.stderr
    values = tomllib.loads(shown.stdout)
    assert values["service"]["name"] == name
    assert values["server"]["reflection"] is True
    assert "\n# serial =  # default\n" in shown.stdout
    again = tmp_path / "trien.toml"
    again.write_text(shown.stdout)
    checked = trien_server("config", "check", "--config", str(again))
    assert checked.returncode == 0, checked.stderr
    shown_again = tomllib.loads(trien_server("config", "show", "--config", str(again)).stdout)
    assert shown_again == values


def test_callers_at_the_wrong_port_leave_no_other_lines_in_the_log(copy: Path) -> None:
    installation = Installation(copy)
    refused = 0
    try:
        installation.start()
        stranger = client_identity(installation, "nobody")
        callers = (
            Connection(installation, token="a-token", address=installation.certificate_address),
            Connection(installation, identity=stranger, address=installation.address),
        )
        for caller in callers:
            with caller, pytest.raises(Refused):
                caller.sign(signing_service_pb2.SignDigestsRequest(), timeout=3)
            refused += 1
        for port in (installation.token_port, installation.certificate_port):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.5)
        assert installation.stop() == 0
    finally:
        installation.kill()
    assert refused == 2
    lines = installation.log().splitlines()
    assert len(lines) >= 2
    assert [line for line in lines if not line.startswith("{")] == []


@pytest.mark.requirement("ASVS 5.0.0-16.3.3")
def test_a_database_that_somebody_changes_is_refused_and_reported(tmp_path: Path) -> None:
    """A trigger could undo what was written (P5): no call is answered until it is gone."""
    with running_sandbox(tmp_path / "installation") as installation, e_office(installation) as client:
        assert client.serving()
        with closing(sqlite3.connect(installation.database)) as connection, connection:
            connection.execute("CREATE TRIGGER t AFTER INSERT ON audit_entries BEGIN DELETE FROM audit_entries; END")
        _wait(lambda: not client.serving())
        with pytest.raises(Refused) as refused:
            client.call(client.credentials.ListCredentials, credential_service_pb2.ListCredentialsRequest())
        assert refused.value.reason == "STORE_UNAVAILABLE"
        with closing(sqlite3.connect(installation.database)) as connection, connection:
            connection.execute("DROP TRIGGER t")
        _wait(client.serving)
        events = [line for line in installation.lines() if line["event"] in ("not_serving", "serving_again")]
        assert [line["event"] for line in events] == ["not_serving", "serving_again"]
        assert "schema was changed" in events[0]["because"]


def _wait(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.1)
