"""The life of a credential by officers' commands over SoftHSM, with a CA of OpenSSL in files (P9)."""

import base64
import hashlib
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from cryptography import x509
from tests.support.administration import Administrator, Connection, Person, Refused, e_office, request_of
from tests.support.openssl import openssl, verifies
from tests.support.sandbox import Installation, running_sandbox
from typer.testing import CliRunner

from trien_client.cli.main import build_app
from trien_server.core.algorithms import SignatureAlgorithm

pytestmark = pytest.mark.promise("P9")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
PROFILES = """
[person]
basicConstraints=critical,CA:FALSE
keyUsage=critical,nonRepudiation
[sub]
basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
"""


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_sandbox(tmp_path_factory.mktemp("credentials") / "installation") as running:
        yield running


@pytest.fixture
def office(installation: Installation) -> Iterator[Connection]:
    with e_office(installation) as connection:
        yield connection


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    """A root and a CA below it, made by OpenSSL in a folder."""
    (tmp_path / "profiles.cnf").write_text(PROFILES)
    for name in ("root", "sub"):
        openssl(tmp_path, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    openssl(
        tmp_path, "req", "-x509", "-key", "root.key", "-subj", "/O=Ban Cơ yếu/CN=Test root", "-utf8", "-days", "900",
        "-addext", "keyUsage=critical,keyCertSign", "-out", "root.pem",
    )  # fmt: skip
    openssl(tmp_path, "req", "-new", "-key", "sub.key", "-subj", "/CN=Test CA", "-out", "sub.csr")
    issue(tmp_path, "sub", by="root", profile="sub", days=800)
    return tmp_path


def issue(folder: Path, name: str, *, by: str = "sub", profile: str = "person", days: int = 365) -> None:
    """Has OpenSSL issue NAME.pem for NAME.csr."""
    openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{by}.pem", "-CAkey", f"{by}.key", "-days", str(days),
        "-CAcreateserial", "-extfile", "profiles.cnf", "-extensions", profile, "-out", f"{name}.pem",
    )  # fmt: skip


class Officers:
    """The two operators at their terminals."""

    def __init__(self, installation: Installation) -> None:
        self.connection = str(installation.directory / "connection.json")

    def run(self, *arguments: object, by: str = "first", output: str = "json") -> Any:
        given = [str(argument) for argument in arguments]
        given += ["--connection", self.connection, "--as", by, "--output", output]
        return CliRunner().invoke(build_app(completion=False), given)

    def __call__(self, *arguments: object, by: str = "first") -> Any:
        """Returns the JSON of a command that succeeds."""
        done = self.run(*arguments, by=by)
        assert done.exit_code == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def text(self, *arguments: object) -> str:
        """Returns what a person sees."""
        done = self.run(*arguments, output="text")
        assert done.exit_code == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, *arguments: object) -> Any:
        """Returns the error of a command that the server refuses."""
        done = self.run(*arguments)
        assert done.exit_code == 1, done.stdout + done.stderr
        return json.loads(done.stderr)["error"]

    def agree(self, *arguments: object) -> Any:
        """Proposes as the first, approves as the second; returns the executed proposal."""
        proposal = self(*arguments)
        digest = f"sha256:{base64.b64decode(proposal['digest']).hex()}"
        decided = self("proposals", "approve", proposal["name"], "--digest", digest, by="second")
        assert decided["state"] == "EXECUTED", decided
        return decided


@pytest.fixture
def officers(installation: Installation) -> Officers:
    return Officers(installation)


def person_of(installation: Installation, identifier: str) -> Person:
    """Makes a person with a counter, and a key without a credential."""
    with Administrator(installation) as administrator:
        signer = administrator.create_signer(identifier)
        authenticator = administrator.create_counter(signer)
        key = administrator.create_key(identifier)
    return Person(
        name=signer,
        authenticator=authenticator,
        credential=f"credentials/{identifier}",
        key_type=key.key_type,
        certificate=None,  # type: ignore[arg-type]
    )


def signs(office: Connection, person: Person, certificate: Path, folder: Path, document: bytes) -> bool:
    """Signs a document, and has OpenSSL verify it with a certificate."""
    answer = office.sign(request_of(person, document))
    return verifies(
        folder,
        x509.load_pem_x509_certificate(certificate.read_bytes()),
        SignatureAlgorithm.ECDSA_P256_SHA256,
        hashlib.sha256(document).digest(),
        answer.signatures[0].value,
    )


def test_from_the_request_to_the_renewal_with_another_key(
    installation: Installation, office: Connection, officers: Officers, ca: Path
) -> None:
    person = person_of(installation, "do-thi-man")
    # A request of the key, made in the token, judged by OpenSSL.
    officers("credentials", "csr", "--key", "do-thi-man", "--signer", "do-thi-man", "--out", ca / "one.csr")
    said = openssl(ca, "req", "-in", "one.csr", "-noout", "-verify", "-text", "-nameopt", "utf8,sep_comma_plus")
    assert "verify OK" in said
    assert "O=Ủy ban nhân dân xã Phú Lâm,CN=Người ký do-thi-man" in said
    extensions = said[said.index("Requested Extensions:") : said.index("Signature Algorithm")].split("\n")[1:]
    assert [line.strip() for line in extensions if line.strip()] == ["X509v3 Key Usage: critical", "Non Repudiation"]
    issue(ca, "one")
    assert "one.pem: OK" in openssl(
        ca, "verify", "-x509_strict", "-purpose", "any", "-CAfile", "root.pem", "-untrusted", "sub.pem", "one.pem"
    )

    made = ("credentials", "create", "do-thi-man", "--key", "do-thi-man", "--signer", "do-thi-man", "--title", "Chữ ký")
    policy = ("--client", "e-office", "--application-otp", "--max-items", "20")
    wrong = officers.refused(*made, *policy, "--certificate", ca / "one.pem", "--certificate", ca / "root.pem")
    assert (wrong["reason"], wrong["exit_code"]) == ("INVALID_ARGUMENT", 1)
    assert "credential.certificate_chain[0]: the next certificate is not its issuer's" in wrong["message"]
    # The chain in one file as PEM and another as DER.
    (ca / "chain.pem").write_bytes((ca / "one.pem").read_bytes() + (ca / "sub.pem").read_bytes())
    openssl(ca, "x509", "-in", "root.pem", "-outform", "DER", "-out", "root.der")
    officers.agree(*made, *policy, "--certificate", ca / "chain.pem", "--certificate", ca / "root.der")
    shown = officers("credentials", "show", "do-thi-man")
    assert len(shown["certificate_chain"]) == 3
    assert shown["max_items"] == 20
    end = datetime.fromisoformat(shown["certificate_status"]["not_after"])
    assert end == x509.load_pem_x509_certificate((ca / "one.pem").read_bytes()).not_valid_after_utc
    assert signs(office, person, ca / "one.pem", ca, b"with the first certificate")

    # The same key, another certificate.
    officers("credentials", "csr", "do-thi-man", "--out", ca / "two.csr")
    issue(ca, "two", days=29)
    chain = ("--certificate", ca / "two.pem", "--certificate", ca / "sub.pem")
    officers.agree("credentials", "renew", "do-thi-man", *chain)
    assert signs(office, person, ca / "two.pem", ca, b"with the second certificate")
    text = officers.text("credentials", "show", "do-thi-man")
    assert "expires in 28 days" in text
    assert all(len(line) <= 80 for line in text.splitlines()), text
    assert "expires in 28 days" in officers.text("credentials", "list")

    # Another key.
    with Administrator(installation) as administrator:
        administrator.create_key("do-thi-man-2")
    officers("credentials", "csr", "--key", "do-thi-man-2", "--signer", "do-thi-man", "--out", ca / "three.csr")
    issue(ca, "three")
    chain = ("--certificate", ca / "three.pem", "--certificate", ca / "sub.pem")
    assert officers.refused("credentials", "renew", "do-thi-man", *chain)["reason"] == "INVALID_ARGUMENT"
    officers.agree("credentials", "renew", "do-thi-man", "--key", "do-thi-man-2", *chain)
    assert signs(office, person, ca / "three.pem", ca, b"with the second key")
    assert officers("keys", "show", "do-thi-man")["state"] == "DISABLED"
    after = officers("credentials", "show", "do-thi-man")
    assert {name: after[name] for name in ("max_items", "clients", "activators")} == {
        name: shown[name] for name in ("max_items", "clients", "activators")
    }


def test_suspended_resumed_and_revoked(
    installation: Installation, office: Connection, officers: Officers, tmp_path: Path
) -> None:
    with Administrator(installation) as administrator:
        person = administrator.create_person("ly-van-ngung")
    name = "ly-van-ngung"
    code = person.authenticator.take()
    assert officers("credentials", "suspend", name)["state"] == "SUSPENDED"
    with pytest.raises(Refused) as refused:
        office.sign(request_of(person, code=code))
    assert refused.value.reason == "CREDENTIAL_DISABLED"
    # Nobody resumes alone.
    proposal = officers("credentials", "resume", name)
    assert officers.refused("proposals", "approve", proposal["name"], "--digest", digest_of(proposal))
    with pytest.raises(Refused):
        office.sign(request_of(person, code=code))
    officers("proposals", "approve", proposal["name"], "--digest", digest_of(proposal), by="second")
    assert office.sign(request_of(person, code=code)).signatures  # the code was not consumed meanwhile

    installation.stop()
    installation.start()
    revoked = officers("credentials", "revoke", name, "--reason", "affiliation-changed", by="second")
    assert revoked["state"] == "REVOKED"
    with pytest.raises(Refused) as refused:
        office.sign(request_of(person))
    assert refused.value.reason == "CREDENTIAL_DISABLED"
    for command in ("resume", "suspend"):
        assert officers.refused("credentials", command, name)["reason"] == "STATE_CONFLICT"
    done = officers.run("credentials", "revoke", name, output="text")
    assert done.exit_code == 2
    assert "give --yes" in done.stderr


def test_a_policy_is_restricted_by_one_and_loosened_by_two_and_its_refusals_consume_nothing(
    installation: Installation, office: Connection, officers: Officers
) -> None:
    with Administrator(installation) as administrator:
        person = administrator.create_person("ho-van-gio")
    name, code = "ho-van-gio", person.authenticator.take()
    day = datetime.now(ZoneInfo("Asia/Ho_Chi_Minh")) + timedelta(days=3)
    hours = f"{DAYS[day.weekday()]} 00:00-24:00"
    after = officers("credentials", "restrict", name, "--max-items", 2, "--hours", hours, "--remove-client", "e-office")
    assert (after["max_items"], after["hours"], "clients" in after) == (2, [hours], False)
    officers.agree("credentials", "update", name, "--client", "e-office")
    with pytest.raises(Refused) as refused:
        office.sign(request_of(person, code=code))
    assert refused.value.reason == "NOT_ALLOWED_BY_POLICY"
    assert f"{hours} (Asia/Ho_Chi_Minh)" in refused.value.details
    said = officers.refused("credentials", "restrict", name, "--max-items", 3)
    assert said["reason"] == "NOT_STRICTER"
    assert "max_items: 3 is more than 2" in said["message"]

    officers.agree("credentials", "update", name, "--any-hours", "--kind", "ocra", "--kind", "sms")
    with pytest.raises(Refused) as refused:
        office.sign(request_of(person, code=code))
    assert (refused.value.reason, "OCRA or SMS alone" in refused.value.details) == ("NOT_ALLOWED_BY_POLICY", True)
    officers.agree("credentials", "update", name, "--kind", "hotp")
    with pytest.raises(Refused) as refused:
        office.sign(request_of(person, b"1", b"2", b"3", code=code))
    assert refused.value.reason == "TOO_MANY_DIGESTS"
    # After all that the code is as good as new, and counted nowhere.
    assert office.sign(request_of(person, b"1", b"2", code=code)).signatures


def digest_of(proposal: Any) -> str:
    return f"sha256:{base64.b64decode(proposal['digest']).hex()}"
