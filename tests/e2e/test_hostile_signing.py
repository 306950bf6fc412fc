"""Whatever is wrong with SignDigests has a reason of its own, and costs no one-time password (P8, P11)."""

from collections import Counter

import grpc
import pytest
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
    request_of,
)
from tests.support.attributes import bad_attributes
from tests.support.hostile_requests import (
    CODES,
    DIGEST,
    NAMES,
    REQUEST_IDS,
    Change,
    SignItem,
    certificate_der,
    digests_of,
    fields_of,
    full_tries,
    full_tries_with,
    items_of,
    refusal,
    wanted,
)
from trien.v1 import (
    algorithms_pb2,
    authorization_service_pb2,
    signing_service_pb2,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile")


@pytest.fixture(scope="session")
def rsa_person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-rsa", key_type=algorithms_pb2.RSA_2048)


@pytest.fixture(scope="session")
def ed25519_person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-ed25519", key_type=algorithms_pb2.EC_ED25519)


FAULTS: dict[str, tuple[Change, str]] = {
    "no items": (digests_of(0), "INVALID_ARGUMENT"),
    "1,001 digests": (digests_of(1001), "TOO_MANY_DIGESTS"),
    "10,000 digests": (digests_of(10_000), "TOO_MANY_DIGESTS"),
    "an item that is nothing": (items_of(SignItem()), "INVALID_ARGUMENT"),
    "one of two items is nothing": (items_of(SignItem(digest=DIGEST), SignItem()), "INVALID_ARGUMENT"),
    "an empty digest": (items_of(SignItem(digest=b"")), "INVALID_DIGEST"),
    "31 bytes": (items_of(SignItem(digest=DIGEST[:-1])), "INVALID_DIGEST"),
    "33 bytes": (items_of(SignItem(digest=DIGEST + b"\0")), "INVALID_DIGEST"),
    "a SHA-1": (items_of(SignItem(digest=DIGEST[:20])), "INVALID_DIGEST"),
    "a SHA-512": (items_of(SignItem(digest=DIGEST * 2)), "INVALID_DIGEST"),
    "the last of many is short": (
        items_of(*[SignItem(digest=DIGEST)] * 999, SignItem(digest=DIGEST[1:])),
        "INVALID_DIGEST",
    ),
    "a digest of 1 MiB": (items_of(SignItem(digest=bytes(1 << 20))), "INVALID_DIGEST"),
    "data for ECDSA": (items_of(SignItem(data=b"data")), "ALGORITHM_MISMATCH"),
    "mixed kinds": (items_of(SignItem(digest=DIGEST), SignItem(data=b"data")), "ALGORITHM_MISMATCH"),
    "attributes that are nothing": (
        items_of(SignItem(signed_attributes=signing_service_pb2.SignedAttributes())),
        "INVALID_SIGNED_ATTRIBUTES",
    ),
    "attributes that are no DER": (
        items_of(
            SignItem(signed_attributes=signing_service_pb2.SignedAttributes(document_digest=DIGEST, der=b"\xff" * 99))
        ),
        "INVALID_SIGNED_ATTRIBUTES",
    ),
    "no algorithm": (fields_of(algorithm=0), "INVALID_ARGUMENT"),
    "an unknown algorithm": (fields_of(algorithm=999), "INVALID_ARGUMENT"),
    "a negative algorithm": (fields_of(algorithm=-1), "INVALID_ARGUMENT"),
    "RSA with a key on P-256": (fields_of(algorithm=algorithms_pb2.RSA_PSS_SHA256), "ALGORITHM_MISMATCH"),
    "P-384 with a key on P-256": (fields_of(algorithm=algorithms_pb2.ECDSA_P384_SHA384), "ALGORITHM_MISMATCH"),
    "Ed25519 with a key on P-256": (fields_of(algorithm=algorithms_pb2.ED25519), "ALGORITHM_MISMATCH"),
    "a salt for ECDSA": (fields_of(pss_salt_length=32), "INVALID_ARGUMENT"),
    "a wrong checksum": (fields_of(items_crc32c=1), "INVALID_ARGUMENT"),
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
    "an unknown credential": (fields_of(credential="credentials/none"), "PERMISSION_DENIED"),
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
    **{
        f"the credential's name: {case}": (fields_of(credential=name), "INVALID_ARGUMENT")
        for case, name in NAMES.items()
    },
    **{
        f"the request id: {case}": (fields_of(request_id=text), "INVALID_ARGUMENT")
        for case, text in REQUEST_IDS.items()
    },
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
        items_of(item)(request)
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


def test_ed25519_takes_data_of_64_kib_and_nothing_else(client: Connection, ed25519_person: Person) -> None:
    request = request_of(ed25519_person, code="00000000")
    request.algorithm = algorithms_pb2.ED25519
    assert refusal(client, client.signing.SignDigests, request).reason == "ALGORITHM_MISMATCH"
    items_of(SignItem(data=bytes(64 * 1024 + 1)))(request)
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
