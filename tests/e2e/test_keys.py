"""Officers run keys by command, and what that does to who signs; wrapped keys before OpenSSL."""

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography import x509
from tests.support.administration import Administrator, Connection, Refused, request_of
from tests.support.openssl import verifies
from tests.support.sandbox import Installation
from trien.v1 import algorithms_pb2, credential_service_pb2, key_service_pb2, proposal_service_pb2, signing_service_pb2
from typer.testing import CliRunner

from trien_client.cli.main import build_app
from trien_server.core.algorithms import SignatureAlgorithm


class Officer:
    """Types `trien …` as an operator of `init`."""

    def __init__(self, installation: Installation, name: str) -> None:
        directory = installation.directory
        self._options = [
            *("--address", installation.certificate_address),
            *("--ca-file", str(directory / "tls" / "ca.pem")),
            *("--certificate-file", str(directory / "operators" / f"{name}.pem")),
            *("--key-file", str(directory / "operators" / f"{name}.key")),
            *("--timeout", "120"),
        ]

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(build_app(completion=False), [*arguments, *self._options])

    def text(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--output", "json"))

    def refused(self, *arguments: str) -> dict[str, Any]:
        done = self.run(*arguments, "--output", "json")
        assert (done.exit_code, done.stdout) == (1, "")
        error: dict[str, Any] = json.loads(done.stderr)["error"]
        return error


def digest_of(proposal: str) -> str:
    """Returns the digest that the second operator reads."""
    (line,) = (line for line in proposal.splitlines() if line.startswith("digest sha256:"))
    return line.removeprefix("digest sha256:")


@pytest.mark.promise("P9")
def test_two_officers_run_a_key_by_command(
    installation: Installation, administrator: Administrator, client: Connection
) -> None:
    first, second = Officer(installation, "first"), Officer(installation, "second")
    person = administrator.create_person("lifecycle")
    key = "keys/lifecycle"
    assert client.sign(request_of(person)).signatures

    proposed = first.json("keys", "destroy", key, "--delay-days", "3")
    shown = second.text("proposals", "show", proposed["name"])
    assert "delay_days: 3" in shown
    assert "name: credentials/lifecycle" in shown
    assert f"signer: {person.name}" in shown
    assert "state: ENABLED -> DESTROY_SCHEDULED" in shown
    assert client.sign(request_of(person)).signatures, "one officer alone changes nothing"
    second.text("proposals", "approve", proposed["name"], "--digest", digest_of(shown))

    with pytest.raises(Refused, match="CREDENTIAL_DISABLED"):
        client.sign(request_of(person))
    assert key in first.text("keys", "list", "--state", "destroy-scheduled")
    kept = second.json("keys", "cancel-destruction", key)
    assert kept["state"] == "DISABLED"
    assert "destroy_time" not in kept
    error = first.refused("keys", "cancel-destruction", key)
    assert (error["reason"], error["message"]) == ("STATE_CONFLICT", "The key is disabled.")
    with pytest.raises(Refused, match="CREDENTIAL_DISABLED"):
        client.sign(request_of(person))

    text = first.text("keys", "enable", key)
    assert "state: DISABLED -> ENABLED" in text
    name = next(word.rstrip(":") for word in text.split() if word.startswith("proposals/"))
    second.text("proposals", "approve", name, "--digest", digest_of(text))
    assert "ENABLED" in first.text("keys", "show", key)
    assert client.sign(request_of(person)).signatures


def test_a_wrapped_key_is_made_by_command_and_what_the_token_does_not_wrap_is_refused(
    installation: Installation, administrator: Administrator
) -> None:
    officer = Officer(installation, "first")
    text = officer.text("keys", "create", "by-command", "--protection", "wrapped", "--wait")
    assert "WRAPPED, by generation 1" in text
    assert all(len(line) <= 80 for line in text.splitlines()), text
    made = officer.json("keys", "show", "by-command")
    assert (made["state"], made["key_type"], made["protection_level"]) == ("ENABLED", "EC_P256", "WRAPPED")
    error = officer.refused("keys", "create", "unwrapped", "--protection", "wrapped", "--type", "ec-ed25519")
    assert error["reason"] == "INVALID_ARGUMENT"
    assert error["message"].startswith("key.protection_level: WRAPPED is not possible: the token does not wrap")
    assert officer.refused("keys", "show", "unwrapped")["reason"] == "PERMISSION_DENIED"
    assert officer.text("keys", "disable", "by-command").splitlines()[1].split() == ["state:", "DISABLED"]


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    ("key_type", "algorithm"),
    [
        ("RSA_2048", SignatureAlgorithm.RSA_PSS_SHA256),
        ("EC_P256", SignatureAlgorithm.ECDSA_P256_SHA256),
        ("EC_P384", SignatureAlgorithm.ECDSA_P384_SHA384),
    ],
)
def test_openssl_verifies_what_a_wrapped_key_signs(
    administrator: Administrator, client: Connection, tmp_path: Path, key_type: str, algorithm: SignatureAlgorithm
) -> None:
    identifier = f"wrapped-{key_type.lower().replace('_', '-')}"
    person = administrator.create_person(
        identifier, key_type=algorithms_pb2.KeyType.Value(key_type), protection_level=key_service_pb2.WRAPPED
    )
    function = algorithm.hash_function
    assert function is not None
    digests = [hashlib.new(function.hashlib_name, f"document {number}".encode()).digest() for number in range(3)]
    answer = client.sign(
        signing_service_pb2.SignDigestsRequest(
            credential=person.credential,
            algorithm=algorithms_pb2.SignatureAlgorithm.Value(algorithm.value),
            items=[signing_service_pb2.SignItem(digest=digest) for digest in digests],
            request_id=str(uuid.uuid4()),
            one_time_password=person.one_time_password(),
        )
    )
    pairs = zip(digests, (signature.value for signature in answer.signatures), strict=True)
    assert [verifies(tmp_path, person.certificate, algorithm, *pair) for pair in pairs] == [True] * 3
    assert not verifies(tmp_path, person.certificate, algorithm, digests[0], answer.signatures[1].value)


@pytest.mark.promise("P6", "P9")
def test_a_credential_gets_a_new_key_and_the_old_one_is_destroyed(
    administrator: Administrator, client: Connection, tmp_path: Path
) -> None:
    connection = administrator.connection
    person = administrator.create_person("rotated")
    assert client.sign(request_of(person)).signatures
    new = administrator.create_key("rotated-2027", protection_level=key_service_pb2.WRAPPED)
    certificate = administrator.ca.issue_signer(administrator.signing_request(new.name, person.name))
    renewal = credential_service_pb2.RenewCredentialRequest(
        name=person.credential,
        key=new.name,
        certificate_chain=[certificate, administrator.ca.identity.certificate_der],
    )
    administrator.agree(connection.credentials.RenewCredential, renewal)

    def signature_verifies() -> bool:
        signature = client.sign(request_of(person, b"a document")).signatures[0].value
        digest = hashlib.sha256(b"a document").digest()
        shown = x509.load_der_x509_certificate(certificate)
        return verifies(tmp_path, shown, SignatureAlgorithm.ECDSA_P256_SHA256, digest, signature)

    assert signature_verifies()
    old = connection.call(connection.keys.GetKey, key_service_pb2.GetKeyRequest(name="keys/rotated"))
    assert old.state == key_service_pb2.Key.DISABLED
    proposal = administrator.agree(connection.keys.DestroyKey, key_service_pb2.DestroyKeyRequest(name=old.name))
    assert json.loads(proposal.statement)["request"] == {"delay_days": 30, "name": old.name, "used_by": []}
    old = connection.call(connection.keys.GetKey, key_service_pb2.GetKeyRequest(name="keys/rotated"))
    assert old.state == key_service_pb2.Key.DESTROY_SCHEDULED
    assert signature_verifies()


@pytest.mark.promise("P9")
def test_the_proposal_of_a_key_is_refused_to_its_own_proposer(administrator: Administrator) -> None:
    key = administrator.create_key("own-proposal")
    keys = administrator.connection.keys
    proposal: proposal_service_pb2.Proposal = administrator.connection.call(
        keys.DestroyKey, key_service_pb2.DestroyKeyRequest(name=key.name)
    )
    request = proposal_service_pb2.ApproveProposalRequest(name=proposal.name, digest=proposal.digest, signature=b"x")
    with pytest.raises(Refused, match="OWN_PROPOSAL"):
        administrator.connection.call(administrator.connection.proposals.ApproveProposal, request)
    found = administrator.connection.call(keys.GetKey, key_service_pb2.GetKeyRequest(name=key.name))
    assert found.state == key_service_pb2.Key.ENABLED
