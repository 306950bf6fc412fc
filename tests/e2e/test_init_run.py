"""The real thing: `init`, `config`, `run`, and everything that an administrator makes before the first signature."""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.support.administration import (
    Administrator,
    Connection,
    Refused,
    client_identity,
)
from tests.support.log_keys import LogKeyPair
from tests.support.openssl import openssl, verifies
from tests.support.sandbox import TRIEN_SERVER, Installation, copy_sandbox, environment, trien_server
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    organization_service_pb2,
    signing_service_pb2,
)
from typer.testing import CliRunner

from trien_client.cli.main import build_app
from trien_server.core.algorithms import SignatureAlgorithm
from trien_server.hsm.softhsm import write_softhsm_configuration

KEYS = {
    algorithms_pb2.RSA_2048: SignatureAlgorithm.RSA_PKCS1_SHA512,
    algorithms_pb2.RSA_3072: SignatureAlgorithm.RSA_PSS_SHA256,
    algorithms_pb2.RSA_4096: SignatureAlgorithm.RSA_PSS_SHA512,
    algorithms_pb2.EC_P256: SignatureAlgorithm.ECDSA_P256_SHA256,
    algorithms_pb2.EC_P384: SignatureAlgorithm.ECDSA_P384_SHA384,
    algorithms_pb2.EC_ED25519: SignatureAlgorithm.ED25519,
}
QUICK = {algorithms_pb2.RSA_3072, algorithms_pb2.EC_P256, algorithms_pb2.EC_ED25519}
KILLED_AT = ("token-so-pin", "token.unfinished", "operators/first.pem", "trien.toml", "trien.db")
"""What `init` has just made when it is killed: the first of its files, the last, and some between."""
NAMES = "oneline,utf8,-esc_msb"
EXTENSIONS = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature,nonRepudiation\n"
FREE_PORTS = ("--set", "server.token_address=127.0.0.1:0", "--set", "server.certificate_address=127.0.0.1:0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that `init` made; tests that change something take a copy."""
    directory = tmp_path_factory.mktemp("init") / "made"
    done = trien_server("init", "--dir", str(directory), "--host", "sign.district.example")
    assert done.returncode == 0, done.stderr
    assert str(directory / "trien.toml") in done.stdout
    return directory


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "copy"
    shutil.copytree(made, directory)
    write_softhsm_configuration(directory / "token")
    return directory


@pytest.fixture(scope="module")
def running(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    directory = tmp_path_factory.mktemp("run") / "installation"
    shutil.copytree(made, directory)
    write_softhsm_configuration(directory / "token")
    installation = Installation(directory)
    try:
        installation.start()
        yield installation
        assert installation.stop() == 0
    finally:
        installation.kill()


@pytest.fixture(scope="module")
def organization(running: Installation) -> Iterator[Administrator]:
    """The administrator of a new installation, after the first act."""
    with Administrator(running) as administrator:
        name = administrator.connection.call(
            administrator.connection.organizations.CreateOrganization,
            organization_service_pb2.CreateOrganizationRequest(
                organization_id="ubnd-huyen",
                organization=organization_service_pb2.Organization(display_name="Ủy ban nhân dân huyện"),
            ),
        ).name
        administrator.organization = name
        yield administrator


@pytest.mark.promise("P10")
def test_the_connection_files_have_the_key_that_receipts_are_verified_with(
    made: Path, running: Installation, organization: Administrator, tmp_path: Path
) -> None:
    files = {name: json.loads((made / "operators" / f"{name}.json").read_text()) for name in ("first", "second")}
    assert files["first"]["log_key"] == files["second"]["log_key"]
    folder = tmp_path / "operators"
    shutil.copytree(made / "operators", folder)
    pair = LogKeyPair.generate(origin=files["first"]["log_key"].partition("+")[0])
    for name, key in (("first", files["first"]["log_key"]), ("other", pair.key.vkey)):
        given = files["first"] | {"mutual_tls_address": running.certificate_address, "log_key": key}
        (folder / f"{name}.json").write_text(json.dumps(given))

    def trien(*arguments: str, exit_code: int = 0) -> Result:
        done = CliRunner().invoke(build_app(completion=False), [*arguments, "--timeout", "60"])
        assert done.exit_code == exit_code, done.output
        return done

    connection = ("--connection", str(folder / "first.json"))
    listed = json.loads(trien("audit", "list", "--limit", "1", "--output", "json", *connection).stdout)
    entry = listed[0]["name"]
    shown = trien("audit", "receipt", entry, *connection)
    assert (shown.stdout.startswith(f"trien receipt 1\nentry: {entry}\n"), shown.stderr) == (True, "")
    kept = tmp_path / "receipt"
    kept.write_text(shown.stdout)
    verify = ["verify", "receipt", str(kept), "--log-key", files["first"]["log_key"]]
    assert CliRunner().invoke(build_app(completion=False), verify).exit_code == 0
    # By a key that the server's log never had, the same receipt is not printed.
    refused = trien("audit", "receipt", entry, "--connection", str(folder / "other.json"), exit_code=5)
    assert "The receipt does not verify" in refused.stderr
    assert refused.stdout == ""
    # Without any key it is printed, and said not to be verified.
    unknown = {name: value for name, value in files["first"].items() if name != "log_key"}
    (folder / "none.json").write_text(json.dumps(unknown | {"mutual_tls_address": running.certificate_address}))
    unverified = trien("audit", "receipt", entry, "--connection", str(folder / "none.json"))
    assert (unverified.stdout.splitlines()[0], "Not verified" in unverified.stderr) == ("trien receipt 1", True)


def refusal_of_run(directory: Path, *arguments: str, code: int = 1) -> str:
    """Runs a server that has to refuse within a bounded time; returns the clear words in which it did."""
    done = trien_server("run", "--config", str(directory / "trien.toml"), *FREE_PORTS, *arguments, timeout=60)
    assert done.returncode == code, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr
    assert "serving" not in done.stderr
    assert not done.stdout
    return done.stderr


def test_what_init_made_is_private_and_can_be_used(made: Path) -> None:
    checked = trien_server("config", "check", "--config", str(made / "trien.toml"))
    assert checked.returncode == 0, checked.stderr
    assert made.stat().st_mode & 0o777 == 0o700
    private = [path for path in made.rglob("*") if path.is_file() and path.suffix in {".key", ".db", ".object"}]
    private += [made / "token-pin", made / "token-so-pin", made / "trien.toml"]
    assert len(private) >= 10
    assert not [path for path in private if path.stat().st_mode & 0o077]
    names = x509.load_pem_x509_certificate((made / "tls" / "server.pem").read_bytes())
    hosts = names.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "sign.district.example" in hosts.get_values_for_type(x509.DNSName)
    openssl(made, "verify", "-CAfile", "tls/ca.pem", "tls/server.pem", "operators/first.pem", "operators/second.pem")


@pytest.mark.parametrize(
    "key_type",
    [pytest.param(key_type, marks=[] if key_type in QUICK else [pytest.mark.slow]) for key_type in KEYS],
    ids=algorithms_pb2.KeyType.Name,
)
def test_from_nothing_to_signatures_on_both_ports(
    running: Installation, organization: Administrator, tmp_path: Path, key_type: "algorithms_pb2.KeyType.ValueType"
) -> None:
    administrator = organization
    identifier = algorithms_pb2.KeyType.Name(key_type).lower().replace("_", "-")
    signer = administrator.create_signer(identifier)
    counter = administrator.create_counter(signer)
    timer = administrator.create_timer(signer, digits=6)
    key = administrator.create_key(identifier, key_type)

    # The request is what OpenSSL takes for one, with the signer's name, and a CA of OpenSSL's issues the certificate.
    (tmp_path / "request.der").write_bytes(administrator.signing_request(key.name, signer))
    said = openssl(
        tmp_path, "req", "-inform", "DER", "-in", "request.der", "-verify", "-noout", "-subject", "-nameopt", NAMES
    )
    assert "verify OK" in said
    assert f"Người ký {identifier}" in said
    openssl(tmp_path, "req", "-inform", "DER", "-in", "request.der", "-out", "request.pem")
    certificate = issue(tmp_path)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki == key.public_key

    by_token, token = administrator.create_client(f"{identifier}-token")
    identity = client_identity(running, f"{identifier} application")
    fingerprint = hashlib.sha256(identity.certificate_der).digest()
    by_certificate, nothing = administrator.create_client(f"{identifier}-certificate", fingerprint=fingerprint)
    assert token
    assert not nothing
    chain = [certificate.public_bytes(Encoding.DER), _load(tmp_path / "ca.pem").public_bytes(Encoding.DER)]
    credential = administrator.create_credential(
        identifier, key=key.name, signer=signer, chain=chain, clients=[by_token, by_certificate]
    )
    assert credential.key_type == key_type

    algorithm = KEYS[key_type]
    function = algorithm.hash_function
    signatures = 0
    with Connection(running, token=token) as bearer, Connection(running, identity=identity) as mutual:
        for connection in (bearer, mutual):
            for code in (counter.take(), timer.take()):
                document = uuid.uuid4().bytes
                signed = document if function is None else hashlib.new(function.hashlib_name, document).digest()
                item = (
                    signing_service_pb2.SignItem(data=signed)
                    if function is None
                    else signing_service_pb2.SignItem(digest=signed)
                )
                answer = connection.sign(
                    signing_service_pb2.SignDigestsRequest(
                        credential=credential.name,
                        algorithm=algorithms_pb2.SignatureAlgorithm.Value(algorithm),
                        items=[item],
                        request_id=str(uuid.uuid4()),
                        one_time_password=authorization_service_pb2.OneTimePassword(code=code),
                    )
                )
                assert verifies(tmp_path, certificate, algorithm, signed, answer.signatures[0].value)
                signatures += 1
        disable = access_service_pb2.DisableClientRequest(name=by_certificate)
        administrator.connection.call(administrator.connection.access.DisableClient, disable)
        with pytest.raises(Refused, match="UNAUTHENTICATED"):
            mutual.sign(signing_service_pb2.SignDigestsRequest())
    assert signatures == 4


def issue(directory: Path) -> x509.Certificate:
    """Issues a certificate for `request.pem` by a CA that OpenSSL's command line makes."""
    (directory / "extensions").write_text(EXTENSIONS)
    openssl(
        directory,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
        *("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=Test signing CA"),
    )
    openssl(
        directory,
        *("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1"),
        *("-extfile", "extensions", "-out", "issued.pem"),
    )
    return _load(directory / "issued.pem")


def test_init_again_refuses_and_changes_nothing(copy: Path) -> None:
    before = _contents(copy)
    for _ in range(2):
        done = trien_server("init", "--dir", str(copy))
        assert done.returncode == 1
        assert "exists" in done.stderr
        assert "Traceback" not in done.stderr
    assert len(before) >= 12
    assert _contents(copy) == before


@pytest.mark.promise("P8")
def test_init_that_was_killed_anywhere_is_completed_by_running_it_again(tmp_path: Path) -> None:
    completed = 0
    for number, there in enumerate(KILLED_AT):
        directory = tmp_path / f"killed-{number}"
        process = subprocess.Popen(
            [TRIEN_SERVER, "init", "--dir", str(directory)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        while not (directory / there).exists():
            assert process.poll() is None, "it ends before it makes what it is killed at"
            time.sleep(0.001)
        # Every other time what it started dies with it, as in a power cut.
        kill = os.killpg if number % 2 else os.kill
        assert process.poll() is None, "there is something left to do"
        kill(process.pid, signal.SIGKILL)
        process.wait()
        again = trien_server("init", "--dir", str(directory))
        assert again.returncode == 0, again.stderr
        completed += 1
        checked = trien_server("config", "check", "--config", str(directory / "trien.toml"))
        assert checked.returncode == 0, checked.stderr
        if number % 2:
            _check_that_it_runs(directory)
    assert completed == len(KILLED_AT) == 5


def test_init_begins_a_token_anew_that_a_crash_left_half_made(made: Path, tmp_path: Path) -> None:
    directory = tmp_path / "half"
    directory.mkdir(mode=0o700)
    for name in ("token-pin", "token-so-pin"):
        shutil.copy(made / name, directory / name)
    write_softhsm_configuration(directory / "token")
    half = directory / "token.unfinished" / "tokens" / str(uuid.uuid4())
    half.mkdir(parents=True)
    (half / "token.object").write_bytes(b"")
    done = trien_server("init", "--dir", str(directory))
    assert done.returncode == 0, done.stderr
    assert not (directory / "token.unfinished").exists()
    _check_that_it_runs(directory)


def _check_that_it_runs(directory: Path) -> None:
    installation = Installation(directory)
    try:
        installation.start()
        with Administrator(installation) as administrator:
            administrator.connection.call(
                administrator.connection.organizations.CreateOrganization,
                organization_service_pb2.CreateOrganizationRequest(
                    organization_id="first", organization=organization_service_pb2.Organization(display_name="first")
                ),
            )
        assert installation.stop() == 0
    finally:
        installation.kill()


# Starts that have to be refused


@pytest.mark.promise("P8")
def test_a_wrong_pin_is_tried_once_and_told(copy: Path) -> None:
    (copy / "token-pin").write_text("not-the-pin-of-the-token\n")
    said = refusal_of_run(copy, code=3)
    assert "refused the PIN" in said
    assert "not-the-pin" not in said

    # The same in a process that counts the module's calls.
    script = (
        "import atexit, sys\n"
        "from tests.integration.hsm.scripted_module import ScriptedModule\n"
        "script = ScriptedModule()\n"
        "atexit.register(lambda: print('logins', script.calls['C_Login']))\n"
        "from trien_server.cli.main import main\n"
        "main()\n"
    )
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    counted = subprocess.run(
        [sys.executable, "-c", script, "run", "--config", str(copy / "trien.toml"), *FREE_PORTS],
        env=environment(PYTHONPATH=path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert counted.returncode == 3, counted.stderr
    assert counted.stdout.split() == ["logins", "1"]


@pytest.mark.promise("P8")
def test_a_missing_module_is_told(copy: Path) -> None:
    missing = copy / "none.so"
    said = refusal_of_run(copy, "--set", f"token.module={missing}")
    assert str(missing) in said
    no_module = copy / "no-module.so"
    no_module.write_text("this is no library")
    assert str(no_module) in refusal_of_run(copy, "--set", f"token.module={no_module}")
    checked = trien_server("config", "check", "--config", str(copy / "trien.toml"), "--set", f"token.module={missing}")
    assert checked.returncode == 1
    assert f"token.module: {missing} does not exist" in checked.stderr


@pytest.mark.promise("P5", "P8")
def test_the_database_of_another_installation_is_refused(copy: Path, tmp_path: Path) -> None:
    other = copy_sandbox(tmp_path / "other")
    for path in copy.glob("trien.db*"):
        path.unlink()
    shutil.copy(other / "trien.db", copy / "trien.db")
    said = refusal_of_run(copy)
    assert "sealing key did not seal this database" in said


@pytest.mark.promise("P8")
def test_a_token_without_the_installations_keys_is_refused(copy: Path, tmp_path: Path) -> None:
    """As after a restore of the database beside a new token."""
    fresh = tmp_path / "fresh"
    assert trien_server("init", "--dir", str(fresh)).returncode == 0
    shutil.rmtree(copy / "token" / "tokens")
    shutil.copytree(fresh / "token" / "tokens", copy / "token" / "tokens")
    shutil.copy(fresh / "token-pin", copy / "token-pin")
    assert "sealing key did not seal this database" in refusal_of_run(copy)
    shutil.rmtree(copy / "token" / "tokens")
    (copy / "token" / "tokens").mkdir(mode=0o700)
    assert "HSM_UNAVAILABLE" in refusal_of_run(copy)


@pytest.mark.promise("P8")
def test_a_missing_schema_is_never_made_by_a_start(copy: Path) -> None:
    for path in copy.glob("trien.db*"):
        path.unlink()
    said = refusal_of_run(copy)
    assert "trien-server migrate" in said
    assert not (copy / "trien.db").exists()
    checked = trien_server("config", "check", "--config", str(copy / "trien.toml"))
    assert checked.returncode == 1
    assert "trien-server migrate" in checked.stderr
    migrated = trien_server("migrate", "--config", str(copy / "trien.toml"))
    assert migrated.returncode == 0, migrated.stderr
    assert "from none to" in migrated.stdout
    assert "no installation" in refusal_of_run(copy)


@pytest.mark.promise("P8")
def test_a_port_that_is_taken_is_told_and_not_shared(running: Installation, copy: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for key in ("token_address", "certificate_address"):
            assert address in refusal_of_run(copy, "--set", f"server.{key}={address}")
    said = refusal_of_run(copy, "--set", f"server.token_address={running.address}")
    assert running.address in said
    assert refusal_of_run(copy, "--set", "server.token_address=nowhere.invalid:1")


@pytest.mark.requirement("ASVS 5.0.0-13.3.1")
def test_keys_that_others_may_read_are_refused(copy: Path) -> None:
    refused = 0
    for name, mode in (("tls/server.key", 0o640), ("token-pin", 0o604)):
        path = copy / name
        path.chmod(mode)
        said = refusal_of_run(copy)
        assert f"chmod 600 {path}" in said
        checked = trien_server("config", "check", "--config", str(copy / "trien.toml"))
        assert checked.returncode == 1
        assert f"chmod 600 {path}" in checked.stderr
        path.chmod(0o600)
        refused += 1
    assert refused == 2


def test_unknown_keys_are_refused_with_a_suggestion(copy: Path) -> None:
    config = copy / "trien.toml"
    text = config.read_text()
    config.write_text(text.replace("[server]\n", "[server]\ntoken_adress = '127.0.0.1:1'\n"))
    cases = 0
    for arguments, added in (
        ((), {}),
        (("--set", "server.treads=8"), {}),
        ((), {"TRIEN_SERVER__MESSAGE_SIZ": "65536"}),
        (("--set", "sever.threads=8"), {}),
        (("--set", "threads=8"), {}),
    ):
        done = trien_server("run", "--config", str(config), *arguments, **added)
        assert done.returncode == 2, done.stderr
        assert "server.token_adress; did you mean 'token_address'?" in done.stderr
        for said in (
            *(["server.treads; did you mean 'threads'?"] if "server.treads=8" in arguments else []),
            *(["environment TRIEN_SERVER__MESSAGE_SIZ: unknown key server.message_siz"] if added else []),
            *(["unknown section 'sever'; did you mean 'server'?"] if "sever.threads=8" in arguments else []),
            *(["expected SECTION.KEY=VALUE"] if "threads=8" in arguments else []),
        ):
            assert said in done.stderr
        cases += 1
    assert cases == 5
    config.write_text(text.replace("[server]\n", "[server]\nthreads = 'many'\n"))
    done = trien_server("run", "--config", str(config))
    assert done.returncode == 2
    assert f"server.threads: Input should be a valid integer, unable to parse string as an integer (from {config})" in (
        done.stderr.replace("\n", " ")
    )
    missing = trien_server("run", "--config", str(copy / "none.toml"))
    assert missing.returncode == 2
    assert "trien-server init" in missing.stderr


PRECEDENCE = {
    # key: (default, in the file, in the environment, on the command line), as `config show` prints them
    "service.name": ('"Trien"', '"of the file"', '"of the environment"', '"of the flag"'),
    "server.token_address": ('"127.0.0.1:8443"', '"127.0.0.1:1"', '"127.0.0.1:2"', '"127.0.0.1:3"'),
    "server.certificate_address": ('"127.0.0.1:8444"', '"127.0.0.1:4"', '"127.0.0.1:5"', '"127.0.0.1:6"'),
    "server.threads": ("32", "40", "41", "42"),
    "server.concurrent_calls": ("256", "40", "41", "42"),
    "server.signing_requests": ("24", "10", "11", "12"),
    "server.message_size": ("2097152", "70000", "70001", "70002"),
    "server.drain_seconds": ("1.0", "2.0", "3.0", "4.0"),
    "server.grace_seconds": ("30.0", "2.0", "3.0", "4.0"),
    "server.reflection": ("false", "true", "false", "true"),
    "token.sessions": ("", "2", "3", "4"),
    "log.format": ('"json"', '"text"', '"json"', '"text"'),
}


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(tmp_path: Path) -> None:
    config = tmp_path / "trien.toml"
    required = {
        "server": {"tls_certificate_file": "c", "tls_key_file": "k", "client_ca_file": "a"},
        "token": {"module": "m", "label": "l", "pin_file": "p"},
        "store": {"url": "sqlite:///trien.db"},
    }

    def shown(*, file: bool, env: bool, flag: bool) -> dict[str, str]:
        """Returns what is in force and its source, by key, when these places have all keys."""
        content: dict[str, dict[str, object]] = {kind: dict(values) for kind, values in required.items()}
        arguments, added = [], {}
        for key, (_, in_file, in_environment, on_flag) in PRECEDENCE.items():
            section, _, name = key.partition(".")
            if file:
                content.setdefault(section, {})[name] = _value(in_file)
            if env:
                added[_variable(key)] = _text(in_environment)
            if flag:
                arguments += ["--set", f"{key}={_text(on_flag)}"]
        config.write_text("".join(_table(kind, values) for kind, values in content.items()))
        done = trien_server("config", "show", "--config", str(config), *arguments, **added)
        assert done.returncode == 0, done.stderr
        found: dict[str, str] = {}
        section = ""
        for line in done.stdout.splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            else:
                name, _, rest = line.partition(" = ")
                found[f"{section}.{name.removeprefix('# ')}"] = rest.lstrip()
        return found

    places = {
        "default": shown(file=False, env=False, flag=False),
        "file": shown(file=True, env=False, flag=False),
        "environment": shown(file=True, env=True, flag=False),
        "flag": shown(file=True, env=True, flag=True),
    }
    alone = {"environment": shown(file=False, env=True, flag=False), "flag": shown(file=False, env=False, flag=True)}
    compared = 0
    for key, (default, in_file, in_environment, on_flag) in PRECEDENCE.items():
        assert places["default"][key] == f"{default}  # default".lstrip()
        assert places["file"][key] == f"{in_file}  # {config}"
        assert places["environment"][key] == f"{in_environment}  # environment {_variable(key)}"
        assert places["flag"][key] == f"{on_flag}  # --set"
        assert alone["environment"][key] == places["environment"][key]
        assert alone["flag"][key] == places["flag"][key]
        compared += 1
    assert compared == len(PRECEDENCE) >= 12


def test_the_configuration_is_found_in_the_documented_places(made: Path, tmp_path: Path) -> None:
    (tmp_path / "trien.toml").write_text((made / "trien.toml").read_text())
    by_folder = trien_server("config", "show", cwd=tmp_path)
    assert by_folder.returncode == 0
    assert "# trien.toml" in by_folder.stdout
    by_environment = trien_server("config", "show", cwd=tmp_path, TRIEN_CONFIG=str(made / "trien.toml"))
    assert f"# {made / 'trien.toml'}" in by_environment.stdout
    pin = (made / "token-pin").read_text().strip()
    assert pin not in by_environment.stdout + by_environment.stderr


def _value(shown: str) -> object:
    if shown in {"true", "false"}:
        return shown == "true"
    return shown.strip('"') if shown.startswith('"') else float(shown)


def _variable(key: str) -> str:
    return f"TRIEN_{key.upper().replace('.', '__')}"


def _text(shown: str) -> str:
    return shown.strip('"')


def _table(kind: str, values: dict[str, object]) -> str:
    lines = [f"[{kind}]"]
    for key, value in values.items():
        number = int(value) if isinstance(value, float) and value.is_integer() else value
        lines.append(f"{key} = {json.dumps(number)}")
    return "\n".join(lines) + "\n"


def _contents(directory: Path) -> dict[str, bytes]:
    """Returns the files' contents, without those in which SQLite and SoftHSM note that they were opened."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith("trien.db-") and path.name != "token.object"
    }


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())
