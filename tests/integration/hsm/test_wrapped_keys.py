"""Wrapped keys in use: few kept, unwrapped once, dropped without a leak, made anew after every failure."""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11 import Attribute, Mechanism
from tests.fakes.hsm import MemoryHsm
from tests.integration.hsm.scripted_module import ScriptedModule, scripted_module
from tests.integration.hsm.test_failures import DEVICE, SESSION, names, wait_until_ready
from tests.integration.hsm.test_recovery import wait_until
from tests.support.softhsm import LABEL, PIN, SoftHsmToken, copy_token, open_token, wrapped_key

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import Hsm, KeyMismatch, KeyReference, WrappingNotSupported
from trien_server.hsm import Pkcs11Hsm, calls
from trien_server.hsm.module import find_objects

P256 = SignatureAlgorithm.ECDSA_P256_SHA256
WORKSPACE = Path(__file__).parents[3]


@pytest.fixture
def script() -> Iterator[ScriptedModule]:
    with scripted_module() as made:
        yield made


def sign_and_verify(hsm: Hsm, key: KeyReference, count: int = 1) -> int:
    digests = [hashlib.sha256(os.urandom(8)).digest() for _ in range(count)]
    public = load_der_public_key(key.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for digest, signature in zip(digests, hsm.sign(key, P256, digests, pss_salt_length=None), strict=True):
        public.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
    return count


def generate(hsm: Hsm, count: int) -> list[KeyReference]:
    return [wrapped_key(hsm, KeyType.EC_P256) for _ in range(count)]


def objects(hsm: Pkcs11Hsm) -> tuple[int, int]:
    """Returns how many objects the token and this process's sessions hold."""
    with hsm._recovery.connection().readers.lease(5) as slot:
        session = slot.session().session
        kinds = [bool(item[Attribute.TOKEN]) for item in find_objects(session, {})]
    return sum(kinds), len(kinds) - sum(kinds)


def test_3000_keys_through_a_cache_of_64_leave_64_objects_and_nothing_on_the_token(tmp_path: Path) -> None:
    with open_token(tmp_path / "token", unwrapped_keys=64) as (hsm, token):
        on_token, in_sessions = objects(hsm)
        assert in_sessions == 0
        keys = generate(hsm, 3000)
        assert objects(hsm) == (on_token, 0)
        files = sorted(path.name for path in token.directory.rglob("*.object"))
        counts = []
        for number, key in enumerate(keys, 1):
            sign_and_verify(hsm, key)
            if number % 500 == 0:
                counts.append(objects(hsm))
        assert counts == [(on_token, 64)] * 6
        assert hsm.unwrappings == 3000
        assert sorted(path.name for path in token.directory.rglob("*.object")) == files
        for key in keys[-64:]:
            sign_and_verify(hsm, key)
        assert hsm.unwrappings == 3000
        assert names(token) == []


@pytest.mark.parametrize("adapter", ["memory", "softhsm"])
def test_the_least_recently_used_key_is_dropped(tmp_path: Path, adapter: str) -> None:
    def check(hsm: MemoryHsm | Pkcs11Hsm) -> None:
        keys = generate(hsm, 5)
        used = [0, 1, 2, 0, 3, 1, 2, 3, 0, 4, 4, 0, 3, 1]
        kept: list[int] = []
        unwrapped = 0
        for number in used:
            unwrapped += number not in kept
            kept = [*(other for other in kept if other != number), number][-3:]
            hsm.prepare(keys[number])
            sign_and_verify(hsm, keys[number])
            assert hsm.unwrappings == unwrapped
        assert unwrapped == 9

    if adapter == "memory":
        check(MemoryHsm(unwrapped_keys=3))
    else:
        with open_token(tmp_path / "token", unwrapped_keys=3) as (hsm, _):
            check(hsm)
            assert objects(hsm)[1] == 3


def test_a_key_in_use_is_not_dropped(tmp_path: Path, script: ScriptedModule) -> None:
    with open_token(tmp_path / "token", unwrapped_keys=1, sessions=3) as (hsm, _):
        first, second, third = generate(hsm, 3)
        hsm.prepare(first)
        let_go = script.hang("C_Sign", times=1)
        with ThreadPoolExecutor(1) as threads:
            before = script.calls["C_Sign"]
            call = threads.submit(sign_and_verify, hsm, first, 20)
            wait_until(lambda: script.calls["C_Sign"] > before, 5)
            sign_and_verify(hsm, second)
            sign_and_verify(hsm, third)
            assert objects(hsm)[1] == 2  # the one in use, and one
            let_go.set()
            assert call.result(timeout=10) == 20
        hsm.prepare(second)
        assert objects(hsm)[1] == 1
        with pytest.raises(ValueError, match="at least one"):
            Pkcs11Hsm(module_path="", pin=PIN, token_label=LABEL, unwrapped_keys=0)


def test_a_kept_key_costs_the_module_one_signature_and_a_new_one_a_single_unwrapping(
    tmp_path: Path, script: ScriptedModule
) -> None:
    with open_token(tmp_path / "token") as (hsm, _):
        keys = generate(hsm, 20)
        hsm.prepare(keys[0])
        before = script.calls.copy()
        for key in keys:
            hsm.prepare(key)
            hsm.prepare(key)
            sign_and_verify(hsm, key, 3)
        made = script.calls - before
        assert made["C_UnwrapKey"] == 19
        assert made["C_SignInit"] == 60
        assert {name for name, count in made.items() if count} == {"C_UnwrapKey", "C_SignInit", "C_Sign"}


@pytest.mark.parametrize("function", ["C_UnwrapKey", "C_SignInit", "C_Sign"])
@pytest.mark.parametrize("code", SESSION.values(), ids=SESSION)
def test_a_fault_of_a_session_is_overcome_with_another_one(
    tmp_path: Path, script: ScriptedModule, function: str, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        warm, cold = generate(hsm, 2)
        hsm.prepare(warm)
        script.answer(function, code, times=1)
        assert sign_and_verify(hsm, cold, 3) == 3
        assert sign_and_verify(hsm, warm, 3) == 3
        assert objects(hsm)[1] == 2
        assert hsm.ready()
        assert names(token) == []


def test_a_lost_handle_drops_all_handles_of_its_session(tmp_path: Path, script: ScriptedModule) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        keys = generate(hsm, 5)
        for key in keys:
            hsm.prepare(key)
        assert hsm.unwrappings == 5
        script.answer("C_SignInit", SESSION["KEY_HANDLE_INVALID"], times=1)
        sign_and_verify(hsm, keys[0])
        assert hsm.unwrappings == 6
        assert objects(hsm)[1] == 1  # the dropped session took the others with it
        for key in keys:
            sign_and_verify(hsm, key)
        assert hsm.unwrappings == 10
        assert objects(hsm)[1] == 5
        assert names(token) == []


@pytest.mark.promise("P8")
@pytest.mark.parametrize("function", ["C_UnwrapKey", "C_SignInit"])
@pytest.mark.parametrize("code", {**DEVICE, **SESSION}.values(), ids={**DEVICE, **SESSION})
def test_a_fault_of_the_device_stops_all_use_and_the_key_is_unwrapped_anew(
    tmp_path: Path, script: ScriptedModule, function: str, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        (key,) = generate(hsm, 1)
        script.answer(function, code)
        if function == "C_UnwrapKey":
            script.answer("C_Sign", code)
        with pytest.raises(HsmUnavailable):
            sign_and_verify(hsm, key)
        assert not hsm.ready()
        with pytest.raises(HsmUnavailable):
            hsm.prepare(key)
        script.answers.clear()
        wait_until_ready(hsm)
        unwrapped = hsm.unwrappings
        sign_and_verify(hsm, key)
        assert hsm.unwrappings == unwrapped + 1
        assert objects(hsm)[1] == 1
        assert names(token) == ["hsm.unavailable", "hsm.recovered"]


@pytest.mark.promise("P8")
@pytest.mark.parametrize("code", DEVICE.values(), ids=DEVICE)
def test_an_error_of_unwrapping_is_put_down_to_the_key_while_the_token_signs(
    tmp_path: Path, script: ScriptedModule, code: int
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        (key,) = generate(hsm, 1)
        script.answer("C_UnwrapKey", code, times=1)
        sign_and_verify(hsm, key)
        assert hsm.unwrappings == 1
        script.answer("C_UnwrapKey", code)
        for _ in range(3):
            with pytest.raises(KeyMismatch):
                hsm.prepare(replace(key, object_id=os.urandom(4)))
        assert hsm.ready()
        assert names(token) == []


@pytest.mark.promise("P8")
def test_wrapped_keys_sign_again_after_the_token_went_away_and_came_back(tmp_path: Path) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        keys = generate(hsm, 20)
        for round_number in range(3):
            for key in keys:
                sign_and_verify(hsm, key)
            assert hsm.unwrappings == 20 * (round_number + 1)
            token.remove()
            new = replace(keys[0], object_id=os.urandom(4))
            with pytest.raises(HsmUnavailable):
                hsm.prepare(new)
            for key in (new, keys[1]):
                with pytest.raises(HsmUnavailable):
                    sign_and_verify(hsm, key)
            with pytest.raises(HsmUnavailable):
                hsm.generate_wrapped_key_pair(KeyType.EC_P256)
            token.bring_back()
            wait_until_ready(hsm)
            assert objects(hsm)[1] == 0
        assert names(token) == ["hsm.unavailable", "hsm.recovered"] * 3


@pytest.mark.promise("P8")
def test_a_lost_token_is_noticed_although_kept_keys_go_on_signing(tmp_path: Path) -> None:
    """SoftHSM signs with a session object from its memory: the probe must not be left out for that."""
    with open_token(tmp_path / "token") as (hsm, token):
        (key,) = generate(hsm, 1)
        sign_and_verify(hsm, key)
        token.remove()
        signed = 0
        start = time.monotonic()
        while hsm.ready():
            assert time.monotonic() - start < 5
            try:
                signed += sign_and_verify(hsm, key)
            except HsmUnavailable:
                break
        assert signed > 10
        assert not hsm.ready()
        token.bring_back()
        wait_until_ready(hsm)
        sign_and_verify(hsm, key)


@pytest.mark.promise("P4")
@pytest.mark.parametrize("function", ["C_WrapKey", "C_UnwrapKey", "C_SignInit"])
def test_a_failure_while_a_key_is_generated_leaves_no_object(
    tmp_path: Path, script: ScriptedModule, function: str
) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        hsm.generate_wrapped_key_pair(KeyType.EC_P256)
        before = objects(hsm)
        refused = 0
        not_wrapped = (0x69, 0x6A, 0x115) if function != "C_SignInit" else ()
        for code in (*SESSION.values(), 0x68, 0x70, *not_wrapped):
            script.answer(function, code, times=1)
            try:
                hsm.generate_wrapped_key_pair(KeyType.EC_P256)
            except (WrappingNotSupported, ValueError):
                refused += 1
            assert objects(hsm) == before
        assert refused == 2 + len(not_wrapped)
        assert hsm.ready()
        assert names(token) == []


@pytest.mark.requirement("ASVS 5.0.0-11.3.2")
@pytest.mark.parametrize("refused", [{0x210A}, {0x210B}, {0x210A, 0x210B}], ids=["PAD", "KWP", "both"])
def test_the_mechanism_is_the_one_that_wraps_and_unwraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: set[int]
) -> None:
    """SoftHSM 2.6.1 knows 0x210A; a newer module, that knows 0x210B instead, is played here."""
    played = {Mechanism.AES_KEY_WRAP_PAD, Mechanism.AES_KEY_WRAP_KWP}
    asked: list[int] = []
    real = calls._mechanism

    def mechanism(name: Mechanism, parameter: bytes = b"") -> object:
        asked.append(int(name))
        if name in played:
            name = Mechanism.AES_KEY_WRAP if name in refused else Mechanism.AES_KEY_WRAP_PAD
        return real(name, parameter)

    monkeypatch.setattr(calls, "_mechanism", mechanism)
    with open_token(tmp_path / "token") as (hsm, token):
        key = token.wrapped[KeyType.EC_P256]
        if len(refused) == 2:
            with pytest.raises(WrappingNotSupported, match=r"AES_KEY_WRAP_PAD: .*AES_KEY_WRAP_KWP: "):
                hsm.generate_wrapped_key_pair(KeyType.EC_P256)
            with pytest.raises(KeyMismatch, match="opens no wrapped keys"):
                hsm.prepare(key)
        else:
            sign_and_verify(hsm, key)
            sign_and_verify(hsm, generate(hsm, 1)[0])
            assert asked[-1] == ({0x210A, 0x210B} - refused).pop()
        assert hsm.ready()


def use_keys(hsm: Pkcs11Hsm, keys: Sequence[KeyReference], *, threads: int, rounds: int) -> int:
    begin = threading.Barrier(threads)

    def work(number: int) -> int:
        begin.wait(10)
        return sum(sign_and_verify(hsm, keys[(7 * number + step * (number + 1)) % len(keys)]) for step in range(rounds))

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(work, range(threads)))


def test_eight_threads_sign_with_200_keys_through_a_cache_of_32_without_a_crash(tmp_path: Path) -> None:
    token = copy_token(tmp_path / "token")
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.integration.hsm.test_wrapped_keys",
               str(token.directory)]  # fmt: skip
    ended = subprocess.run(command, cwd=WORKSPACE, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "verified 2400" in ended.stdout
    assert "events []" in ended.stdout
    assert int(ended.stdout.split("kept ")[1].split()[0]) <= 32 + 8
    assert int(ended.stdout.split("unwrapped ")[1].split()[0]) >= 500
    assert int(ended.stdout.split("generated ")[1].split()[0]) >= 10


def stress(directory: Path) -> None:
    """Signs in 8 threads with 200 keys while a ninth makes new ones; writes down how much was done."""
    token = SoftHsmToken(directory, {})
    hsm = token.open(unwrapped_keys=32, sessions=8)
    keys = generate(hsm, 200)
    ended = threading.Event()
    generated: list[KeyReference] = []

    def make() -> None:
        while not ended.is_set():
            generated.extend(generate(hsm, 1))

    maker = threading.Thread(target=make)
    maker.start()
    try:
        verified = use_keys(hsm, keys, threads=8, rounds=300)
    finally:
        ended.set()
        maker.join()
    sys.stdout.write(f"verified {verified}\nkept {objects(hsm)[1]}\nunwrapped {hsm.unwrappings}\n")
    sys.stdout.write(f"generated {len(generated)}\nevents {token.events}\n")
    hsm.close()


if __name__ == "__main__":
    stress(Path(sys.argv[1]))
