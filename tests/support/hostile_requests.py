"""Requests that are wrong in one place, and what their refusals have to look like."""

import hashlib
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.administration import Administrator, Connection, Person, Refused, request_of
from trien.v1 import algorithms_pb2, authorization_service_pb2, signing_service_pb2

DIGEST = hashlib.sha256(b"a document").digest()
SignRequest = signing_service_pb2.SignDigestsRequest
SignItem = signing_service_pb2.SignItem
Change = Callable[[SignRequest], None]

NAMES = {
    "empty": "",
    "another collection": "keys/hostile",
    "traversal": "credentials/../clients/e-office",
    "encoded traversal": "credentials/%2e%2e%2fkeys",
    "deeper": "credentials/hostile/authorizations/a",
    "unicode": "credentials/hồ-sơ",
    "full-width": "credentials/ｈｏｓｔｉｌｅ",
    "right to left": "credentials/\u202ehostile",
    "upper case": "credentials/HOSTILE",
    "very long": "credentials/" + "a" * 100_000,
    "NUL": "credentials/hostile\0",
    "line end": "credentials/hostile\n",
    "blank": " credentials/hostile",
    "SQL": "credentials/' OR '1'='1",
    "hyphen at the end": "credentials/hostile-",
}
CODES = {
    "empty": "",
    "5 digits": "12345",
    "9 digits": "123456789",
    "a blank inside": "1234 5678",
    "a blank behind": "123456 ",
    "a line end": "123456\n",
    "full-width": "１２３４５６",
    "Arabic digits": "١٢٣٤٥٦",
    "letters": "abcdef",
    "a letter O": "12345O",
    "signed": "-123456",
    "decimal": "1234.56",
    "hexadecimal": "0x1234",
    "NUL": "123456\0",
    "very long": "1" * 100_000,
    "superscript": "12345⁶",
}
REQUEST_IDS = {
    "empty": "",
    "a word": "request",
    "without hyphens": uuid.uuid4().hex,
    "in braces": "{" + str(uuid.uuid4()) + "}",
    "URN": uuid.uuid4().urn,
    "a line end": f"{uuid.uuid4()}\n",
    "letters beyond f": "zzzzzzzz-0000-4000-8000-000000000000",
    "full-width": "１23e4567-e89b-42d3-a456-426614174000",
    "very long": "a" * 100_000,
    "traversal": "../../../../etc/passwd/0000000000000",
}


def refusal(connection: Connection, method: Any, request: Any, **options: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        connection.call(method, request, **options)
    assert caught.value.code is not grpc.StatusCode.INTERNAL
    assert "Traceback" not in caught.value.details
    assert ".py" not in caught.value.details
    return caught.value


def full_tries(client: Connection, administrator: Administrator, person: Person) -> None:
    """Asserts that no failure was counted so far, by counting one, and starts the count anew."""
    refused = refusal(client, client.signing.SignDigests, request_of(person, code="00000000"))
    assert refused.reason == "ONE_TIME_PASSWORD_REJECTED"
    assert refused.metadata["remainingAttempts"] == "2"
    administrator.unlock(person.name)


def full_tries_with(client: Connection, administrator: Administrator, person: Person, algorithm: Any) -> None:
    request = request_of(person, code="00000000")
    request.algorithm = algorithm
    assert refusal(client, client.signing.SignDigests, request).metadata["remainingAttempts"] == "2"
    administrator.unlock(person.name)


def items_of(*items: SignItem) -> Change:
    def change(request: SignRequest) -> None:
        del request.items[:]
        request.items.extend(items)

    return change


def fields_of(**fields: Any) -> Change:
    def change(request: SignRequest) -> None:
        for field, value in fields.items():
            setattr(request, field, value)

    return change


def digests_of(count: int) -> Change:
    return items_of(*[SignItem(digest=DIGEST)] * count)


def certificate_der(person: Person) -> bytes:
    return person.certificate.public_bytes(Encoding.DER)


def key_of(person: Person) -> str:
    """Returns the name of the key that was made with the person."""
    return f"keys/{person.credential.partition('/')[2]}"


def wanted(person: Person, digests: list[bytes]) -> authorization_service_pb2.CreateAuthorizationRequest:
    return authorization_service_pb2.CreateAuthorizationRequest(
        parent=person.credential,
        authorization=authorization_service_pb2.Authorization(
            algorithm=algorithms_pb2.ECDSA_P256_SHA256,
            items=[authorization_service_pb2.AuthorizedItem(digest=digest) for digest in digests],
        ),
    )


def activated(person: Person, authorization: str, sad: bytes, digests: list[bytes]) -> SignRequest:
    return SignRequest(
        credential=person.credential,
        algorithm=algorithms_pb2.ECDSA_P256_SHA256,
        items=[SignItem(digest=digest) for digest in digests],
        request_id=str(uuid.uuid4()),
        activated_authorization=signing_service_pb2.ActivatedAuthorization(
            authorization=authorization, signature_activation_data=sad
        ),
    )


def opened(connection: Connection, person: Person, authorization: str, sad: bytes, digests: list[bytes]) -> Refused:
    return refusal(connection, connection.signing.SignDigests, activated(person, authorization, sad, digests))
