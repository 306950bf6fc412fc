"""The installation's own CA through host commands and officers' commands, judged by OpenSSL."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.administration import Administrator
from tests.support.openssl import openssl
from tests.support.sandbox import Installation, environment, running_sandbox, trien_server

pytestmark = pytest.mark.promise("P9")
TRIEN = str(Path(sys.executable).parent / "trien")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("own-ca")
    (folder / "crl").mkdir()
    settings = (f"ca.crl_folder={folder / 'crl'}", "ca.crl_url=http://pki.phulam.example/crl")
    with running_sandbox(folder / "installation", *settings) as running:
        yield running


def host(installation: Installation, *arguments: str) -> str:
    """Runs a host command beside the running server; returns what it printed."""
    config = str(installation.directory / "trien.toml")
    done = trien_server(*arguments, "--config", config, cwd=installation.directory.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def officer(installation: Installation, *arguments: str, by: str = "first", code: int = 0) -> Any:
    """Runs a command of an officer; returns its JSON."""
    connection = str(installation.directory / "connection.json")
    command = [TRIEN, *arguments, "--connection", connection, "--as", by, "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout if code == 0 else done.stderr)


def agreed(installation: Installation, name: str) -> Any:
    proposal = officer(installation, "proposals", "show", name)
    proposal = proposal.get("proposal", proposal)
    digest = f"sha256:{base64.b64decode(proposal['digest']).hex()}"
    return officer(installation, "proposals", "approve", name, "--digest", digest, by="second")


def test_a_ca_is_made_by_the_host_agreed_on_and_its_certificates_and_lists_verify_with_openssl(
    installation: Installation, tmp_path: Path
) -> None:
    refused = officer(installation, "certificates", "issue", "--key", "none", "--signer", "hoang-trinh-don", code=1)
    assert "STATE_CONFLICT" in json.dumps(refused)

    printed = host(
        installation, "ca", "create", "--common-name", "Phú Lâm document signing", "--organization", "UBND xã Phú Lâm"
    )
    assert "It is no public CA" in printed
    assert all(len(line) <= 80 for line in printed.splitlines()), printed
    assert "has no CA" in host(installation, "ca", "show")
    agreed(installation, printed.split()[-1])
    assert "issues certificates" in host(installation, "ca", "show")
    (tmp_path / "ca.pem").write_text(host(installation, "ca", "show", "--pem"))

    with Administrator(installation) as administrator:
        signer = administrator.create_signer("bui-van-ca")
        key = administrator.create_key("bui-van-ca").name
        proposal = officer(installation, "certificates", "issue", "--key", key, "--signer", signer, "--days", "90")
        agreed(installation, proposal["name"])
        issued = wait_until_issued(installation)
        written = str(tmp_path / "chain.pem")
        shown = officer(installation, "certificates", "show", issued["name"], "--out", written)
        assert shown["state"] == "ISSUED"
        chain = [base64.b64decode(one) for one in shown["certificate_chain"]]
        administrator.create_credential("bui-van-ca", key=key, signer=signer, chain=chain, clients=())

    verify = ("verify", "-x509_strict", "-purpose", "any", "-CAfile", "ca.pem")
    assert "chain.pem: OK" in openssl(tmp_path, *verify, "chain.pem")
    text = openssl(tmp_path, "x509", "-in", "chain.pem", "-noout", "-text", "-nameopt", "utf8")
    assert "Non Repudiation" in text
    assert "CA:FALSE" in text
    assert "http://pki.phulam.example/crl/ca-1.crl" in text

    published = installation.directory.parent / "crl" / "ca-1.crl"
    officer(installation, "certificates", "revoke", issued["name"], "--reason", "key-compromise")
    serial = issued["name"].rpartition("/")[2].lstrip("0")
    end = time.monotonic() + 60
    while not (published.exists() and serial in crl_text(tmp_path, published)):
        assert time.monotonic() < end, "the published list has not the revoked certificate"
        time.sleep(0.1)
    assert "Key Compromise" in crl_text(tmp_path, published)

    printed = host(installation, "ca", "crl", "--out", str(tmp_path / "fresh.crl"))
    assert "1 revoked certificate\n" in printed
    assert "verify OK" in openssl(
        tmp_path, "crl", "-inform", "DER", "-in", "fresh.crl", "-noout", "-text", "-verify", "-CAfile", "ca.pem"
    )
    openssl(tmp_path, "crl", "-inform", "DER", "-in", "fresh.crl", "-out", "fresh.pem")
    done = subprocess.run(
        ["openssl", *verify, "-crl_check", "-CRLfile", "fresh.pem", "chain.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "certificate revoked" in done.stderr


def test_a_parent_ca_certifies_ours_by_file(installation: Installation, tmp_path: Path) -> None:
    openssl(
        tmp_path,
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "parent.key"),
        *("-out", "parent.pem", "-subj", "/CN=District root", "-days", "30"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )
    request = str(tmp_path / "ca.csr")
    names = ("--common-name", "Phú Lâm sub CA", "--organization", "UBND xã Phú Lâm", "--key-type", "EC_P256")
    host(installation, "ca", "rotate", *names, "--request", request)
    assert "verify OK" in openssl(tmp_path, "req", "-in", "ca.csr", "-noout", "-verify")
    extensions = tmp_path / "extensions"
    extensions.write_text(
        "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    openssl(
        tmp_path,
        *("x509", "-req", "-in", "ca.csr", "-CA", "parent.pem", "-CAkey", "parent.key", "-days", "20"),
        *("-extfile", "extensions", "-out", "ca.pem"),
    )
    chain = tmp_path / "ca-chain.pem"
    chain.write_bytes((tmp_path / "ca.pem").read_bytes() + (tmp_path / "parent.pem").read_bytes())
    present = "issues certificates" in host(installation, "ca", "show")
    printed = host(installation, "ca", "import", "--chain", str(chain), *(["--replace"] if present else []))
    agreed(installation, printed.split()[-1])
    shown = host(installation, "ca", "show")
    assert "issued by    CN=District root" in shown
    assert ("replaced: signs revocation lists alone" in shown) == present


def wait_until_issued(installation: Installation) -> Any:
    end = time.monotonic() + 60
    while True:
        found = officer(installation, "certificates", "list")
        if found and all(one["state"] == "ISSUED" for one in found):
            return found[-1]
        assert time.monotonic() < end, found
        time.sleep(0.2)


def crl_text(directory: Path, crl: Path) -> str:
    return (
        openssl(directory, "crl", "-inform", "DER", "-in", str(crl), "-noout", "-text")
        .lower()
        .replace("key compromise", "Key Compromise")
    )
