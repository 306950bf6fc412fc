"""An authorization opens once, for what was authorized, for the client that made it (P2, P3, P7)."""

import hashlib

import pytest
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
)
from tests.support.hostile_requests import (
    activated,
    full_tries,
    opened,
    refusal,
    wanted,
)
from tests.support.sandbox import Installation
from trien.v1 import (
    authorization_service_pb2,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-open")


@pytest.mark.promise("P2", "P3", "P7")
def test_authorizations_open_once_for_what_was_authorized(
    installation: Installation, client: Connection, administrator: Administrator, person: Person
) -> None:
    other_client, token = administrator.create_client("hostile-other")
    stub, name = client.authorizations, authorization_service_pb2
    first, second, third = (hashlib.sha256(text).digest() for text in (b"1", b"2", b"3"))
    made = client.call(stub.CreateAuthorization, wanted(person, [first, second, first]))
    fetch = name.FetchSignatureActivationDataRequest(name=made.name)
    assert refusal(client, stub.FetchSignatureActivationData, fetch).reason == "AUTHORIZATION_NOT_APPROVED"
    assert opened(client, person, made.name, bytes(32), [first]).reason == "ACTIVATION_DATA_REJECTED"

    approve = name.ApproveAuthorizationsRequest(names=[made.name], one_time_password=person.one_time_password())
    client.call(stub.ApproveAuthorizations, approve)
    approve.one_time_password.code = person.authenticator.at(person.authenticator.counter)
    assert refusal(client, stub.ApproveAuthorizations, approve).reason == "AUTHORIZATION_NOT_PENDING"
    deny = name.DenyAuthorizationRequest(name=made.name)
    assert refusal(client, stub.DenyAuthorization, deny).reason == "AUTHORIZATION_NOT_PENDING"
    twice = name.ApproveAuthorizationsRequest(
        names=[made.name] * 2, one_time_password=person.one_time_password("00000000")
    )
    assert refusal(client, stub.ApproveAuthorizations, twice).reason == "INVALID_ARGUMENT"

    sad = client.call(stub.FetchSignatureActivationData, fetch).signature_activation_data
    for wrong in (b"", bytes(32), sad[:-1], sad + b"\0", bytes([sad[0] ^ 1]) + sad[1:]):
        assert opened(client, person, made.name, wrong, [first]).reason == "ACTIVATION_DATA_REJECTED"
    for digests in ([third], [second, third], [second, first, second], [first, first, second]):
        assert opened(client, person, made.name, sad, digests).reason == "DIGESTS_NOT_AUTHORIZED"
    with Connection(installation, token=token) as stranger:
        assert refusal(stranger, stranger.authorizations.FetchSignatureActivationData, fetch).reason == (
            "PERMISSION_DENIED"
        )
        assert opened(stranger, person, made.name, sad, [first]).reason == "PERMISSION_DENIED"
        get = name.GetAuthorizationRequest(name=made.name)
        assert refusal(stranger, stranger.authorizations.GetAuthorization, get).reason == "PERMISSION_DENIED"
    assert other_client == "clients/hostile-other"

    request = activated(person, made.name, sad, [first, second])
    signed = client.sign(request)
    assert len(signed.signatures) == 2
    assert client.sign(request) == signed
    assert opened(client, person, made.name, sad, [second]).reason == "ACTIVATION_DATA_USED"
    request.items.pop()
    assert refusal(client, client.signing.SignDigests, request).reason == "REQUEST_ID_REUSED"
    client.sign(activated(person, made.name, sad, [first]))
    assert opened(client, person, made.name, sad, [first]).reason == "ACTIVATION_DATA_USED"
    assert refusal(client, stub.FetchSignatureActivationData, fetch).reason == "ACTIVATION_DATA_USED"

    denied = client.call(stub.CreateAuthorization, wanted(person, [first]))
    client.call(stub.DenyAuthorization, name.DenyAuthorizationRequest(name=denied.name))
    approve = name.ApproveAuthorizationsRequest(
        names=[denied.name], one_time_password=person.one_time_password("00000000")
    )
    assert refusal(client, stub.ApproveAuthorizations, approve).reason == "AUTHORIZATION_NOT_PENDING"
    full_tries(client, administrator, person)
