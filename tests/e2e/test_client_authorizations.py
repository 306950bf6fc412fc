"""`trien authorizations` and `trien sign file` against a real server."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.client.command import Trien, at_terminal
from tests.support.administration import Administrator
from tests.support.openssl import openssl
from tests.support.sandbox import Installation, environment
from trien.v1 import algorithms_pb2

from trien_client import AuthorizationState, Client, SignatureAlgorithm

TRIEN = str(Path(sys.executable).with_name("trien"))
ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256


def test_a_person_lists_approves_and_denies_at_the_terminal(
    installation: Installation, administrator: Administrator
) -> None:
    connection = installation.directory / "connection.json"
    person = administrator.create_person("sdk-terminal")
    digests = [hashlib.sha256(text).digest() for text in (b"one", b"two")]
    with Client.from_connection_file(connection) as client:
        first, second, third, fourth = (
            client.create_authorization(person.credential, ALGORITHM, digests).name for _ in range(4)
        )

        def trien(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [TRIEN, "authorizations", *arguments, "--connection", str(connection)],
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
                env=environment(),
            )

        listed = json.loads(trien("list", "--credential", person.credential, "--output", "json").stdout)
        assert {found["name"] for found in listed} == {first, second, third, fourth}
        assert {found["fingerprint"] for found in listed} == {hashlib.sha256(b"".join(digests)).hexdigest()[:16]}

        right = person.authenticator.take()
        wrong = "00000000" if right != "00000000" else "11111111"
        code, screen, prompts = at_terminal(
            ["authorizations", "approve", first, second], [wrong, right], environment(TRIEN_CONNECTION=str(connection))
        )
        assert (code, prompts) == (0, 2), screen
        assert "Approved: 2 authorizations" in screen
        assert right not in screen
        approved = client.get_authorization(first)
        assert (approved.state, approved.approved_by) == (AuthorizationState.APPROVED, person.name)
        for name in (first, second):
            signed = client.sign_authorized(client.fetch_activation_data(name), ALGORITHM, digests)
            assert len(signed.signatures) == 2

        assert trien("deny", third).returncode == 0
        assert trien("wait", third).returncode == 1
        refused = trien("approve", fourth, third, "--otp-file", str(connection))
        assert refused.returncode == 1
        assert f"{third} is DENIED, not pending." in refused.stderr
        left = json.loads(trien("list", "--credential", person.credential, "--output", "json").stdout)
        assert [found["name"] for found in left] == [fourth]


@pytest.mark.promise("P6")
def test_files_are_signed_and_openssl_verifies_them_with_the_sandboxs_ca(
    installation: Installation, administrator: Administrator, tmp_path: Path
) -> None:
    connection, ca = installation.directory / "connection.json", installation.directory / "signing-ca" / "ca.pem"
    kinds = {
        SignatureAlgorithm.RSA_PSS_SHA256: algorithms_pb2.RSA_2048,
        SignatureAlgorithm.RSA_PKCS1_SHA512: algorithms_pb2.RSA_2048,
        SignatureAlgorithm.ECDSA_P384_SHA384: algorithms_pb2.EC_P384,
        SignatureAlgorithm.ED25519: algorithms_pb2.EC_ED25519,
    }
    persons = {
        kind: administrator.create_person(f"sdk-file-{number}", key_type=kind)
        for number, kind in enumerate(dict.fromkeys(kinds.values()))
    }
    (tmp_path / "plan.dwg").write_bytes(bytes(100_000))

    plan, trien = tmp_path / "plan.dwg", Trien(connection)
    signature = tmp_path / "plan.dwg.p7s"
    for algorithm, kind in kinds.items():
        person = persons[kind]
        sign = ["sign", "file", plan, "--credential", person.credential, "--algorithm", algorithm, "--force"]
        trien(*sign, "--otp-file", "-", code=person.authenticator.take())
        assert "Signature 1 of 1: GOOD" in trien("verify", signature).stdout
        if algorithm is not SignatureAlgorithm.ED25519:  # not with `openssl cms` of OpenSSL 3.0
            verify = ["cms", "-verify", "-binary", "-inform", "DER", "-in", str(signature), "-content", str(plan)]
            said = openssl(tmp_path, *verify, "-CAfile", str(ca), "-purpose", "any", "-out", os.devnull)
            assert "Verification successful" in said
