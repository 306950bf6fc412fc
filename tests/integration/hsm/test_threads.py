"""Many threads on one module: no crash, no leak, and a self-test that would have noticed."""

import gc
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.softhsm import LABEL, MODULE, PIN, SoftHsmToken, copy_token, open_token

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.secret import Secret
from trien_server.hsm.selftest import ROUNDS, THREADS, prove_locking

P256 = SignatureAlgorithm.ECDSA_P256_SHA256
WORKSPACE = Path(__file__).parents[3]


def run_stress(token: SoftHsmToken, mode: str, *, timeout: float = 120) -> "subprocess.CompletedProcess[str]":
    key = token.keys[KeyType.EC_P256]
    command = [sys.executable, "-X", "faulthandler", "-m", "tests.integration.hsm.stress", str(token.directory), LABEL,
               PIN.reveal().decode(), mode, key.object_id.hex(), key.public_key.hex()]  # fmt: skip
    return subprocess.run(command, cwd=WORKSPACE, capture_output=True, text=True, timeout=timeout, check=False)


def test_eight_threads_make_24000_signatures_without_a_crash(tmp_path: Path) -> None:
    ended = run_stress(copy_token(tmp_path / "token"), "sign")
    assert ended.returncode == 0, ended.stderr
    assert "verified 24000" in ended.stdout
    assert "events []" in ended.stdout


def test_keys_are_made_and_destroyed_while_eight_threads_sign(tmp_path: Path) -> None:
    ended = run_stress(copy_token(tmp_path / "token"), "churn")
    assert ended.returncode == 0, ended.stderr
    assert "verified 24000" in ended.stdout
    assert "events []" in ended.stdout
    assert int(ended.stdout.split("churned ")[1].split()[0]) >= 10


def test_the_self_test_takes_less_than_a_second_of_the_processor_and_passes_with_locking(tmp_path: Path) -> None:
    token = copy_token(tmp_path / "token")
    os.environ["SOFTHSM2_CONF"] = str(token.configuration)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    prove_locking(module_path=MODULE, token_label=LABEL, token_serial=None, pin=PIN)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    assert THREADS * ROUNDS == 400


def test_the_self_tests_exercise_crashes_a_module_that_does_not_lock(tmp_path: Path) -> None:
    token = copy_token(tmp_path / "token")
    caught = tried = 0
    while caught < 2 and tried < 20:  # on a busy machine the threads meet less often
        tried += 1
        try:
            caught += run_stress(token, "unlocked", timeout=5).returncode != 0
        except subprocess.TimeoutExpired:  # a damaged table can also make it run in circles
            caught += 1
    assert caught == 2


@pytest.mark.promise("P12")
def test_a_failed_self_test_refuses_the_start_and_tells_no_pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = copy_token(tmp_path / "token")
    monkeypatch.setenv("SOFTHSM2_CONF", str(token.configuration))
    with pytest.raises(HsmUnavailable, match="did not bear several threads") as refused:
        prove_locking(module_path=MODULE, token_label=LABEL, token_serial=None, pin=Secret(b"wrong-4711"))
    assert "4711" not in str(refused.value)


def resident_kilobytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_two_thousand_signatures_leave_sessions_objects_and_descriptors_as_they_were(tmp_path: Path) -> None:
    with open_token(tmp_path / "token", sessions=4) as (hsm, token):
        key = token.keys[KeyType.EC_P256]
        ciphertext = hsm.encrypt(Secret(b"secret"), associated_data=b"a")

        def use(rounds: int) -> None:
            for _ in range(rounds):
                hsm.prepare(key)
                hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)
                hsm.authenticate(b"m")
                hsm.decrypt(ciphertext, associated_data=b"a")

        def measure() -> tuple[int, int, int]:
            gc.collect()
            return len(os.listdir("/proc/self/fd")), len(gc.get_objects()), resident_kilobytes()

        use(200)
        descriptors, objects, memory = measure()
        use(2000)
        descriptors_after, objects_after, memory_after = measure()
        assert descriptors_after == descriptors
        assert abs(objects_after - objects) < 100
        assert memory_after - memory < 1024
        assert len({id(slot.session()) for slot in hsm._recovery.connection().readers.slots}) == 4


def test_twenty_recoveries_leave_no_descriptors_and_threads_behind(tmp_path: Path) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        key = token.keys[KeyType.EC_P256]

        def lose_and_recover() -> None:
            token.remove()
            with pytest.raises(HsmUnavailable):
                hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)
            token.bring_back()
            while not hsm.ready():
                time.sleep(0.005)
            assert len(hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)) == 1

        lose_and_recover()
        before = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
        for _ in range(20):
            lose_and_recover()
        assert (len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))) == before
        assert [event for event, _ in token.events] == ["hsm.unavailable", "hsm.recovered"] * 21
