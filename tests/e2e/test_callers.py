"""Who may call what: a stranger learns nothing, not even what exists (P9, P11)."""

import hashlib
from collections import Counter
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from tests.fuzz.messages import methods
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
    Refused,
    client_identity,
    request_of,
)
from tests.support.hostile_requests import (
    DIGEST,
    certificate_der,
    key_of,
    refusal,
    wanted,
)
from tests.support.sandbox import Installation
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    signer_service_pb2,
)

from trien_server.host.private_ca import PrivateCa

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")

CLIENTS_ONLY = {
    "SignDigests",
    "CreateAuthorization",
    "GetAuthorization",
    "ListAuthorizations",
    "WaitAuthorization",
    "ApproveAuthorizations",
    "DenyAuthorization",
    "FetchSignatureActivationData",
    "CreateChallenge",
    "SendOneTimePassword",
}
EVERYONE = {"GetCredential", "ListCredentials"}


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-callers")


def well_formed(person: Person) -> dict[str, Any]:
    """Returns for each method a request that a permitted caller could make."""
    auth = authorization_service_pb2
    name = f"{person.credential}/authorizations/none"
    credential = credential_service_pb2.Credential(
        key="keys/none", signer=person.name, display_name="x", certificate_chain=[certificate_der(person)]
    )
    return {
        "SignDigests": request_of(person, code="00000000"),
        "CreateAuthorization": wanted(person, [DIGEST]),
        "GetAuthorization": auth.GetAuthorizationRequest(name=name),
        "ListAuthorizations": auth.ListAuthorizationsRequest(parent=person.credential),
        "WaitAuthorization": auth.WaitAuthorizationRequest(name=name, timeout=Duration(seconds=0)),
        "ApproveAuthorizations": auth.ApproveAuthorizationsRequest(
            names=[name], one_time_password=person.one_time_password("00000000")
        ),
        "DenyAuthorization": auth.DenyAuthorizationRequest(name=name),
        "CreateChallenge": auth.CreateChallengeRequest(parent=person.name, authorizations=[name]),
        "SendOneTimePassword": auth.SendOneTimePasswordRequest(parent=person.name, authorizations=[name]),
        "FetchSignatureActivationData": auth.FetchSignatureActivationDataRequest(name=name),
        "GetCredential": credential_service_pb2.GetCredentialRequest(name=person.credential),
        "ListCredentials": credential_service_pb2.ListCredentialsRequest(),
        "CreateCredential": credential_service_pb2.CreateCredentialRequest(credential_id="m", credential=credential),
        "GenerateCertificateSigningRequest": credential_service_pb2.GenerateCertificateSigningRequestRequest(
            key="keys/none", signer=person.name
        ),
        "CreateKey": key_service_pb2.CreateKeyRequest(
            key_id="m", key=key_service_pb2.Key(key_type=algorithms_pb2.EC_P256)
        ),
        "GetKey": key_service_pb2.GetKeyRequest(name=key_of(person)),
        "ListKeys": key_service_pb2.ListKeysRequest(),
        "CreateSigner": signer_service_pb2.CreateSignerRequest(
            signer_id="m",
            signer=signer_service_pb2.Signer(
                display_name="m", kind=signer_service_pb2.Signer.PERSON, organization="organizations/ubnd-xa-phu-lam"
            ),
        ),
        "GetSigner": signer_service_pb2.GetSignerRequest(name=person.name),
        "CreateAuthenticator": signer_service_pb2.CreateAuthenticatorRequest(
            parent=person.name,
            authenticator_id="m",
            authenticator=signer_service_pb2.Authenticator(kind=signer_service_pb2.Authenticator.TOTP),
        ),
        "UnlockSigner": signer_service_pb2.UnlockSignerRequest(name=person.name),
        "CreateOrganization": organization_service_pb2.CreateOrganizationRequest(
            organization_id="m", organization=organization_service_pb2.Organization(display_name="m")
        ),
        "GetOrganization": organization_service_pb2.GetOrganizationRequest(name="organizations/ubnd-xa-phu-lam"),
        "CreateClient": access_service_pb2.CreateClientRequest(
            client_id="m", client=access_service_pb2.Client(display_name="m")
        ),
        "GetClient": access_service_pb2.GetClientRequest(name="clients/e-office"),
        "DisableClient": access_service_pb2.DisableClientRequest(name="clients/e-office"),
    }


def outcome_of(connection: Connection, method: MethodDescriptor, request: Any) -> Refused | None:
    """Calls a method by its descriptor and returns its refusal."""
    answer_type = message_factory.GetMessageClass(method.output_type)
    callable_ = connection.channel.unary_unary(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=answer_type.FromString,
    )
    try:
        connection.call(callable_, request)
    except Refused as refused:
        return refused
    return None


def refusal_of(method: MethodDescriptor) -> str:
    """Returns the reason for a caller who may not. Where no codes are delivered, nobody learns more than that."""
    return "NOT_ALLOWED_BY_POLICY" if method.name == "SendOneTimePassword" else "PERMISSION_DENIED"


def empty(method: MethodDescriptor) -> Any:
    return message_factory.GetMessageClass(method.input_type)()


@pytest.mark.requirement("ASVS 5.0.0-6.3.4")
@pytest.mark.promise("P11")
def test_no_method_answers_a_caller_who_is_not_known(
    installation: Installation, administrator: Administrator, person: Person
) -> None:
    disabled, token = administrator.create_client("hostile-disabled")
    administrator.connection.call(
        administrator.connection.access.DisableClient, access_service_pb2.DisableClientRequest(name=disabled)
    )
    real: str = installation.population["client"]["token"]
    unknown = client_identity(installation, "clients/e-office")
    callers = {
        "nothing": Connection(installation),
        "an empty token": Connection(installation, token=""),
        "a made-up token": Connection(installation, token="trien_" + "A" * 43),
        "a token with another case": Connection(installation, token=real.swapcase()),
        "a cut-off token": Connection(installation, token=real[:-1]),
        "the token's hash": Connection(installation, token=hashlib.sha256(real.encode()).hexdigest()),
        "a disabled client's token": Connection(installation, token=token),
        "a certificate that is not registered": Connection(installation, identity=unknown),
    }
    answers: dict[str, set[tuple[str, str, tuple[str, ...]]]] = {}
    requests = well_formed(person)
    asked = 0
    for case, connection in callers.items():
        with connection:
            for method in methods():
                for request in (requests.get(method.name, empty(method)), empty(method)):
                    refused = outcome_of(connection, method, request)
                    assert refused is not None, (case, method.full_name)
                    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
                    assert set(refused.metadata) == {"requestId"}
                    answers.setdefault(case, set()).add((refused.reason, refused.details, tuple(refused.kinds)))
                    asked += 1
    assert asked == len(callers) * len(methods()) * 2 >= 1000
    # An answer does not tell what exists: the same for each method, and for each token that is not accepted.
    assert all(len(found) == 1 for found in answers.values()), answers
    tokens = {found for case, answer in answers.items() if "token" in case for found in answer}
    assert len(tokens) == 1, tokens


@pytest.mark.requirement("ASVS 5.0.0-12.1.3", "ASVS 5.0.0-12.2.1")
@pytest.mark.promise("P11")
def test_a_certificate_of_another_ca_or_none_does_not_pass_the_handshake(
    installation: Installation, person: Person
) -> None:
    foreign = PrivateCa.create("Trien private CA").issue_client("operator first")
    get = credential_service_pb2.GetCredentialRequest(name=person.credential)
    callers = [
        Connection(installation, identity=foreign),
        Connection(
            installation, token=installation.population["client"]["token"], address=installation.certificate_address
        ),
    ]
    for connection in callers:
        with connection:
            refused = refusal(connection, connection.credentials.GetCredential, get, timeout=10)
            assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "")
    with pytest.raises(grpc.FutureTimeoutError), grpc.insecure_channel(installation.address) as plain:
        grpc.channel_ready_future(plain).result(timeout=1)


@pytest.mark.promise("P9", "P11")
def test_who_may_call_which_method(
    installation: Installation, client: Connection, administrator: Administrator, person: Person
) -> None:
    requests = well_formed(person)
    _, token = administrator.create_client("hostile-stranger")
    refused: Counter[str] = Counter()
    with Connection(installation, token=token) as stranger:
        for method in methods():
            if method.name not in requests:
                continue  # tests/integration/services/test_who_may_what.py looks at all, as every kind of caller
            request = requests[method.name]
            administrative = method.name not in CLIENTS_ONLY | EVERYONE
            by_client = outcome_of(client, method, request)
            by_stranger = outcome_of(stranger, method, request)
            if administrative:
                for answer in (by_client, by_stranger):
                    assert answer is not None, method.full_name
                    assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
                    refused["administrative"] += 1
            elif method.name != "ListCredentials":
                # A client that may not use the credential learns nothing about it.
                assert by_stranger is not None, method.full_name
                assert by_stranger.reason == refusal_of(method)
                refused["stranger"] += 1
            if method.name in CLIENTS_ONLY:
                by_operator = outcome_of(administrator.connection, method, request)
                assert by_operator is not None, method.full_name
                assert by_operator.reason == refusal_of(method)
                refused["operator"] += 1
        listed = stranger.call(stranger.credentials.ListCredentials, credential_service_pb2.ListCredentialsRequest())
        assert not listed.credentials
    assert refused == {"administrative": 2 * 14, "stranger": 11, "operator": 10}
    administrator.unlock(person.name)


@pytest.mark.promise("P11")
def test_unknown_and_forbidden_look_the_same(installation: Installation, administrator: Administrator) -> None:
    mine, token = administrator.create_client("hostile-alike")
    other = administrator.create_person("hostile-of-others")
    answers = set()
    with Connection(installation, token=token) as stranger:
        for name in (other.credential, "credentials/none", "credentials/ubnd-seal"):
            request = request_of(other, code="00000000")
            request.credential = name
            by_sign = refusal(stranger, stranger.signing.SignDigests, request)
            get = credential_service_pb2.GetCredentialRequest(name=name)
            by_get = refusal(stranger, stranger.credentials.GetCredential, get)
            for refused in (by_sign, by_get):
                answers.add((refused.code, refused.reason, refused.details, tuple(sorted(refused.metadata))))
    assert len(answers) == 1
    assert mine == "clients/hostile-alike"
