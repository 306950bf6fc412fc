"""Bytes that are no message, and messages that are too large, end with a status and nothing else (P12)."""

import grpc
import pytest
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
    request_of,
)
from tests.support.hostile_requests import (
    SignItem,
    items_of,
    refusal,
)
from trien.v1 import (
    credential_service_pb2,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-bytes")


def test_a_message_of_9_mib_is_refused_before_it_is_read(client: Connection, person: Person) -> None:
    request = request_of(person, code="00000000")
    items_of(SignItem(data=bytes(9 << 20)))(request)
    refused = refusal(client, client.signing.SignDigests, request)
    assert refused.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.call(client.credentials.GetCredential, credential_service_pb2.GetCredentialRequest(name=person.credential))


def test_large_metadata_is_refused(client: Connection, person: Person) -> None:
    get = credential_service_pb2.GetCredentialRequest(name=person.credential)
    with pytest.raises(grpc.RpcError) as caught:
        client.credentials.GetCredential(get, timeout=10, metadata=[*client.metadata, ("x-long", "a" * 100_000)])
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.call(client.credentials.GetCredential, get)


@pytest.mark.promise("P12")
@pytest.mark.parametrize(
    "content",
    [
        b"\xff",
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\x02\xff\xfe",
        b"\x08",
        b"\x0b" * 10_000,
        b"\x22" + b"\x80" * 9 + b"\x01",
        b"<xml/>",
        b"\x22\x02\x12\x7f",
    ],
    ids=["a byte", "a long length", "no UTF-8", "cut off", "groups", "an endless number", "XML", "a cut-off item"],
)
def test_bytes_that_are_no_message_are_an_invalid_argument(client: Connection, content: bytes) -> None:
    method = client.channel.unary_unary(
        "/trien.v1.SigningService/SignDigests",
        request_serializer=lambda value: value,
        response_deserializer=lambda value: value,
    )
    refused = refusal(client, method, content)
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


def test_an_unknown_method_is_unimplemented(client: Connection) -> None:
    for path in ("/trien.v1.SigningService/Sign", "/trien.v1.Nothing/Sign", "/../../etc/passwd"):
        method = client.channel.unary_unary(path)
        assert refusal(client, method, b"").code is grpc.StatusCode.UNIMPLEMENTED
