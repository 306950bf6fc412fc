"""OpenSSL's command line as a judge that is not our own."""

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from trien_server.core.algorithms import SignatureAlgorithm


def verifies(
    directory: Path,
    certificate: x509.Certificate,
    algorithm: SignatureAlgorithm,
    message: bytes,
    signature: bytes,
    salt: int | None = None,
) -> bool:
    """Asks OpenSSL whether a signature of a digest (for Ed25519: of data) verifies with the certificate's key."""
    for name, content in (
        ("certificate.pem", certificate.public_bytes(Encoding.PEM)),
        ("message", message),
        ("signature", signature),
    ):
        (directory / name).write_bytes(content)
    command = ["openssl", "pkeyutl", "-verify", "-certin", "-inkey", "certificate.pem"]
    command += ["-in", "message", "-sigfile", "signature"]
    function = algorithm.hash_function
    if function is None:
        command.append("-rawin")
    else:
        command += ["-pkeyopt", f"digest:{function.hashlib_name}"]
    if algorithm.is_pss:
        assert function is not None
        length = function.size if salt is None else salt
        command += ["-pkeyopt", "rsa_padding_mode:pss", "-pkeyopt", f"rsa_pss_saltlen:{length}"]
        command += ["-pkeyopt", f"rsa_mgf1_md:{function.hashlib_name}"]
    elif algorithm.is_pkcs1:
        command += ["-pkeyopt", "rsa_padding_mode:pkcs1"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=30, check=False)
    said = (done.stdout + done.stderr).strip()
    assert (done.returncode == 0) == ("Signature Verified Successfully" in said), said
    return done.returncode == 0


def openssl(directory: Path, *arguments: str) -> str:
    """Runs OpenSSL in a folder and returns what it said. Raises `AssertionError` when it failed."""
    done = subprocess.run(
        ["openssl", *arguments], cwd=directory, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said
