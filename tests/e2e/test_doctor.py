"""`trien-server doctor` over real installations: healthy, at work, and with real faults."""

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_clock import FakeClock
from tests.support.sandbox import TRIEN_SERVER, copy_sandbox, environment, running_sandbox, trien_server
from tests.support.shim import Shim

from trien_server.cli.doctor.checks import CHECKS

# What depends on the machine that the tests run on (a slow one: whether the first start is a minute behind `init`), and
# on what `init` leaves for people to take away.
OF_THE_MACHINE = {"clock-synchronization", "disks", "descriptors", "database-place", "log"}
OF_INIT = {"left-behind", "token-module", "token-wrapping", "officers"}


@dataclass(frozen=True)
class Seen:
    """What the command printed as JSON."""

    code: int
    findings: list[dict[str, str]]
    looked_at: list[str]
    not_looked_at: dict[str, str]

    def of(self, check: str, severity: str = "error") -> str:
        """Returns the text and advice of the one finding of a check and severity."""
        found = [one for one in self.findings if (one["check"], one["severity"]) == (check, severity)]
        assert len(found) == 1, self.findings
        assert found[0]["advice"]
        return f"{found[0]['finding']} {found[0]['advice']}"

    @property
    def errors(self) -> list[str]:
        return sorted(one["check"] for one in self.findings if one["severity"] == "error")


def doctor(directory: Path, *options: str, **added: str) -> Seen:
    done = subprocess.run(
        [TRIEN_SERVER, "doctor", "--config", str(directory / "trien.toml"), "--output", "json", *options],
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(**added),
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    left_out = {one["check"]: one["because"] for one in content["not_looked_at"]}
    return Seen(done.returncode, content["findings"], content["looked_at"], left_out)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `init` made; no test changes it."""
    directory = tmp_path_factory.mktemp("doctor") / "made"
    assert trien_server("init", "--dir", str(directory)).returncode == 0
    return directory


@pytest.fixture
def made(original: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy for one test to damage."""
    directory = tmp_path / "made"
    shutil.copytree(original, directory)
    configuration = directory / "token" / "softhsm2.conf"
    configuration.write_text(configuration.read_text().replace(str(original), str(directory)))
    return directory


def test_a_new_installation_has_no_error_and_everything_was_looked_at(original: Path) -> None:
    objects = sorted((original / "token").rglob("*.object"))
    seen = doctor(original)
    assert (seen.code, seen.errors) == (0, [])
    found = {one["check"] for one in seen.findings} - OF_THE_MACHINE
    assert found == OF_INIT, seen.findings
    everything = {"configuration", *(check.name for check in CHECKS)}
    assert {*seen.looked_at, *seen.not_looked_at} == everything
    assert seen.not_looked_at.keys() - {"clock-synchronization", "log", "log-key"} == {"carriers"}
    assert sorted((original / "token").rglob("*.object")) == objects, "something stayed on the token"
    assert "SoftHSM" in seen.of("token-module", "note")
    assert "never in production" in seen.of("token-module", "note")


def test_beside_a_running_server_it_finds_no_error_and_the_server_goes_on(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "installation") as installation:
        seen = doctor(installation.directory)
        assert seen.errors == [], seen.findings
        assert {"log", "log-key"} <= set(seen.looked_at), seen.not_looked_at
        assert not [line for line in installation.lines() if line.get("level") in {"warning", "error"}]
        assert installation.stop() == 0


@pytest.mark.promise("P8")
def test_a_wrong_pin_is_tried_once_in_the_whole_run(made: Path, tmp_path: Path) -> None:
    shim = Shim(tmp_path / "shim")
    (made / "token-pin").write_text("00000000\n")
    seen = doctor(made, "--set", shim.setting, **shim.environment)
    logins = [noted for noted in shim.noted() if noted.function == "C_Login"]
    assert len(logins) == 1
    assert seen.code == 1
    assert seen.errors == ["token-pin"]
    assert "tried once, and not again" in seen.of("token-pin")
    assert "00000000" not in json.dumps(seen.findings)
    for check in ("token-keys", "token-mechanisms", "token-threads", "token-wrapping", "installation", "officers"):
        assert seen.not_looked_at[check] == "token-pin found an error"
    assert {"database", "clock", "tls-certificates"} <= set(seen.looked_at)


def test_many_faults_at_once_are_all_found(made: Path) -> None:
    (made / "token-pin").chmod(0o644)
    (made / "tls" / "server.key").write_bytes((made / "tls" / "ca.key").read_bytes())
    (made / "trien.toml").chmod(0o666)
    (made / "trien.db").chmod(0o644)
    with closing(sqlite3.connect(made / "trien.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    seen = doctor(made)
    assert seen.code == 1
    texts = [one["finding"] for one in seen.findings if one["check"] == "files"]
    assert any("token.pin_file" in text and "chmod 600" in text for text in texts)
    assert any("is not the key of the certificate" in text for text in texts)
    assert "trien.toml" in seen.of("permissions")
    assert "may read" in seen.of("permissions", "warning")
    assert "newer than this server's" in seen.of("database")
    assert "Run the server version that migrated it" in seen.of("database")
    assert seen.not_looked_at["token-module"] == "token.pin_file cannot be used"
    assert seen.errors == ["database", "files", "files", "permissions"]
    done = trien_server("doctor", "--config", str(made / "trien.toml"))
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    # A path is not broken: it has to be copied.
    assert [line for line in lines if len(line) > 80 and str(made) not in line] == []
    severities = [line.partition(":")[0] for line in lines if line.startswith(("error:", "warning:", "note:"))]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert len(severities) == len(seen.findings)
    assert lines[-1].startswith("Found: 4 errors, ")
    assert any(line.startswith("Looked at: configuration, user, files") for line in lines)


def test_a_configuration_that_cannot_be_read_has_every_fault_as_a_finding(made: Path) -> None:
    file = made / "trien.toml"
    file.write_text(file.read_text().replace("[log]", "[server_]\nthreads = 4\n[log]\nformt = 'json'"))
    seen = doctor(made)
    assert seen.code == 1
    assert seen.looked_at == ["configuration"]
    assert len([one for one in seen.findings if one["check"] == "configuration"]) >= 2
    assert seen.not_looked_at.keys() == {check.name for check in CHECKS}
    assert trien_server("doctor", "--config", str(file), "--output", "xml").returncode == 2


@pytest.mark.slow
@pytest.mark.promise("P5")
def test_a_row_of_another_installation_is_found_where_database_and_token_meet(made: Path) -> None:
    with closing(sqlite3.connect(made / "trien.db")) as connection, connection:
        connection.execute("UPDATE installations SET version = 2")
    seen = doctor(made)
    assert seen.errors == ["installation"]
    assert "did not seal this database" in seen.of("installation")
    assert seen.not_looked_at["officers"] == "installation found an error"


@pytest.mark.promise("P8")
def test_a_clock_behind_the_log_is_found(made: Path, tmp_path: Path) -> None:
    clock = FakeClock(tmp_path)
    clock.set(-3600)
    seen = doctor(made, **clock.environment)
    assert "newest audit entry" in seen.of("clock")
    # The certificates were not valid an hour ago either.
    assert {"clock", "tls-certificates", "installation"} >= set(seen.errors) >= {"clock", "tls-certificates"}


@pytest.mark.slow
def test_certificates_that_expired_are_found_wherever_they_are(tmp_path: Path) -> None:
    directory = copy_sandbox(tmp_path / "installation")
    clock = FakeClock(tmp_path)
    clock.set(400 * 86400)
    seen = doctor(directory, **clock.environment)
    assert "expired on" in seen.of("tls-certificates")
    assert set(seen.errors) == {"tls-certificates", "officers", "operator-certificates"}
    with closing(sqlite3.connect(directory / "trien.db")) as connection:
        (count,) = connection.execute("SELECT count(*) FROM credentials").fetchone()
    assert count > 1
    assert f"The certificates of {count} credentials have expired" in seen.of("credentials", "warning")
