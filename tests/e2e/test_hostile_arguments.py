"""Malformed arguments of all methods but SignDigests have their reasons."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support.administration import (
    Administrator,
    Connection,
    Person,
)
from tests.support.hostile_requests import (
    DIGEST,
    certificate_der,
    key_of,
    refusal,
    wanted,
)
from trien.v1 import (
    access_service_pb2,
    algorithms_pb2,
    authorization_service_pb2,
    credential_service_pb2,
    key_service_pb2,
    organization_service_pb2,
    signer_service_pb2,
)

pytestmark = pytest.mark.usefixtures("nothing_unforeseen_is_logged")


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("hostile-arguments")


def test_malformed_arguments_of_the_other_methods_have_their_reasons(
    client: Connection, administrator: Administrator, person: Person
) -> None:
    admin = administrator.connection
    auth = authorization_service_pb2
    name = f"{person.credential}/authorizations/none"
    authenticator = signer_service_pb2.Authenticator
    far = Timestamp(seconds=10**15)
    credential = credential_service_pb2.Credential(key=key_of(person), signer=person.name, display_name="x")
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
                person.credential.partition("/")[2]: "ALREADY_EXISTS",
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
                admin.signers.CreateEnrolments,
                signer_service_pb2.CreateEnrolmentsRequest(
                    enrolments=[
                        signer_service_pb2.Enrolment(
                            name=f"{parent}/enrolments/a", kind=kind, digits=digits, hash=hash_
                        )
                    ]
                ),
                "INVALID_ARGUMENT",
            )
            for parent, kind, digits, hash_ in (
                (person.name, 0, 6, 0),
                (person.name, 9, 6, 0),
                (person.name, 4, 6, 0),  # delivered codes need no enrolment
                (person.name, 1, 5, 0),
                (person.name, 1, 9, 0),
                (person.name, 1, -(2**31), 0),
                (person.name, 1, 6, 9),
                ("signers/ubnd-xa-phu-lam", 1, 6, 0),
                ("signers/none", 1, 6, 0),
            )
        ],
        *[
            (
                admin,
                admin.signers.CreateAuthenticator,
                signer_service_pb2.CreateAuthenticatorRequest(
                    parent=parent,
                    authenticator_id="a",
                    authenticator=authenticator(kind=kind, digits=digits, address=address),
                ),
                "INVALID_ARGUMENT",
            )
            for parent, kind, digits, address in (
                (person.name, 0, 6, "+84912345678"),
                (person.name, 1, 6, ""),  # that one is enrolled
                (person.name, 4, 5, "+84912345678"),
                (person.name, 4, 6, "0912345678"),
                (person.name, 5, 6, "a@b"),
                ("signers/ubnd-xa-phu-lam", 4, 6, "+84912345678"),
                ("signers/none", 4, 6, "+84912345678"),
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
    assert len(cases) == 81


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
