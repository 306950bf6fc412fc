"""Both phases as one call, also when the network fails in between."""

import asyncio
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest
from tests.fakes.signing_service import SIGNER, Abort, CertificateAuthority, FakeServer, FakeSigningService, Refuse
from tests.integration.client.surfaces import Surface

from trien_client import (
    ActivationDataUsed,
    AsyncClient,
    Authorization,
    AuthorizationDenied,
    AuthorizationExpired,
    AuthorizationNotApproved,
    Client,
    NotDecidedInTime,
    SignatureAlgorithm,
    SignedAttributes,
    SigningResult,
    Unavailable,
    VerificationError,
)

P256 = "credentials/p256"
ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256
DIGESTS = [b"\x01" * 32, b"\x02" * 32]


@pytest.fixture(params=["sync", "async"])
def surface(request: pytest.FixtureRequest, server: FakeServer, authority: CertificateAuthority) -> Surface:
    return Surface(request.param, server, authority)


class Person:
    """Decides on what is pending, a moment after being told of it, by a client of their own."""

    def __init__(self, client: Client, codes: list[str]) -> None:
        self.client = client
        self.codes = codes
        self.told: list[Authorization] = []
        self.threads: list[threading.Thread] = []
        self.decides = True

    def approves(self, authorization: Authorization) -> None:
        self.told.append(authorization)
        self._later(
            lambda: self.client.approve_authorizations(
                [authorization.name], signer=SIGNER, one_time_password=self.codes.pop()
            )
        )

    def denies(self, authorization: Authorization) -> None:
        self.told.append(authorization)
        self._later(lambda: self.client.deny_authorization(authorization.name))

    def _later(self, decide: Any) -> None:
        thread = threading.Timer(0.2, decide)
        thread.start()
        self.threads.append(thread)


@pytest.fixture
def person(client: Client, service: FakeSigningService) -> Iterator[Person]:
    someone = Person(client, sorted(service.codes))
    yield someone
    for thread in someone.threads:
        thread.join(30)


def test_it_waits_for_the_decision_and_signs(surface: Surface, person: Person, service: FakeSigningService) -> None:
    signed = surface("sign_when_approved", P256, ALGORITHM, DIGESTS, approver=SIGNER, on_pending=person.approves)
    assert len(signed.signatures) == 2
    [told] = person.told
    assert (told.state, told.approver, signed.authorization) == ("PENDING", SIGNER, told.name)
    assert service.approvals == 1


def test_the_caller_may_be_told_by_a_coroutine(
    server: FakeServer, authority: CertificateAuthority, person: Person
) -> None:
    async def tell(authorization: Authorization) -> None:
        await asyncio.sleep(0)
        person.approves(authorization)

    surface = Surface("async", server, authority)
    assert len(surface("sign_when_approved", P256, ALGORITHM, DIGESTS, on_pending=tell).signatures) == 2


def test_what_the_caller_raises_while_being_told_comes_out(surface: Surface, service: FakeSigningService) -> None:
    with pytest.raises(ZeroDivisionError):
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS, on_pending=lambda _: 1 // 0)
    assert service.requests("WaitAuthorization") == []


@pytest.mark.promise("P7")
def test_a_connection_that_is_lost_in_every_step_is_survived(
    surface: Surface, person: Person, service: FakeSigningService
) -> None:
    lost: list[Any] = [Abort(work=True), Abort()]
    for method in ("CreateAuthorization", "FetchSignatureActivationData", "SignDigests"):
        service.plan(method, *lost)
    # More failures in a row than one call is tried again.
    service.plan("WaitAuthorization", *[Abort()] * 9, Abort(grpc.StatusCode.DEADLINE_EXCEEDED))
    signed = surface("sign_when_approved", P256, ALGORITHM, DIGESTS, on_pending=person.approves)
    assert len(signed.signatures) == 2
    assert len(service.authorizations) == service.approvals == 1
    assert len(service.requests("WaitAuthorization")) == 11
    for method in ("CreateAuthorization", "SignDigests"):
        sent = service.requests(method)
        assert len(sent) == 3
        assert sent[0] == sent[1] == sent[2]


@pytest.mark.promise("P7")
def test_one_id_goes_on_in_another_process(surface: Surface, person: Person, service: FakeSigningService) -> None:
    request_id = str(uuid.uuid4())
    # Broken off while it waits, and then before anything was signed.
    service.plan("SignDigests", *[Abort()] * 6)
    told: list[Authorization] = []
    with pytest.raises(NotDecidedInTime):
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS, request_id=request_id, on_pending=told.append, wait=0.1)
    with pytest.raises(Unavailable) as caught:
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS, request_id=request_id, on_pending=person.approves)
    assert caught.value.request_id == request_id
    signed = surface("sign_when_approved", P256, ALGORITHM, DIGESTS, request_id=request_id)
    assert signed.authorization == person.told[0].name == told[0].name
    assert len(service.authorizations) == service.approvals == 1
    assert len({request.request_id for request in service.requests("SignDigests")}) == 1
    # The answer was lost with the process: the same call hands out the same signatures, which nothing opens anew.
    again = surface("sign_when_approved", P256, ALGORITHM, DIGESTS, request_id=request_id)
    assert again.signatures == signed.signatures
    assert len(service.authorizations) == service.approvals == 1


@pytest.mark.promise("P7")
def test_what_was_signed_when_the_answers_were_lost_is_handed_out(
    client: Client, person: Person, service: FakeSigningService
) -> None:
    request_id = str(uuid.uuid4())
    service.plan("SignDigests", *[Abort(work=True)] * 6)
    with pytest.raises(Unavailable):
        client.sign_when_approved(P256, ALGORITHM, DIGESTS, request_id=request_id, on_pending=person.approves)
    signed = client.sign_when_approved(P256, ALGORITHM, DIGESTS, request_id=request_id)
    assert len(signed.signatures) == 2
    assert len(service.authorizations) == service.approvals == 1


@pytest.mark.promise("P3")
def test_an_authorization_that_was_used_by_another_request_signs_nothing(
    surface: Surface, person: Person, service: FakeSigningService, client: Client
) -> None:
    def use(authorization: Authorization) -> None:
        client.approve_authorizations([authorization.name], signer=SIGNER, one_time_password="111111")
        client.sign_authorized(client.fetch_activation_data(authorization.name), ALGORITHM, DIGESTS)

    with pytest.raises(ActivationDataUsed):
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS, on_pending=use)


def test_a_denial_an_expiry_and_the_end_of_ones_own_patience_are_told_apart(
    surface: Surface, person: Person, service: FakeSigningService
) -> None:
    with pytest.raises(AuthorizationDenied) as denied:
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS, on_pending=person.denies)
    assert isinstance(denied.value, AuthorizationNotApproved)
    assert denied.value.metadata["authorization"] == person.told[0].name
    with pytest.raises(NotDecidedInTime) as pending:
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS, wait=0.1)
    assert pending.value.authorization in service.authorizations
    service.lifetime = timedelta(seconds=1)
    with pytest.raises(AuthorizationExpired):
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS)
    assert service.requests("SignDigests") == []
    assert all(error.request_id is not None for error in (denied.value, pending.value))


def test_nobody_is_asked_for_what_could_not_be_verified(
    surface: Surface, service: FakeSigningService, stranger: CertificateAuthority
) -> None:
    surface.arguments["trust_anchors"] = stranger.root_pem
    with pytest.raises(VerificationError):
        surface("sign_when_approved", P256, ALGORITHM, DIGESTS)
    assert service.requests("CreateAuthorization") == []


def test_a_pending_signature_may_be_waited_for_more_than_once(
    client: Client, person: Person, service: FakeSigningService
) -> None:
    pending = client.ask_for_signature(P256, ALGORITHM, DIGESTS, approver=SIGNER)
    assert pending.authorization.approver == SIGNER
    assert pending.name in repr(pending)
    with pytest.raises(NotDecidedInTime):
        pending.result(wait=0.1)
    service.plan("WaitAuthorization", Refuse("RECORD_NOT_TRUSTED"))
    with pytest.raises(Exception, match="RECORD_NOT_TRUSTED"):
        pending.result()
    person.approves(pending.authorization)
    first, again = pending.result(), pending.result()
    assert first == again
    assert service.approvals == 1


def test_a_cancelled_wait_may_be_awaited_again(
    server: FakeServer, authority: CertificateAuthority, person: Person, service: FakeSigningService
) -> None:
    async def work(client: AsyncClient) -> SigningResult:
        pending = await client.ask_for_signature(P256, ALGORITHM, DIGESTS)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await pending.result()
        person.approves(pending.authorization)
        return await pending.result()

    assert len(Surface("async", server, authority).use(work).signatures) == 2
    assert len(service.authorizations) == service.approvals == 1


def test_a_server_that_ends_waits_early_is_not_asked_without_a_breath(
    client: Client, service: FakeSigningService
) -> None:
    pending = client.ask_for_signature(P256, ALGORITHM, DIGESTS)
    service.answers_waits_at_once = True
    begun = time.monotonic()
    with pytest.raises(NotDecidedInTime):
        pending.result(wait=2.5)
    assert time.monotonic() - begun > 2
    assert 2 <= len(service.requests("WaitAuthorization")) <= 4


def test_signed_attributes_are_authorized_by_their_document(client: Client, service: FakeSigningService) -> None:
    item = SignedAttributes(document_digest=b"\x07" * 32, der=b"made later")
    pending = client.ask_for_signature(P256, ALGORITHM, [item])
    assert [(one.kind, one.digest) for one in pending.authorization.items] == [("document_digest", b"\x07" * 32)]
