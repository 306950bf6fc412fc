"""`trien-server ceremony`: one file makes an installation; its keys come to a second token; nothing shows a share."""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.e2e.test_canary import encodings
from tests.e2e.test_installation_keys import PATIENCE, generations
from tests.e2e.test_keys import digest_of
from tests.support.ceremony import EXAMPLE, OFFICERS, Ceremony
from tests.support.postgres import PostgresServer
from tests.support.sandbox import Installation, trien_server
from tests.support.softhsm import MODULE, environment_kept
from tests.support.workers import wait_until
from typer.testing import CliRunner

from trien_client.cli.main import build_app
from trien_server.ceremony.plan import TABLES, BadPlan, Plan, load_plan
from trien_server.cli.ceremony import NotConfirmed, confirm, prepare
from trien_server.core.algorithms import KeyType
from trien_server.core.checkpoints import LogKey
from trien_server.core.secret import Secret
from trien_server.host.private_ca import PrivateCa
from trien_server.hsm import create_softhsm_token

WIDTH = 80


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Ceremony:
    """A ceremony that was held, traced: `held.trace` has every program that ran, with arguments and environment."""
    ceremony = Ceremony(tmp_path_factory.mktemp("ceremony"))
    trace = ("strace", "-f", "-v", "-s", "100000", "-e", "trace=execve", "-o", str(ceremony.folder / "trace"))
    done = ceremony.hold(around=trace if shutil.which("strace") else ())
    (ceremony.folder / "output").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return ceremony


@pytest.fixture
def running(held: Ceremony, tmp_path: Path) -> Iterator[Installation]:
    """The installation's server, on a copy."""
    folder = tmp_path / "installation"
    shutil.copytree(held.installation, folder)
    installation = Installation(folder)
    installation.start()
    yield installation
    installation.kill()


def officer(installation: Installation, held: Ceremony, name: str, *arguments: str) -> str:
    """Types `trien …` as an officer who kept the own key, and got the certificate."""
    options = [
        *("--address", installation.certificate_address, "--timeout", "60"),
        *("--ca-file", str(held.installation / "tls" / "ca.pem")),
        *("--certificate-file", str(held.installation / "operators" / f"{name}.pem")),
        *("--key-file", str(held.folder / f"{name}.key")),
    ]
    done = CliRunner().invoke(build_app(completion=False), [*arguments, *options])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_the_record_says_on_paper_what_was_made(held: Ceremony) -> None:
    record = held.record.read_text()
    assert record in (held.folder / "output").read_text()
    assert max(len(line) for line in record.splitlines()) <= WIDTH
    flat = record.replace(" ", "").replace("\n", "")
    listed = held.installation / "exported-keys.toml"
    values = [line.partition(' = "')[2].rstrip('"') for line in listed.read_text().splitlines() if " = " in line]
    assert len(values) == 3
    fingerprints = [share.read_text().partition('fingerprint = "')[2][:32] for share in held.shares]
    for shown in (held.sha256, *values, *fingerprints):
        assert shown in flat
    for name in ("Nguyễn Văn A", "Trần Thị B", "Lê Văn C", "Hoàng Thị D", "Phạm Thị E", "Võ Văn F"):
        assert name in record
    assert "localhost/trien/" in record
    with closing(sqlite3.connect(held.installation / "trien.db")) as database:
        [(origin, public)] = database.execute("SELECT origin, public_key FROM installation_keys WHERE purpose = 'LOG'")
    vkey = LogKey(origin, KeyType.EC_ED25519, public).vkey
    assert vkey in flat
    for one in OFFICERS:
        assert json.loads((held.installation / "operators" / f"{one}.json").read_text())["log_key"] == vkey
    for certificate in (*(f"operators/{one}.pem" for one in OFFICERS), "tls/ca.pem"):
        done = subprocess.run(
            ["openssl", "x509", "-in", str(held.installation / certificate), "-noout", "-fingerprint", "-sha256"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        assert done.stdout.partition("=")[2].strip().replace(":", "").lower() in flat
    for officer in OFFICERS:
        # The reviewed file names a request by its path alone: whose key is in it, the officer sees before and after.
        public = subprocess.run(
            ["openssl", "pkey", "-in", str(held.folder / f"{officer}.key"), "-pubout", "-outform", "DER"],
            capture_output=True,
            check=True,
            timeout=30,
        ).stdout
        digest = hashlib.sha256(public).hexdigest()
        assert f"key'sSHA-256{digest}" in flat
        assert f"key's SHA-256 {digest}" in (held.folder / "output").read_text()


@pytest.mark.promise("P9")
def test_the_officers_work_with_keys_that_they_made_and_the_ca_is_in_force(
    held: Ceremony, running: Installation
) -> None:
    assert not list(held.installation.rglob("nguyen-van-a.key"))
    operators = officer(running, held, "nguyen-van-a", "access", "operators", "list")
    assert operators.count("SECURITY_OFFICER, REGISTRATION_OFFICER") == 2
    shown = trien_server("ca", "show", "--config", str(running.directory / "trien.toml"))
    assert "issues certificates" in shown.stdout, shown.stderr
    proposed = officer(
        running, held, "tran-thi-b", "organizations", "create", "ubnd-huyen", "--title", "Ủy ban nhân dân huyện"
    )
    assert "ubnd-huyen" in proposed
    checked = trien_server("fsck", "--output", "json", "--config", str(running.directory / "trien.toml"))
    assert json.loads(checked.stdout)["findings"] == [], checked.stdout


@pytest.mark.slow
@pytest.mark.promise("P4", "P5")
def test_a_second_token_is_given_the_keys_and_the_server_goes_on(
    held: Ceremony, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "installation"
    shutil.copytree(held.installation, folder)
    shutil.rmtree(folder / "token")
    monkeypatch.delenv("SOFTHSM2_CONF", raising=False)
    pins = [Secret((folder / name).read_bytes().strip()) for name in ("token-pin", "token-so-pin")]
    create_softhsm_token(folder / "token", label="trien", pin=pins[0], so_pin=pins[1], module_path=MODULE)
    (folder / "exported-keys.toml").unlink()
    command = [
        *("token", "import-keys", "--config", str(folder / "trien.toml"), "--export", str(held.export)),
        *("--so-pin-file", str(folder / "token-so-pin")),
    ]
    shares = [option for share in held.shares for option in ("--share", str(share))]
    alone = trien_server(*command, *shares[:2])
    assert (alone.returncode, "it takes both" in alone.stderr) == (1, True), alone.stderr
    done = trien_server(*command, *shares)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("brought") == 3
    for component in held.components():
        assert component[:9] not in done.stdout + done.stderr + alone.stderr
    installation = Installation(folder)
    try:
        installation.start()
        assert "nguyen-van-a" in officer(installation, held, "nguyen-van-a", "access", "operators", "list")
    finally:
        installation.kill()


@pytest.mark.promise("P12")
def test_no_share_is_in_any_output_file_database_argument_or_environment(
    held: Ceremony, record_property: Callable[[str, object], None]
) -> None:
    components = [component.replace(" ", "") for component in held.components()]
    key = bytes(a ^ b for a, b in zip(*(bytes.fromhex(one) for one in components), strict=True))
    secrets = [*(bytes.fromhex(one) for one in components), key]
    places = [path for path in held.folder.rglob("*") if path.is_file() and path not in held.shares]
    needles = [needle for secret in secrets for name, needle in encodings(secret).items() if name != "reversed"] + [
        component.encode() for component in held.components()
    ]
    found = [(str(path), needle) for path in places for needle in needles if needle in path.read_bytes()]
    assert found == []
    assert all(share.stat().st_mode & 0o777 == 0o600 for share in held.shares)
    if shutil.which("strace"):
        assert (held.folder / "trace").read_text().count("execve(") >= 2
    assert len(places) > 15
    record_property("count", f"files searched for shares {len(places)}, for {len(needles)} spellings")


def test_a_ceremony_is_checked_and_confirmed_before_anything_is_made(tmp_path: Path) -> None:
    ceremony = Ceremony(tmp_path)
    checked = ceremony.hold("--check")
    assert checked.returncode == 0, checked.stderr
    assert "Nothing was made." in checked.stdout
    assert ceremony.sha256 in checked.stdout
    refused = ceremony.hold("--sha256", "0" * 64)
    assert (refused.returncode, "Nothing was made" in refused.stderr) == (1, True)
    loaded = load_plan(ceremony.plan)
    confirm(loaded, sha256=None, ask=lambda _: f" {ceremony.sha256[:16].upper()} ")
    for sha256, typed in ((None, ceremony.sha256[:15]), (None, "0" * 16), (None, ""), (ceremony.sha256[:16], "")):
        with pytest.raises(NotConfirmed):
            confirm(loaded, sha256=sha256, ask=lambda _, typed=typed: typed)
    assert ceremony.made() == []


def break_plan(old: str, new: str) -> Callable[[Ceremony], None]:
    return lambda ceremony: ceremony.replace(old, new)


def one_key_for_two(ceremony: Ceremony) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for name in OFFICERS:
        ceremony.request(name, key)


def no_medium(ceremony: Ceremony) -> None:
    (ceremony.folder / "c").rmdir()


def used_medium(ceremony: Ceremony) -> None:
    ceremony.shares[0].write_text("another ceremony's")


def full_medium(ceremony: Ceremony) -> None:
    """As a medium that is full, or that another program holds."""
    (ceremony.folder / "d").rmdir()
    (ceremony.folder / "d").symlink_to("/proc/self")


def full_folder(ceremony: Ceremony) -> None:
    ceremony.installation.mkdir(mode=0o700)
    (ceremony.installation / "something").touch()


def broken_request(ceremony: Ceremony) -> None:
    (ceremony.folder / "tran-thi-b.csr").write_text("no request")


WRONG: tuple[tuple[str, Callable[[Ceremony], None]], ...] = (
    ("the key is nguyen-van-a's too", one_key_for_two),
    ("is the medium in its place", no_medium),
    ("nothing is written over", used_medium),
    ("nothing can be written to", full_medium),
    ("is not empty", full_folder),
    ("tran-thi-b", broken_request),
    ("two people, not one twice", break_plan("Hoàng Thị D", "Lê Văn C")),
    ("three different folders", break_plan("d/share.toml", "c/share-2.toml")),
    ("at least two are SECURITY_OFFICER", break_plan(
        'name = "Trần Thị B"\nroles = ["SECURITY_OFFICER", "REGISTRATION_OFFICER"]',
        'name = "Trần Thị B"\nroles = ["AUDITOR"]',
    )),
    ("nobody is both", break_plan(
        'name = "Trần Thị B"\nroles = ["SECURITY_OFFICER", "REGISTRATION_OFFICER"]',
        'name = "Trần Thị B"\nroles = ["SECURITY_OFFICER", "ADMINISTRATOR"]',
    )),
    ("Extra inputs", break_plan("place =", "plaice = 1\nplace =")),
    ("with softhsm nothing else", break_plan("softhsm = true", 'softhsm = true\nlabel = "x"')),
    ("Expected", break_plan("[ceremony]", "[ceremony")),
    ("does not exist", break_plan(
        "softhsm = true", 'softhsm = false\nmodule = "/nowhere.so"\nlabel = "x"\npin_file = "nowhere"'
    )),
)  # fmt: skip


def test_what_would_fail_is_said_before_anything_is_made(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    for number, (because, spoil) in enumerate(WRONG):
        ceremony = Ceremony(tmp_path / str(number))
        spoil(ceremony)
        before = ceremony.made()
        try:
            _, faults = prepare(ceremony.plan)
        except BadPlan as fault:
            faults = [str(fault)]
        assert because in "\n".join(faults)
        assert ceremony.made() == before
    record_property("count", f"plans refused {len(WRONG)}")


def test_a_plan_that_is_refused_is_refused_on_the_command_line_too(tmp_path: Path) -> None:
    ceremony = Ceremony(tmp_path)
    ceremony.replace("place =", "plaice = 1\nplace =")
    refused = ceremony.hold()
    assert (refused.returncode, "plaice" in refused.stderr) == (2, True)
    assert ceremony.made() == []


def test_another_file_does_not_complete_what_this_one_began(held: Ceremony, tmp_path: Path) -> None:
    again = Ceremony(tmp_path / "again")
    shutil.copytree(held.installation, again.installation)
    again.replace("phòng máy chủ", "phòng họp")
    _, faults = prepare(again.plan)
    assert f"begun with another file, of SHA-256 {held.sha256}" in faults[0]
    _, faults = prepare(held.plan)
    assert [fault for fault in faults if "this ceremony was held" in fault]


def test_the_example_shows_every_key_and_its_values_are_the_defaults(tmp_path: Path) -> None:
    text = EXAMPLE.read_text()
    keys = {name for table in TABLES for name in table.model_fields} - {"custodian"}
    written = {line.lstrip("# ").partition(" = ")[0] for line in text.splitlines() if " = " in line}
    assert keys <= written
    assert text.count("\n[[custody.custodian]]\n") == 2
    assert len(keys) > 25
    for table in TABLES:
        for name, field in table.model_fields.items():
            assert field.description, name
    path = tmp_path / "example.toml"
    path.write_text(text)
    plan = load_plan(path).plan
    assert isinstance(plan, Plan)
    assert plan.installation.token_address == type(plan.installation).model_fields["token_address"].default


def _calls(ceremony: Ceremony, trace: Path, call: str) -> int:
    """Holds a ceremony, and returns how many times its own process makes a call. strace counts each kind by itself."""
    done = ceremony.hold(around=("strace", "-f", "-o", str(trace), "-e", f"trace={call}"))
    assert done.returncode == 0, done.stderr
    lines = trace.read_text().splitlines()
    own = lines[-1].split()[0]  # it ends behind its children
    return sum(line.split()[0] == own and "(" in line and "resumed" not in line for line in lines)


@pytest.mark.slow
@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("call", "every"), [("rename", 4), ("fsync", 9), ("fdatasync", 4), ("unlink", 2), ("ftruncate", 40)]
)
def test_a_ceremony_that_was_killed_anywhere_is_completed_by_holding_it_again(
    tmp_path: Path, call: str, every: int, record_property: Callable[[str, object], None]
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    points = list(range(1, _calls(Ceremony(tmp_path / "whole"), tmp_path / "trace", call) + 1, every))
    killed = 0
    for point in points:
        ceremony = Ceremony(tmp_path / f"point-{point}")
        inject = f"inject={call}:signal=KILL:when={point}"
        first = ceremony.hold(around=("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject))
        if first.returncode == 0:
            continue  # it would have been the call behind the last one
        killed += 1
        second = ceremony.hold()
        if ceremony.record.exists() and second.returncode != 0:
            assert "this ceremony was held" in second.stderr  # it was killed behind its end
        else:
            assert second.returncode == 0, f"killed at {call} {point}: {second.stderr}"
            assert ceremony.record.read_text() in second.stdout
        _bring_to_second(ceremony)
        shutil.rmtree(ceremony.folder)
    assert killed >= max(1, len(points) - 1)
    record_property("count", f"ceremony: killed at {killed} of {call}")


def _bring_to_second(ceremony: Ceremony) -> None:
    """What shares and export open is what the token has: its keys come to a second one, by their check values."""
    folder = ceremony.installation
    before = (folder / "exported-keys.toml").read_text()
    shutil.rmtree(folder / "token")
    pins = [Secret((folder / name).read_bytes().strip()) for name in ("token-pin", "token-so-pin")]
    os.environ.pop("SOFTHSM2_CONF", None)
    create_softhsm_token(folder / "token", label="trien", pin=pins[0], so_pin=pins[1], module_path=MODULE)
    shares = [option for share in ceremony.shares for option in ("--share", str(share))]
    done = trien_server(
        *("token", "import-keys", "--config", str(folder / "trien.toml"), "--export", str(ceremony.export)),
        *("--so-pin-file", str(folder / "token-so-pin"), *shares),
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "exported-keys.toml").read_text() == before


@pytest.mark.slow
@pytest.mark.promise("P5")
def test_the_sealing_and_the_wrapping_key_in_custody_are_replaced_with_both_shares(
    held: Ceremony, running: Installation, tmp_path: Path
) -> None:
    export = tmp_path / "keys.toml"
    shutil.copy(held.export, export)
    config = str(running.directory / "trien.toml")
    given = ["--config", config, "--export", str(export)]
    shares = [option for share in held.shares for option in ("--share", str(share))]
    early = trien_server("token", "add-sealing-key", *given, *shares)
    assert (early.returncode, "agreed on" in early.stderr) == (1, True), early.stderr

    _rotate(held, running, "sealing")
    wait_until(
        lambda: any(
            line.get("event") == "security_officer_needed" and line["run"] == "trien-server token add-sealing-key"
            for line in running.lines()
        ),
        "the server waits for the custodians",
        seconds=PATIENCE,
    )
    assert set(generations(running)) == {"1"}
    made = trien_server("token", "add-sealing-key", *given, *shares)
    assert made.returncode == 0, made.stderr
    assert "4 keys now" in made.stdout
    wait_until(lambda: set(generations(running)) == {"2"}, "rows are sealed anew", seconds=PATIENCE)

    so_pin = ["--so-pin-file", str(running.directory / "token-so-pin")]
    bare = trien_server("token", "add-wrapping-key", "--config", config, *so_pin)
    assert (bare.returncode, "in custody" in bare.stderr) == (2, True)
    made = trien_server("token", "add-wrapping-key", *given, *so_pin, *shares)
    assert made.returncode == 0, made.stderr
    assert "5 keys now" in made.stdout
    _rotate(held, running, "wrapping")

    def in_use() -> bool:
        listed = officer(running, held, "tran-thi-b", "keys", "installation", "list")
        return any("wrapping-2" in line and "ACTIVE" in line for line in listed.splitlines())

    wait_until(in_use, "the wrapping key is in use", seconds=PATIENCE)
    assert [line for line in running.lines() if line.get("event") == "record_not_trusted"] == []


def _rotate(held: Ceremony, installation: Installation, purpose: str) -> None:
    text = officer(installation, held, "nguyen-van-a", "keys", "installation", "rotate", "--purpose", purpose)
    name = next(word.rstrip(":") for word in text.split() if word.startswith("proposals/"))
    shown = officer(installation, held, "tran-thi-b", "proposals", "show", name)
    officer(installation, held, "tran-thi-b", "proposals", "approve", name, "--digest", digest_of(shown))


@pytest.mark.slow
def test_a_ceremony_without_custody_and_without_a_ca_says_so(tmp_path: Path) -> None:
    ceremony = Ceremony(tmp_path)
    text = ceremony.plan.read_text()
    for first, behind in (("[custody]", "[ca]"), ("[ca]", "[[officer]]")):
        text = text[: text.index(f"\n{first}\n")] + text[text.index(f"\n{behind}\n") :]
    ceremony.write(text)
    done = ceremony.hold()
    assert done.returncode == 0, done.stderr
    assert "only its vendor's clone" in done.stdout
    record = ceremony.record.read_text()
    assert record.count("can never leave the token") == 4
    assert "CA of documents: none" in record
    assert "Custodian" not in record
    assert max(len(line) for line in record.splitlines()) <= WIDTH
    assert not (ceremony.installation / "exported-keys.toml").exists()
    checked = trien_server("fsck", "--output", "json", "--config", str(ceremony.installation / "trien.toml"))
    assert json.loads(checked.stdout)["findings"] == [], checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("call", "error", "every"), [("fsync", "EIO", 7), ("rename", "ENOSPC", 9)])
def test_a_ceremony_that_met_a_full_or_broken_disk_says_so_and_is_completed_by_holding_it_again(
    tmp_path: Path, call: str, error: str, every: int, record_property: Callable[[str, object], None]
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    points = range(2, 21, every)
    for point in points:
        ceremony = Ceremony(tmp_path / f"point-{point}")
        inject = f"inject={call}:error={error}:when={point}"
        first = ceremony.hold(around=("strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject))
        assert first.returncode == 1, f"{call} {point}: {first.stderr}"
        assert "Traceback" not in first.stderr
        second = ceremony.hold()
        assert second.returncode == 0, f"{call} {point}: {second.stderr}"
        assert ceremony.record.read_text() in second.stdout
    record_property("count", f"ceremony: {error} at {len(points)} of {call}")


@pytest.mark.slow
@pytest.mark.promise("P9")
def test_a_token_of_any_module_postgresql_and_an_officers_own_certificate(tmp_path: Path) -> None:
    server = PostgresServer()
    try:
        server.set_up()
        _hold_with_everything_from_elsewhere(Ceremony(tmp_path / "ceremony"), server)
    finally:
        server.stop()


def _hold_with_everything_from_elsewhere(ceremony: Ceremony, server: PostgresServer) -> None:
    token = ceremony.folder / "vendor"
    pins = {"pin": Secret(b"48151623-user"), "so-pin": Secret(b"42108151-officer"), "wrong": Secret(b"00000000")}
    with environment_kept("SOFTHSM2_CONF"):
        configuration = create_softhsm_token(
            token, label="VENDOR", pin=pins["pin"], so_pin=pins["so-pin"], module_path=MODULE
        )
    for name, pin in pins.items():
        path = ceremony.folder / name
        path.write_bytes(pin.reveal() + b"\n")
        path.chmod(0o600)
    ceremony.replace(
        "softhsm = true",
        f'softhsm = false\nmodule = "{MODULE}"\nlabel = "VENDOR"\npin_file = "wrong"\nso_pin_file = "so-pin"',
    )
    url = server.url(server.copy())
    ceremony.replace('store_url = "sqlite:///trien.db"', f'store_url = "{url}"')
    agency = PrivateCa.create("the agency's CA")
    (ceremony.folder / "agency.pem").write_bytes(agency.identity.certificate)
    request = (ceremony.folder / "tran-thi-b.csr").read_bytes()
    (ceremony.folder / "tran-thi-b.pem").write_bytes(agency.certify_client(request))
    ceremony.replace('certificate_request = "tran-thi-b.csr"', 'certificate = "tran-thi-b.pem"')
    ceremony.replace('# client_ca_file = "agency-ca.pem"', 'client_ca_file = "agency.pem"')

    there = {"SOFTHSM2_CONF": str(configuration)}
    before = ceremony.made()
    refused = ceremony.hold("--check", **there)
    assert (refused.returncode, "PIN" in refused.stderr) == (3, True), refused.stderr
    assert ceremony.made() == before
    ceremony.replace('pin_file = "wrong"', 'pin_file = "pin"')
    assert ceremony.hold("--check", **there).returncode == 0
    done = ceremony.hold(**there)
    assert done.returncode == 0, done.stderr
    assert "label VENDOR" in done.stdout
    assert "trusted" in done.stdout

    installation = Installation(ceremony.installation, **there)
    try:
        installation.start()
        for name in OFFICERS:
            assert "tran-thi-b" in officer(installation, ceremony, name, "access", "operators", "list")
    finally:
        installation.kill()
    another = Ceremony(ceremony.folder / "another")
    another.replace(
        "softhsm = true", f'softhsm = false\nmodule = "{MODULE}"\nlabel = "VENDOR"\npin_file = "{ceremony.folder}/pin"'
    )
    refused = another.hold("--check", **there)
    assert (refused.returncode, "it has keys of an installation" in refused.stderr) == (1, True), refused.stderr
    another.replace('store_url = "sqlite:///trien.db"', f'store_url = "{url}"')
    refused = another.hold("--check", **there)
    assert "has an installation already" in refused.stderr
