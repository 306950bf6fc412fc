"""Signs from many threads in a process of its own, whose crash is the failure of a test.

    python -m tests.integration.hsm.stress TOKEN_FOLDER LABEL PIN MODE KEY_ID PUBLIC_KEY

MODE is `sign` (8 threads sign), `churn` (they sign while one makes and destroys keys) or `unlocked`
(the same exercise on a module that was started in python-pkcs11's own way, without locking).
Writes down how much was done.
"""

import hashlib
import os
import sys
import threading
import time

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.core.ports import KeyReference
from trien_server.core.secret import Secret
from trien_server.hsm import Pkcs11Hsm, find_softhsm_module, selftest
from trien_server.hsm.module import Module

THREADS = 8
SIGNATURES = 3000


def sign_from_threads(hsm: Pkcs11Hsm, key: KeyReference, *, signatures: int, churn: bool) -> None:
    public = load_der_public_key(key.public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    begin = threading.Barrier(THREADS)
    verified: list[int] = []
    hsm.prepare(key)
    ended = threading.Event()

    def sign(number: int) -> None:
        begin.wait()
        for count in range(0, signatures, 2):
            digests = [hashlib.sha256(f"{number} {count} {place}".encode()).digest() for place in range(2)]
            made = hsm.sign(key, SignatureAlgorithm.ECDSA_P256_SHA256, digests, pss_salt_length=None)
            for digest, signature in zip(digests, made, strict=True):
                public.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
        verified.append(signatures)

    def make_and_destroy() -> None:
        churned = 0
        while not ended.is_set():
            object_id = os.urandom(16)
            new = hsm.generate_key_pair(object_id, KeyType.EC_P256)
            reference = KeyReference(object_id=object_id, key_type=KeyType.EC_P256, public_key=new)
            hsm.prepare(reference)
            hsm.sign(reference, SignatureAlgorithm.ECDSA_P256_SHA256, [bytes(32)], pss_salt_length=None)
            hsm.destroy_key_pair(object_id)
            churned += 1
        sys.stdout.write(f"churned {churned}" + "\n")

    threads = [threading.Thread(target=sign, args=(number,)) for number in range(THREADS)]
    churner = threading.Thread(target=make_and_destroy)
    start = time.monotonic()
    for thread in threads:
        thread.start()
    if churn:
        churner.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    ended.set()
    if churn:
        churner.join()
    sys.stdout.write(f"verified {sum(verified)}" + "\n")
    sys.stdout.write(f"rate {sum(verified) / seconds:.0f}" + "\n")


def main() -> None:
    folder, label, pin, mode, object_id, public_key = sys.argv[1:]
    os.environ["SOFTHSM2_CONF"] = f"{folder}/softhsm2.conf"
    if mode == "unlocked":
        # The library's own initialize: C_Initialize(NULL).
        Module.initialize = lambda self: super(Module, self).initialize()  # type: ignore[method-assign]
        selftest.exercise(module_path=find_softhsm_module(), token_label=label, token_serial=None, pin=pin)
        return
    events: list[str] = []
    hsm = Pkcs11Hsm(
        module_path=find_softhsm_module(),
        token_label=label,
        pin=Secret(pin.encode()),
        sessions=THREADS,
        report=lambda event, details: events.append(f"{event} {dict(details)}"),
    )
    key = KeyReference(
        object_id=bytes.fromhex(object_id), key_type=KeyType.EC_P256, public_key=bytes.fromhex(public_key)
    )
    try:
        sign_from_threads(hsm, key, signatures=SIGNATURES, churn=mode == "churn")
    finally:
        sys.stdout.write(f"events {events}" + "\n")
        hsm.close()


if __name__ == "__main__":
    main()
