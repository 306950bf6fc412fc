"""The SDK against a real server: what the fake can only pretend."""

import asyncio
import hashlib
import uuid
from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.support.administration import Administrator, Person
from tests.support.sandbox import Installation

from trien_client import (
    ActivationDataUsed,
    AsyncClient,
    Authorization,
    AuthorizationNotApproved,
    AuthorizationNotPending,
    AuthorizationState,
    Client,
    ConnectionFile,
    DigestsNotAuthorized,
    InvalidSignedAttributes,
    OneTimePasswordContext,
    OneTimePasswordRejected,
    PermissionDenied,
    RequestIdReused,
    ServerNotTrusted,
    SignatureAlgorithm,
    SignedAttributes,
    SigningResult,
    Unauthenticated,
    VerificationError,
)

ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256


@pytest.fixture(scope="session")
def file(installation: Installation) -> ConnectionFile:
    return ConnectionFile.load(installation.directory / "connection.json")


@pytest.fixture(scope="session")
def sdk(file: ConnectionFile) -> Iterator[Client]:
    with Client.from_connection_file(file) as client:
        yield client


@pytest.fixture(scope="session")
def person(administrator: Administrator) -> Person:
    return administrator.create_person("sdk-p256")


def digests(count: int) -> list[bytes]:
    return [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(count)]


@pytest.mark.promise("P7")
def test_the_same_request_is_answered_with_the_recorded_outcome(sdk: Client, person: Person) -> None:
    request_id, code = str(uuid.uuid4()), person.authenticator.take()
    first, again = (
        sdk.sign_digests(person.credential, ALGORITHM, digests(3), one_time_password=code, request_id=request_id)
        for _ in range(2)
    )
    assert first == again
    with pytest.raises(RequestIdReused):
        sdk.sign_digests(
            person.credential,
            ALGORITHM,
            digests(2),
            one_time_password=person.authenticator.take(),
            request_id=request_id,
        )


@pytest.mark.promise("P2", "P7")
def test_a_rejected_password_may_be_corrected_under_the_same_id(sdk: Client, person: Person) -> None:
    used = person.authenticator.take()
    sdk.sign_digests(person.credential, ALGORITHM, digests(1), one_time_password=used)
    with pytest.raises(OneTimePasswordRejected) as caught:
        sdk.sign_digests(person.credential, ALGORITHM, digests(1), one_time_password=used)
    assert caught.value.remaining_attempts is not None
    assert caught.value.request_id is not None
    signed = sdk.sign_digests(
        person.credential,
        ALGORITHM,
        digests(1),
        one_time_password=person.authenticator.take(),
        request_id=caught.value.request_id,
    )
    assert signed.request_id == caught.value.request_id


def test_a_thousand_digests_take_one_call_and_one_password(sdk: Client, person: Person) -> None:
    asked: list[OneTimePasswordContext] = []

    def ask(context: OneTimePasswordContext) -> str:
        asked.append(context)
        return person.authenticator.take()

    signed = sdk.sign_digests(person.credential, ALGORITHM, digests(1000), one_time_password=ask, timeout=120)
    assert len(signed.signatures) == 1000
    assert len(set(signed.signatures)) == 1000
    assert len(asked) == 1


@pytest.mark.promise("P3")
def test_two_phases_sign_what_was_approved_and_nothing_else(sdk: Client, person: Person) -> None:
    authorization = sdk.create_authorization(
        person.credential, ALGORITHM, digests(2), approver=person.name, lifetime=timedelta(minutes=5)
    )
    assert authorization.state is AuthorizationState.PENDING
    with pytest.raises(AuthorizationNotApproved):
        sdk.fetch_activation_data(authorization.name)
    assert sdk.wait_authorization(authorization.name, timeout=0.2).state is AuthorizationState.PENDING
    approval = sdk.approve_authorizations(
        [authorization.name], signer=person.name, one_time_password=lambda _: person.authenticator.take()
    )
    assert approval.authorizations == (authorization.name,)
    activation = sdk.fetch_activation_data(authorization.name)
    with pytest.raises(DigestsNotAuthorized):
        sdk.sign_authorized(activation, ALGORITHM, digests(2)[::-1])
    signed = sdk.sign_authorized(activation, ALGORITHM, digests(2))
    assert len(signed.signatures) == 2
    with pytest.raises(ActivationDataUsed):
        sdk.sign_authorized(activation, ALGORITHM, digests(2))
    assert sdk.get_authorization(authorization.name).state is AuthorizationState.USED
    assert authorization.name in {found.name for found in sdk.list_authorizations(person.credential)}


@pytest.mark.promise("P3", "P7")
def test_both_phases_in_one_call_and_again_by_their_id(file: ConnectionFile, sdk: Client, person: Person) -> None:
    def approve(authorization: Authorization) -> None:
        sdk.approve_authorizations(
            [authorization.name], signer=person.name, one_time_password=lambda _: person.authenticator.take()
        )

    async def again(request_id: str) -> SigningResult:
        async with AsyncClient.from_connection_file(file) as client:
            return await client.sign_when_approved(person.credential, ALGORITHM, digests(3), request_id=request_id)

    request_id = str(uuid.uuid4())
    signed = sdk.sign_when_approved(
        person.credential, ALGORITHM, digests(3), approver=person.name, request_id=request_id, on_pending=approve
    )
    assert len(signed.signatures) == 3
    assert sdk.get_authorization(signed.authorization).state is AuthorizationState.USED
    # The same id with other content: the approver is left out.
    with pytest.raises(RequestIdReused):
        asyncio.run(again(request_id))
    repeated = sdk.sign_when_approved(
        person.credential, ALGORITHM, digests(3), approver=person.name, request_id=request_id
    )
    assert repeated == signed


@pytest.mark.promise("P7")
def test_the_asynchronous_client_signs_and_is_completed_after_a_cancellation(
    file: ConnectionFile, person: Person
) -> None:
    async def work() -> tuple[int, SigningResult]:
        async with AsyncClient.from_connection_file(file) as client:
            request_id, code = str(uuid.uuid4()), person.authenticator.take()

            async def sign() -> SigningResult:
                return await client.sign_digests(
                    person.credential, ALGORITHM, digests(100), one_time_password=code, request_id=request_id
                )

            cancelled = 0
            for seconds in (0.0, 0.001, 0.005, 0.02):
                task = asyncio.create_task(sign())
                await asyncio.sleep(seconds)
                cancelled += task.cancel()
                await asyncio.wait([task])
            return cancelled, await sign()

    cancelled, signed = asyncio.run(work())
    assert cancelled > 0
    assert len(signed.signatures) == 100


def test_a_denied_authorization_stays_denied(sdk: Client, person: Person) -> None:
    authorization = sdk.create_authorization(person.credential, ALGORITHM, digests(1))
    assert sdk.deny_authorization(authorization.name).state is AuthorizationState.DENIED
    with pytest.raises(AuthorizationNotPending):
        sdk.approve_authorizations(
            [authorization.name], signer=person.name, one_time_password=lambda _: person.authenticator.take()
        )


@pytest.mark.promise("P11")
def test_what_does_not_exist_and_what_is_forbidden_look_the_same(sdk: Client, administrator: Administrator) -> None:
    foreign = administrator.create_person("sdk-foreign", clients=())
    messages = []
    for credential in ("credentials/there-is-none", foreign.credential):
        with pytest.raises(PermissionDenied) as caught:
            sdk.get_credential(credential)
        messages.append((str(caught.value), caught.value.retry_after, sorted(caught.value.metadata)))
    assert messages[0] == messages[1]
    assert messages[0][2] in ([], ["requestId"])


def test_attributes_of_another_document_are_refused(sdk: Client, person: Person) -> None:
    item = SignedAttributes(document_digest=bytes(32), der=b"\x31\x00")
    with pytest.raises(InvalidSignedAttributes):
        sdk.sign_digests(person.credential, ALGORITHM, [item], one_time_password=lambda _: person.authenticator.take())


def test_the_administrator_is_known_by_a_certificate(file: ConnectionFile, person: Person) -> None:
    with Client.from_connection_file(file, identity="operators/first") as administrator:
        names = [credential.name for credential in administrator.list_credentials(page_size=2)]
    assert person.credential in names
    assert names == sorted(names)


def test_a_wrong_token_and_a_wrong_ca_are_told_apart(file: ConnectionFile) -> None:
    with (
        Client(file.address, ca_certificates=file.ca_file, token="wrong") as nobody,
        pytest.raises(Unauthenticated),
    ):
        next(nobody.list_credentials())
    assert file.trust_anchors_file is not None
    with (
        Client(file.address, ca_certificates=file.trust_anchors_file, token="wrong") as lost,
        pytest.raises(ServerNotTrusted),
    ):
        next(lost.list_credentials())


@pytest.mark.promise("P6")
def test_a_pin_of_another_certificate_stops_before_the_password_is_used(file: ConnectionFile, person: Person) -> None:
    pins = {person.credential: bytes(32)}
    with (
        Client.from_connection_file(file, pinned_certificates=pins) as pinned,
        pytest.raises(VerificationError, match="pinned"),
    ):
        pinned.sign_digests(
            person.credential, ALGORITHM, digests(1), one_time_password=lambda _: pytest.fail("the person was asked")
        )
    with Client.from_connection_file(file, pinned_certificates={person.credential: person.certificate}) as pinned:
        pinned.sign_digests(
            person.credential, ALGORITHM, digests(1), one_time_password=lambda _: person.authenticator.take()
        )
