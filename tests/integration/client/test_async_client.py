"""The asynchronous client does what the other does, and can be cancelled."""

import asyncio
import inspect
import uuid
from typing import Any

import grpc
import pytest
from tests.fakes.signing_service import (
    SIGNER,
    Abort,
    CertificateAuthority,
    FakeServer,
    FakeSigningService,
    Hold,
    Refuse,
    Tamper,
)
from tests.integration.client.surfaces import Surface

from trien_client import (
    AsyncClient,
    Authorization,
    Client,
    Data,
    DeadlineExceeded,
    InvalidArgument,
    OneTimePasswordContext,
    OneTimePasswordRejected,
    RequestIdReused,
    ServerNotTrusted,
    SignatureAlgorithm,
    SigningResult,
    TrienError,
    Unauthenticated,
    Unavailable,
    VerificationError,
)

P256 = "credentials/p256"
ALGORITHM = SignatureAlgorithm.ECDSA_P256_SHA256
DIGESTS = [b"\x01" * 32, b"\x02" * 32]
CODE = "111111"
OTHER_CODE = "222222"


@pytest.fixture
def surface(server: FakeServer, authority: CertificateAuthority) -> Surface:
    return Surface("async", server, authority)


def public_methods(kind: type) -> dict[str, Any]:
    return {
        name: value
        for name, value in inspect.getmembers(kind)
        if callable(value) and not name.startswith("_") and name != "from_connection_file"
    }


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    blocking, awaited = public_methods(Client), public_methods(AsyncClient)
    assert set(blocking) == set(awaited)
    assert len(blocking) == 22
    for name, method in blocking.items():
        ours, theirs = inspect.signature(method), inspect.signature(awaited[name])
        assert [str(one).partition(":")[0] for one in ours.parameters.values()] == [
            str(one).partition(":")[0] for one in theirs.parameters.values()
        ], name
        assert [(one.kind, one.default) for one in ours.parameters.values()] == [
            (one.kind, one.default) for one in theirs.parameters.values()
        ], name
        assert inspect.iscoroutinefunction(awaited[name]) or inspect.isasyncgenfunction(awaited[name]), name
    assert inspect.signature(Client.__init__) == inspect.signature(AsyncClient.__init__)


@pytest.mark.promise("P6")
@pytest.mark.parametrize("name", ["rsa", "p256", "p384", "ed25519"])
def test_every_key_signs(surface: Surface, name: str) -> None:
    algorithm = {
        "rsa": SignatureAlgorithm.RSA_PSS_SHA256,
        "p256": ALGORITHM,
        "p384": SignatureAlgorithm.ECDSA_P384_SHA384,
        "ed25519": SignatureAlgorithm.ED25519,
    }[name]
    size = 0 if algorithm.hash_function is None else algorithm.hash_function.size
    items = [bytes(size)] if size else [Data(b"text")]
    signed = surface("sign_digests", f"credentials/{name}", algorithm, items, one_time_password=CODE)
    assert len(signed.signatures) == 1
    assert signed.approved_by == SIGNER


def test_the_person_may_be_asked_by_a_coroutine_or_by_a_function(surface: Surface) -> None:
    asked: list[OneTimePasswordContext] = []

    async def ask(context: OneTimePasswordContext) -> str:
        await asyncio.sleep(0)
        asked.append(context)
        return CODE

    def ask_at_once(context: OneTimePasswordContext) -> str:
        asked.append(context)
        return OTHER_CODE

    for source in (ask, ask_at_once):
        signed = surface("sign_digests", P256, ALGORITHM, DIGESTS, one_time_password=source)
        assert len(signed.signatures) == 2
    assert [context.digests for context in asked] == [tuple(DIGESTS)] * 2
    with pytest.raises(InvalidArgument, match="6 to 8 digits"):
        surface("sign_digests", P256, ALGORITHM, DIGESTS, one_time_password=lambda _: "12")
    with pytest.raises(ZeroDivisionError):
        surface("sign_digests", P256, ALGORITHM, DIGESTS, one_time_password=lambda _: str(1 // 0))


@pytest.mark.promise("P7")
def test_a_lost_answer_is_asked_for_again_with_the_same_request(surface: Surface, service: FakeSigningService) -> None:
    service.plan("SignDigests", Abort(work=True), Refuse("BUSY", grpc.StatusCode.UNAVAILABLE, retry_after=0.01))
    signed = surface("sign_digests", P256, ALGORITHM, DIGESTS, one_time_password=CODE)
    first, second, third = service.requests("SignDigests")
    assert first == second == third
    assert signed.request_id == first.request_id
    assert service.approvals == 1


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (Refuse("ONE_TIME_PASSWORD_REJECTED", metadata={"remainingAttempts": "2"}), OneTimePasswordRejected),
        (Refuse("REQUEST_ID_REUSED"), RequestIdReused),
        (Abort(grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceeded),
        (Tamper(lambda answer: answer.ClearField("signatures")), VerificationError),
        (Tamper(lambda answer: setattr(answer, "credential", "credentials/rsa")), VerificationError),
    ],
)
def test_an_error_is_that_of_the_other_client(
    surface: Surface, service: FakeSigningService, step: Any, expected: type[TrienError]
) -> None:
    service.plan("SignDigests", step)
    with pytest.raises(expected) as caught:
        surface("sign_digests", P256, ALGORITHM, DIGESTS, one_time_password=CODE)
    assert type(caught.value) is expected
    assert caught.value.request_id == service.requests("SignDigests")[0].request_id


def test_who_does_not_answer_for_itself_is_not_believed(
    surface: Surface, server: FakeServer, stranger: CertificateAuthority
) -> None:
    surface.arguments["trust_anchors"] = stranger.root_pem
    with pytest.raises(VerificationError):
        surface("sign_digests", P256, ALGORITHM, DIGESTS, one_time_password=CODE)
    surface.arguments["ca_certificates"] = stranger.root_pem
    with pytest.raises(ServerNotTrusted):
        surface("get_credential", P256)
    surface.arguments.update(ca_certificates=server.authority.root_pem, token="another")
    with pytest.raises(Unauthenticated):
        surface("get_credential", P256)


def test_lists_are_read_page_by_page(surface: Surface, service: FakeSigningService) -> None:
    assert len(surface("list_credentials", page_size=3)) == 4
    assert len(service.requests("ListCredentials")) == 2
    made = [surface("create_authorization", P256, ALGORITHM, DIGESTS) for _ in range(2)]
    assert surface("list_authorizations", P256) == made


def test_two_phases_are_awaited_one_by_one(surface: Surface) -> None:
    async def work(client: AsyncClient) -> tuple[Authorization, SigningResult, Authorization]:
        made = await client.create_authorization(P256, ALGORITHM, DIGESTS)
        await client.approve_authorizations([made.name], signer=SIGNER, one_time_password=CODE)
        decided = await client.wait_authorization(made.name)
        activation = await client.fetch_activation_data(made.name)
        signed = await client.sign_authorized(activation, ALGORITHM, DIGESTS)
        other = await client.create_authorization(P256, ALGORITHM, DIGESTS)
        return decided, signed, await client.deny_authorization(other.name)

    decided, signed, denied = surface.use(work)
    assert (decided.state, denied.state) == ("APPROVED", "DENIED")
    assert signed.authorization == decided.name


def test_many_calls_share_one_connection(surface: Surface, service: FakeSigningService) -> None:
    async def work(client: AsyncClient) -> list[SigningResult]:
        return await asyncio.gather(
            *(client.sign_digests(P256, ALGORITHM, DIGESTS, one_time_password=code) for code in sorted(service.codes))
        )

    assert len({signed.request_id for signed in surface.use(work)}) == 8
    assert service.approvals == 8


@pytest.mark.promise("P7")
@pytest.mark.parametrize("code", [CODE, OTHER_CODE])
def test_a_cancelled_request_is_completed_by_its_id(surface: Surface, service: FakeSigningService, code: str) -> None:
    hold = Hold()
    service.plan("SignDigests", hold)
    request_id = str(uuid.uuid4())

    async def work(client: AsyncClient) -> SigningResult:
        async def sign(code: str) -> SigningResult:
            return await client.sign_digests(P256, ALGORITHM, DIGESTS, one_time_password=code, request_id=request_id)

        task = asyncio.create_task(sign(CODE))
        assert await asyncio.to_thread(hold.arrived.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.released.set()
        return await sign(code)

    signed = surface.use(work)
    assert (signed.request_id, len(signed.signatures)) == (request_id, 2)
    assert service.approvals == 1


def test_a_request_that_was_cancelled_before_it_was_sent_left_nothing(
    surface: Surface, service: FakeSigningService
) -> None:
    async def work(client: AsyncClient) -> None:
        async def never(_: OneTimePasswordContext) -> str:
            await asyncio.sleep(3600)
            return CODE

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.sign_digests(P256, ALGORITHM, DIGESTS, one_time_password=never)

    surface.use(work)
    assert service.requests("SignDigests") == []


def test_what_is_under_way_when_the_client_is_closed_fails_and_is_not_cancelled(
    surface: Surface, service: FakeSigningService
) -> None:
    hold = Hold()
    service.plan("GetCredential", hold)

    async def work(client: AsyncClient) -> None:
        task = asyncio.create_task(client.get_credential(P256))
        assert await asyncio.to_thread(hold.arrived.wait, 30)
        await client.close()
        with pytest.raises(Unavailable):
            await task
        with pytest.raises(Unavailable):
            await client.get_credential(P256)

    try:
        surface.use(work)
    finally:
        hold.released.set()


def test_it_is_made_inside_an_event_loop(server: FakeServer, authority: CertificateAuthority) -> None:
    with pytest.raises(RuntimeError, match="inside asynchronous code"):
        AsyncClient(server.address, ca_certificates=authority.root_pem, token="t")
    assert "localhost" in Surface("async", server, authority).use(repr)
