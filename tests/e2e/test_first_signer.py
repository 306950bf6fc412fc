"""What docs/operator.md sends a newcomer to: from a server that `init` made to a PDF that the first signer signed."""

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyotp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.documents.judge import require_good
from tests.documents.producers import reportlab_page
from tests.support.sandbox import Installation, environment, trien_server

from trien_server.host.private_ca import PrivateCa

SCRIPT = Path(__file__).parents[2] / "deploy" / "examples" / "first_signer.py"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A server of a new installation, in which nothing was entered yet."""
    directory = tmp_path_factory.mktemp("first-signer") / "installation"
    made = trien_server("init", "--dir", str(directory))
    assert made.returncode == 0, made.stderr
    installation = Installation(directory)
    try:
        installation.start()
        yield installation
        assert installation.stop() == 0
    finally:
        installation.kill()


def first_signer(
    installation: Installation, out: Path, *arguments: object, operator: str = "operators/first"
) -> subprocess.CompletedProcess[str]:
    """Runs the script as the first operator."""
    directory = installation.directory
    command = [
        *(sys.executable, SCRIPT, "--out", out, "--ca-file", directory / "tls" / "ca.pem"),
        *("--address", installation.certificate_address, "--token-address", installation.address),
        *("--certificate", directory / f"{operator}.pem", "--key", directory / f"{operator}.key"),
        *arguments,
    ]
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, env=environment(), check=False
    )


def secret_of(output: str) -> str:
    """Returns the `otpauth` URI that was printed."""
    (uri,) = [line.strip() for line in output.splitlines() if line.strip().startswith("otpauth://")]
    return uri


def sign_by_printed_line(output: str, folder: Path, uri: str) -> Path:
    """Runs the last line that the script printed, with a real document and a code of the phone."""
    words = shlex.split(output.splitlines()[-1])
    assert words[:3] == ["trien", "sign", "pdf"]
    assert words[-2:] == ["in.pdf", "signed.pdf"]
    folder.mkdir()
    reportlab_page(folder / "in.pdf")
    authenticator = pyotp.parse_uri(uri)
    assert isinstance(authenticator, pyotp.TOTP)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("trien")), *words[1:], "--otp-file", "-"],
        input=authenticator.now(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "signed.pdf"


def test_a_newcomer_signs_by_the_line_that_the_script_prints(fresh: Installation, tmp_path: Path) -> None:
    out, ca = tmp_path / "out", tmp_path / "out" / "test-ca"
    done = first_signer(fresh, out, "--ca-dir", ca)
    assert done.returncode == 0, done.stderr
    assert "credentials/hoang-trinh-don\n" in done.stdout
    uri = secret_of(done.stdout)
    for private in (out / "e-office.token", ca / "ca.key"):
        assert private.stat().st_mode & 0o777 == 0o600

    # Run again it makes nothing, shows no secret, and ends with the same line.
    contents = {path: path.read_bytes() for path in out.rglob("*") if path.suffix != ".csr" and path.is_file()}
    again = first_signer(fresh, out, "--ca-dir", ca)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("exists already") == 5
    assert "otpauth" not in again.stdout
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert {path: path.read_bytes() for path in contents} == contents

    signed = sign_by_printed_line(again.stdout, tmp_path / "documents", uri)
    (judgment,) = require_good(signed, (ca / "ca.pem").read_bytes())
    assert judgment.signed_by == "Hoàng Trịnh Đôn"


def test_with_a_ca_of_ones_own_it_stops_at_the_request_and_goes_on(fresh: Installation, tmp_path: Path) -> None:
    out, chain_file = tmp_path / "out", tmp_path / "chain.pem"
    person = ("--signer", "Nguyễn Thị Hoa", "--position", "Văn thư", "--client", "Một cửa", "--key-type", "EC_P256")
    first = first_signer(fresh, out, *person)
    assert first.returncode == 0, first.stderr
    assert "--certificate-chain" in first.stdout
    assert "trien sign" not in first.stdout
    uri = secret_of(first.stdout)

    request = x509.load_pem_x509_csr((out / "nguyen-thi-hoa.csr").read_bytes())
    ca = PrivateCa.create("Test signing CA")
    certificate = x509.load_der_x509_certificate(ca.issue_signer(request.public_bytes(Encoding.DER)))
    chain_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    alone = first_signer(fresh, out, *person, "--certificate-chain", chain_file)
    assert alone.returncode == 1
    assert "append its CA's certificates" in alone.stderr
    chain_file.write_bytes(certificate.public_bytes(Encoding.PEM) + ca.identity.certificate)
    second = first_signer(fresh, out, *person, "--certificate-chain", chain_file)
    assert second.returncode == 0, second.stderr
    signed = sign_by_printed_line(second.stdout, tmp_path / "documents", uri)
    require_good(signed, ca.identity.certificate)

    # A client whose token nobody kept is not passed over in silence.
    (out / "mot-cua.token").unlink()
    lost = first_signer(fresh, out, *person, "--certificate-chain", chain_file)
    assert lost.returncode == 1
    assert "make another client" in lost.stderr


def test_what_keeps_it_from_working_is_one_line(fresh: Installation, tmp_path: Path) -> None:
    server = first_signer(fresh, tmp_path, operator="tls/server")
    missing = first_signer(fresh, tmp_path, operator="operators/third")
    wrong_port = first_signer(fresh, tmp_path, "--address", fresh.address)
    said = {"server": server, "missing": missing, "wrong port": wrong_port}
    for done in said.values():
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert not done.stdout
    assert "operators/third" in missing.stderr
