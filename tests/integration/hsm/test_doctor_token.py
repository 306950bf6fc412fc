"""What the doctor says of real tokens with real faults."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pkcs11 import _pkcs11
from tests.support.shim import Order, Shim, shim_module
from tests.support.softhsm import LABEL, MODULE, PIN, SO_PIN, SoftHsmToken, copy_token, environment_kept
from tests.support.subjects import found, subject_of, texts

from trien_server.cli.doctor import token as checks
from trien_server.cli.doctor.findings import NotLookedAt, Severity
from trien_server.cli.doctor.subject import Subject
from trien_server.hsm import examination
from trien_server.hsm.softhsm import create_softhsm_token

KEYS = """
import os, sys
from pkcs11 import Attribute, ObjectClass, KeyType, MechanismFlag, Mechanism
from trien_server.hsm.module import load_module
from trien_server.hsm.keys import SEALING_KEY, ONE_TIME_PASSWORD_KEY, PROTECTED
module = load_module(sys.argv[1])
session = module.find_token(label=sys.argv[2], serial=None).open(rw=True, user_pin=sys.argv[3])
def of(label):
    return list(session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.LABEL: label}))
def make(label, flags=MechanismFlag.SIGN | MechanismFlag.VERIFY, **changes):
    template = {name: value for name, value in PROTECTED.items() if name is not Attribute.TOKEN}
    template.update({Attribute[name]: value for name, value in changes.items()})
    session.generate_key(KeyType.GENERIC_SECRET, 256, id=os.urandom(16), label=label, store=True, capabilities=flags,
        mechanism=Mechanism.GENERIC_SECRET_KEY_GEN, template=template)
exec(sys.argv[4])
session.close()
"""


@pytest.fixture
def token(tmp_path: Path) -> Iterator[SoftHsmToken]:
    with environment_kept("SOFTHSM2_CONF"):
        yield copy_token(tmp_path / "token")


def subject(token: SoftHsmToken, *, pin: bytes = PIN.reveal(), **changes: Any) -> Subject:
    pin_file = token.directory / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_bytes(pin)
    settings = {
        "module": MODULE,
        "label": LABEL,
        "pin_file": pin_file,
        "softhsm_configuration_file": token.configuration,
    }
    return subject_of(token.directory, token={**settings, **changes})


def change(token: SoftHsmToken, code: str) -> None:
    """Changes the token's keys as somebody with its PIN can."""
    subprocess.run(
        [sys.executable, "-c", KEYS, MODULE, LABEL, PIN.reveal().decode(), code],
        env={**os.environ, "SOFTHSM2_CONF": str(token.configuration)},
        check=True,
        timeout=60,
    )


def test_a_good_token_has_only_notes(token: SoftHsmToken) -> None:
    seen = subject(token)
    everything = [
        finding
        for look in (
            checks.module, checks.token, checks.pin, checks.keys, checks.mechanisms, checks.threads, checks.wrapping,
        )
        for finding in found(look, seen)
    ]  # fmt: skip
    assert {finding.severity for finding in everything} == {Severity.NOTE}
    assert "SoftHSM" in everything[0].text
    assert "EC_ED25519" in everything[1].text
    assert len(everything) == 2


def test_a_file_that_is_no_module_and_a_path_to_nothing_are_told_apart(token: SoftHsmToken) -> None:
    text_file = token.directory / "module.so"
    text_file.write_text("no library")
    (told,) = texts(found(checks.module, subject(token, module=text_file)))
    assert "is no PKCS#11 module" in told
    library = Path(_pkcs11.__file__)  # a library that is no module of a token
    (told,) = texts(found(checks.module, subject(token, module=library)))
    assert "C_GetFunctionList" in told
    with pytest.raises(NotLookedAt, match=r"token\.module"):
        found(checks.module, subject(token, module=token.directory / "absent.so"))


def test_a_token_that_is_not_there_is_told_with_those_that_are(token: SoftHsmToken) -> None:
    (told,) = texts(found(checks.token, subject(token, label="another")))
    assert "No token has the label 'another'" in told
    assert f"{LABEL!r}, serial number" in told


def test_keys_that_are_missing_or_there_twice_or_other_ones_are_each_told_of(token: SoftHsmToken) -> None:
    change(
        token,
        "of(ONE_TIME_PASSWORD_KEY)[0].destroy(); make(SEALING_KEY);"
        "[one.destroy() for one in session.get_objects({Attribute.LABEL: 'trien wrapping key 1'})];"
        "make('trien wrapping key 1', EXTRACTABLE=True)",
    )
    findings = found(checks.keys, subject(token))
    assert sorted(finding.text for finding in findings) == sorted(
        [
            "The token has no key 'trien one-time password key 1'.",
            "The token has 2 keys 'trien sealing key 1', not one.",
            next(finding.text for finding in findings if "wrapping key" in finding.text),
        ]
    )
    (wrong,) = [finding for finding in findings if "wrapping key" in finding.text]
    assert "has not the attributes of its purpose" in wrong.text
    assert "EXTRACTABLE" in wrong.text
    assert len({finding.advice for finding in findings}) == 3
    assert {finding.severity for finding in findings} == {Severity.ERROR}


def test_mechanisms_that_the_token_lost_are_found_by_trying(
    token: SoftHsmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = Shim(tmp_path / "shim")
    monkeypatch.setenv("SHIM_FOLDER", shim.environment["SHIM_FOLDER"])
    shim.order(Order("C_DecryptInit", "fail", 0x70), Order("C_GenerateKeyPair", "fail", 0x70))
    seen = subject(token, module=shim_module())
    findings = found(checks.mechanisms, seen)
    errors, warnings = texts(findings), texts(findings, Severity.WARNING)
    assert [text.split(":")[0] for text in errors] == [
        "The token does not do AES-GCM",
        "The token does not do ECDSA_P256_SHA256",
    ]
    assert "MechanismInvalid" in errors[0]
    assert len(warnings) == 8
    assert all("a key pair could not be generated" in text for text in warnings)


def test_a_module_that_does_not_bear_threads_is_told_of(
    token: SoftHsmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = Shim(tmp_path / "shim")
    monkeypatch.setenv("SHIM_FOLDER", shim.environment["SHIM_FOLDER"])
    shim.order(Order("C_Sign", "fail", 0x05))
    (told,) = texts(found(checks.threads, subject(token, module=shim_module())))
    assert "did not bear several threads" in told


@pytest.mark.slow
@pytest.mark.promise("P8")
def test_a_module_that_hangs_ends_the_look_at_the_token_and_what_was_seen_stays(
    token: SoftHsmToken, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = Shim(tmp_path / "shim")
    monkeypatch.setenv("SHIM_FOLDER", shim.environment["SHIM_FOLDER"])
    monkeypatch.setattr(examination, "TIMEOUT", 8.0)
    shim.order(Order("C_Login", "hang"))
    seen = subject(token, module=shim_module())
    (told,) = texts(found(checks.pin, seen))
    assert "did not end within 8 s" in told
    assert texts(found(checks.token, seen)) == []
    assert len([one for one in shim.noted() if one.function == "C_Login"]) <= 2  # one call, noted twice by the shim


@pytest.mark.promise("P4")
def test_a_wrapping_key_that_nobody_trusted_is_told_of(tmp_path: Path) -> None:
    from trien_server.hsm import provision

    folder = tmp_path / "token"
    with environment_kept("SOFTHSM2_CONF"):
        configuration = create_softhsm_token(folder, label=LABEL, pin=PIN, so_pin=SO_PIN, module_path=MODULE)
        os.environ["SOFTHSM2_CONF"] = str(configuration)
        provision(module_path=MODULE, token_label=LABEL, pin=PIN)
        findings = found(checks.wrapping, subject(SoftHsmToken(folder, {})))
    assert "CKA_TRUSTED" in texts(findings, Severity.WARNING)[0]


@pytest.mark.promise("P8")
def test_a_pin_that_one_more_mistake_would_lock_is_not_tried(token: SoftHsmToken) -> None:
    for known, words in (
        ({"pin_final_try": True}, "one more wrong PIN locks it"),
        ({"pin_locked": True}, "has locked the PIN"),
    ):
        seen = subject(token)
        seen.__dict__["token"] = examination.TokenExamination(tokens=[(LABEL, "1")], matching=1, **known)
        (told,) = texts(found(checks.pin, seen))
        assert words in told
        assert "was not tried" in told
