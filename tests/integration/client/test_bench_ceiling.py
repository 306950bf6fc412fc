"""`trien bench`: the token alone, in its own process as in a run."""

import base64
from pathlib import Path

import pytest
from tests.support.softhsm import LABEL, MODULE, PIN, copy_token

from trien_client import SignatureAlgorithm
from trien_client.bench.process import Child, ChildFailed, Crew
from trien_server.core.algorithms import KeyType

CASES = [
    (KeyType.RSA_2048, SignatureAlgorithm.RSA_PSS_SHA256),
    (KeyType.RSA_2048, SignatureAlgorithm.RSA_PKCS1_SHA256),
    (KeyType.RSA_3072, SignatureAlgorithm.RSA_PSS_SHA256),
    (KeyType.EC_P256, SignatureAlgorithm.ECDSA_P256_SHA256),
    (KeyType.EC_P384, SignatureAlgorithm.ECDSA_P384_SHA384),
]


def child(folder: Path, **changed: object) -> Child:
    token = copy_token(folder)
    keys = {
        kind.value: [base64.b64encode(token.keys[kind].public_key).decode()]
        for kind in dict.fromkeys(k for k, _ in CASES)
    }
    setup = {"module": MODULE, "label": LABEL, "pin": PIN.reveal().decode(), "keys": keys, **changed}
    return Child(
        "trien_client.bench.ceiling",
        setup,
        log=folder / "child.log",
        environment={"SOFTHSM2_CONF": str(token.configuration)},
    )


def test_the_token_alone_makes_signatures_that_verify(tmp_path: Path) -> None:
    with Crew([child(tmp_path / "a"), child(tmp_path / "b")]) as crew:
        for key_type, algorithm in CASES:
            step = {"key_type": key_type, "algorithm": algorithm, "seconds": 0.2, "warm_up_seconds": 0.01}
            # Each key's first signature is verified in the child, which ends when one does not.
            for answer in crew.ask(step, timeout=60):
                assert answer["signatures"] > 0
                assert answer["seconds"] >= 0.2


def test_a_key_that_the_token_does_not_hold_ends_the_child_with_its_words(tmp_path: Path) -> None:
    stranger = copy_token(tmp_path / "other").wrapped[KeyType.EC_P256].public_key
    with pytest.raises(ChildFailed, match="the token does not hold the key"):
        Crew([child(tmp_path / "a", keys={"EC_P256": [base64.b64encode(stranger).decode()]})])
