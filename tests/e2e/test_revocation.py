"""A public CA's word, learnt by a real server, decides whether a credential signs."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import ocsp
from tests.fakes.public_ca import PublicCa, issue, ocsp_access, web_server
from tests.support.administration import Administrator, Person, Refused, e_office, request_of
from tests.support.sandbox import running_sandbox
from trien.v1 import algorithms_pb2, credential_service_pb2

pytestmark = pytest.mark.slow


def test_a_credential_signs_only_while_its_ca_says_that_it_is_good(tmp_path: Path) -> None:
    ca = PublicCa(datetime.now(UTC).replace(microsecond=0))
    settings = ("revocation.network=true", "revocation.allowed_hosts=localhost", "revocation.check_seconds=10")
    with (
        web_server() as web,
        running_sandbox(tmp_path / "installation", *settings) as installation,
        Administrator(installation) as administrator,
        e_office(installation) as office,
    ):
        signer = administrator.create_signer("bui-van-ca")
        authenticator = administrator.create_counter(signer)
        key = administrator.create_key("bui-van-ca")
        leaf = issue(
            "Bùi Văn Ca",
            at=ca.at,
            by=ca.root,
            public_key=load_der_public_key(key.public_key),
            extensions=(ocsp_access(web.url("/ocsp")),),
        )
        credential = credential_service_pb2.Credential(
            key=key.name,
            signer=signer,
            display_name="Checked",
            certificate_chain=[leaf.der, ca.root.der],
            clients=["clients/e-office"],
            client_collected_otp_allowed=True,
            revocation_policy=credential_service_pb2.Credential.REQUIRE_GOOD,
        )
        request = credential_service_pb2.CreateCredentialRequest(credential_id="checked", credential=credential)
        administrator.agree(administrator.connection.credentials.CreateCredential, request)
        person = Person(
            name=signer,
            authenticator=authenticator,
            credential="credentials/checked",
            key_type=algorithms_pb2.EC_P256,
            certificate=leaf.certificate,
        )
        code = authenticator.take()

        def refused() -> str:
            with pytest.raises(Refused) as caught:
                office.sign(request_of(person, code=code))
            return caught.value.reason

        def status() -> Any:
            wanted = credential_service_pb2.GetCredentialRequest(name="credentials/checked")
            return administrator.connection.call(
                administrator.connection.credentials.GetCredential, wanted
            ).certificate_status

        def wait_for(revocation: Any) -> Any:
            end = time.monotonic() + 120
            while (found := status()).revocation != revocation:
                assert time.monotonic() < end, found
                time.sleep(0.2)
            return found

        states = credential_service_pb2.CertificateStatus
        assert refused() == "CERTIFICATE_STATUS_UNKNOWN"
        web.serve = lambda path, body, handler: (200, ca.answer(body, leaf.certificate))
        # The CA was away at first, and is asked again after the interval.
        assert wait_for(states.GOOD).source == "OCSP localhost"
        office.sign(request_of(person, code=code))
        ca.status, ca.reason = ocsp.OCSPCertStatus.REVOKED, x509.ReasonFlags.key_compromise
        assert wait_for(states.REVOKED).revoke_time.seconds > 0
        assert refused() == "CERTIFICATE_REVOKED"
        assert any(line.get("event") == "certificate_revoked" for line in installation.lines())
