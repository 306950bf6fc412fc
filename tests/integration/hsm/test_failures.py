"""What the adapter does for each error of the module, for a hung module, and for a wrong PIN."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.hsm.scripted_module import ScriptedModule, scripted_module
from tests.support.softhsm import SoftHsmToken, copy_token, open_token

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import DecryptionFailed
from trien_server.core.secret import Secret
from trien_server.hsm import PinRejected, Pkcs11Hsm
from trien_server.hsm.recovery import HANGS_AFTER

P256 = SignatureAlgorithm.ECDSA_P256_SHA256

REQUEST = {"DATA_INVALID": 0x20, "DATA_LEN_RANGE": 0x21, "KEY_FUNCTION_NOT_PERMITTED": 0x68,
           "KEY_TYPE_INCONSISTENT": 0x63, "MECHANISM_INVALID": 0x70, "MECHANISM_PARAM_INVALID": 0x71}  # fmt: skip
SESSION = {"KEY_HANDLE_INVALID": 0x60, "OBJECT_HANDLE_INVALID": 0x82, "OPERATION_ACTIVE": 0x90,
           "OPERATION_NOT_INITIALIZED": 0x91, "SESSION_CLOSED": 0xB0, "SESSION_HANDLE_INVALID": 0xB3,
           "USER_NOT_LOGGED_IN": 0x101}  # fmt: skip
DEVICE = {"HOST_MEMORY": 0x2, "GENERAL_ERROR": 0x5, "FUNCTION_FAILED": 0x6, "DEVICE_ERROR": 0x30,
          "DEVICE_MEMORY": 0x31, "DEVICE_REMOVED": 0x32, "TOKEN_NOT_PRESENT": 0xE0, "TOKEN_NOT_RECOGNIZED": 0xE1,
          "CRYPTOKI_NOT_INITIALIZED": 0x190, "VENDOR_DEFINED": 0x80000001, "UNKNOWN": 0x7777}  # fmt: skip
PIN_CODES = {"PIN_INCORRECT": 0xA0, "PIN_EXPIRED": 0xA3, "PIN_LOCKED": 0xA4}


@pytest.fixture
def script() -> Iterator[ScriptedModule]:
    with scripted_module() as made:
        yield made


def sign(hsm: Pkcs11Hsm, token: SoftHsmToken, count: int = 1) -> list[bytes]:
    return hsm.sign(token.keys[KeyType.EC_P256], P256, [bytes(32)] * count, pss_salt_length=None)


def wait_until_ready(hsm: Pkcs11Hsm, timeout: float = 10) -> None:
    end = time.monotonic() + timeout
    while not hsm.ready():
        assert time.monotonic() < end
        time.sleep(0.005)


def names(token: SoftHsmToken) -> list[str]:
    return [event for event, _ in token.events]


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
@pytest.mark.parametrize("code", REQUEST.values(), ids=REQUEST)
def test_a_fault_of_the_request_costs_no_session(
    tmp_path: Path, script: ScriptedModule, function: str, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        hsm.prepare(token.keys[KeyType.EC_P256])
        opened = script.calls["C_OpenSession"]
        script.answer(function, code, times=1)
        with pytest.raises(ValueError, match="the token refused the call"):
            sign(hsm, token)
        assert hsm.ready()
        if function == "C_SignInit":  # after C_Sign's own error the operation would still be active here
            assert len(sign(hsm, token)) == 1
            assert script.calls["C_OpenSession"] == opened
        assert names(token) == ["hsm.call_refused"]


@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
@pytest.mark.parametrize("code", SESSION.values(), ids=SESSION)
def test_a_fault_of_the_session_is_overcome_with_another_one(
    tmp_path: Path, script: ScriptedModule, function: str, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        hsm.prepare(token.keys[KeyType.EC_P256])
        opened, closed = script.calls["C_OpenSession"], script.calls["C_CloseSession"]
        script.answer(function, code, times=1)
        assert len(sign(hsm, token, 3)) == 3
        assert script.calls["C_CloseSession"] == closed + 1
        assert script.calls["C_OpenSession"] <= opened + 1
        assert hsm.ready()
        assert names(token) == []


@pytest.mark.promise("P8")
@pytest.mark.parametrize("function", ["C_SignInit", "C_Sign"])
@pytest.mark.parametrize("code", {**DEVICE, **SESSION}.values(), ids={**DEVICE, **SESSION})
def test_a_fault_of_the_device_stops_all_use_at_once_until_a_probe_went_well(
    tmp_path: Path, script: ScriptedModule, function: str, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        starts = script.calls["C_Initialize"]
        script.answer(function, code)  # a session's fault that comes twice is one of the device
        with pytest.raises(HsmUnavailable):
            sign(hsm, token)
        assert not hsm.ready()
        for _ in range(10):
            with pytest.raises(HsmUnavailable):
                hsm.authenticate(b"m")
        time.sleep(0.3)
        assert not hsm.ready()
        del script.answers[function]
        wait_until_ready(hsm)
        assert len(sign(hsm, token)) == 1
        assert script.calls["C_Initialize"] > starts
        assert names(token) == ["hsm.unavailable", "hsm.recovered"]


@pytest.mark.promise("P8")
@pytest.mark.parametrize("code", DEVICE.values(), ids=DEVICE)
def test_an_error_of_decryption_is_put_down_to_the_ciphertext_only_while_the_token_signs(
    tmp_path: Path, script: ScriptedModule, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, _token):
        ciphertext = hsm.encrypt(Secret(b"secret"), associated_data=b"a")
        script.answer("C_Decrypt", code, times=1)
        try:
            assert hsm.decrypt(ciphertext, associated_data=b"a") == Secret(b"secret")
        except HsmUnavailable:
            wait_until_ready(hsm)  # SoftHSM's session was left with the operation active
        script.answer("C_Decrypt", code)
        script.answer("C_Sign", code)
        with pytest.raises(HsmUnavailable):
            hsm.decrypt(ciphertext, associated_data=b"a")
        assert not hsm.ready()
        script.answers.clear()
        wait_until_ready(hsm)
        with pytest.raises(DecryptionFailed):
            hsm.decrypt(ciphertext, associated_data=b"b")
        assert hsm.decrypt(ciphertext, associated_data=b"a") == Secret(b"secret")


@pytest.mark.promise("P8")
@pytest.mark.parametrize("code", PIN_CODES.values(), ids=PIN_CODES)
def test_a_wrong_pin_is_tried_once_at_the_start(tmp_path: Path, script: ScriptedModule, code: int) -> None:
    token = copy_token(tmp_path / "token")
    script.answer("C_Login", code)
    with pytest.raises(PinRejected):
        token.open()
    time.sleep(0.5)
    assert script.calls["C_Login"] == 1


@pytest.mark.promise("P8", "P12")
def test_a_pin_that_the_token_no_longer_takes_is_tried_once_and_seals_the_adapter(
    tmp_path: Path, script: ScriptedModule
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        logins = script.calls["C_Login"]
        script.answer("C_Login", 0xA0)
        script.answer("C_Sign", 0x30, times=1)
        with pytest.raises(HsmUnavailable):
            sign(hsm, token)
        time.sleep(2)
        assert script.calls["C_Login"] == logins + 1
        assert names(token) == ["hsm.unavailable", "hsm.pin_rejected"]
        assert "72816354" not in repr(token.events)
        script.answers.clear()
        time.sleep(2.5)
        assert not hsm.ready()
        with pytest.raises(HsmUnavailable):
            sign(hsm, token)
        assert script.calls["C_Login"] == logins + 1


def test_a_pin_that_expires_in_the_middle_seals_the_adapter_without_a_login(
    tmp_path: Path, script: ScriptedModule
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        logins = script.calls["C_Login"]
        script.answer("C_Sign", 0xA3, times=1)
        with pytest.raises(HsmUnavailable):
            sign(hsm, token)
        time.sleep(1)
        assert not hsm.ready()
        assert script.calls["C_Login"] == logins
        assert names(token) == ["hsm.pin_rejected"]


@pytest.mark.promise("P8")
def test_a_wrong_pin_of_softhsm_is_refused_with_no_secret_in_the_text(tmp_path: Path) -> None:
    token = copy_token(tmp_path / "token")
    with pytest.raises(PinRejected) as refused:
        token.open(pin=Secret(b"wrong-4711"))
    assert "4711" not in str(refused.value)
    hsm = token.open()
    assert hsm.ready()
    hsm.close()


@pytest.mark.promise("P8")
def test_a_hung_module_makes_the_process_not_ready_and_all_other_calls_end(
    tmp_path: Path, script: ScriptedModule
) -> None:
    with open_token(tmp_path / "token", sessions=2) as (hsm, token):
        hsm.prepare(token.keys[KeyType.EC_P256])
        let_go = script.hang("C_SignInit", times=2)
        with ThreadPoolExecutor(12) as threads:
            start = time.monotonic()
            calls = [threads.submit(sign, hsm, token) for _ in range(10)]
            while hsm.ready():
                assert time.monotonic() - start < 5.1
                time.sleep(0.01)
            ended = 0
            for call in calls:
                try:
                    call.result(timeout=max(0.0, start + 6 - time.monotonic()))
                except HsmUnavailable:
                    ended += 1
                except TimeoutError:
                    pass
            assert ended == 8  # the two that hang cannot be interrupted
            quick = time.monotonic()
            with pytest.raises(HsmUnavailable):
                sign(hsm, token)
            assert time.monotonic() - quick < 0.1
            assert "hsm.hung" in names(token)
            let_go.set()
            assert sum(len(call.result(timeout=5)) for call in calls if call.exception(timeout=5) is None) == 2
        wait_until_ready(hsm)
        assert len(sign(hsm, token)) == 1


@pytest.mark.promise("P8")
def test_an_idle_server_notices_within_five_seconds_that_the_module_hangs(
    tmp_path: Path, script: ScriptedModule
) -> None:
    with open_token(tmp_path / "token", sessions=2) as (hsm, token):
        let_go = script.hang("C_SignInit", times=1)
        start = time.monotonic()
        while hsm.ready():
            assert time.monotonic() - start < 5.1
            time.sleep(0.01)
        assert time.monotonic() - start > 2
        with pytest.raises(HsmUnavailable):
            sign(hsm, token)
        assert names(token) == ["hsm.hung"]
        let_go.set()
        wait_until_ready(hsm)
        assert len(sign(hsm, token)) == 1


def test_a_call_that_waits_while_a_key_pair_is_made_does_not_count_as_hung(
    tmp_path: Path, script: ScriptedModule
) -> None:
    with open_token(tmp_path / "token", sessions=2) as (hsm, token), ThreadPoolExecutor(2) as threads:
        made = script.hang("C_GenerateKeyPair", times=1)
        making = threads.submit(hsm.generate_key_pair, b"k" * 16, KeyType.EC_P256)
        signed = script.hang("C_Sign", times=1)
        waiting = threads.submit(sign, hsm, token)
        try:
            end = time.monotonic() + HANGS_AFTER + 1
            while time.monotonic() < end:
                assert hsm.ready()
                time.sleep(0.1)
            assert not making.done()
            assert not waiting.done()
            assert names(token) == []
        finally:
            signed.set()
            made.set()
        assert len(waiting.result(30)) == 1
        assert making.result(30)


def test_a_token_with_few_sessions_gets_a_smaller_pool(tmp_path: Path, script: ScriptedModule) -> None:
    token = copy_token(tmp_path / "token")
    allowed = [3]  # the anchor and two of the pool

    def limit() -> int | None:
        allowed[0] -= 1
        return None if allowed[0] >= 0 or allowed[0] in (-2, -3) else 0xB1  # the writer's and the keeper's

    script.answers["C_OpenSession"] = limit
    hsm = token.open(sessions=3)
    try:
        assert token.events == [("hsm.fewer_sessions", {"wanted": "3", "opened": "2"})]
        script.answer("C_OpenSession", 0xB1)
        script.answer("C_Sign", 0xB3, times=1)
        assert len(sign(hsm, token)) == 1  # the dropped session cannot be opened again: the other one serves
        with ThreadPoolExecutor(4) as threads:
            assert sum(len(made) for made in threads.map(lambda _: sign(hsm, token, 5), range(8))) == 40
        assert hsm.ready()
    finally:
        hsm.close()


def test_a_prepared_key_is_never_searched_for_again(tmp_path: Path, script: ScriptedModule) -> None:
    with open_token(tmp_path / "token", sessions=4) as (hsm, token):
        for key in token.keys.values():
            hsm.prepare(key)
        searches = script.calls["C_FindObjectsInit"]
        signatures = script.calls["C_SignInit"]
        with ThreadPoolExecutor(8) as threads:
            made = sum(len(some) for some in threads.map(lambda _: sign(hsm, token, 5), range(200)))
        for key in token.keys.values():
            hsm.prepare(key)
        assert made == 1000
        assert script.calls["C_SignInit"] - signatures >= 1000
        assert script.calls["C_FindObjectsInit"] == searches


def test_signing_many_messages_uses_one_session(tmp_path: Path, script: ScriptedModule) -> None:
    with open_token(tmp_path / "token", sessions=3) as (hsm, token):
        hsm.prepare(token.keys[KeyType.EC_P256])
        let_go = script.hang("C_SignInit", times=1)
        before = script.calls["C_SignInit"]
        with ThreadPoolExecutor(1) as threads:
            call = threads.submit(sign, hsm, token, 50)
            while script.calls["C_SignInit"] == before:
                time.sleep(0.01)
            for _ in range(3):
                hsm.authenticate(os.urandom(8))  # the two other sessions are free meanwhile
            let_go.set()
            assert len(call.result(timeout=10)) == 50
