"""Which versions of TLS the server speaks, asked by OpenSSL."""

import subprocess

import pytest
from tests.support.sandbox import Installation


def _agreed(address: str, version: str) -> str:
    """Returns the version that OpenSSL and the server agreed on when OpenSSL offers that one alone, or ""."""
    run = subprocess.run(
        # Security level 0: what newer builds of OpenSSL no longer offer by themselves is offered all the same.
        ["openssl", "s_client", "-connect", address, "-alpn", "h2", f"-{version}", "-cipher", "ALL:@SECLEVEL=0"],
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    lines = [
        line
        for line in run.stdout.decode(errors="replace").splitlines()
        if line.startswith("New, ") and "(NONE)" not in line
    ]
    return lines[0].split(",")[1].strip() if lines else ""


@pytest.mark.requirement("ASVS 5.0.0-12.1.1", "NIST 800-63B-4 3.1.4.2 channel")
def test_nothing_older_than_tls_1_2_is_spoken(installation: Installation) -> None:
    for address in (installation.address, installation.certificate_address):
        assert _agreed(address, "tls1_2") == "TLSv1.2"
        assert _agreed(address, "tls1_3") == "TLSv1.3"
        assert _agreed(address, "tls1_1") == ""
        assert _agreed(address, "tls1") == ""
