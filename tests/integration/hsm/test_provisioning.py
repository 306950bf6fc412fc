"""The installation's keys and SoftHSM's tokens: made once, found exactly once, protected."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pkcs11 import Attribute, Mechanism, MechanismFlag, Session
from pkcs11 import KeyType as TokenKeyType
from pkcs11.exceptions import AttributeSensitive, AttributeTypeInvalid
from tests.integration.hsm.scripted_module import scripted_module
from tests.support.softhsm import LABEL, MODULE, PIN, SO_PIN, SoftHsmToken, copy_token, open_token

from trien_server.core.algorithms import KeyType
from trien_server.core.errors import HsmUnavailable
from trien_server.core.secret import Secret
from trien_server.hsm import NotProvisioned, PinRejected, create_softhsm_token, provision
from trien_server.hsm.connection import log_in
from trien_server.hsm.keys import ONE_TIME_PASSWORD_KEY, PROBE_KEY, SEALING_KEY, WRAPPING_KEY
from trien_server.hsm.module import find_objects, load_module

ALL_KEYS = (SEALING_KEY, ONE_TIME_PASSWORD_KEY, PROBE_KEY, WRAPPING_KEY)


@pytest.fixture
def blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SoftHsmToken:
    """A token without keys."""
    token = SoftHsmToken(tmp_path / "token", {})
    create_softhsm_token(token.directory, label=LABEL, pin=PIN, so_pin=SO_PIN, module_path=MODULE)
    monkeypatch.setenv("SOFTHSM2_CONF", str(token.configuration))
    return token


@contextmanager
def logged_in() -> Iterator[Session]:
    module = load_module(MODULE)
    try:
        yield log_in(module.find_token(label=LABEL, serial=None), PIN)
    finally:
        module.shut_down()


def make() -> tuple[str, ...]:
    return provision(module_path=MODULE, token_label=LABEL, pin=PIN)


def test_provisioning_makes_four_keys_once_and_then_nothing(blank: SoftHsmToken) -> None:
    with pytest.raises(NotProvisioned, match="trien-server init"):
        blank.open()
    assert make() == ALL_KEYS
    for _ in range(3):
        assert make() == ()
    hsm = blank.open()
    assert len(hsm.authenticate(b"m")) == 32
    hsm.close()


@pytest.mark.requirement("ASVS 5.0.0-13.3.1")
@pytest.mark.promise("P4")
def test_no_key_of_the_installation_or_of_a_signer_can_leave_the_token(tmp_path: Path) -> None:
    with open_token(tmp_path / "token"):
        pass
    os.environ["SOFTHSM2_CONF"] = str(tmp_path / "token" / "softhsm2.conf")
    checked = 0
    with logged_in() as session:
        for item in find_objects(session, {Attribute.PRIVATE: True}):
            assert item[Attribute.SENSITIVE]
            assert not item[Attribute.EXTRACTABLE]
            assert item[Attribute.ALWAYS_SENSITIVE]
            assert item[Attribute.NEVER_EXTRACTABLE]
            assert item[Attribute.LOCAL]
            assert not item[Attribute.DERIVE]
            label = item[Attribute.LABEL]
            assert item[Attribute.SIGN] is (label not in (ONE_TIME_PASSWORD_KEY, WRAPPING_KEY))
            assert item[Attribute.DECRYPT] is (label == ONE_TIME_PASSWORD_KEY)
            assert item[Attribute.UNWRAP] is (label == WRAPPING_KEY)
            with pytest.raises((AttributeSensitive, AttributeTypeInvalid)):
                item[Attribute.VALUE]
            checked += 1
    assert checked == 4 + len(KeyType)


def destroy(label: str, *, only_class: str = "") -> Callable[[], None]:
    def work() -> None:
        with logged_in() as session:
            for item in find_objects(session, {Attribute.LABEL: label}):
                if only_class in type(item).__name__:
                    item.destroy()

    return work


@pytest.mark.parametrize(
    ("damage", "made_again"),
    [
        (destroy(SEALING_KEY), (SEALING_KEY,)),
        (destroy(ONE_TIME_PASSWORD_KEY), (ONE_TIME_PASSWORD_KEY,)),
        (destroy(WRAPPING_KEY), (WRAPPING_KEY,)),
        (destroy(PROBE_KEY), (PROBE_KEY,)),
        (destroy(PROBE_KEY, only_class="Public"), (PROBE_KEY,)),
        (destroy(PROBE_KEY, only_class="Private"), (PROBE_KEY,)),
    ],
    ids=["sealing", "password", "wrapping", "probe", "probe without public key", "probe without private key"],
)
def test_half_done_provisioning_is_completed(
    blank: SoftHsmToken, damage: Callable[[], None], made_again: tuple[str, ...]
) -> None:
    make()
    damage()
    with pytest.raises(NotProvisioned):
        blank.open()
    assert make() == made_again
    hsm = blank.open()
    hsm.probe()
    hsm.close()
    assert make() == ()


def test_a_key_that_is_there_twice_is_refused_by_server_and_provisioning(blank: SoftHsmToken) -> None:
    make()
    for label in (SEALING_KEY, ONE_TIME_PASSWORD_KEY, PROBE_KEY):
        with logged_in() as session:
            copies = [item.copy({Attribute.LABEL: label}) for item in find_objects(session, {Attribute.LABEL: label})]
        with pytest.raises(NotProvisioned):
            blank.open()
        with pytest.raises(NotProvisioned):
            make()
        with logged_in() as session:
            for extra in find_objects(session, {Attribute.LABEL: label})[len(copies) :]:
                extra.destroy()


@pytest.mark.promise("P4")
def test_a_wrapping_key_that_also_decrypts_is_refused(blank: SoftHsmToken) -> None:
    make()
    destroy(WRAPPING_KEY)()
    with logged_in() as session:
        session.generate_key(
            TokenKeyType.AES,
            256,
            label=WRAPPING_KEY,
            store=True,
            capabilities=MechanismFlag.WRAP | MechanismFlag.UNWRAP | MechanismFlag.DECRYPT,
            template={Attribute.EXTRACTABLE: False},
        )
    for refused in (blank.open, make):
        with pytest.raises(NotProvisioned, match="DECRYPT"):
            refused()


@pytest.mark.promise("P4")
@pytest.mark.parametrize("so_pin", [None, SO_PIN], ids=["without", "with"])
def test_the_security_officers_pin_makes_the_wrapping_key_a_trusted_one(
    blank: SoftHsmToken, so_pin: Secret | None
) -> None:
    made = provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=so_pin)
    assert made == ALL_KEYS
    assert provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=so_pin) == ()
    with logged_in() as session:
        (key,) = find_objects(session, {Attribute.LABEL: WRAPPING_KEY})
        assert key[Attribute.TRUSTED] is (so_pin is not None)
        assert key[Attribute.COPYABLE] is (so_pin is not None)
        assert not key[Attribute.MODIFIABLE]
        for protection in (Attribute.PRIVATE, Attribute.TOKEN, Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE):
            assert key[protection]
    hsm = blank.open()
    findings = hsm.wrapping_findings()
    assert len(hsm.generate_wrapped_key_pair(KeyType.EC_P256).wrapped_key) == 80
    assert hsm.ready()
    hsm.close()
    assert len(findings) == (1 if so_pin is None else 0)
    assert all("not marked as trusted" in finding for finding in findings)


@pytest.mark.parametrize("code", [0x12, 0x13, 0xD1], ids=["TYPE_INVALID", "VALUE_INVALID", "INCONSISTENT"])
def test_a_module_that_knows_no_templates_gets_a_wrapping_key_without_and_the_findings_tell(
    blank: SoftHsmToken, code: int
) -> None:
    make()
    destroy(WRAPPING_KEY)()
    with scripted_module() as script:
        script.answer("C_GenerateKey", code, times=1)
        assert make() == (WRAPPING_KEY,)
        assert script.calls["C_GenerateKey"] == 2
    hsm = blank.open()
    said = " ".join(hsm.wrapping_findings())
    assert hsm.generate_wrapped_key_pair(KeyType.EC_P256).wrapped_key
    hsm.close()
    for part in (
        "extractable (CKA_UNWRAP_TEMPLATE)",
        "not sensitive (CKA_UNWRAP_TEMPLATE)",
        "AES_KEY_WRAP (CKA_ALLOWED",
    ):
        assert part in said
    assert "can be changed" not in said


@pytest.mark.parametrize("function", ["C_GenerateKey", "C_CopyObject"])
def test_a_token_that_lets_the_security_officer_make_no_key_gets_one_of_the_user(
    blank: SoftHsmToken, function: str
) -> None:
    make()
    destroy(WRAPPING_KEY)()
    with scripted_module() as script:
        script.answer(function, 0x10, times=1)
        assert provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=SO_PIN) == (WRAPPING_KEY,)
    with logged_in() as session:
        (key,) = find_objects(session, {Attribute.LABEL: WRAPPING_KEY})
        assert not key[Attribute.TRUSTED]
        assert not key[Attribute.COPYABLE]
        assert find_objects(session, {Attribute.TOKEN: False}) == []


@pytest.mark.promise("P4")
def test_no_file_of_the_token_ever_holds_the_wrapping_key_in_clear(blank: SoftHsmToken) -> None:
    """The security officer sees no private object, so the key is a public one while it is made: in memory only."""
    trace = blank.directory / "trace"
    program = (
        "import os, sys\nfrom trien_server.core.secret import Secret\nfrom trien_server.hsm import provision\n"
        "pin, so_pin = (Secret(line.strip().encode()) for line in sys.stdin)\n"
        "provision(module_path=sys.argv[1], token_label=sys.argv[2], pin=pin, so_pin=so_pin)\n"
    )
    command = ["strace", "-f", "-e", "trace=openat,rename,unlink,execve", "-o", str(trace),
               os.path.realpath(sys.executable), "-c", program, MODULE, LABEL]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pins = f"{PIN.reveal().decode()}\n{SO_PIN.reveal().decode()}\n"
    subprocess.run(command, input=pins, env=environment, text=True, check=True, capture_output=True, timeout=60)
    created = {
        line.split('"')[1]
        for line in trace.read_text().splitlines()
        if "O_CREAT" in line and line.split('"')[1].endswith(".object") and "= -1" not in line
    }
    present = {str(path) for path in blank.directory.rglob("*.object")}
    assert created
    assert created <= present  # no object was made and removed again
    with logged_in() as session:
        assert {item[Attribute.LABEL] for item in find_objects(session, {Attribute.PRIVATE: False})} == {PROBE_KEY}


def test_a_wrong_security_officers_pin_is_tried_once_and_leaves_a_token_that_provisions(blank: SoftHsmToken) -> None:
    with pytest.raises(PinRejected, match="security officer") as refused:
        provision(module_path=MODULE, token_label=LABEL, pin=PIN, so_pin=Secret(b"wrong-4711"))
    assert "4711" not in str(refused.value)
    assert make() == (WRAPPING_KEY,)


@pytest.mark.promise("P4")
def test_a_sealing_key_that_could_leave_the_token_is_refused(blank: SoftHsmToken) -> None:
    make()
    destroy(SEALING_KEY)()
    with logged_in() as session:
        session.generate_key(
            TokenKeyType.GENERIC_SECRET,
            256,
            label=SEALING_KEY,
            store=True,
            capabilities=MechanismFlag.SIGN | MechanismFlag.VERIFY,
            mechanism=Mechanism.GENERIC_SECRET_KEY_GEN,
            template={Attribute.EXTRACTABLE: True, Attribute.SENSITIVE: True},
        )
    with pytest.raises(NotProvisioned, match="EXTRACTABLE"):
        blank.open()
    with pytest.raises(NotProvisioned, match="EXTRACTABLE"):
        make()


def test_a_wrong_pin_label_serial_or_module_is_told_clearly(blank: SoftHsmToken) -> None:
    with pytest.raises(PinRejected):
        provision(module_path=MODULE, token_label=LABEL, pin=Secret(b"wrong-4711"))
    with pytest.raises(HsmUnavailable, match="0 tokens match"):
        provision(module_path=MODULE, token_label="other", pin=PIN)
    with pytest.raises(HsmUnavailable, match="0 tokens match"):
        provision(module_path=MODULE, token_serial="0000", pin=PIN)
    with pytest.raises(HsmUnavailable, match="cannot be used"):
        provision(module_path="/nonexistent.so", token_label=LABEL, pin=PIN)
    assert make() == ALL_KEYS


def test_a_token_is_found_by_its_serial_number(blank: SoftHsmToken) -> None:
    make()
    module = load_module(MODULE)
    serial = module.find_token(label=LABEL, serial=None).serial.decode()
    module.shut_down()
    hsm = blank.open(token_label=None, token_serial=serial)
    hsm.probe()
    hsm.close()
    with pytest.raises(ValueError, match="label or its serial"):
        blank.open(token_label=None)


def test_a_second_adapter_of_a_module_in_use_is_refused_and_the_first_one_goes_on(tmp_path: Path) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        with pytest.raises(HsmUnavailable, match="did not start"):
            token.open()
        hsm.probe()
        assert hsm.ready()


@pytest.mark.promise("P12")
def test_a_new_softhsm_token_is_for_its_owner_alone_and_made_once(blank: SoftHsmToken) -> None:
    checked = 0
    for path in [blank.directory, *blank.directory.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir():
            assert mode == 0o700
            checked += 1
        assert not path.is_file() or path.name == "softhsm2.conf" or mode & 0o077 == 0
    assert checked == 3
    configuration = blank.configuration.read_text()
    assert "objectstore.backend = file" in configuration
    assert "log.level = ERROR" in configuration
    with pytest.raises(HsmUnavailable, match="exists"):
        create_softhsm_token(blank.directory, label=LABEL, pin=PIN, so_pin=SO_PIN, module_path=MODULE)
    create_softhsm_token(blank.directory, label="another", pin=PIN, so_pin=SO_PIN, module_path=MODULE)
    assert len(list((blank.directory / "tokens").iterdir())) == 2


@pytest.mark.promise("P12")
def test_the_pins_appear_in_no_argument_and_no_environment_of_any_process(tmp_path: Path) -> None:
    pin, so_pin = "canary-pin-31415", "canary-so-pin-27182"
    program = (
        "import sys\nfrom pathlib import Path\nfrom trien_server.core.secret import Secret\n"
        "from trien_server.hsm import create_softhsm_token\n"
        "pin, so_pin = (Secret(line.strip().encode()) for line in sys.stdin)\n"
        "create_softhsm_token(Path(sys.argv[1]), label='canary', pin=pin, so_pin=so_pin)\n"
    )
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-v", "-s", "100000", "-e", "trace=execve,openat", "-o", str(trace),
               os.path.realpath(sys.executable), "-c", program, str(tmp_path / "token")]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    ended = subprocess.run(
        command, input=f"{pin}\n{so_pin}\n", env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    seen = trace.read_text()
    assert seen.count("execve(") >= 2
    for canary in (pin, so_pin):
        assert canary not in seen
        assert canary not in ended.stdout + ended.stderr
    hsm_error = "trien-server init"
    with pytest.raises(NotProvisioned, match=hsm_error):
        SoftHsmToken(tmp_path / "token", {}).open(token_label="canary", pin=Secret(pin.encode()))


def test_copies_of_the_test_token_are_independent(tmp_path: Path) -> None:
    first, second = copy_token(tmp_path / "1"), copy_token(tmp_path / "2")
    hsm = first.open()
    hsm.destroy_key_pair(first.keys[KeyType.EC_P256].object_id)
    hsm.close()
    hsm = second.open()
    assert hsm.public_key(second.keys[KeyType.EC_P256].object_id) == second.keys[KeyType.EC_P256].public_key
    hsm.close()
