"""A token that goes away and comes back, under load and without."""

import hashlib
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key
from tests.support.softhsm import LABEL, MODULE, PIN, SoftHsmToken, open_token

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.errors import HsmUnavailable
from trien_server.core.ports import KeyMismatch
from trien_server.core.secret import Secret
from trien_server.hsm import Pkcs11Hsm

P256 = SignatureAlgorithm.ECDSA_P256_SHA256


def wait_until(condition: Callable[[], bool], timeout: float) -> float:
    """Waits until `condition()` is true and returns how long that took (seconds); fails after `timeout`."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout, f"did not come true in {timeout} s"
        time.sleep(0.005)
    return time.monotonic() - start


def names(token: SoftHsmToken) -> list[str]:
    return [event for event, _ in token.events]


@pytest.mark.promise("P8")
def test_an_idle_server_notices_within_five_seconds_that_the_token_is_gone(tmp_path: Path) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        assert hsm.ready()
        token.remove()
        assert wait_until(lambda: not hsm.ready(), 5) < 5
        refused = 0
        slowest = 0.0
        for _ in range(100):
            start = time.monotonic()
            with pytest.raises(HsmUnavailable):
                hsm.authenticate(b"m")
            slowest = max(slowest, time.monotonic() - start)
            refused += 1
        assert refused == 100
        assert slowest < 0.1
        assert names(token) == ["hsm.unavailable"]
        token.bring_back()
        wait_until(hsm.ready, 10)
        assert len(hsm.authenticate(b"m")) == 32
        assert names(token) == ["hsm.unavailable", "hsm.recovered"]


@pytest.mark.promise("P6", "P8")
def test_a_token_that_goes_away_twice_under_load_comes_back_without_a_wrong_signature(tmp_path: Path) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        load = Load(hsm, token, threads=6)
        load.start()
        for round_number in range(2):
            before = load.counts["signed"]
            wait_until(lambda before=before: load.counts["signed"] > before + 300, 20)
            token.remove()
            assert wait_until(lambda: not hsm.ready(), 5) < 5
            refused = load.counts["refused"]
            wait_until(lambda refused=refused: load.counts["refused"] > refused + 30, 5)
            token.bring_back()
            wait_until(hsm.ready, 15)
            before = load.counts["signed"]
            wait_until(lambda before=before: load.counts["signed"] > before + 300, 20)
            assert names(token) == ["hsm.unavailable", "hsm.recovered"] * (round_number + 1)
        load.stop()
        assert load.unexpected == []
        assert load.counts["signed"] > 1200
        assert load.counts["refused"] > 60
        assert load.slowest_refusal < 5.5


class Load:
    """Threads that sign and verify without end, and count what they got."""

    def __init__(self, hsm: Pkcs11Hsm, token: SoftHsmToken, *, threads: int) -> None:
        self.counts: Counter[str] = Counter()
        self.unexpected: list[BaseException] = []
        self.slowest_refusal = 0.0
        self._hsm = hsm
        self._key = token.keys[KeyType.EC_P256]
        public = load_der_public_key(self._key.public_key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        self._public = public
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(threads)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _run(self, number: int) -> None:
        count = 0
        while not self._ending.is_set():
            count += 1
            digest = hashlib.sha256(f"{number} {count}".encode()).digest()
            start = time.monotonic()
            try:
                self._hsm.prepare(self._key)
                (signature,) = self._hsm.sign(self._key, P256, [digest], pss_salt_length=None)
                assert len(self._hsm.authenticate(digest)) == 32
                self._public.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
                outcome = "signed"
            except HsmUnavailable:
                self.slowest_refusal = max(self.slowest_refusal, time.monotonic() - start)
                outcome = "refused"
                time.sleep(0.01)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the test shows it
                self.unexpected.append(error)
                return
            with self._lock:
                self.counts[outcome] += 1


@pytest.mark.requirement("ASVS 5.0.0-11.2.5")
@pytest.mark.promise("P8")
def test_a_decryption_on_a_lost_token_says_unavailable_and_never_that_the_ciphertext_is_wrong(tmp_path: Path) -> None:
    tried = 0
    for round_number in range(5):
        with open_token(tmp_path / str(round_number)) as (hsm, token):
            ciphertext = hsm.encrypt(Secret(b"secret"), associated_data=b"a")
            token.remove()
            for _ in range(20):
                with pytest.raises(HsmUnavailable):
                    hsm.decrypt(ciphertext, associated_data=b"a")
                tried += 1
            assert not hsm.ready()
    assert tried == 100


@pytest.mark.promise("P8")
def test_no_method_takes_a_lost_token_for_one_without_the_key(tmp_path: Path) -> None:
    refused = 0
    for method in ("prepare", "public_key", "destroy_key_pair", "generate_key_pair", "sign"):
        with open_token(tmp_path / method) as (hsm, token):
            key = token.keys[KeyType.EC_P256]
            calls = {
                "prepare": lambda hsm=hsm, key=key: hsm.prepare(key),
                "public_key": lambda hsm=hsm, key=key: hsm.public_key(key.object_id),
                "destroy_key_pair": lambda hsm=hsm, key=key: hsm.destroy_key_pair(key.object_id),
                "generate_key_pair": lambda hsm=hsm: hsm.generate_key_pair(b"new", KeyType.EC_P256),
                "sign": lambda hsm=hsm, key=key: hsm.sign(key, P256, [bytes(32)], pss_salt_length=None),
            }
            token.remove()
            with pytest.raises(HsmUnavailable):
                calls[method]()
            refused += 1
            token.bring_back()
            wait_until(hsm.ready, 10)
            assert hsm.public_key(key.object_id) == key.public_key
    assert refused == 5


def test_a_key_that_another_process_destroyed_is_a_mismatch_and_the_token_stays_ready(tmp_path: Path) -> None:
    with open_token(tmp_path / "token") as (hsm, token):
        key = token.keys[KeyType.EC_P256]
        hsm.prepare(key)
        hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)
        for kind in ("privkey", "pubkey"):
            subprocess.run(
                ["pkcs11-tool", "--module", MODULE, "--token-label", LABEL, "--login", "--pin", PIN.reveal().decode(),
                 "--delete-object", "--type", kind, "--id", key.object_id.hex()],
                check=True, capture_output=True,
            )  # fmt: skip
        with pytest.raises(KeyMismatch):
            hsm.sign(key, P256, [bytes(32)], pss_salt_length=None)
        assert hsm.ready()
        assert names(token) == []
