"""Every algorithm and every kind of item, signed through gRPC and verified by OpenSSL's command line (P6)."""

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.administration import Administrator, Connection, Person
from tests.support.attributes import signed_attributes
from tests.support.openssl import verifies
from trien.v1 import algorithms_pb2, signing_service_pb2

from trien_server.core.algorithms import HashFunction, KeyType, SignatureAlgorithm

KEY_TYPES = {
    KeyType.RSA_2048: algorithms_pb2.RSA_2048,
    KeyType.RSA_3072: algorithms_pb2.RSA_3072,
    KeyType.RSA_4096: algorithms_pb2.RSA_4096,
    KeyType.EC_P256: algorithms_pb2.EC_P256,
    KeyType.EC_P384: algorithms_pb2.EC_P384,
    KeyType.EC_ED25519: algorithms_pb2.EC_ED25519,
}
SLOW = {KeyType.RSA_4096}
PAIRS = [
    pytest.param(
        key_type,
        algorithm,
        id=f"{key_type}-{algorithm}",
        marks=[pytest.mark.slow] if key_type in SLOW else [],
    )
    for key_type in KeyType
    for algorithm in SignatureAlgorithm
    if algorithm.fits(key_type)
]
HASHES_OF_ATTRIBUTES = {HashFunction.SHA256, HashFunction.SHA512}

pytestmark = pytest.mark.promise("P6")


class Signer:
    """Makes a person for each key type once, and signs for them."""

    def __init__(self, administrator: Administrator, client: Connection) -> None:
        self._administrator = administrator
        self._client = client
        self._people: dict[KeyType, Person] = {}

    def person(self, key_type: KeyType) -> Person:
        if key_type not in self._people:
            identifier = f"openssl-{key_type.lower().replace('_', '-')}"
            self._people[key_type] = self._administrator.create_person(identifier, key_type=KEY_TYPES[key_type])
        return self._people[key_type]

    def sign(
        self, key_type: KeyType, algorithm: SignatureAlgorithm, items: Sequence[Any], salt: int | None = None
    ) -> list[bytes]:
        person = self.person(key_type)
        request = signing_service_pb2.SignDigestsRequest(
            credential=person.credential,
            algorithm=algorithms_pb2.SignatureAlgorithm.Value(algorithm.value),
            pss_salt_length=salt,
            items=items,
            request_id=str(uuid.uuid4()),
            one_time_password=person.one_time_password(),
        )
        answer = self._client.sign(request)
        function = algorithm.hash_function
        default = function.size if function is not None and algorithm.is_pss else None
        assert (answer.pss_salt_length if answer.HasField("pss_salt_length") else None) == (
            default if salt is None else salt
        )
        assert answer.algorithm == request.algorithm
        assert answer.credential == person.credential
        assert answer.approved_by == person.name
        assert len(answer.signatures) == len(items)
        assert all(google_crc32c.value(found.value) == found.crc32c for found in answer.signatures)
        return [found.value for found in answer.signatures]


@pytest.fixture(scope="session")
def signer(administrator: Administrator, client: Connection) -> Signer:
    return Signer(administrator, client)


def flipped(value: bytes) -> bytes:
    return bytes([value[0] ^ 1]) + value[1:]


@pytest.mark.requirement("ASVS 5.0.0-11.6.1")
@pytest.mark.parametrize(("key_type", "algorithm"), PAIRS)
def test_openssl_verifies_digests_or_data(
    signer: Signer, tmp_path: Path, key_type: KeyType, algorithm: SignatureAlgorithm
) -> None:
    function = algorithm.hash_function
    if function is None:
        # `pkeyutl -rawin` cannot read an empty file.
        messages = [b"1", b"a document", os.urandom(64 * 1024)]
        items = [signing_service_pb2.SignItem(data=data) for data in messages]
    else:
        messages = [hashlib.new(function.hashlib_name, f"document {n}".encode()).digest() for n in range(3)]
        items = [signing_service_pb2.SignItem(digest=digest) for digest in messages]
    signatures = signer.sign(key_type, algorithm, items)
    person = signer.person(key_type)
    good = [verifies(tmp_path, person.certificate, algorithm, *pair) for pair in zip(messages, signatures, strict=True)]
    assert good == [True] * 3
    # The judge is able to say no: to another document of the same request, in another order.
    assert not verifies(tmp_path, person.certificate, algorithm, messages[1], signatures[2])
    assert not verifies(tmp_path, person.certificate, algorithm, flipped(messages[1]), signatures[1])


@pytest.mark.parametrize(
    ("key_type", "algorithm"),
    [pair for pair in PAIRS if pair.values[1].hash_function in HASHES_OF_ATTRIBUTES],  # type: ignore[union-attr]
)
def test_openssl_verifies_signed_attributes(
    signer: Signer, tmp_path: Path, key_type: KeyType, algorithm: SignatureAlgorithm
) -> None:
    person = signer.person(key_type)
    function = algorithm.hash_function
    assert function is not None
    certificate = person.certificate.public_bytes(Encoding.DER)
    items, digests = [], []
    for number in range(2):
        document = hashlib.new(function.hashlib_name, f"document {number}".encode()).digest()
        attributes = signed_attributes(document, certificate, function)
        message = signing_service_pb2.SignedAttributes(document_digest=document, der=attributes)
        items.append(signing_service_pb2.SignItem(signed_attributes=message))
        digests.append(hashlib.new(function.hashlib_name, attributes).digest())
    signatures = signer.sign(key_type, algorithm, items)
    good = [verifies(tmp_path, person.certificate, algorithm, *pair) for pair in zip(digests, signatures, strict=True)]
    assert good == [True] * 2
    assert not verifies(tmp_path, person.certificate, algorithm, digests[0], signatures[1])


@pytest.mark.parametrize(
    ("key_type", "algorithm"),
    [pair for pair in PAIRS if pair.values[1].is_pss],  # type: ignore[union-attr]
)
def test_openssl_verifies_explicit_salt_lengths(
    signer: Signer, tmp_path: Path, key_type: KeyType, algorithm: SignatureAlgorithm
) -> None:
    function = algorithm.hash_function
    assert function is not None
    longest = key_type.bits // 8 - function.size - 2
    digest = hashlib.new(function.hashlib_name, b"a document").digest()
    person = signer.person(key_type)
    lengths = [0, 1, 20, function.size, longest]
    for length in lengths:
        (signature,) = signer.sign(key_type, algorithm, [signing_service_pb2.SignItem(digest=digest)], salt=length)
        assert verifies(tmp_path, person.certificate, algorithm, digest, signature, salt=length), length
        other = length + 1 if length != longest else length - 1
        assert not verifies(tmp_path, person.certificate, algorithm, digest, signature, salt=other), length
    assert len(set(lengths)) == 5


@pytest.mark.requirement("ASVS 5.0.0-11.4.3")
def test_every_algorithm_of_the_contract_is_tried() -> None:
    tried = {pair.values[1] for pair in PAIRS}
    contract = set(algorithms_pb2.SignatureAlgorithm.keys()) - {"SIGNATURE_ALGORITHM_UNSPECIFIED"}
    assert {str(algorithm) for algorithm in tried} == contract
    assert {pair.values[0] for pair in PAIRS} == set(KEY_TYPES) == set(KeyType)
    assert len(KEY_TYPES) == len(algorithms_pb2.KeyType.keys()) - 1
    assert len(PAIRS) == 3 * 6 + 3
