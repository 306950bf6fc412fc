"""OpenSSL's command line verifies what the token signed: an implementation that is not ours."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.softhsm import WRAPPED_TYPES, SoftHsmToken, open_token

from trien_server.core.algorithms import KeyType, SignatureAlgorithm
from trien_server.hsm import Pkcs11Hsm

FITTING = [
    (algorithm, key_type) for algorithm in SignatureAlgorithm for key_type in KeyType if algorithm.fits(key_type)
]
DOCUMENT = "Biên bản kiểm tra vụ lúa đông xuân".encode()


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Pkcs11Hsm, SoftHsmToken]]:
    with open_token(tmp_path_factory.mktemp("openssl") / "token") as made:
        yield made


def openssl_accepts(arguments: list[str], directory: Path) -> bool:
    ended = subprocess.run(["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False)
    return ended.returncode == 0 and ("Verified OK" in ended.stdout or "Verified Successfully" in ended.stdout)


def arguments_for(algorithm: SignatureAlgorithm, salt: int | None) -> list[str]:
    """Returns the command that verifies sig.bin over doc.bin with key.der, from the document to the end."""
    function = algorithm.hash_function
    if function is None:
        return ["pkeyutl", "-verify", "-pubin", "-inkey", "key.der", "-keyform", "DER", "-rawin", "-in", "doc.bin",
                "-sigfile", "sig.bin"]  # fmt: skip
    hashing = f"-{function.hashlib_name}"
    padding = []
    if algorithm.is_pss:
        length = function.size if salt is None else salt
        padding = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", f"rsa_pss_saltlen:{length}",
                   "-sigopt", f"rsa_mgf1_md:{function.hashlib_name}"]  # fmt: skip
    return ["dgst", hashing, "-keyform", "DER", "-verify", "key.der", *padding, "-signature", "sig.bin", "doc.bin"]


CASES = [(algorithm, key_type, False) for algorithm, key_type in FITTING]
CASES += [(algorithm, key_type, True) for algorithm, key_type in FITTING if key_type in WRAPPED_TYPES]


@pytest.mark.requirement("ASVS 5.0.0-11.6.1")
@pytest.mark.promise("P6")
@pytest.mark.parametrize(("algorithm", "key_type", "wrapped"), CASES, ids=lambda value: str(value))
def test_openssl_accepts_every_algorithm_and_refuses_a_changed_document(
    opened: tuple[Pkcs11Hsm, SoftHsmToken],
    tmp_path: Path,
    algorithm: SignatureAlgorithm,
    key_type: KeyType,
    wrapped: bool,
) -> None:
    hsm, token = opened
    key = (token.wrapped if wrapped else token.keys)[key_type]
    function = algorithm.hash_function
    message = DOCUMENT if function is None else hashlib.new(function.hashlib_name, DOCUMENT).digest()
    (tmp_path / "key.der").write_bytes(key.public_key)
    verified = 0
    for salt in (None, 0, 20) if algorithm.is_pss else (None,):
        (signature,) = hsm.sign(key, algorithm, [message], pss_salt_length=salt)
        (tmp_path / "sig.bin").write_bytes(signature)
        (tmp_path / "doc.bin").write_bytes(DOCUMENT)
        command = arguments_for(algorithm, salt)
        assert openssl_accepts(command, tmp_path)
        (tmp_path / "doc.bin").write_bytes(DOCUMENT + b".")
        assert not openssl_accepts(command, tmp_path)
        verified += 1
    assert verified == (3 if algorithm.is_pss else 1)


def test_openssl_reads_every_public_key(opened: tuple[Pkcs11Hsm, SoftHsmToken], tmp_path: Path) -> None:
    _, token = opened
    read = {}
    for key_type, key in token.keys.items():
        (tmp_path / "key.der").write_bytes(key.public_key)
        command = ["openssl", "pkey", "-pubin", "-inform", "DER", "-in", "key.der", "-noout", "-text"]
        read[key_type] = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [read[key_type].split("(")[1].split(" bit")[0] for key_type in KeyType if key_type.is_rsa] == [
        "2048",
        "3072",
        "4096",
    ]
    assert "prime256v1" in read[KeyType.EC_P256]
    assert "secp384r1" in read[KeyType.EC_P384]
    assert "ED25519" in read[KeyType.EC_ED25519]
    assert len(read) == 6
