"""Whatever is wrong with a request has a reason of its own, never INTERNAL and never a stack trace (P11, P12)."""

import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
    Refused,
    client_identity,
    e_office,
    request_of,
)
from tests.support.attributes import bad_attributes
from tests.support.sandbox import Installation
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    errors_pb2,
    key_service_pb2,
    organization_service_pb2,
    signer_service_pb2,
    signing_service_pb2,
)

from trien_server.host.private_ca import PrivateCa

METHODS = 24
CLIENTS_ONLY = {
    "SignDigests",
    "CreateAuthorization",
    "GetAuthorization",
    "ListAuthorizations",
    "WaitAuthorization",
    "ApproveAuthorizations",
    "DenyAuthorization",
    "FetchSignatureActivationData",
}
EVERYONE = {"GetCredential", "ListCredentials"}
DIGEST = hashlib.sha256(b"a document").digest()
SignRequest = signing_service_pb2.SignDigestsRequest
SignItem = signing_service_pb2.SignItem


@pytest.fixture(scope="module")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile")


@pytest.fixture(scope="module")
def rsa_person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-rsa", key_type=algorithms_pb2.RSA_2048)


@pytest.fixture(scope="module")
def ed25519_person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-ed25519", key_type=algorithms_pb2.EC_ED25519)


@pytest.fixture(autouse=True)
def nothing_unforeseen_is_logged(installation: Installation) -> Iterator[None]:
    """No request of this file may fail by a defect of the server."""
    before = installation.log_path.stat().st_size
    yield
    written = installation.log_path.read_bytes()[before:].decode()
    assert "Traceback" not in written
    assert '"fault"' not in written
    assert '"INTERNAL"' not in written


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


# SignDigests: each fault of a request

Change = Callable[[SignRequest], None]


def _items(*items: SignItem) -> Change:
    def change(request: SignRequest) -> None:
        del request.items[:]
        request.items.extend(items)

    return change


def _set(**fields: Any) -> Change:
    def change(request: SignRequest) -> None:
        for field, value in fields.items():
            setattr(request, field, value)

    return change


def _digests(count: int) -> Change:
    return _items(*[SignItem(digest=DIGEST)] * count)


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
FAULTS: dict[str, tuple[Change, str]] = {
    "no items": (_digests(0), "INVALID_ARGUMENT"),
    "1,001 digests": (_digests(1001), "TOO_MANY_DIGESTS"),
    "10,000 digests": (_digests(10_000), "TOO_MANY_DIGESTS"),
    "an item that is nothing": (_items(SignItem()), "INVALID_ARGUMENT"),
    "one of two items is nothing": (_items(SignItem(digest=DIGEST), SignItem()), "INVALID_ARGUMENT"),
    "an empty digest": (_items(SignItem(digest=b"")), "INVALID_DIGEST"),
    "31 bytes": (_items(SignItem(digest=DIGEST[:-1])), "INVALID_DIGEST"),
    "33 bytes": (_items(SignItem(digest=DIGEST + b"\0")), "INVALID_DIGEST"),
    "a SHA-1": (_items(SignItem(digest=DIGEST[:20])), "INVALID_DIGEST"),
    "a SHA-512": (_items(SignItem(digest=DIGEST * 2)), "INVALID_DIGEST"),
    "the last of many is short": (
        _items(*[SignItem(digest=DIGEST)] * 999, SignItem(digest=DIGEST[1:])),
        "INVALID_DIGEST",
    ),
    "a digest of 1 MiB": (_items(SignItem(digest=bytes(1 << 20))), "INVALID_DIGEST"),
    "data for ECDSA": (_items(SignItem(data=b"data")), "ALGORITHM_MISMATCH"),
    "mixed kinds": (_items(SignItem(digest=DIGEST), SignItem(data=b"data")), "ALGORITHM_MISMATCH"),
    "attributes that are nothing": (
        _items(SignItem(signed_attributes=signing_service_pb2.SignedAttributes())),
        "INVALID_SIGNED_ATTRIBUTES",
    ),
    "attributes that are no DER": (
        _items(
            SignItem(signed_attributes=signing_service_pb2.SignedAttributes(document_digest=DIGEST, der=b"\xff" * 99))
        ),
        "INVALID_SIGNED_ATTRIBUTES",
    ),
    "no algorithm": (_set(algorithm=0), "INVALID_ARGUMENT"),
    "an unknown algorithm": (_set(algorithm=999), "INVALID_ARGUMENT"),
    "a negative algorithm": (_set(algorithm=-1), "INVALID_ARGUMENT"),
    "RSA with a key on P-256": (_set(algorithm=algorithms_pb2.RSA_PSS_SHA256), "ALGORITHM_MISMATCH"),
    "P-384 with a key on P-256": (_set(algorithm=algorithms_pb2.ECDSA_P384_SHA384), "ALGORITHM_MISMATCH"),
    "Ed25519 with a key on P-256": (_set(algorithm=algorithms_pb2.ED25519), "ALGORITHM_MISMATCH"),
    "a salt for ECDSA": (_set(pss_salt_length=32), "INVALID_ARGUMENT"),
    "a wrong checksum": (_set(items_crc32c=1), "INVALID_ARGUMENT"),
    "no authority": (lambda request: request.ClearField("one_time_password"), "INVALID_ARGUMENT"),
    "an empty password": (
        lambda request: request.one_time_password.CopyFrom(authorization_service_pb2.OneTimePassword()),
        "INVALID_ARGUMENT",
    ),
    "an empty authorization": (
        lambda request: request.activated_authorization.CopyFrom(signing_service_pb2.ActivatedAuthorization()),
        "INVALID_ARGUMENT",
    ),
    "an unknown authorization": (
        lambda request: request.activated_authorization.CopyFrom(
            signing_service_pb2.ActivatedAuthorization(
                authorization=f"{request.credential}/authorizations/none", signature_activation_data=bytes(32)
            )
        ),
        "PERMISSION_DENIED",
    ),
    "an unknown credential": (_set(credential="credentials/none"), "PERMISSION_DENIED"),
    "a signer who may not": (
        lambda request: request.one_time_password.MergeFrom(
            authorization_service_pb2.OneTimePassword(signer="signers/nguyen-thi-hoa")
        ),
        "PERMISSION_DENIED",
    ),
    "a signer who is nobody": (
        lambda request: request.one_time_password.MergeFrom(
            authorization_service_pb2.OneTimePassword(signer="signers/nobody")
        ),
        "PERMISSION_DENIED",
    ),
    "a malformed signer": (
        lambda request: request.one_time_password.MergeFrom(
            authorization_service_pb2.OneTimePassword(signer="signers/../x")
        ),
        "INVALID_ARGUMENT",
    ),
    **{f"the credential's name: {case}": (_set(credential=name), "INVALID_ARGUMENT") for case, name in NAMES.items()},
    **{f"the request id: {case}": (_set(request_id=text), "INVALID_ARGUMENT") for case, text in REQUEST_IDS.items()},
}


@pytest.mark.promise("P8", "P11")
def test_each_fault_of_a_request_has_its_reason_and_costs_nothing(
    client: Connection, administrator: Administrator, person: Person
) -> None:
    counter = person.authenticator.counter
    code = person.authenticator.at(counter)
    seen: Counter[str] = Counter()
    for case, (change, reason) in FAULTS.items():
        request = request_of(person, code=code)
        change(request)
        refused = refusal(client, client.signing.SignDigests, request)
        assert refused.reason == reason, (case, refused)
        assert refused.metadata["requestId"], case
        if refused.code is grpc.StatusCode.INVALID_ARGUMENT:
            assert refused.metadata["field"], case
            assert "BadRequest" in refused.kinds, case
            assert len(refused.details) < 500, case
        seen[reason] += 1
    assert seen.total() == len(FAULTS) >= 55
    # The right code of these requests was looked at by none of them.
    client.sign(request_of(person, code=code))
    person.authenticator.counter = counter + 1
    full_tries(client, administrator, person)


@pytest.mark.promise("P2", "P11")
def test_what_is_no_password_is_refused_unread_and_not_counted(
    client: Connection, administrator: Administrator, person: Person
) -> None:
    refused = [
        refusal(client, client.signing.SignDigests, request_of(person, code=code)).reason for code in CODES.values()
    ]
    assert refused == ["INVALID_ARGUMENT"] * len(CODES)
    authorization = client.call(client.authorizations.CreateAuthorization, wanted(person, [DIGEST]))
    for code in CODES.values():
        request = authorization_service_pb2.ApproveAuthorizationsRequest(
            names=[authorization.name], one_time_password=person.one_time_password(code)
        )
        assert refusal(client, client.authorizations.ApproveAuthorizations, request).reason == "INVALID_ARGUMENT"
    full_tries(client, administrator, person)


def test_attributes_that_are_not_what_was_seen_are_refused(
    client: Connection, administrator: Administrator, person: Person
) -> None:
    der, other = (certificate_der(who) for who in (person, administrator.create_person("hostile-other")))
    cases = bad_attributes(DIGEST, der, other)
    for case, encoded in cases.items():
        item = SignItem(signed_attributes=signing_service_pb2.SignedAttributes(document_digest=DIGEST, der=encoded))
        request = request_of(person, code="00000000")
        _items(item)(request)
        assert refusal(client, client.signing.SignDigests, request).reason == "INVALID_SIGNED_ATTRIBUTES", case
    assert len(cases) >= 17
    full_tries(client, administrator, person)


def test_salts_that_do_not_fit_are_refused(
    client: Connection, administrator: Administrator, rsa_person: Person
) -> None:
    for salt in (-1, -(2**31), 223, 2**31 - 1):
        request = request_of(rsa_person, code="00000000")
        request.algorithm = algorithms_pb2.RSA_PSS_SHA256
        request.pss_salt_length = salt
        assert refusal(client, client.signing.SignDigests, request).reason == "INVALID_ARGUMENT"
    full_tries_with(client, administrator, rsa_person, algorithms_pb2.RSA_PSS_SHA256)


def full_tries_with(client: Connection, administrator: Administrator, person: Person, algorithm: Any) -> None:
    request = request_of(person, code="00000000")
    request.algorithm = algorithm
    assert refusal(client, client.signing.SignDigests, request).metadata["remainingAttempts"] == "2"
    administrator.unlock(person.name)


def test_ed25519_takes_data_of_64_kib_and_nothing_else(client: Connection, ed25519_person: Person) -> None:
    request = request_of(ed25519_person, code="00000000")
    request.algorithm = algorithms_pb2.ED25519
    assert refusal(client, client.signing.SignDigests, request).reason == "ALGORITHM_MISMATCH"
    _items(SignItem(data=bytes(64 * 1024 + 1)))(request)
    assert refusal(client, client.signing.SignDigests, request).reason == "INVALID_ARGUMENT"


def test_a_policy_bounds_items_and_forbids_collected_passwords(
    client: Connection, administrator: Administrator
) -> None:
    few = administrator.create_person("hostile-few", max_items=2)
    request = request_of(few, b"1", b"2", b"3", code="00000000")
    assert refusal(client, client.signing.SignDigests, request).reason == "TOO_MANY_DIGESTS"
    assert (
        refusal(client, client.authorizations.CreateAuthorization, wanted(few, [DIGEST] * 3)).reason
        == "TOO_MANY_DIGESTS"
    )
    own = administrator.create_person("hostile-own-channel", client_collected_otp=False)
    refused = refusal(client, client.signing.SignDigests, request_of(own, code="00000000"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOT_ALLOWED_BY_POLICY")


@pytest.mark.promise("P8")
def test_a_deadline_that_is_too_short_starts_nothing(client: Connection, person: Person) -> None:
    counter = person.authenticator.counter
    code = person.authenticator.at(counter)
    answered = 0
    for timeout in (0.3, 0.4, 0.2, 0.3, 0.4):
        refused = refusal(client, client.signing.SignDigests, request_of(person, code=code), timeout=timeout)
        assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refused.reason in {"", "DEADLINE_TOO_SHORT"}
        answered += refused.reason == "DEADLINE_TOO_SHORT"
    assert answered >= 1
    expired = refusal(client, client.signing.SignDigests, request_of(person, code=code), timeout=0.000001)
    assert expired.code is grpc.StatusCode.DEADLINE_EXCEEDED
    many = request_of(person, *[b"%d" % number for number in range(1000)], code=code)
    refused = refusal(client, client.signing.SignDigests, many, timeout=0.8)
    assert refused.code is grpc.StatusCode.DEADLINE_EXCEEDED
    client.sign(request_of(person, code=code))
    person.authenticator.counter = counter + 1


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


def certificate_der(person: Person) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return person.certificate.public_bytes(Encoding.DER)


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


# Faults of the other methods


def test_malformed_arguments_of_the_other_methods_have_their_reasons(
    client: Connection, administrator: Administrator, person: Person
) -> None:
    admin = administrator.connection
    auth = authorization_service_pb2
    name = f"{person.credential}/authorizations/none"
    authenticator = signer_service_pb2.Authenticator
    far = Timestamp(seconds=10**15)
    credential = credential_service_pb2.Credential(key="keys/hostile", signer=person.name, display_name="x")
    cases: list[tuple[Connection, Any, Any, str]] = [
        (client, client.authorizations.CreateAuthorization, auth.CreateAuthorizationRequest(), "INVALID_ARGUMENT"),
        (client, client.authorizations.CreateAuthorization, wanted(person, []), "INVALID_ARGUMENT"),
        (client, client.authorizations.CreateAuthorization, wanted(person, [DIGEST[1:]]), "INVALID_DIGEST"),
        (client, client.authorizations.CreateAuthorization, wanted(person, [DIGEST] * 1001), "TOO_MANY_DIGESTS"),
        *[
            (client, client.authorizations.CreateAuthorization, lifetime(person, duration), "INVALID_ARGUMENT")
            for duration in (
                Duration(seconds=59),
                Duration(seconds=-60),
                Duration(seconds=86_401),
                Duration(seconds=2**62),
                Duration(seconds=600, nanos=-5),
                Duration(seconds=600, nanos=2**31 - 1),
                Duration(seconds=-(2**62), nanos=-(2**31)),
            )
        ],
        (client, client.authorizations.GetAuthorization, auth.GetAuthorizationRequest(name="x"), "INVALID_ARGUMENT"),
        (client, client.authorizations.GetAuthorization, auth.GetAuthorizationRequest(name=name), "PERMISSION_DENIED"),
        (
            client,
            client.authorizations.WaitAuthorization,
            auth.WaitAuthorizationRequest(name=name, timeout=Duration(seconds=-1)),
            "INVALID_ARGUMENT",
        ),
        (
            client,
            client.authorizations.ListAuthorizations,
            auth.ListAuthorizationsRequest(parent=person.credential, page_size=-1),
            "INVALID_ARGUMENT",
        ),
        *[
            (
                client,
                client.authorizations.ListAuthorizations,
                auth.ListAuthorizationsRequest(parent=person.credential, page_token=token),
                "INVALID_ARGUMENT",
            )
            for token in ("!", "AAA", "é", "_w==", "\ud7ff")
        ],
        (
            client,
            client.authorizations.ApproveAuthorizations,
            auth.ApproveAuthorizationsRequest(names=[], one_time_password=person.one_time_password("00000000")),
            "INVALID_ARGUMENT",
        ),
        (
            client,
            client.authorizations.ApproveAuthorizations,
            auth.ApproveAuthorizationsRequest(
                names=[f"{name}-{n}" for n in range(101)], one_time_password=person.one_time_password("00000000")
            ),
            "INVALID_ARGUMENT",
        ),
        (
            admin,
            admin.keys.CreateKey,
            key_service_pb2.CreateKeyRequest(key_id="k", key=key_service_pb2.Key(key_type=77)),
            "INVALID_ARGUMENT",
        ),
        (admin, admin.keys.CreateKey, key_service_pb2.CreateKeyRequest(key_id="k"), "INVALID_ARGUMENT"),
        *[
            (
                admin,
                admin.keys.CreateKey,
                key_service_pb2.CreateKeyRequest(
                    key_id=identifier, key=key_service_pb2.Key(key_type=algorithms_pb2.EC_P256)
                ),
                reason,
            )
            for identifier, reason in {
                "": "INVALID_ARGUMENT",
                "A": "INVALID_ARGUMENT",
                "../x": "INVALID_ARGUMENT",
                "a/b": "INVALID_ARGUMENT",
                "khóa": "INVALID_ARGUMENT",
                "a" * 64: "INVALID_ARGUMENT",
                "-": "INVALID_ARGUMENT",
                "hostile": "ALREADY_EXISTS",
            }.items()
        ],
        *[
            (
                admin,
                admin.signers.CreateSigner,
                signer_service_pb2.CreateSignerRequest(
                    signer_id="s",
                    signer=signer_service_pb2.Signer(
                        display_name=title, kind=kind, organization=organization, position=position
                    ),
                ),
                "INVALID_ARGUMENT",
            )
            for title, kind, organization, position in (
                ("x", 0, administrator.organization, ""),
                ("x", 9, administrator.organization, ""),
                ("", 1, administrator.organization, ""),
                (" \t", 1, administrator.organization, ""),
                ("a\nb", 1, administrator.organization, ""),
                ("a\u202eb", 1, administrator.organization, ""),
                ("x" * 201, 1, administrator.organization, ""),
                ("x", 1, "organizations/../x", ""),
                ("x", 1, "organizations/none", ""),
                ("x", 1, administrator.organization, "p" * 201),
            )
        ],
        *[
            (
                admin,
                admin.signers.CreateAuthenticator,
                signer_service_pb2.CreateAuthenticatorRequest(
                    parent=parent,
                    authenticator_id="a",
                    authenticator=authenticator(kind=kind, digits=digits, hash=hash_),
                ),
                reason,
            )
            for parent, kind, digits, hash_, reason in (
                (person.name, 0, 6, 0, "INVALID_ARGUMENT"),
                (person.name, 9, 6, 0, "INVALID_ARGUMENT"),
                (person.name, 1, 5, 0, "INVALID_ARGUMENT"),
                (person.name, 1, 9, 0, "INVALID_ARGUMENT"),
                (person.name, 1, -(2**31), 0, "INVALID_ARGUMENT"),
                (person.name, 1, 6, 9, "INVALID_ARGUMENT"),
                ("signers/ubnd-xa-phu-lam", 1, 6, 0, "INVALID_ARGUMENT"),
                ("signers/none", 1, 6, 0, "PERMISSION_DENIED"),
            )
        ],
        *[
            (
                admin,
                admin.organizations.CreateOrganization,
                organization_service_pb2.CreateOrganizationRequest(organization_id="o", organization=organization),
                "INVALID_ARGUMENT",
            )
            for organization in (
                organization_service_pb2.Organization(display_name="x", start_time=far),
                organization_service_pb2.Organization(display_name="x", start_time=Timestamp(seconds=-(10**15))),
                organization_service_pb2.Organization(display_name="x", start_time=Timestamp(nanos=-1)),
                organization_service_pb2.Organization(display_name="x", start_time=Timestamp(nanos=2**31 - 1)),
                organization_service_pb2.Organization(
                    display_name="x", start_time=Timestamp(seconds=2), end_time=Timestamp(seconds=1)
                ),
                organization_service_pb2.Organization(display_name="x", parent="organizations/none"),
                organization_service_pb2.Organization(display_name="x", parent="/"),
            )
        ],
        *[
            (
                admin,
                admin.access.CreateClient,
                access_service_pb2.CreateClientRequest(
                    client_id="c",
                    client=access_service_pb2.Client(display_name="x", certificate_fingerprint=fingerprint),
                ),
                "INVALID_ARGUMENT",
            )
            for fingerprint in (b"\0", bytes(31), bytes(33), bytes(100_000))
        ],
        *[
            (
                admin,
                admin.credentials.CreateCredential,
                changed(credential, certificate_chain=chain, **fields),
                "INVALID_ARGUMENT",
            )
            for chain, fields in (
                ([], {}),
                ([b""], {}),
                ([b"\x30\x00"], {}),
                ([bytes(10_000)], {}),
                ([certificate_der(person)], {"max_items": -1}),
                ([certificate_der(person)], {"max_items": 1001}),
                ([certificate_der(person)], {"key": "keys/none"}),
                ([certificate_der(person)], {"key": "keys/"}),
                ([certificate_der(person)], {"clients": ["clients/none"]}),
                ([certificate_der(person)], {"clients": ["clients/e-office"] * 2}),
                ([certificate_der(person)], {"display_name": "x" * 201}),
                ([certificate_der(person)], {"signer": "signers/none"}),
            )
        ],
    ]
    for position, (connection, method, request, reason) in enumerate(cases):
        refused = refusal(connection, method, request)
        assert refused.reason == reason, (position, str(request)[:300], refused)
    assert len(cases) == 73


def changed(credential: Any, **fields: Any) -> credential_service_pb2.CreateCredentialRequest:
    copy = credential_service_pb2.Credential()
    copy.CopyFrom(credential)
    for field, value in fields.items():
        if isinstance(value, list):
            getattr(copy, field).extend(value)
        else:
            setattr(copy, field, value)
    return credential_service_pb2.CreateCredentialRequest(credential_id="c", credential=copy)


def lifetime(person: Person, duration: Duration) -> authorization_service_pb2.CreateAuthorizationRequest:
    request = wanted(person, [DIGEST])
    request.lifetime.CopyFrom(duration)
    return request


# Bytes that are no message


def test_a_message_of_9_mib_is_refused_before_it_is_read(client: Connection, person: Person) -> None:
    request = request_of(person, code="00000000")
    _items(SignItem(data=bytes(9 << 20)))(request)
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


# Who calls


def methods() -> list[MethodDescriptor]:
    modules = (
        signing_service_pb2,
        authorization_service_pb2,
        credential_service_pb2,
        key_service_pb2,
        signer_service_pb2,
        organization_service_pb2,
        access_service_pb2,
    )
    return [
        method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


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
        "GetKey": key_service_pb2.GetKeyRequest(name="keys/hostile"),
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


def empty(method: MethodDescriptor) -> Any:
    return message_factory.GetMessageClass(method.input_type)()


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
                for request in (requests[method.name], empty(method)):
                    refused = outcome_of(connection, method, request)
                    assert refused is not None, (case, method.full_name)
                    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
                    assert set(refused.metadata) == {"requestId"}
                    answers.setdefault(case, set()).add((refused.reason, refused.details, tuple(refused.kinds)))
                    asked += 1
    assert asked == len(callers) * METHODS * 2
    # An answer does not tell what exists: the same for each method, and for each token that is not accepted.
    assert all(len(found) == 1 for found in answers.values()), answers
    tokens = {found for case, answer in answers.items() if "token" in case for found in answer}
    assert len(tokens) == 1, tokens


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
    assert {method.name for method in methods()} == set(requests)
    assert len(methods()) == METHODS == len(requests)
    _, token = administrator.create_client("hostile-stranger")
    refused: Counter[str] = Counter()
    with Connection(installation, token=token) as stranger:
        for method in methods():
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
                assert by_stranger.reason == "PERMISSION_DENIED"
                refused["stranger"] += 1
            if method.name in CLIENTS_ONLY:
                by_operator = outcome_of(administrator.connection, method, request)
                assert by_operator is not None, method.full_name
                assert by_operator.reason == "PERMISSION_DENIED"
                refused["operator"] += 1
        listed = stranger.call(stranger.credentials.ListCredentials, credential_service_pb2.ListCredentialsRequest())
        assert not listed.credentials
    assert refused == {"administrative": 2 * 14, "stranger": 9, "operator": 8}
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


# Anything at all

DOCUMENTED = set(errors_pb2.ErrorReason.keys()) - {"INTERNAL", "RECORD_NOT_TRUSTED", "ERROR_REASON_UNSPECIFIED"}
NUMBERS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from([*NAMES.values(), *CODES.values(), *REQUEST_IDS.values()]).filter(lambda text: len(text) < 200),
)


def _changes(
    draw: st.DrawFn, text: Callable[[str], str], item: st.SearchStrategy[SignItem]
) -> dict[str, Callable[[SignRequest], None]]:
    def set_authorization(request: SignRequest) -> None:
        request.activated_authorization.authorization = text("authorization")
        request.activated_authorization.signature_activation_data = draw(st.binary(max_size=40))

    def set_person(request: SignRequest) -> None:
        request.one_time_password.signer = text("signer")

    def set_code(request: SignRequest) -> None:
        request.one_time_password.code = draw(TEXTS)

    return {
        "credential": lambda request: setattr(request, "credential", text("credential")),
        "algorithm": lambda request: setattr(request, "algorithm", draw(st.one_of(st.integers(0, 9), NUMBERS))),
        "items": lambda request: _items(*draw(st.lists(item, max_size=4)))(request),
        "request_id": lambda request: setattr(request, "request_id", draw(TEXTS)),
        "salt": lambda request: setattr(request, "pss_salt_length", draw(st.one_of(st.integers(0, 300), NUMBERS))),
        "checksum": lambda request: setattr(request, "items_crc32c", draw(st.integers(0, 2**32 - 1))),
        "no authority": lambda request: request.ClearField("one_time_password"),
        "authorization": set_authorization,
        "person": set_person,
        "code": set_code,
    }


@st.composite
def sign_requests(draw: st.DrawFn, known: dict[str, list[str]]) -> SignRequest:
    """Requests that are wrong in some places and right in the others."""

    def text(field: str) -> str:
        return draw(st.one_of(st.sampled_from(known[field]), TEXTS))

    item = st.one_of(
        st.binary(max_size=80).map(lambda value: SignItem(digest=value)),
        st.just(SignItem(digest=DIGEST)),
        st.binary(max_size=200).map(lambda value: SignItem(data=value)),
        st.binary(max_size=200).map(
            lambda value: SignItem(
                signed_attributes=signing_service_pb2.SignedAttributes(document_digest=DIGEST, der=value)
            )
        ),
        st.just(SignItem()),
    )
    request = SignRequest(
        credential=known["credential"][0],
        algorithm=algorithms_pb2.ECDSA_P256_SHA256,
        items=[SignItem(digest=DIGEST)],
        request_id=str(draw(st.uuids())),
    )
    request.one_time_password.code = draw(st.from_regex(r"[0-9]{6,8}", fullmatch=True))
    for fault in draw(st.sets(st.sampled_from(sorted(changes := _changes(draw, text, item))), max_size=3)):
        changes[fault](request)
    return request


def test_any_request_is_answered_with_a_documented_reason(
    installation: Installation, administrator: Administrator
) -> None:
    person = administrator.create_person("hostile-any")
    rsa = "credentials/hoang-trinh-don-rsa"
    known = {
        "credential": [person.credential, rsa, "credentials/none"],
        "signer": [person.name, "signers/none", ""],
        "authorization": [f"{person.credential}/authorizations/none"],
    }
    seen: Counter[str] = Counter()
    with e_office(installation) as connection:

        @settings(
            max_examples=400,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        )
        @given(request=sign_requests(known))
        def ask(request: SignRequest) -> None:
            try:
                connection.sign(request)
                seen["OK"] += 1
            except Refused as refused:
                seen[refused.reason or refused.code.name] += 1

        ask()
    administrator.unlock(person.name)
    administrator.unlock("signers/hoang-trinh-don")
    assert set(seen) <= DOCUMENTED, seen
    assert seen.total() >= 400
    assert len(seen) >= 5, seen
